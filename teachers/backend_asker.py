"""Ask the model of a backend: fitted to its context, strictly read, corrected once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from agents.dialect import DialectError
from agents.protocol import Backend, Request, capabilities_of
from teachers.asking import Answer, Ask, Writer, too_bare
from teachers.digits import digit_tokens, probabilities
from teachers.shortening import Room

_T = TypeVar("_T")

#: Below so many tokens of an episode there is nothing to judge.
_MIN_ROOM = 64


class BackendAsker:
    """Asks the model behind ``backend``.

    Args:
        backend: runs the model, and counts tokens by its tokenizer.
        temperature: of the reply; 0 is greedy.
        max_tokens: of one reply, where an ``Ask`` does not say.
        max_episode_tokens: of each episode that is shown.

    Raises ``RegistrationError`` for a backend that does not declare its capabilities.
    """

    def __init__(
        self, backend: Backend, *, temperature: float, max_tokens: int, max_episode_tokens: int
    ) -> None:
        able, offered = capabilities_of(backend), cast(Any, backend)
        self.backend = backend
        self.temperature, self.max_tokens = temperature, max_tokens
        self.max_episode_tokens = max_episode_tokens
        self.repeat = 0
        self.schema = able.schema
        self.logprobs: Any = offered.next_token_logprobs if able.next_token_logprobs else None
        #: The most tokens of a prompt and its reply.
        self.context = int(getattr(backend, "context_length", 1 << 30))
        self._lock = threading.Lock()

    def ask(self, writers: Sequence[Writer[_T]], samples: int = 1) -> list[Answer[_T]]:
        """``samples`` answers for each. What the backend raises goes up."""
        cases = []
        for writer in writers:
            asked, ids, fault = self.fitted(writer)
            cases += [_Case(asked, ids, number, Answer(fault=fault)) for number in range(samples)]
        waiting = [case for case in cases if case.ids]
        for attempt in range(2):
            waiting = self._round(waiting, attempt)
        if self.logprobs is not None:
            self._read_digits(cases)
        return [case.answer for case in cases]

    def ask_digits(self, writers: Sequence[Writer[_T]], begun: str) -> list[Answer[_T]]:
        """For each the ten digits' probabilities after a reply that begins with ``begun``.

        A thought that the prompt opens is ended before it. Nothing is sampled; the answers have no
        value, only a distribution, or a fault.
        """
        begun = self.backend.dialect.without_opened(begun)
        cases = []
        for writer in writers:
            asked, ids, fault = self.fitted(writer)
            cases.append(_Case(asked, ids, 0, Answer(fault=fault)))
        self._distributions((case, begun) for case in cases if case.ids)
        for case in cases:
            if case.answer.distribution is None and not case.answer.fault:
                case.answer.fault = "the model's tokenizer has no single token for each digit"
        return [case.answer for case in cases]

    def fitted(self, writer: Writer[_T]) -> tuple[Ask[_T], list[int], str]:
        """The question and its token ids, shortened until it fits; no ids, and why, if never."""
        tokens = self.max_episode_tokens * writer.episodes
        while True:
            room = Room(tokens, self._count)
            asked = writer.write(room)
            if asked.bare:
                return asked, [], too_bare(room)
            ids = self._open(asked)
            # A second reply and the correction before it must fit too.
            beside = 2 * asked.limit(self.max_tokens) + self._count(asked.form) + 200
            excess = len(ids) + beside - self.context
            if excess <= 0:
                return asked, ids, ""
            tokens = min(tokens, self._count(asked.message)) - max(excess, _MIN_ROOM // 4)
            if tokens < _MIN_ROOM * writer.episodes:
                what = "episode does" if writer.episodes == 1 else "episodes do"
                told = f"the {what} not fit the judge's context ({len(ids)} tokens)"
                return asked, [], told

    def _open(self, asked: Ask[_T]) -> list[int]:
        """The ids of the question, before it what the model is told to be."""
        dialect = self.backend.dialect
        try:
            return list(dialect.open(asked.message, asked.system))
        except DialectError:  # the template (Gemma 2's) has no place for a system message
            return list(dialect.open(f"{asked.system}\n\n{asked.message}"))

    def _count(self, text: str) -> int:
        return len(self.backend.dialect.encode(text))

    def _encode_reply(self, text: str) -> list[int]:
        # A reason may quote control tokens, e.g. of an episode that spells some: as mere text.
        return self.backend.dialect.encode_content("", text, "")

    def _round(self, cases: Sequence[_Case[_T]], attempt: int) -> list[_Case[_T]]:
        """Ask once; those to be asked again, their correction in their ids."""
        if not cases:
            return []
        requests = [
            Request(
                case.ids,
                case.asked.limit(self.max_tokens),
                self.temperature,
                # The random numbers hang on the content, not on the place in a batch.
                key=(int(case.asked.mark, 16), attempt, self.repeat, case.number),
                schema=case.asked.schema if self.schema else None,
            )
            for case in cases
        ]
        with self._lock:
            completions = self.backend.generate(requests)
        again = []
        for case, completion in zip(cases, completions, strict=True):
            answer = case.answer
            answer.prompt_tokens += len(case.ids)
            answer.completion_tokens += len(completion.ids)
            if answer.take(case.asked, completion.text, completion.stop):
                continue
            told = case.asked.correction(answer.fault)
            follow = self.backend.dialect.follow(completion.ids, told)
            longer = [*case.ids, *completion.ids, *follow]
            if len(longer) + case.asked.limit(self.max_tokens) <= self.context:
                case.ids = longer
                again.append(case)
        return again

    def _read_digits(self, cases: Sequence[_Case[_T]]) -> None:
        """The probabilities of the digit that each usable reply has for its score."""
        found = []
        for case in cases:
            if case.asked.digit is not None and case.answer.value is not None:
                found.append((case, case.asked.digit(case.answer.value)))
        self._distributions(found)

    def _distributions(self, cases: Iterable[tuple[_Case[_T], str]]) -> None:
        """Probabilities of the ten digits where each reply, begun with its text, goes on."""
        by_choices: dict[tuple[int, ...], list[tuple[_Case[_T], list[int]]]] = {}
        for case, begun in cases:
            found = digit_tokens(self._encode_reply, begun)
            if found is not None:
                start, choices = found
                by_choices.setdefault(choices, []).append((case, [*case.ids, *start]))
        for choices, asked in by_choices.items():
            with self._lock:
                rows = self.logprobs([ids for _, ids in asked], choices)
            for (case, ids), row in zip(asked, rows, strict=True):
                case.answer.prompt_tokens += len(ids)
                case.answer.distribution = probabilities(row)


@dataclass(slots=True)
class _Case(Generic[_T]):
    """One conversation: what is asked, and its token ids up to where the model begins to write."""

    asked: Ask[_T]
    ids: list[int]
    number: int
    """Of the sample."""
    answer: Answer[_T]
