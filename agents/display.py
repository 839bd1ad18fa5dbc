"""Episodes on a terminal: what models and environments wrote is shown, never obeyed."""

from __future__ import annotations

import re

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from agents.episode import Episode

#: Control characters (line feed and tab apart), bidirectional overrides and lone surrogates: they
#: could move the cursor, recolour the screen, reorder the text or not be encoded at all.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, style: str = "") -> Text:
    """``text`` as a Rich text without markup, its control characters made visible."""
    return Text(_UNSAFE.sub(_visible, text.replace("\r\n", "\n")), style=style)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of the control character
    return "\u2421" if code == 0x7F else "\ufffd"


def outcome_line(episode: Episode) -> Text:
    """How an episode ended, in one line: reward, end reason, outcome, turns, seconds."""
    style = "red" if episode.error else "green" if episode.reward > 0 else "yellow"
    parts = [f"reward {episode.reward:g}", episode.end_reason or "unfinished"]
    if isinstance(outcome := episode.info.get("outcome"), str):
        parts.append(outcome)
    parts.append(f"{len(episode.turns)} turn{'s' if len(episode.turns) != 1 else ''}")
    if tokens := episode.num_sampled_tokens:
        parts.append(f"{tokens} tokens")
    parts.append(f"{episode.seconds:.1f} s")
    line = Text(parts[0], style=f"bold {style}")
    return line.append_text(printable("".join(f" · {part}" for part in parts[1:]), style="dim"))


def episode_view(episode: Episode) -> RenderableType:
    """A whole episode: the question, each message with what came back, and the outcome."""
    parts: list[RenderableType] = [printable(episode.observation)]
    for turn in episode.turns:
        parts.append(Text(f"{episode.agent} ›", style="bold cyan"))
        parts.append(printable(turn.action))
        if turn.observation:
            parts.append(Text("environment ›", style="bold magenta"))
            parts.append(printable(turn.observation))
    if episode.error:
        parts.append(printable(episode.error.strip().splitlines()[-1], style="red"))
    parts.append(outcome_line(episode))
    title = printable(f"{episode.task.id} · {episode.index}")
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")
