"""Sources of tasks by a short name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from ovd_envs.errors import TaskError
from ovd_envs.qa_sources import SEARCH_R1_DATASET, flashrag_tasks, search_r1_tasks
from ovd_envs.record_tasks import HubTasks, JsonlTasks
from ovd_envs.task import TaskSource

#: Nanoseconds. A file that is younger may change again without another time stamp: the clocks of
#: some file systems tick every two seconds.
_SETTLED = 2_000_000_000


def task_source(spec: str | Path | Mapping[str, str | Path] | TaskSource) -> TaskSource:
    """A source by a short name.

    "mine.jsonl" or "jsonl:PATH"; "train=a.jsonl,test=b.jsonl" (or a mapping); "hf:NAME" or
    "hf:NAME:CONFIG"; "flashrag:SET", "search-r1" or "search-r1:FOLDER" (``ovd_envs.qa_sources``);
    "reasoning-gym:DATASET"; "arithmetic:LEVEL". Raises ``TaskError`` for anything else.
    """
    return spec if isinstance(spec, TaskSource) else _recipe(spec).make()


def shared_source(spec: str | Path | Mapping[str, str | Path] | TaskSource) -> TaskSource:
    """As ``task_source``, but the same spec gives the same source in this process.

    For the many environments of a rollout, of which each would read the same file. A file that
    has changed is read again.
    """
    if isinstance(spec, TaskSource):
        return spec
    recipe = _recipe(spec)
    stamps = tuple(stamp for file in recipe.files for stamp in _stamps(file))
    now = time.time_ns()
    if any(now - max(stamp.written, stamp.changed) < _SETTLED for stamp in stamps):
        return recipe.make()
    if isinstance(spec, Mapping):
        return _kept(tuple((split, str(path)) for split, path in spec.items()), stamps)
    return _kept(str(spec), stamps)


class _Stamp(NamedTuple):
    """What tells one state of a file from another."""

    path: str
    number: int
    size: int
    written: int
    changed: int


def _stamps(path: str | Path) -> Iterator[_Stamp]:
    """Of a file, or of every file in a folder; nothing for what is neither (a name on the hub)."""
    path = Path(path)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        with contextlib.suppress(OSError):  # who reads it says what is wrong
            stat = file.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            yield _Stamp(str(file), *stamp)


@lru_cache(maxsize=8)
def _kept(spec: str | tuple[tuple[str, str], ...], stamps: tuple[_Stamp, ...]) -> TaskSource:
    """The source of ``spec`` as its files are, of which ``stamps`` tells."""
    return _recipe(spec if isinstance(spec, str) else dict(spec)).make()


class _Recipe(NamedTuple):
    """How the source of a short name is made, and the files or folders that it is made of."""

    make: Callable[[], TaskSource]
    files: tuple[str | Path, ...] = ()


def _recipe(spec: str | Path | Mapping[str, str | Path]) -> _Recipe:
    """See ``task_source``."""
    if isinstance(spec, Mapping):
        for split, path in spec.items():
            if not isinstance(path, str | Path):
                raise TaskError(f"task source: split {split!r}: expected a file, got {path!r}")
        return _Recipe(partial(JsonlTasks, spec), tuple(spec.values()))
    text = str(spec)
    kind, colon, rest = text.partition(":")
    if colon and kind == "jsonl":
        text = rest
    elif colon and kind == "hf":
        dataset, _, config = rest.partition(":")
        return _Recipe(partial(HubTasks, dataset, config or None), (dataset,))
    elif colon and kind == "flashrag":
        return _Recipe(partial(flashrag_tasks, rest))
    elif kind == "search-r1" and bool(colon) == bool(rest):
        dataset = rest or SEARCH_R1_DATASET
        return _Recipe(partial(search_r1_tasks, dataset), (dataset,))
    elif colon and kind == "reasoning-gym":
        from ovd_envs.reasoning_gym_tasks import ReasoningGymTasks

        return _Recipe(partial(ReasoningGymTasks, rest))
    elif colon and kind == "arithmetic":
        from ovd_envs.math_tasks import ArithmeticTasks

        return _Recipe(partial(ArithmeticTasks, rest))
    if "=" in text and not Path(text).exists():
        pairs = [part.partition("=") for part in text.split(",")]
        if all(split and equals and path for split, equals, path in pairs):
            names = [split.strip() for split, _, _ in pairs]
            if twice := [name for name in names if names.count(name) > 1]:
                raise TaskError(
                    f"task source {text!r}: expected one file for each split, "
                    f"split {twice[0]!r} has {names.count(twice[0])}"
                )
            return _recipe({split.strip(): path.strip() for split, _, path in pairs})
    if text.endswith((".jsonl", ".json")) or kind == "jsonl" or Path(text).is_file():
        return _Recipe(partial(JsonlTasks, text), (text,))
    raise TaskError(
        f"task source {text!r}: expected FILE.jsonl, train=A.jsonl,test=B.jsonl, hf:NAME, "
        "flashrag:SET, search-r1, reasoning-gym:DATASET or arithmetic:LEVEL"
    )
