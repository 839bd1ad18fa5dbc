"""A judge that asks a language model behind a chat API: messages in, text out, many at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from agents.episode import Episode
from agents.outage import HaltedError, OutageError
from agents.vllm_sampling import seed_of
from teachers.answer import Answer
from teachers.digits import REDUCTIONS, digits_among
from teachers.fence import MAX_CHARACTERS
from teachers.judge_options import check_choice, check_number, check_size
from teachers.judge_prompt import Question, correction, question, reply_schema
from teachers.protocol import JudgeStopError
from teachers.rubric import load_rubric
from teachers.spending import Spending
from teachers.verdict import Verdict

if TYPE_CHECKING:
    from agents.chat_api import ChatAPI, ChatReply


class APIJudge:
    """Asks the model behind ``api`` for a score and a reason, as ``LLMJudge`` does a backend.

    The reply is held to a JSON schema where the API knows one, and parsed strictly in any case; one
    that cannot be used is shown its fault and asked for once more; then the verdict is an error
    that keeps the raw reply. A call that fails for good is an error verdict, never a score. Where
    the API gives log-probabilities of the score's digit, the verdict keeps all ten.

    Args:
        api: where to ask.
        rubric: what the scores mean, as text (see ``load_rubric``); default "general".
        reduce: how the ten probabilities become a score: "expected" (over the ten) or "argmax".
        show_gold: whether the judge sees the gold answers.
        temperature: of the reply; ``None`` for models that refuse to be told one.
        max_tokens: of one reply.
        max_characters: of an episode; a longer one loses the middle of its longest parts.
        concurrency: calls under way at a time, those of ``api``.
        spending: counts what is spent, and keeps a budget.

    Raises ``OVDError`` for an option out of range.
    """

    def __init__(
        self,
        api: ChatAPI,
        *,
        rubric: str | None = None,
        reduce: str = "expected",
        show_gold: bool = True,
        temperature: float | None = 0.0,
        max_tokens: int = 256,
        max_characters: int = MAX_CHARACTERS,
        concurrency: int = 16,
        spending: Spending | None = None,
    ) -> None:
        check_choice("reduce", reduce, REDUCTIONS)
        check_size("max_tokens", max_tokens)
        check_size("max_characters", max_characters)
        check_size("concurrency", concurrency)
        if temperature is not None:
            check_number("temperature", temperature)
        self.name = f"llm:{api.model}"
        self.concurrency = concurrency
        self.spending = spending or Spending()
        self.api = api
        self._rubric = load_rubric("general") if rubric is None else rubric
        self._reduce, self._show_gold = reduce, show_gold
        self.temperature, self.max_tokens = temperature, max_tokens
        self.max_characters = max_characters
        hashed = hashlib.sha256(self._rubric.encode()).hexdigest()
        options = (reduce, show_gold, temperature, max_tokens, max_characters)
        #: Everything that a verdict depends on; the model by its name, wherever it is served.
        self.fingerprint = f"llm-api/1 {api.model!r} {hashed} {options}"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode. Raises ``JudgeStopError``."""
        return [future.result() for future in [self.submit(episode) for episode in episodes]]

    def submit(self, episode: Episode) -> Future[Verdict]:
        """The verdict on ``episode``, once it is there. The future may raise ``JudgeStopError``."""
        return self.api.run(self._judge(episode))

    def halt(self) -> None:
        """Begin no call any more; those under way come to their end."""
        self.api.halt()

    def on_notice(self, tell: Callable[[str], None]) -> None:
        """``tell`` gets one line when an outage begins, and one when it ends."""
        self.api.notice = tell

    async def _judge(self, episode: Episode) -> Verdict:
        from agents.chat_api import FailedError, RefusedError

        asked = question(
            episode,
            self._rubric,
            reply="json",
            show_gold=self._show_gold,
            max_characters=self.max_characters,
        )
        talk = _Talk(asked)
        began = time.perf_counter()
        try:
            # Both replies and the correction; a token is seldom less than three bytes of a prompt.
            prompt = len((asked.system + asked.message).encode()) // 3 + 50
            length = self.max_tokens
            async with self.spending.reserved(2 * prompt + length + 150, 2 * length):
                await self._converse(talk)
        except (FailedError, OutageError) as error:
            talk.fault, talk.parsed = str(error), None
        except (RefusedError, HaltedError) as error:
            raise JudgeStopError(str(error)) from error
        seconds = time.perf_counter() - began
        return talk.verdict(episode.id, self.name, reduce=self._reduce, seconds=seconds)

    async def _converse(self, talk: _Talk) -> None:
        """Ask for a reply, once more where it cannot be used."""
        for attempt in range(2):
            reply = await self.api.ask(
                talk.messages,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                seed=seed_of((int(talk.question.mark, 16), attempt)),
                schema=reply_schema(talk.question.mark),
                logprobs=True,
            )
            prompt, completion = self.charge(reply)
            talk.prompt_tokens += prompt
            talk.completion_tokens += completion
            if talk.take(reply, self.api.without_key(reply.text)):
                return

    def charge(self, reply: ChatReply) -> tuple[int, int]:
        """Count what a reply costs: its tokens, of the prompt and of the reply.

        Raises ``JudgeStopError`` where there is a budget and the API does not say.
        """
        if self.spending.limited and reply.prompt_tokens is None:
            raise JudgeStopError("the API does not say what it charges: a budget cannot be kept")
        prompt, completion = reply.prompt_tokens or 0, reply.completion_tokens or 0
        self.spending.add(prompt, completion)
        return prompt, completion


class _Talk(Answer):
    """The conversation about one episode."""

    def __init__(self, asked: Question) -> None:
        super().__init__()
        self.question = asked
        self.messages = [
            {"role": "system", "content": asked.system},
            {"role": "user", "content": asked.message},
        ]

    def take(self, reply: ChatReply, text: str) -> bool:
        """Read a reply, ``text`` what may be kept of it; whether it can be used."""
        if not self.read(text, self.question.mark, reply.stop):
            self.messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": correction(self.fault, self.question.mark)},
            ]
            return False
        assert self.parsed is not None
        self.distribution = _at_score(reply, self.parsed.before_score)
        return True


def _at_score(reply: ChatReply, before: str) -> tuple[float, ...] | None:
    """The ten probabilities where the score stands, ``before`` the text up to it."""
    written = b"".join(token for token, _ in reply.tokens)
    text = reply.text.encode("utf-8", "surrogatepass")
    # Some servers list tokens that the text leaves out: a thinking block, the end of turn.
    shift = written.find(text)
    if not before or shift < 0:
        return None
    place = shift + len(before.encode("utf-8", "surrogatepass"))
    end = 0
    for token, alternatives in reply.tokens:
        end += len(token)
        if end > place:
            return digits_among(alternatives)
    return None
