"""A person at the terminal as the judge."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from agents.display import printable
from agents.episode import Episode
from teachers.verdict import MAX_SCORE, Verdict

_SCORED = re.compile(r"([0-9])(?:\s+(.*))?")
_HELP = f"0-{MAX_SCORE} and a reason · s skips · u undoes · q leaves"

#: Episodes of which the person may still take back an answer; then they are saved.
BATCH_SIZE = 16


class _Leaves(Exception):
    """The person wants to stop."""


@dataclass(slots=True)
class _Answer:
    score: int | None
    """``None``: skipped."""
    reason: str
    seconds: float


class HumanJudge:
    """Shows each episode and asks for a score from 0 to 9 and a reason.

    Neither the reward nor who acted is shown, so that the person judges what they read. A skipped
    episode, and all that is left when the person leaves ("q", Ctrl-C, end of input, a closed
    terminal), are error verdicts: asked again by the next ``ovd score``, never scored. What was
    answered before is kept. Undo reaches back to the first episode of a batch of 16; each batch
    ends with a question whether all is well.

    Args:
        show_gold: whether the person sees the gold answers.
        console: where the episodes are shown (default: standard output).
        read: shows a prompt and reads one line; raises ``EOFError`` (default: standard input).
    """

    name = "human"
    #: Asks at the terminal: no progress bar beside it, and no other thread than the main one.
    interactive = True
    batch_size = BATCH_SIZE

    def __init__(
        self,
        *,
        show_gold: bool = False,
        console: Console | None = None,
        read: Callable[[str], str] | None = None,
    ) -> None:
        from agents.human import read_line

        self.show_gold = bool(show_gold)
        self.fingerprint = f"human/1 {self.show_gold}"
        self.console = console or Console()
        self._read = read or read_line
        self._left = False

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode; none is asked for once the person has left."""
        answers: list[_Answer] = []
        if not self._left and episodes:
            try:
                with _hanging_up_leaves():
                    self._ask_all(episodes, answers)
            except (_Leaves, KeyboardInterrupt, EOFError):
                self._left = True
                with contextlib.suppress(OSError):  # the terminal may be gone
                    self.console.print()
        given = [self._verdict(e, a) for e, a in zip(episodes, answers, strict=False)]
        return given + [
            Verdict(episode.id, self.name, None, error="not judged: the person left")
            for episode in episodes[len(answers) :]
        ]

    def _ask_all(self, episodes: Sequence[Episode], answers: list[_Answer]) -> None:
        """Fill ``answers`` in the order of ``episodes``; an undo takes the last one off."""
        while True:
            if len(answers) < len(episodes):
                number = len(answers) + 1
                undo = self._ask(episodes[number - 1], f"{number} of {len(episodes)}", answers)
            else:
                line = self._read(f"{len(answers)} answered: Enter saves, u undoes › ").strip()
                if line.lower() in ("", "y"):
                    return
                if line.lower() == "q":
                    raise _Leaves
                undo = line.lower() == "u"
            if undo and answers:
                taken = answers.pop()
                what = "skipped" if taken.score is None else f"score {taken.score}"
                self._note(f"taken back: {what}")
            elif undo:
                self._note("there is nothing to take back")

    def _ask(self, episode: Episode, place: str, answers: list[_Answer]) -> bool:
        """Add the person's answer; or return whether they want to go back instead."""
        self.console.print(_view(episode, place, show_gold=self.show_gold))
        began = time.perf_counter()
        self._note(_HELP)
        while True:
            line = self._read("score › ").strip()
            if line.lower() == "u":
                return True
            if line.lower() == "q":
                raise _Leaves
            found = _SCORED.fullmatch(line)
            if found or line.lower() == "s":
                break
            self._note(f"expected {_HELP}")
        score = int(found[1]) if found else None
        answer = _Answer(score, (found[2] or "") if found else "", time.perf_counter() - began)
        answers.append(answer)  # from here on it is kept, also where the person leaves
        if score is not None and not answer.reason:
            line = self._read("reason (Enter: none) › ").strip()
            if line.lower() == "u":
                return True
            if line.lower() == "q":
                raise _Leaves
            answer.reason = line
            answer.seconds = time.perf_counter() - began
        return False

    def _verdict(self, episode: Episode, answer: _Answer) -> Verdict:
        if answer.score is None:
            error = "skipped by the person"
            return Verdict(episode.id, self.name, None, error=error, seconds=answer.seconds)
        return Verdict(episode.id, self.name, answer.score, answer.reason, seconds=answer.seconds)

    def _note(self, text: str) -> None:
        self.console.print(printable(text, style="dim"))


def _view(episode: Episode, place: str, *, show_gold: bool) -> RenderableType:
    """The question, each message with what came back, numbered; nothing of how it was graded."""
    parts: list[RenderableType] = [printable(episode.observation)]
    for number, turn in enumerate(episode.turns, start=1):
        parts.append(Text(f"message {number} ›", style="bold cyan"))
        parts.append(printable(turn.action))
        if turn.observation:
            parts.append(Text("environment ›", style="bold magenta"))
            parts.append(printable(turn.observation))
    if not episode.turns:
        parts.append(Text("(no message)", style="dim"))
    if show_gold:
        gold = " or ".join(episode.task.answers) or "none"
        parts.append(printable(f"gold answer: {gold}", style="green"))
    return Panel(Group(*parts), title=printable(place), title_align="left")


@contextlib.contextmanager
def _hanging_up_leaves() -> Iterator[None]:
    """Within the block a closed terminal (SIGHUP) makes the person leave, and nothing is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hung_up(*_: Any) -> None:
        raise _Leaves

    before = signal.signal(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
