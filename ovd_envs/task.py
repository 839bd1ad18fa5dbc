"""A task (one question with its gold answers) and the sources that tasks come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ovd_envs.errors import TaskError

#: Index space of unlimited sources: tasks are drawn from the first this many.
_UNLIMITED = 2**31

#: ``distinct`` gives up after this many repeated questions in a row.
_PATIENCE = 10_000


@dataclass(frozen=True, slots=True)
class Task:
    """One question.

    ``id`` names the task for ever: the same id gives the same question on every machine.
    ``answers`` are the gold answers, any of which is right; they never reach the student.
    ``metadata`` is plain JSON (level, solution steps, source row, ...).
    """

    id: str
    question: str
    answers: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The task as plain JSON."""
        return {
            "id": self.id,
            "question": self.question,
            "answers": list(self.answers),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Task:
        """The inverse of ``to_dict``. Raises ``TaskError`` naming the field that is missing."""
        for name in ("id", "question", "answers"):
            if name not in data:
                raise TaskError(f"task: misses {name!r}, has {', '.join(map(str, data))}")
        return cls(
            id=data["id"],
            question=data["question"],
            answers=tuple(data["answers"]),
            metadata=dict(data.get("metadata", {})),
        )


class TaskSource(ABC):
    """Tasks by split and index; deterministic, and without overlap between the splits.

    A task's id is ``"<name>/<split>/<index>"`` unless the data bring ids of their own.
    """

    #: Name of the source, the first part of its task ids.
    name: str
    splits: tuple[str, ...] = ("train", "test")
    #: How its answers are compared ("number", "math", ...); "" leaves it to the environment.
    grading: str = ""

    @abstractmethod
    def size(self, split: str) -> int | None:
        """Number of tasks in ``split``, or ``None`` where the source is unlimited.

        Raises ``TaskError`` for an unknown split.
        """

    @abstractmethod
    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` (0-based) of ``split``; the same at every call.

        Raises ``TaskError`` for an unknown split or an index out of range.
        """

    def score(self, task: Task, answer: str) -> float | None:
        """The source's own score (0 to 1) of ``answer``; ``None`` leaves it to the environment."""
        return None

    def find(self, task_id: str) -> Task:
        """The task with this id. Raises ``TaskError`` where there is none."""
        parts = task_id.rsplit("/", 2)
        if len(parts) == 3 and parts[0] == self.name and parts[2].isdecimal():
            return self.task(parts[1], int(parts[2]))
        raise TaskError(
            f"no task {task_id!r} in {self.name!r}: expected '{self.name}/SPLIT/INDEX' "
            f"with SPLIT one of {', '.join(self.splits)}"
        )

    def draw(self, split: str, rng: np.random.Generator) -> Task:
        """A random task of ``split``. Raises ``TaskError`` where the split is empty."""
        size = self.size(split)
        if size == 0:
            raise TaskError(f"{self.name!r} has no tasks in split {split!r}")
        return self.task(split, int(rng.integers(_UNLIMITED if size is None else size)))

    def iterate(self, split: str, *, start: int = 0) -> Iterator[Task]:
        """Tasks of ``split`` in order, from index ``start``; endless where unlimited."""
        size, index = self.size(split), start
        while size is None or index < size:
            yield self.task(split, index)
            index += 1

    def distinct(self, split: str, count: int, *, start: int = 0) -> list[Task]:
        """The first ``count`` tasks of ``split`` from index ``start`` on, no question twice.

        Raises ``TaskError`` where the split does not hold that many different questions.
        """
        found: dict[str, Task] = {}
        repeats = 0
        if count > 0:
            for task in self.iterate(split, start=start):
                repeats = repeats + 1 if task.question in found else 0
                found.setdefault(task.question, task)
                # An unlimited source of few questions would otherwise be read for ever.
                if len(found) == count or repeats >= _PATIENCE:
                    break
        if len(found) < count:
            raise TaskError(
                f"{self.name!r}, split {split!r}: {count} distinct tasks asked for, "
                f"{len(found)} found{f' from index {start} on' if start else ''}"
                f" (ask for {len(found)}: --tasks, or evaluation.tasks of a run)"
            )
        return list(found.values())

    def _check(self, split: str, index: int | None = None) -> None:
        """Raise ``TaskError`` for an unknown split or an index out of range."""
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise TaskError(f"split: expected one of {known} of {self.name!r}, got {split!r}")
        if index is not None:
            size = self.size(split)
            if index < 0 or (size is not None and index >= size):
                held = "no end of them" if size is None else f"{size} of them"
                raise TaskError(f"{self.name!r}, split {split!r}: no task {index} ({held})")


class ListTasks(TaskSource):
    """Tasks given as lists, one per split: ``ListTasks("mine", train=[...], test=[...])``.

    Raises ``TaskError`` where an id comes twice or a question is in two splits.
    """

    def __init__(self, name: str, *, grading: str = "", **splits: Iterable[Task]) -> None:
        self.name = name
        self.grading = grading
        self._tasks = {split: list(tasks) for split, tasks in splits.items()}
        self.splits = tuple(self._tasks)
        self._by_id: dict[str, Task] = {}
        where: dict[str, str] = {}
        for split, tasks in self._tasks.items():
            for task in tasks:
                if task.id in self._by_id:
                    raise TaskError(f"{name!r}: task id {task.id!r} comes twice")
                self._by_id[task.id] = task
                question = " ".join(task.question.split())
                if where.setdefault(question, split) != split:
                    raise TaskError(
                        f"{name!r}: splits {where[question]!r} and {split!r} overlap: task "
                        f"{task.id!r} asks {question[:60]!r} in both"
                    )

    def size(self, split: str) -> int:
        """Number of tasks in ``split``."""
        self._check(split)
        return len(self._tasks[split])

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of ``split``."""
        self._check(split, index)
        return self._tasks[split][index]

    def find(self, task_id: str) -> Task:
        """The task with this id."""
        if task_id not in self._by_id:
            raise TaskError(f"no task {task_id!r} in {self.name!r} ({len(self._by_id)} tasks)")
        return self._by_id[task_id]
