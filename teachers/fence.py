"""Episodes as text for a model to judge, fenced so that nothing inside can pass for outside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from agents.episode import Episode
from teachers.shortening import MAX_EPISODE_TOKENS, Part, Room, shortened, what_was_left_out

#: Characters of a message that are shown at least, if it is not shorter: else there is nothing to
#: judge.
_LEAST_SHOWN = 16

_LEFT_OUT = """

To save room, {what} were left out; a line of structure says where. What is not shown speaks \
neither for nor against anybody."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The text of some material and the mark of its fence.

    Every line of structure carries ``mark``, and no line of content contains it. The mark is
    also the id under which the judge must answer.
    """

    mark: str
    text: str
    left_out: str = ""
    """How much of what is not shown for want of room, in words."""
    ids: tuple[str, ...] = ()
    """Of a group, the id of each episode, in order: no content contains one of them either."""
    bare: bool = False
    """Whether next to nothing of a message, or of the task, is shown for want of room."""


def fence(episode: Episode, *, show_gold: bool = True, room: Room | None = None) -> Fenced:
    """``episode`` as fenced text of at most ``room`` (``MAX_EPISODE_TOKENS`` by estimate).

    Where it is longer, observations lose their middles first (see ``shortened``); a line of
    structure says where and how much. The mark depends on what is shown alone, so the same
    episode gives the same text. ``show_gold`` adds the gold answers as a reference.
    """
    parts = [Part("task", episode.observation), *turn_parts(episode)]
    return fence_parts(parts + (gold_parts(episode) if show_gold else []), room)


def fence_group(
    episodes: Sequence[Episode], *, show_gold: bool = True, room: Room | None = None
) -> Fenced:
    """Episodes of one task under one mark, each under an id of its own, in their order.

    What they all begin with (the task, equal first turns) stands once; the last message of each
    is shown with it in any case. Equal episodes have different ids. ``room`` is for all together.
    """
    each = [[Part("task", e.observation), *turn_parts(e)] for e in episodes]
    golds = [gold_parts(e) if show_gold else [] for e in episodes]
    same = 0
    if len({tuple(gold) for gold in golds}) > 1:  # another reference is another task
        each = [[parts[0], *gold, *parts[1:]] for parts, gold in zip(each, golds, strict=True)]
        golds = [[]]
    else:
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*each, strict=False))
        same = min(sum(1 for _ in alike), *map(_last_message, each))
    shared = [
        part if part.kind == "task" else part._replace(label=f"{part.label}, in all episodes")
        for part in each[0][:same]
    ]
    parts: list[Part] = [*shared]
    owners: list[int | None] = [None] * len(parts)
    for number, own in enumerate(each):
        rest = own[same:] or [Part("no message", "")]
        parts += rest
        owners += [number] * len(rest)
    parts += golds[0]
    owners += [None] * len(golds[0])
    return _fenced(parts, owners, len(episodes), room)


def turn_parts(episode: Episode, who: str = "the model") -> list[Part]:
    """Each message of ``who`` and each answer to it."""
    to = "" if who == "the model" else f" to {who}"
    parts = []
    for number, turn in enumerate(episode.turns, start=1):
        parts.append(Part(f"message {number} of {who}", turn.action, "message"))
        if turn.observation:
            label = f"answer {number} of the environment{to}"
            parts.append(Part(label, turn.observation, "observation"))
    return parts


def gold_parts(episode: Episode) -> list[Part]:
    """The gold answers, where there are any."""
    answers = episode.task.answers
    return [Part("reference answer", "\nor: ".join(answers))] if answers else []


def fence_parts(parts: Sequence[Part], room: Room | None = None) -> Fenced:
    """Some parts under one mark, which no content contains."""
    return _fenced(parts, [None] * len(parts), 0, room)


def told_left_out(fenced: Fenced) -> str:
    """A paragraph for the instructions that says what is not shown; empty where all is."""
    return _LEFT_OUT.format(what=fenced.left_out) if fenced.left_out else ""


def _fenced(
    parts: Sequence[Part], owners: Sequence[int | None], count: int, room: Room | None
) -> Fenced:
    """The parts, each of an episode by its number or of none, with ``count`` ids for these."""
    parts = [part._replace(content=_writable(part.content)) for part in parts]
    shown = shortened(parts, Room(MAX_EPISODE_TOKENS) if room is None else room)
    contents = [text for one in shown for text in (one.head, one.tail)]
    mark, *ids = _marks(contents, 1 + count)
    lines = [f"=== {mark} begin ==="]
    for part, owner, one in zip(parts, owners, shown, strict=True):
        whose = "" if owner is None else f"episode {ids[owner]}: "
        lines += [f"--- {mark} {whose}{part.label} ---", *one.lines(mark)]
    lines.append(f"=== {mark} end ===")
    bare = any(
        one.left_out and part.kind != "observation" and len(one.head + one.tail) < _LEAST_SHOWN
        for part, one in zip(parts, shown, strict=True)
    )
    return Fenced(mark, "\n".join(lines), what_was_left_out(parts, shown), tuple(ids), bare)


def _last_message(parts: Sequence[Part]) -> int:
    """Where the last message of the model stands."""
    places = [number for number, part in enumerate(parts) if part.kind == "message"]
    return places[-1] if places else len(parts)


def _writable(content: str) -> str:
    """The content with lone surrogates, which no tokenizer takes, replaced."""
    if content.isascii():
        return content
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _marks(contents: Sequence[str], count: int) -> list[str]:
    """``count`` different marks of eight hexadecimal digits that no content contains."""
    found: list[str] = []
    counter = 0
    everything = "\0".join(contents)
    lower = everything.lower()
    while len(found) < count:
        mark = hashlib.sha256(f"{counter}\0{everything}".encode()).hexdigest()[:8]
        if mark not in lower and mark not in found:
            found.append(mark)
        counter += 1
    return found
