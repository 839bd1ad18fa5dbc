"""A judge that asks a language model behind a chat API: messages in, text out, many at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Unpack

from agents.episode import Episode
from teachers.api_asker import APIAsker
from teachers.judge_options import check_size
from teachers.model_judge import JudgeOptions, ModelJudge
from teachers.spending import Spending
from teachers.verdict import Verdict
from teachers.whole_groups import in_groups

if TYPE_CHECKING:
    from agents.chat_api import ChatAPI


class APIJudge(ModelJudge):
    """Asks the model behind ``api`` for a score and a reason, as ``LLMJudge`` does a backend.

    The reply is held to a JSON schema where the API knows one, and parsed strictly in any case; one
    that cannot be used is shown its fault and asked for once more; then the verdict is an error
    that keeps the raw reply. A call that fails for good is an error verdict, never a score. Where
    the API gives log-probabilities of the score's digit, the verdict keeps all ten.

    Args:
        api: where to ask.
        temperature: of the reply; ``None`` for models that refuse to be told one.
        concurrency: calls under way at a time, those of ``api``.
        spending: counts what is spent, and keeps a budget.
        options: see ``JudgeOptions``.

    Raises ``OVDError`` for an option out of range.
    """

    def __init__(
        self,
        api: ChatAPI,
        *,
        temperature: float | None = 0.0,
        concurrency: int = 16,
        spending: Spending | None = None,
        **options: Unpack[JudgeOptions],
    ) -> None:
        super().__init__(temperature=temperature, **options)
        check_size("concurrency", concurrency)
        self.concurrency = concurrency
        self.spending = spending or Spending()
        self.api = api
        self.name = f"llm:{api.model}"
        self.asker: APIAsker = APIAsker(
            api,
            temperature=temperature,
            max_tokens=self.max_tokens,
            max_episode_tokens=self.max_episode_tokens,
            spending=self.spending,
        )

    @property
    def fingerprint(self) -> str:
        """Everything that a verdict depends on; the model by its name, wherever it is served."""
        return self._fingerprint("llm-api/2", repr(self.api.model))

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode. Raises ``JudgeStopError``."""
        if self.scores_groups:
            together = [self.submit_group(group) for group in in_groups(episodes)]
            return [verdict for future in together for verdict in future.result()]
        return [future.result() for future in [self.submit(episode) for episode in episodes]]

    def submit(self, episode: Episode) -> Future[Verdict]:
        """The verdict on ``episode``, once it is there. The future may raise ``JudgeStopError``."""
        return self.api.run(self._judge(episode))

    def submit_group(self, episodes: Sequence[Episode]) -> Future[list[Verdict]]:
        """The verdicts on a whole group, as ``submit``."""
        return self.api.run(self._judge_group(episodes))

    def halt(self) -> None:
        """Begin no call any more; those under way come to their end."""
        self.api.halt()

    def on_notice(self, tell: Callable[[str], None]) -> None:
        """``tell`` gets one line when an outage begins, and one when it ends."""
        self.api.notice = tell

    async def _judge(self, episode: Episode) -> Verdict:
        began = time.perf_counter()
        answers = await self.asker.talk(self._writer(episode), self.samples)
        return self._verdict(episode, answers, time.perf_counter() - began)

    async def _judge_group(self, episodes: Sequence[Episode]) -> list[Verdict]:
        began = time.perf_counter()
        answers = await self.asker.talk(self._group_writer(episodes), self.samples)
        return self._group_verdicts(episodes, answers, time.perf_counter() - began)
