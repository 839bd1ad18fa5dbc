"""``ovd run --watch``: several episodes at once on a terminal, as they go."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agents.display import printable
from agents.episode import Episode
from agents.protocol import Act, Agent
from agents.totals import Totals

#: Seconds for which an episode that has ended stays on the screen, where another one waits.
HOLD_SECONDS = 2.0

#: Lines of one episode: its head, and as much of its text as there is room for.
_LEAST, _MOST = 3, 9


#: What tells a terminal to wrap no lines, and to wrap them again (DECAWM).
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


@dataclass(slots=True)
class _Place:
    """An episode on the screen, and when it was first seen to have ended."""

    episode: Episode
    ended: float | None = None


class LiveEpisodes:
    """A whole screen of episodes: as many as fit, and a line of totals above them.

    Each has its task, its turn, the end of its newest message and observation, and, when it has
    ended, its reward and why it ended. An episode keeps its place on the screen; one that has
    ended leaves it to one that has none. When the view is left, the screen is as it was before;
    below what was there stand the last episodes, and what was written to standard output and error
    in the meantime.

    Args:
        totals: what the line of totals tells; the view adds what has been sampled so far.
        console: the terminal.
    """

    def __init__(self, totals: Totals, console: Console) -> None:
        self._totals = totals
        # With the console's own file, for standard error is another while the view is open.
        self._console = Console(file=console.file)
        self._alive: dict[int, Episode] = {}  # by identity; in the order in which they began
        self._places: list[_Place] = []
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._written = io.StringIO()
        self._redirected = contextlib.ExitStack()

    def __enter__(self) -> LiveEpisodes:
        console = self._console
        self._redirected.enter_context(contextlib.redirect_stdout(self._written))
        self._redirected.enter_context(contextlib.redirect_stderr(self._written))
        self._live = Live(
            get_renderable=lambda: self.view(console.width, console.height),
            console=console,
            screen=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        # A line that is wider than Rich thinks is cut off by the terminal, and breaks nothing.
        console.file.write(_NO_WRAP)
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._live is not None
        self._live.stop()
        self._console.file.write(_WRAP)
        self._redirected.close()
        with self._lock:
            last = self._blocks(self._console.width, self._console.height - 1)
        for line in filter(None, last):
            self._console.print(line)
        if written := self._written.getvalue():
            sys.stderr.write(written)

    def following(self, agent: Agent) -> Agent:
        """``agent``, with this view looking over its shoulder."""
        return _Followed(agent, self._began)

    def _began(self, episode: Episode) -> None:
        with self._lock:
            self._alive[id(episode)] = episode

    def ended(self, episode: Episode) -> None:
        """An episode has ended, and is counted in the totals."""
        with self._lock:
            self._alive.pop(id(episode), None)
            # Also one that ended before it was ever seen.
            if not any(place.episode is episode for place in self._places):
                self._places.append(_Place(episode))

    def view(self, width: int, height: int) -> RenderableType:
        """What is on a screen of this many columns and rows now."""
        with self._lock:
            sampled = sum(episode.num_sampled_tokens for episode in self._alive.values())
            line = f"{self._totals.line(sampled)} · {len(self._alive)} running"
            blocks = self._blocks(width, height - 1)
        return Group(*[_cut(Text(line, style="bold"), width), *blocks][:height])

    def _blocks(self, width: int, height: int) -> list[Text]:
        places = self._arrange(max(height // _LEAST, 1))
        each = min(height // max(len(places), 1), _MOST)
        return [line for place in places for line in _block(place.episode, width, each)]

    def _arrange(self, capacity: int) -> list[_Place]:
        """Who is on the screen: those who were, and in the place of the ended who waits."""
        now = time.monotonic()
        for place in self._places:
            if place.ended is None and place.episode.done:
                place.ended = now
        shown = {id(place.episode) for place in self._places}
        waiting = [e for key, e in self._alive.items() if key not in shown]
        del self._places[capacity:]
        for number, place in enumerate(self._places):
            if waiting and place.ended is not None and now - place.ended >= HOLD_SECONDS:
                self._places[number] = _Place(waiting.pop(0))
        while waiting and len(self._places) < capacity:
            self._places.append(_Place(waiting.pop(0)))
        return list(self._places)


class _Followed:
    """An agent whose episodes are shown to ``began`` before it acts in them."""

    def __init__(self, agent: Agent, began: Callable[[Episode], None]) -> None:
        self.name = agent.name
        self._agent = agent
        self._began = began

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        for episode in episodes:
            self._began(episode)
        return self._agent.act(episodes)

    @property
    def submit(self) -> Callable[[Episode], Future[Act]]:
        """As the agent's own; there is none (``AttributeError``) where it has none."""
        submit: Callable[[Episode], Future[Act]] = self._agent.submit  # type: ignore[attr-defined]

        def followed(episode: Episode) -> Future[Act]:
            self._began(episode)
            return submit(episode)

        return followed

    def finish(self, episodes: Sequence[Episode]) -> None:
        finish = getattr(self._agent, "finish", None)
        if finish is not None:
            finish(episodes)


def _block(episode: Episode, width: int, height: int) -> list[Text]:
    """An episode in ``height`` lines of at most ``width`` cells."""
    texts = _newest(episode)
    room = max(height - 1, 0)
    lines = [_head(episode, width)]
    for number, (mark, text, style) in enumerate(texts):
        # What the others leave; the last one gets the rest.
        share = room // (len(texts) - number)
        shown = _tail(text, width - len(mark), share)
        room -= len(shown)
        for row, line in enumerate(shown):
            lines.append(Text(mark if row == 0 else " " * len(mark), style=style).append(line))
    return [*lines, *[Text()] * (height - len(lines))]


def _newest(episode: Episode) -> list[tuple[str, str, str]]:
    """(mark, text, style) of the newest message and observation; the error, if there is one."""
    if episode.error:
        return [("! ", episode.error.rstrip().rpartition("\n")[2], "red")]
    if not episode.turns:
        return [("‹ ", episode.observation, "dim")]
    turn = episode.turns[-1]
    parts = [("› ", turn.action, "cyan"), ("‹ ", turn.observation, "dim")]
    return [part for part in parts if part[1]]


def _head(episode: Episode, width: int) -> Text:
    """Task and index on the left; on the right the turn, and what an ended episode came to."""
    if episode.done:
        style = "red" if episode.error else "green" if episode.reward > 0 else "yellow"
        right = f"turn {len(episode.turns)} · reward {episode.reward:g} · {episode.end_reason}"
    else:
        style, right = "dim", f"turn {len(episode.turns) + 1}"
    end = _cut(printable(_steady(right), style=style), width)
    name = f"{episode.task.id} · {episode.index}"
    room = width - end.cell_len - 1
    if room < 4:
        return end
    start = printable(_steady(name), style="bold")
    if start.cell_len > room:  # the end of an id tells more than its beginning
        rest = start.plain[-room:]
        while cell_len(rest) > room - 1:
            rest = rest[1:]
        start = Text(f"…{rest}", style="bold")
    return start.append(" " * (width - start.cell_len - end.cell_len)).append_text(end)


def _tail(text: str, width: int, lines: int) -> list[str]:
    """The end of ``text``, in at most ``lines`` lines of at most ``width`` cells."""
    if lines < 1 or width < 2:
        return []
    flat = _steady(text[-2 * width * lines :])
    whole = len(text) <= 2 * width * lines
    shown = [line.plain.rstrip() for line in printable(flat).wrap(_RULER, width)]
    if len(shown) > lines or not whole:
        shown = shown[-lines:]
        first = shown[0]
        while cell_len(first) > width - 1:
            first = first[1:]
        shown[0] = f"…{first}"
    return shown


#: For ``Text.wrap``, which takes tab stops and the like from a console.
_RULER = Console(file=io.StringIO(), width=80)


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _steady(text: str) -> str:
    """``text`` in one line, without most of what makes terminals disagree about its width.

    A joiner or a variation selector makes one wide character out of several on some terminals and
    not on others, and of what Unicode has not assigned nobody knows the width.
    """
    if not text.isascii():
        text = "".join(map(_steady_character, text))
    return " ".join(text.split())


def _steady_character(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    return "\ufffd" if kind in ("Cn", "Co") else character
