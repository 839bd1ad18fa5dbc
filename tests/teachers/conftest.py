"""Episodes to judge, and a backend that says what a test wants it to say."""

from collections.abc import Callable, Sequence

import pytest

from agents.episode import Episode, Turn
from agents.protocol import Capabilities, Completion, Request
from ovd_envs.task import Task
from tests.teachers.fault_server import FaultServer


def make_episode(
    *actions: str,
    answers: Sequence[str] = ("95",),
    observation: str = "What is 37 + 58? Give the final answer in \\boxed{}.",
    observations: Sequence[str] = (),
    metadata: dict | None = None,
    index: int = 0,
    group: str = "0",
    agent: str = "student",
    **fields,
) -> Episode:
    replies = [*observations, *[""] * len(actions)]
    return Episode(
        task=Task("t/train/0", observation, tuple(answers), metadata or {}),
        env="ovd/Math-v0",
        agent=agent,
        observation=observation,
        turns=[Turn(a, replies[i]) for i, a in enumerate(actions)],
        index=index,
        group=group,
        **{"end_reason": "answered", **fields},
    )


class CharacterDialect:
    """One token a character; turns end with token 0."""

    end_of_turn = 0

    def open(self, observation: str, system: str | None = None) -> list[int]:
        return self.encode(f"[system]{system}[user]{observation}[model]")

    def follow(self, sampled: Sequence[int], observation: str) -> list[int]:
        return self.encode(f"[user]{observation}[model]")

    def without_opened(self, text: str) -> str:
        return text

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text.replace("<|end|>", "\1")]  # a control token, as a real one's

    def encode_content(self, before: str, content: str, after: str) -> list[int]:
        return [*self.encode(before), *map(ord, content), *self.encode(after)]


def as_text(ids: Sequence[int]) -> str:
    return "".join(chr(i) for i in ids if i)


class ScriptedBackend:
    """``reply(prompt text)`` writes each reply; ``logprobs`` are those of the ten digits."""

    name = "scripted"
    capabilities = Capabilities(token_ids=True, logprobs=True)

    def __init__(self, reply: Callable[[str], str], stop: str = "end_of_turn"):
        self.dialect = CharacterDialect()
        self.reply = reply
        self.stop = stop
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        done = []
        for request in requests:
            text = self.reply(as_text(request.ids))
            ids = [*map(ord, text), 0]
            done.append(Completion(ids, [0.0] * len(ids), self.stop, text))
        return done


class DigitBackend(ScriptedBackend):
    """A scripted backend that knows the probabilities of the ten digits."""

    capabilities = Capabilities(token_ids=True, logprobs=True, next_token_logprobs=True)

    def __init__(self, reply, logprobs: Sequence[float]):
        super().__init__(reply)
        self.logprobs = list(logprobs)
        self.prompts: list[str] = []

    def next_token_logprobs(self, prompts, choices):
        assert [chr(c) for c in choices] == list("0123456789")
        self.prompts += [as_text(p) for p in prompts]
        return [self.logprobs for _ in prompts]


@pytest.fixture
def episode() -> Callable[..., Episode]:
    return make_episode


@pytest.fixture
def scripted_backend() -> type[ScriptedBackend]:
    return ScriptedBackend


@pytest.fixture
def digit_backend() -> type[DigitBackend]:
    return DigitBackend


@pytest.fixture
def serve():
    """Starts servers of faults, and stops them."""
    started = []

    def start(*arguments, **options):
        started.append(FaultServer(*arguments, **options).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()
