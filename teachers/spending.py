"""What a judge costs: tokens, money by a table of prices, and a budget that is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ovd_envs.errors import OVDError
from teachers.judge_options import check_number
from teachers.protocol import JudgeStopError
from teachers.verdict import Verdict


class BudgetError(JudgeStopError):
    """The budget does not allow for another question."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Money for a million tokens of prompts and of replies, in any one currency."""

    input: float
    output: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What some tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


def read_prices(table: object) -> Prices | None:
    """The prices of ``{input: ..., output: ...}``. Raises ``OVDError`` for another form."""
    if table is None:
        return None
    if not isinstance(table, Mapping) or set(table) != {"input", "output"}:
        expected = "{input: ..., output: ...}, money for a million tokens"
        raise OVDError(f"prices: expected {expected}, got {table!r}")
    for name, price in table.items():
        check_number(f"prices: {name}", price)
    return Prices(float(table["input"]), float(table["output"]))


class Spending:
    """Tokens spent so far, and a budget of ``money``, of ``tokens``, or of both, or none.

    Raises ``OVDError`` for a budget of money without prices.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        *,
        money: float | None = None,
        tokens: int | None = None,
    ) -> None:
        if money is not None and prices is None:
            raise OVDError("budget: expected prices beside it, {input: ..., output: ...}")
        self.prices = prices
        self._limits = {"money": money, "tokens": tokens}
        self.prompt_tokens = self.completion_tokens = 0
        self._reserved = (0, 0)
        self._changed = asyncio.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return any(limit is not None for limit in self._limits.values())

    @property
    def money(self) -> float | None:
        """What was spent; ``None`` without prices."""
        return self.cost_of(self.prompt_tokens, self.completion_tokens)

    def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What some tokens cost; ``None`` without prices."""
        return None if self.prices is None else self.prices.cost(prompt_tokens, completion_tokens)

    def begin(self, verdicts: Iterable[Verdict]) -> None:
        """What these verdicts cost was spent before, and counts in the budget."""
        self.prompt_tokens = self.completion_tokens = 0
        for verdict in verdicts:
            self.add(verdict.prompt_tokens, verdict.completion_tokens)

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """A reply came."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    @asynccontextmanager
    async def reserved(self, prompt_tokens: int, completion_tokens: int) -> AsyncIterator[None]:
        """Hold back at most so many tokens while they may be spent.

        Waits while what others hold back may come free. Raises ``BudgetError`` where the budget
        does not reach.
        """
        wanted = (prompt_tokens, completion_tokens)
        async with self._changed:
            while self._excess(wanted):
                if self._reserved == (0, 0):
                    raise BudgetError(self._excess(wanted))
                await self._changed.wait()
            self._hold(wanted, 1)
        try:
            yield
        finally:
            async with self._changed:
                self._hold(wanted, -1)
                self._changed.notify_all()

    def _hold(self, wanted: tuple[int, int], sign: int) -> None:
        self._reserved = (
            self._reserved[0] + sign * wanted[0],
            self._reserved[1] + sign * wanted[1],
        )

    def _excess(self, wanted: tuple[int, int]) -> str:
        """Why ``wanted`` does not fit; empty where it does."""
        prompt = self.prompt_tokens + self._reserved[0] + wanted[0]
        completion = self.completion_tokens + self._reserved[1] + wanted[1]
        money, tokens = self._limits["money"], self._limits["tokens"]
        cost = self.cost_of(prompt, completion)
        if money is not None and cost is not None and cost > money:
            return f"the budget of {money:g} is spent ({self.money:.4f}; the next may exceed it)"
        if tokens is not None and prompt + completion > tokens:
            used = self.prompt_tokens + self.completion_tokens
            return f"the budget of {tokens} tokens is spent ({used}; the next may exceed it)"
        return ""
