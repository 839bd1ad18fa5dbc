"""Ask a model for one JSON object: fitted to its context, strictly read, corrected once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agents.outage import HaltedError, OutageError
from agents.protocol import Request, capabilities_of
from agents.vllm_sampling import seed_of
from teachers.api_judge import APIJudge
from teachers.judge_reply import Fault, told
from teachers.llm_judge import LLMJudge
from teachers.protocol import JudgeStopError

_T = TypeVar("_T")

_CORRECTION = """Your reply cannot be used: {fault}. Reply again with one JSON object and nothing \
else: {form}"""


@dataclass(frozen=True, slots=True)
class Ask(Generic[_T]):
    """Two messages that ask for a JSON object of the form ``form``, under ``mark``.

    ``schema`` is for backends that hold a model to one; ``parse`` reads the reply and raises
    ``Fault`` for one that cannot be used.
    """

    mark: str
    system: str
    message: str
    form: str
    schema: Mapping[str, Any]
    parse: Callable[[str], _T]


@dataclass(slots=True)
class Answer(Generic[_T]):
    """What came of an ``Ask``: a value, or none and why."""

    value: _T | None = None
    fault: str = ""
    raw: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def error(self) -> str:
        """The fault with the raw reply; empty where there is a value."""
        if self.value is not None:
            return ""
        return self.fault + (f"; the reply was: {self.raw[:500]!r}" if self.raw is not None else "")

    def take(self, asked: Ask[_T], text: str, stop: str) -> bool:
        """Read a reply; whether it can be used."""
        self.raw = text
        try:
            self.value, self.fault = asked.parse(text), ""
        except Fault as fault:
            self.fault = told(fault, stop)
        return self.value is not None

    def correction(self, asked: Ask[_T]) -> str:
        """The message that shows a model what is wrong with its reply."""
        return _CORRECTION.format(fault=self.fault, form=asked.form)


#: Writes an ``Ask`` whose material has about so many characters at most.
Writer = Callable[[int], Ask[_T]]


class BackendAsker:
    """Asks the backend of ``judge``, with its limits."""

    def __init__(self, judge: LLMJudge) -> None:
        self.backend = judge.backend
        self._judge = judge
        self._schema = capabilities_of(judge.backend).schema
        self._context = int(getattr(judge.backend, "context_length", 1 << 30))
        self._lock = threading.Lock()

    def ask(self, writers: Sequence[Writer[_T]]) -> list[Answer[_T]]:
        """An answer for each. What the backend raises goes up."""
        answers: list[Answer[_T]] = [Answer() for _ in writers]
        open_ones = []
        for write, answer in zip(writers, answers, strict=True):
            asked, ids = self._fitted(write)
            if ids:
                open_ones.append((asked, answer, ids))
            else:
                answer.fault = "what is to be judged does not fit the model's context"
        for attempt in range(2):
            open_ones = self._round(open_ones, attempt)
        return answers

    def _fitted(self, write: Writer[_T]) -> tuple[Ask[_T], list[int]]:
        """The question, shortened until it fits the model's context; no ids where none does."""
        # A second reply and its correction must fit too.
        room = self._context - 2 * self._judge.max_tokens - 400
        characters = self._judge.max_characters
        while True:
            asked = write(characters)
            ids = list(self.backend.dialect.open(asked.message, asked.system))
            if len(ids) <= room:
                return asked, ids
            if characters < 200:
                return asked, []
            characters = min(len(asked.message), characters) * 2 // 3

    def _round(
        self, cases: Sequence[tuple[Ask[_T], Answer[_T], list[int]]], attempt: int
    ) -> list[tuple[Ask[_T], Answer[_T], list[int]]]:
        """Ask once; what is to be asked again, with its correction."""
        requests = [
            Request(
                ids,
                self._judge.max_tokens,
                self._judge.temperature,
                # The random numbers hang on the content, not on the place in a batch.
                key=(int(asked.mark, 16), attempt, self._judge.repeat),
                schema=asked.schema if self._schema else None,
            )
            for asked, _, ids in cases
        ]
        if not requests:
            return []
        with self._lock:
            completions = self.backend.generate(requests)
        again = []
        for (asked, answer, ids), completion in zip(cases, completions, strict=True):
            answer.prompt_tokens += len(ids)
            answer.completion_tokens += len(completion.ids)
            if not answer.take(asked, completion.text, completion.stop):
                told = self.backend.dialect.follow(completion.ids, answer.correction(asked))
                longer = [*ids, *completion.ids, *told]
                if len(longer) + self._judge.max_tokens <= self._context:
                    again.append((asked, answer, longer))
        return again


class APIAsker:
    """Asks the chat API of ``judge``, with its limits and within its budget."""

    def __init__(self, judge: APIJudge) -> None:
        self._judge = judge

    def ask(self, writers: Sequence[Writer[_T]]) -> list[Answer[_T]]:
        """An answer for each; a call that fails for good is a fault. Raises ``JudgeStopError``."""
        asks = [write(self._judge.max_characters) for write in writers]
        futures = [self._judge.api.run(self._ask(asked)) for asked in asks]
        return [future.result() for future in futures]

    async def _ask(self, asked: Ask[_T]) -> Answer[_T]:
        from agents.chat_api import FailedError, RefusedError

        answer: Answer[_T] = Answer()
        # Both replies and the correction; a token is seldom less than three bytes of a prompt.
        prompt = len((asked.system + asked.message).encode()) // 3 + 50
        length = self._judge.max_tokens
        try:
            async with self._judge.spending.reserved(2 * prompt + length + 300, 2 * length):
                await self._converse(asked, answer)
        except (FailedError, OutageError) as error:
            answer.fault, answer.value = str(error), None
        except (RefusedError, HaltedError) as error:
            raise JudgeStopError(str(error)) from error
        return answer

    async def _converse(self, asked: Ask[_T], answer: Answer[_T]) -> None:
        messages = [
            {"role": "system", "content": asked.system},
            {"role": "user", "content": asked.message},
        ]
        for attempt in range(2):
            reply = await self._judge.api.ask(
                messages,
                max_tokens=self._judge.max_tokens,
                temperature=self._judge.temperature,
                seed=seed_of((int(asked.mark, 16), attempt)),
                schema=asked.schema,
            )
            prompt, completion = self._judge.charge(reply)
            answer.prompt_tokens += prompt
            answer.completion_tokens += completion
            text = self._judge.api.without_key(reply.text)
            if answer.take(asked, text, reply.stop):
                return
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": answer.correction(asked)},
            ]


Asker = BackendAsker | APIAsker


def asker_of(judge: LLMJudge | APIJudge) -> Asker:
    """What asks the model of a judge ``llm``, as that judge would."""
    return APIAsker(judge) if isinstance(judge, APIJudge) else BackendAsker(judge)
