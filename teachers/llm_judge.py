"""A judge that asks a language model, through any backend."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from agents.episode import Episode
from agents.protocol import Backend
from ovd_envs.errors import OVDError
from teachers.asking import Answer
from teachers.backend_asker import BackendAsker
from teachers.digits import MIN_MASS, likeliest
from teachers.judge_options import check_choice, check_number, check_size
from teachers.judge_reply import Reply
from teachers.model_judge import JudgeOptions, ModelJudge
from teachers.verdict import Verdict
from teachers.whole_groups import in_groups

REPLIES = ("json", "digit")

#: What a reply of one digit is made to begin with, so that the next token is the score.
_BEFORE_DIGIT = "Score: "


class LLMJudge(ModelJudge):
    """Asks the model behind ``backend`` for a score and a reason.

    The episode is fenced: its text cannot pass for instructions or for the end of the episode.
    The reply is parsed strictly; one that cannot be used is shown its fault and asked for once
    more; then the verdict is an error that keeps the raw reply.

    Args:
        backend: runs the judge's model. Where it has ``next_token_logprobs``, they are read where
            the score stands in the reply.
        reply: "json" asks for a reason and a score; "digit" asks for no text at all and reads
            the probabilities of the ten digits (one forward pass, no reason; any small model
            can do it). Needs ``next_token_logprobs``.
        temperature: of the reply; 0 is greedy.
        batch_size: episodes asked for together.
        options: see ``JudgeOptions``.

    Raises ``OVDError`` for an unknown option, a backend that lacks what ``reply`` needs, and one
    that does not declare its capabilities.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        reply: str = "json",
        temperature: float = 0.0,
        batch_size: int = 16,
        **options: Unpack[JudgeOptions],
    ) -> None:
        check_choice("reply", reply, REPLIES)
        check_size("batch_size", batch_size)
        check_number("temperature", temperature)
        super().__init__(reply=reply, temperature=temperature, **options)
        self.backend = backend
        self.reply = reply
        self.batch_size = batch_size
        self._weights = _files(backend.name)
        self.name = f"llm:{backend.name}"
        self.asker: BackendAsker = BackendAsker(
            backend,
            temperature=temperature,
            max_tokens=self.max_tokens,
            max_episode_tokens=self.max_episode_tokens,
        )
        if reply == "digit" and self.asker.logprobs is None:
            raise OVDError(
                f"reply: 'digit' needs next-token logprobs, which backend {backend.name!r} "
                "does not offer; expected 'json'"
            )

    @property
    def fingerprint(self) -> str:
        """Everything that a verdict depends on; the model by its name, and its folder's files."""
        model = getattr(self.backend, "fingerprint", self.backend.name)
        weights = (self._weights, getattr(self.backend, "version", 0))
        able = (self.asker.logprobs is not None, self.asker.schema, self.asker.context)
        return self._fingerprint("llm/4", f"{model!r} {weights} {able}")

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode. What the backend raises goes up."""
        began = time.perf_counter()
        if self.scores_groups:
            groups = in_groups(episodes)
            asked = self.asker.ask([self._group_writer(group) for group in groups], self.samples)
            seconds = (time.perf_counter() - began) / max(len(groups), 1)
            return [
                verdict
                for number, group in enumerate(groups)
                for verdict in self._group_verdicts(group, self._of(asked, number), seconds)
            ]
        writers = [self._writer(episode) for episode in episodes]
        if self.reply == "digit":
            answers = self.asker.ask_digits(writers, _BEFORE_DIGIT)
            for answer in answers:
                _read_digit(answer)
        else:
            answers = self.asker.ask(writers, self.samples)
        seconds = (time.perf_counter() - began) / max(len(episodes), 1)
        return [
            self._verdict(episode, self._of(answers, number), seconds)
            for number, episode in enumerate(episodes)
        ]


def _files(model: str) -> str:
    """What tells the files of a model's folder from those that replace them; empty for a name."""
    try:
        found = [(path.name, path.stat()) for path in sorted(Path(model).iterdir())]
    except (OSError, ValueError):
        return ""  # an alias, or a name on the hub
    told = repr([(name, one.st_size, one.st_mtime_ns) for name, one in found])
    return hashlib.sha256(told.encode()).hexdigest()


def _read_digit(answer: Answer[Reply]) -> None:
    """Make a reply of the probabilities of the ten digits, if they hold enough."""
    if answer.fault or answer.distribution is None:
        return
    mass = sum(answer.distribution)
    if mass < MIN_MASS:
        answer.fault = f"only {mass:.2%} of the probability is on the ten digits"
    else:
        reason = f"Read from the probabilities of the digits ({mass:.0%} on the ten)."
        answer.value = Reply(likeliest(answer.distribution), reason, "")
