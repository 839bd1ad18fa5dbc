"""Questions about two worlds: one to train in, and one without a common name to test in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ovd_envs.errors import TaskError
from ovd_envs.stable import Draw
from ovd_envs.task import Task, TaskSource
from ovd_envs.world.questions import (
    FORMS,
    MOST_HOPS,
    draw_question,
    form_of,
    hops_of,
    kinds_of,
    metadata_of,
)
from ovd_envs.world.world import World, shared_world

#: Part of every task id. Goes up when the same arguments begin to give other questions or pages,
#: so that an id never means two things.
GENERATION = 1


class WorldTasks(TaskSource):
    """Questions about an invented world, with the pages from which each answer follows.

    The tasks of "train" and of "test" are about two worlds whose names share no word. There is no
    end of them, but in a small world they begin to repeat: take ``distinct`` where that matters.

    ``metadata`` of a task: "hops", "kind", "path" (a list of "page", "title", "subject",
    "relation", "value", in order), "support" and "distractors" (ids of documents),
    "supporting_titles".

    Args:
        hops: how many pages an answer takes, 1 to 4, or several such numbers, equally frequent.
        kinds: which kinds of these hops (``kinds_of``), such as "birthplace>river", or a form for
            all its kinds: "chain", "compare" or "same"; by default all, equally frequent.
        people: how many people each world has.
        seed: which pair of worlds.

    Raises:
        TaskError: for unknown kinds or hops, or kinds of other hops.
        OVDError: for a number of people or a seed that the world refuses.
    """

    grading = "qa"

    def __init__(
        self,
        hops: int | Sequence[int] = 1,
        *,
        kinds: str | Iterable[str] | None = None,
        people: int = 400,
        seed: int = 0,
    ) -> None:
        self.hops = _read_hops(hops)
        self._kinds = _read_kinds(kinds, self.hops)
        self.kinds = tuple(kind for number in self.hops for kind in self._kinds[number])
        self.people, self.seed = people, seed
        self._worlds = {s: shared_world(seed, people=people, split=s) for s in self.splits}
        #: Says every argument, so that the id of a task means the same for ever.
        self.name = _name(self.hops, self._kinds, people, seed)

    def world(self, split: str) -> World:
        """The world that the tasks of ``split`` are about."""
        self._check(split)
        return self._worlds[split]

    def size(self, split: str) -> None:
        """``None``: there is no last task."""
        self._check(split)

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of ``split``."""
        self._check(split, index)
        world = self._worlds[split]
        name = f"{self.name}/{split}/{index}"
        draw = Draw(name)
        # Hops first, so that the many kinds of four hops do not crowd out the few of one.
        hops = draw.choice(self.hops)
        question = draw_question(world, draw.choice(self._kinds[hops]), draw)
        return Task(name, question.text, (question.answer,), metadata_of(world, question))


def _read_hops(hops: int | Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(hops) if isinstance(hops, (list, tuple)) else (hops,)
    if not chosen or any(type(n) is not int or not 1 <= n <= MOST_HOPS for n in chosen):
        raise TaskError(
            f"hops: expected a whole number from 1 to {MOST_HOPS}, or a list of some, got {hops!r}"
        )
    return tuple(sorted(set(chosen)))


def _read_kinds(
    kinds: str | Iterable[str] | None, hops: Sequence[int]
) -> dict[int, tuple[str, ...]]:
    """The kinds of every number of hops, in the order of ``kinds_of``."""
    if kinds is None:
        asked: tuple[str, ...] = FORMS
    elif isinstance(kinds, str) or not isinstance(kinds, Iterable):
        asked = (kinds,)
    else:
        asked = tuple(kinds)
    if not asked or not all(isinstance(kind, str) for kind in asked):
        raise TaskError(f"kinds: expected the name of a kind, or a list of some, got {kinds!r}")
    chosen = {
        number: tuple(k for k in kinds_of(number) if k in asked or form_of(k) in asked)
        for number in hops
    }
    for kind in asked:
        own = hops_of(kind)
        if kind not in FORMS and own is None:
            known = [*FORMS, *(k for number in hops for k in kinds_of(number))]
            near = difflib.get_close_matches(kind, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TaskError(f"kinds: no kind of question {kind!r}{hint}")
        if kind not in FORMS and own not in hops:
            raise TaskError(f"kinds: {kind!r} takes hops={own}, got hops={_joined(hops)}")
    empty = [number for number in hops if not chosen[number]]
    if empty:
        raise TaskError(f"kinds: none of {_joined(asked)} takes hops={empty[0]}")
    return chosen


def _name(hops: Sequence[int], kinds: dict[int, tuple[str, ...]], people: int, seed: int) -> str:
    every = [kind for number in hops for kind in kinds_of(number)]
    chosen = [kind for number in hops for kind in kinds[number]]
    forms = [form for form in FORMS if any(form_of(kind) == form for kind in chosen)]
    name = f"world-v{GENERATION}-{_joined(hops)}hop-{people}people-seed{seed}"
    if chosen == every:
        return name
    if chosen == [kind for kind in every if form_of(kind) in forms]:
        return f"{name}-{_joined(forms)}"
    return f"{name}-{_joined(chosen)}"


def _joined(parts: Iterable[object]) -> str:
    return "+".join(map(str, parts))
