"""An episode as text for a model to judge, fenced so that nothing inside can pass for outside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from agents.episode import Episode

#: Characters of an episode that a judge reads by default.
MAX_CHARACTERS = 24_000
_LEFT_OUT = "[... {count} characters left out ...]"


@dataclass(frozen=True, slots=True)
class FencedEpisode:
    """The text of an episode and the mark of its fence.

    Every line of structure carries ``mark``, and no line of content contains it. The mark is
    also the id under which the judge must answer.
    """

    mark: str
    text: str


def fence(
    episode: Episode, *, show_gold: bool = True, max_characters: int = MAX_CHARACTERS
) -> FencedEpisode:
    """``episode`` as fenced text of about ``max_characters`` characters at most.

    Parts that are too long lose their middle. The mark depends on the content alone, so the same
    episode gives the same text. ``show_gold`` adds the gold answers as a reference.
    """
    parts = [("task", episode.observation), *turn_parts(episode)]
    if show_gold and episode.task.answers:
        parts.append(("reference answer", "\nor: ".join(episode.task.answers)))
    return fence_parts(parts, max_characters)


def turn_parts(episode: Episode, who: str = "the model") -> list[tuple[str, str]]:
    """(label, content) of each message of ``who`` and of each answer to it."""
    to = "" if who == "the model" else f" to {who}"
    parts = []
    for number, turn in enumerate(episode.turns, start=1):
        parts.append((f"message {number} of {who}", turn.action))
        if turn.observation:
            parts.append((f"answer {number} of the environment{to}", turn.observation))
    return parts


def fence_parts(parts: Sequence[tuple[str, str]], max_characters: int) -> FencedEpisode:
    """(label, content) of each part under one mark, which no content contains."""
    contents = _shortened([_writable(content) for _, content in parts], max_characters)
    mark = _mark(contents)
    lines = [f"=== {mark} begin ==="]
    for (label, _), content in zip(parts, contents, strict=True):
        lines += [f"--- {mark} {label} ---", content]
    lines.append(f"=== {mark} end ===")
    return FencedEpisode(mark, "\n".join(lines))


def _writable(content: str) -> str:
    """The content with lone surrogates, which no tokenizer takes, replaced."""
    if content.isascii():
        return content
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mark(contents: list[str]) -> str:
    """Eight hexadecimal digits that no part contains."""
    counter = 0
    everything = "\0".join(contents)
    while True:
        mark = hashlib.sha256(f"{counter}\0{everything}".encode()).hexdigest()[:8]
        if mark not in everything.lower():
            return mark
        counter += 1


def _shortened(contents: list[str], budget: int) -> list[str]:
    """The parts, the longest of them cut to one common length so that all fit the budget."""
    if sum(map(len, contents)) <= budget:
        return contents
    limit = left = max(budget, 0)
    # Short parts stay whole; what they leave is shared by the long ones.
    for number, length in enumerate(sorted(map(len, contents))):
        limit = left // (len(contents) - number)
        if length > limit:
            break
        left -= length
    return [_cut(content, limit) for content in contents]


def _cut(content: str, limit: int) -> str:
    if len(content) <= limit:
        return content
    head, tail = limit - limit // 2, limit // 2
    told = _LEFT_OUT.format(count=len(content) - limit)
    return f"{content[:head]}\n{told}\n{content[len(content) - tail :]}"
