"""Ask the model of a chat API: within a budget, strictly read, corrected once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from agents.outage import HaltedError, OutageError
from agents.vllm_sampling import seed_of
from teachers.asking import Answer, Ask, Writer, too_bare
from teachers.digits import digits_among
from teachers.protocol import JudgeOutageError, JudgeStopError
from teachers.shortening import Room, estimated_tokens
from teachers.spending import Spending

if TYPE_CHECKING:
    from agents.chat_api import ChatAPI, ChatReply

_T = TypeVar("_T")

#: How the control tokens of common models begin. Servers read them in a message as what they are:
#: one that an episode spells would end the message, and begin another.
_CONTROL = re.compile(r"<(?=[|｜]|/?s>|(?:bos|eos)>|(?:start|end)_of_turn>)|\[(?=/?INST\])")

#: Tokens of the frame that an API puts round the messages, rather too many.
_FRAME = 50


class APIAsker:
    """Asks the model behind ``api``.

    Args:
        api: where to ask.
        temperature: of the reply; ``None`` for models that refuse to be told one.
        max_tokens: of one reply, where an ``Ask`` does not say.
        max_episode_tokens: of each episode that is shown, as ``estimated_tokens`` has it.
        spending: counts what is spent, and keeps a budget.
    """

    def __init__(
        self,
        api: ChatAPI,
        *,
        temperature: float | None,
        max_tokens: int,
        max_episode_tokens: int,
        spending: Spending,
    ) -> None:
        self.api = api
        self.temperature, self.max_tokens = temperature, max_tokens
        self.max_episode_tokens = max_episode_tokens
        self.spending = spending
        self.repeat = 0

    def ask(self, writers: Sequence[Writer[_T]], samples: int = 1) -> list[Answer[_T]]:
        """``samples`` answers for each; a call that fails for good is a fault.

        Raises ``JudgeStopError``.
        """
        futures = [self.api.run(self.talk(writer, samples)) for writer in writers]
        return [answer for future in futures for answer in future.result()]

    async def talk(self, writer: Writer[_T], samples: int = 1) -> list[Answer[_T]]:
        """``samples`` answers for one writer; to be run by ``api.run``. Raises as ``ask``."""
        room = Room(self.max_episode_tokens * writer.episodes)
        asked = writer.write(room)
        if asked.bare:
            return [Answer(fault=too_bare(room)) for _ in range(samples)]
        # The most that may be spent: both replies of each sample, and the correction.
        length = asked.limit(self.max_tokens)
        prompt = estimated_tokens(asked.system + asked.message) + _FRAME
        prompt = 2 * prompt + length + estimated_tokens(asked.form) + 150
        async with self.spending.reserved(samples * prompt, samples * 2 * length):
            answers: list[Answer[_T]] = [Answer() for _ in range(samples)]
            stops: Sequence[BaseException | None]
            if samples == 1:  # a task of its own would take time
                stops = [await self._one(asked, answers[0], 0)]
            else:
                # All come to their end, whatever becomes of one: what they spend is counted.
                talks = (self._one(asked, answer, n) for n, answer in enumerate(answers))
                stops = await asyncio.gather(*talks, return_exceptions=True)
        stopped = next((stop for stop in stops if stop is not None), None)
        if stopped is not None:
            paid = any(answer.prompt_tokens for answer in answers)
            if not paid or not isinstance(stopped, JudgeStopError):
                raise stopped
            # Something was paid for already, and counts. What was asked for is not complete: it
            # is an error, and asked for again; the next question tells that there is no use.
            for answer in answers:
                answer.value, answer.fault = None, str(stopped)
                answer.partial.clear()
        return answers

    async def _one(self, asked: Ask[_T], answer: Answer[_T], number: int) -> JudgeStopError | None:
        """Have the answer of one sample written; what stopped it, where something did."""
        from agents.chat_api import FailedError, RefusedError

        try:
            await self._converse(asked, answer, number)
        except FailedError as error:
            answer.fault, answer.value = str(error), None
        except OutageError as error:
            return JudgeOutageError(str(error))
        except (RefusedError, HaltedError) as error:
            return JudgeStopError(str(error))
        except JudgeStopError as error:
            return error
        return None

    async def _converse(self, asked: Ask[_T], answer: Answer[_T], number: int) -> None:
        """Ask for a reply, once more where it cannot be used."""
        messages = [
            {"role": "system", "content": _as_text(asked.system)},
            {"role": "user", "content": _as_text(asked.message)},
        ]
        for attempt in range(2):
            reply = await self.api.ask(
                messages,
                max_tokens=asked.limit(self.max_tokens),
                temperature=self.temperature,
                seed=seed_of((int(asked.mark, 16), attempt, self.repeat, number)),
                schema=asked.schema,
                logprobs=asked.digit is not None,
            )
            prompt, completion = self._charge(reply)
            answer.prompt_tokens += prompt
            answer.completion_tokens += completion
            text = self.api.without_key(reply.text)
            if answer.take(asked, text, reply.stop):
                # Where a key was blotted out, places in the text are no longer those of the tokens.
                digit = asked.digit if text == reply.text else None
                if digit is not None and answer.value is not None:
                    answer.distribution = _at_score(reply, digit(answer.value))
                return
            messages += [
                {"role": "assistant", "content": _as_text(text)},
                {"role": "user", "content": _as_text(asked.correction(answer.fault))},
            ]

    def _charge(self, reply: ChatReply) -> tuple[int, int]:
        """Count what a reply costs: its tokens, of the prompt and of the reply.

        Raises ``JudgeStopError`` where there is a budget and the API does not say.
        """
        if self.spending.limited and None in (reply.prompt_tokens, reply.completion_tokens):
            raise JudgeStopError("the API does not say what it charges: a budget cannot be kept")
        prompt, completion = reply.prompt_tokens or 0, reply.completion_tokens or 0
        self.spending.add(prompt, completion)
        return prompt, completion


def _as_text(content: str) -> str:
    """``content`` with no control token in it: a blank of no width is in each that it spells."""
    return _CONTROL.sub("\\g<0>\u200b", content)


def _at_score(reply: ChatReply, before: str) -> tuple[float, ...] | None:
    """The ten probabilities where the score stands, ``before`` the text up to it."""
    written = b"".join(token for token, _ in reply.tokens)
    text = reply.text.encode("utf-8", "surrogatepass")
    # Some servers list tokens that the text leaves out: a thinking block, which may hold a draft of
    # the very same text, and the end of turn.
    shift = written.rfind(text)
    if not before or shift < 0:
        return None
    place = shift + len(before.encode("utf-8", "surrogatepass"))
    end = 0
    for token, alternatives in reply.tokens:
        end += len(token)
        if end > place:
            return digits_among(alternatives)
    return None
