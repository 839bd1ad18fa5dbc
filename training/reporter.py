"""Who is told what happens while a run goes on."""

from __future__ import annotations

from typing import Any, Protocol


class Reporter(Protocol):
    """Who is told what happens, for a display."""

    def phase(self, name: str, total: int) -> None:
        """Something of ``total`` parts begins: "acting", "learning", "evaluating", ..."""

    def advance(self) -> None:
        """One more part of the phase is done."""

    def stepped(self, metrics: dict[str, Any]) -> None:
        """A step has ended."""

    def evaluated(self, result: dict[str, Any]) -> None:
        """An evaluation has ended; ``result`` holds its "step" too."""


class Silent:
    """A reporter that says nothing."""

    def phase(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""

    def stepped(self, metrics: dict[str, Any]) -> None:
        """Nothing."""

    def evaluated(self, result: dict[str, Any]) -> None:
        """Nothing."""
