"""A judge that asks a language model, through any backend."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from agents.episode import Episode
from agents.protocol import Backend, Completion, Request, capabilities_of
from ovd_envs.errors import OVDError
from teachers.answer import Answer
from teachers.digits import DIGITS, MIN_MASS, REDUCTIONS, likeliest, probabilities
from teachers.fence import MAX_CHARACTERS
from teachers.judge_options import check_choice, check_number, check_size
from teachers.judge_prompt import Question, correction, question, reply_schema
from teachers.judge_reply import Reply
from teachers.rubric import load_rubric
from teachers.verdict import Verdict

REPLIES = ("json", "digit")

#: What a reply of one digit is made to begin with, so that the next token is the score.
_BEFORE_DIGIT = "Score: "


class LLMJudge:
    """Asks the model behind ``backend`` for a score and a reason.

    The episode is fenced: its text cannot pass for instructions or for the end of the episode.
    The reply is parsed strictly; one that cannot be used is shown its fault and asked for once
    more; then the verdict is an error that keeps the raw reply.

    Args:
        backend: runs the judge's model.
        rubric: what the scores mean, as text (see ``load_rubric``); default "general".
        reduce: how the probabilities of the ten digits become a score, where the backend has
            ``next_token_logprobs``: "expected" value (over the ten alone) or "argmax". Without
            them the score is the digit that was written.
        reply: "json" asks for a reason and a score; "digit" asks for no text at all and reads
            the probabilities of the ten digits (one forward pass, no reason; any small model
            can do it). Needs ``next_token_logprobs``.
        show_gold: whether the judge sees the gold answers.
        temperature: of the reply; 0 is greedy.
        max_tokens: of one reply.
        max_characters: of an episode; a longer one loses the middle of its longest parts.
        batch_size: episodes asked for together.

    Raises ``OVDError`` for an unknown option, a backend that lacks what ``reply`` needs, and one
    that does not declare its capabilities.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        rubric: str | None = None,
        reduce: str = "expected",
        reply: str = "json",
        show_gold: bool = True,
        temperature: float = 0.0,
        max_tokens: int = 256,
        max_characters: int = MAX_CHARACTERS,
        batch_size: int = 16,
    ) -> None:
        check_choice("reduce", reduce, REDUCTIONS)
        check_choice("reply", reply, REPLIES)
        check_size("max_tokens", max_tokens)
        check_size("max_characters", max_characters)
        check_size("batch_size", batch_size)
        check_number("temperature", temperature)
        self.backend = backend
        self.name = f"llm:{backend.name}"
        self.rubric = load_rubric("general") if rubric is None else rubric
        self.reduce = reduce
        self.reply = reply
        self.show_gold = show_gold
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.max_characters = max_characters
        self.batch_size = batch_size
        #: Which time the same question is asked: a backend that samples by named random numbers
        #: would repeat itself.
        self.repeat = 0
        able, offered = capabilities_of(backend), cast(Any, backend)
        self._schema = able.schema
        self._logprobs: Any = offered.next_token_logprobs if able.next_token_logprobs else None
        if reply == "digit" and self._logprobs is None:
            raise OVDError(
                f"reply: 'digit' needs next-token logprobs, which backend {backend.name!r} "
                "does not offer; expected 'json'"
            )

    @property
    def fingerprint(self) -> str:
        """Everything that a verdict depends on; the model by its backend's name."""
        model = getattr(self.backend, "fingerprint", self.backend.name)
        rubric = hashlib.sha256(self.rubric.encode()).hexdigest()
        options = (self.reduce, self.reply, self.show_gold, self.temperature, self.max_tokens)
        able = (self.max_characters, self._logprobs is not None, self._schema)
        again = f" repeat {self.repeat}" if self.repeat else ""
        return f"llm/2 {model!r} {rubric} {options} {able}{again}"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode. What the backend raises goes up."""
        began = time.perf_counter()
        cases = [self._case(episode) for episode in episodes]
        if self.reply == "digit":
            self._read_digits([case for case in cases if not case.fault])
        else:
            self._converse([case for case in cases if not case.fault])
        seconds = (time.perf_counter() - began) / max(len(cases), 1)
        return [
            case.verdict(case.episode.id, self.name, reduce=self.reduce, seconds=seconds)
            for case in cases
        ]

    def _case(self, episode: Episode) -> _Case:
        """The opening prompt of an episode, shortened until it fits the model's context."""
        room = int(getattr(self.backend, "context_length", 1 << 30))
        # A second reply and its correction must fit too.
        room -= 2 * self.max_tokens + 200
        characters = self.max_characters
        while True:
            asked = question(
                episode,
                self.rubric,
                reply=self.reply,
                show_gold=self.show_gold,
                max_characters=characters,
            )
            ids = list(self.backend.dialect.open(asked.message, asked.system))
            if len(ids) <= room:
                return _Case(episode=episode, question=asked, ids=ids)
            if characters < 200:
                told = f"the episode does not fit the judge's context ({len(ids)} tokens)"
                return _Case(episode=episode, question=asked, ids=[], fault=told)
            characters = min(asked.episode_characters, characters) * 2 // 3

    def _converse(self, cases: Sequence[_Case]) -> None:
        """Ask for JSON, once more where the first reply cannot be used."""
        self._ask(cases)
        limit = int(getattr(self.backend, "context_length", 1 << 30)) - self.max_tokens
        wrong = []
        for case in cases:
            if case.parsed is not None:
                continue
            told = correction(case.fault, case.question.mark)
            follow = self.backend.dialect.follow(case.reply_ids, told)
            ids = [*case.ids, *case.reply_ids, *follow]
            if len(ids) <= limit:
                case.ids, case.corrected = ids, True
                wrong.append(case)
        self._ask(wrong)
        if self._logprobs is not None:
            sound = [case for case in cases if case.parsed is not None]
            texts = [case.parsed.before_score for case in sound if case.parsed is not None]
            self._distributions(sound, texts)

    def _ask(self, cases: Sequence[_Case]) -> None:
        if not cases:
            return
        requests = [
            Request(
                case.ids,
                self.max_tokens,
                self.temperature,
                # The random numbers hang on the content, not on the place in a batch.
                key=(int(case.question.mark, 16), int(case.corrected), self.repeat),
                schema=reply_schema(case.question.mark) if self._schema else None,
            )
            for case in cases
        ]
        completions = self.backend.generate(requests)
        for case, completion in zip(cases, completions, strict=True):
            case.take(completion)

    def _read_digits(self, cases: Sequence[_Case]) -> None:
        self._distributions(cases, [_BEFORE_DIGIT] * len(cases))
        for case in cases:
            mass = sum(case.distribution or ())
            if case.distribution is None:
                case.fault = "the model's tokenizer has no single token for each digit"
            elif mass < MIN_MASS:
                case.fault = f"only {mass:.2%} of the probability is on the ten digits"
            else:
                best = likeliest(case.distribution)
                reason = f"Read from the probabilities of the digits ({mass:.0%} on the ten)."
                case.parsed = Reply(best, reason, "")

    def _distributions(self, cases: Sequence[_Case], texts: Sequence[str]) -> None:
        """Probabilities of the ten digits where each text, the beginning of a reply, goes on."""
        by_choices: dict[tuple[int, ...], list[tuple[_Case, list[int]]]] = {}
        for case, text in zip(cases, texts, strict=True):
            found = _digit_tokens(self.backend, text)
            if found is not None:
                begun, choices = found
                by_choices.setdefault(choices, []).append((case, [*case.ids, *begun]))
        for choices, asked in by_choices.items():
            rows = self._logprobs([ids for _, ids in asked], choices)
            for (case, ids), row in zip(asked, rows, strict=True):
                case.prompt_tokens += len(ids)
                case.distribution = probabilities(row)


@dataclass(slots=True, kw_only=True)
class _Case(Answer):
    """An episode on its way to a verdict."""

    episode: Episode
    question: Question
    ids: list[int]
    """The conversation so far, up to where the model begins to write."""
    corrected: bool = False
    reply_ids: list[int] = field(default_factory=list)

    def take(self, completion: Completion) -> None:
        """Read a reply."""
        self.reply_ids = list(completion.ids)
        self.prompt_tokens += len(self.ids)
        self.completion_tokens += len(completion.ids)
        self.read(completion.text, self.question.mark, completion.stop)


def _digit_tokens(backend: Backend, text: str) -> tuple[list[int], tuple[int, ...]] | None:
    """Ids of ``text`` and, after it, the one token of each digit; ``None`` where there are none.

    Some tokenizers join a digit with the blank before it: the digits are encoded in their place.
    """
    if not text:
        return None
    rows = [list(backend.dialect.encode(text + digit)) for digit in DIGITS]
    begun = rows[0][:-1]
    if not begun or any(row[:-1] != begun for row in rows):
        return None
    choices = tuple(row[-1] for row in rows)
    return (begun, choices) if len(set(choices)) == len(choices) else None
