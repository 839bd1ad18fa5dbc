"""A run is a folder: one truth, written so that a kill at any moment loses at most one step.

    config.yaml             the whole configuration, defaults included
    run.json                what must not change on resume: dtype, threads, versions
    metrics.jsonl           one line a step
    steps/step-000012.jsonl the groups of a step: episodes, verdicts, the teacher's episodes
    evaluations/step-...    .json (accuracy, interval, n) and .jsonl (the episodes)
    checkpoints/step-...    model/ (transformers loads it) and optimizer state
    summary.json            before and after, when the run has ended
    .verdicts/              while a step is judged: its verdicts so far

Every file appears whole or not at all; ``metrics.jsonl`` grows by whole lines and a torn last
line is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agents.episode import Episode, write_episodes
from ovd_envs.errors import OVDError
from ovd_envs.jsonl import read_jsonl, write_atomic, write_jsonl
from teachers.cache import VerdictCache
from training.config import Config, dump_config, load_config
from training.groups import Group


class RunError(OVDError):
    """A run folder that is not what was expected."""


class Run:
    """The folder of one run. ``open`` makes or resumes it; reading needs no lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    @property
    def has_results(self) -> bool:
        """Whether something has come of it; else it may be begun anew, configured otherwise."""
        made = ("metrics.jsonl", "steps", "evaluations", "checkpoints")
        return self.exists and any((self.path / name).exists() for name in made)

    def create(self, config: Config, facts: dict[str, Any]) -> None:
        """Begin the run: write its configuration and facts. Raises ``RunError``."""
        if self.has_results:
            raise RunError(
                f"{self}: a run is here already; --resume goes on with it (or take another --run)"
            )
        text, path = dump_config(config), self.path / "config.yaml"
        # A kill while a run begins leaves this very configuration, or a hidden half of a file.
        begun = self.exists or (path.is_file() and path.read_bytes() == text.encode())
        known = {path.name, "run.json"} if begun else set()
        if self.path.is_dir() and any(
            p.name not in known and not p.name.startswith(".") for p in self.path.iterdir()
        ):
            raise RunError(f"{self}: expected an empty or new folder, found other files")
        write_atomic(path, text)
        write_atomic(self.path / "run.json", json.dumps(facts, indent=2) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run alone. Raises ``RunError`` where another process trains in it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("a")
        except OSError as error:
            raise RunError(f"{self}: cannot be written ({error.strerror})") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"{self}: another process is training in this run") from error
            yield

    def config(self) -> Config:
        """The run's configuration."""
        if not self.exists:
            raise RunError(f"{self}: no run here (expected run.json)")
        return load_config(self.path / "config.yaml")

    def facts(self) -> dict[str, Any]:
        """What was recorded when the run began."""
        return self._json("run.json")

    def _json(self, name: str) -> dict[str, Any]:
        try:
            data = json.loads((self.path / name).read_text())
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise RunError(f"{self.path / name}: not valid JSON ({error})") from error
        if not isinstance(data, dict):
            raise RunError(f"{self.path / name}: expected a JSON object")
        return data

    # Steps and metrics

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of all whole steps, in order; a line that is being written is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            return list(read_jsonl(path))  # names the row

    def cut_torn_line(self) -> None:
        """Drop what a kill left behind the last whole line of the metrics."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                write_atomic(path, whole)

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append one step's metrics, through to the disk."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("ab") as handle:
                handle.write(json.dumps(row).encode() + b"\n")
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror})") from error

    def _step_file(self, step: int) -> Path:
        return self.path / "steps" / f"step-{step:06d}.jsonl"

    def save_groups(self, step: int, groups: Sequence[Group]) -> None:
        """Keep the groups of a step; they are what a resume replays."""
        write_jsonl(self._step_file(step), (group.to_dict() for group in groups))

    def groups(self, step: int) -> list[Group] | None:
        """The groups of a step, ``None`` where it was not reached."""
        path = self._step_file(step)
        return [Group.from_dict(row) for row in read_jsonl(path)] if path.is_file() else None

    def verdicts(self) -> VerdictCache:
        """What the judge has said of the step under way, which a resume need not ask again."""
        return VerdictCache(self.path / ".verdicts")

    # Evaluations

    def save_evaluation(
        self, step: int, result: dict[str, Any], episodes: Sequence[Episode]
    ) -> None:
        """Keep an evaluation: the episodes first, so that a result is never without them."""
        place = self.path / "evaluations" / f"step-{step:06d}"
        write_episodes(place.with_suffix(".jsonl"), episodes)
        write_atomic(place.with_suffix(".json"), json.dumps(result) + "\n")

    def evaluation(self, step: int) -> dict[str, Any] | None:
        """The result of the evaluation after ``step``, ``None`` where there was none."""
        name = f"evaluations/step-{step:06d}.json"
        return self._json(name) if (self.path / name).is_file() else None

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations in the order of steps."""
        found = sorted((self.path / "evaluations").glob("step-*.json"))
        return [self._json(str(path.relative_to(self.path))) for path in found]

    def evaluation_episodes(self, step: int) -> Path:
        """The file of an evaluation's episodes."""
        return self.path / "evaluations" / f"step-{step:06d}.jsonl"

    # Checkpoints

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder) of the whole checkpoints, oldest first."""
        folders = sorted((self.path / "checkpoints").glob("step-*"))
        return [(int(folder.name[5:]), folder) for folder in folders if folder.is_dir()]

    @contextlib.contextmanager
    def new_checkpoint(self, step: int, keep: int) -> Iterator[Path]:
        """A folder to write a checkpoint into; it gets its name when it is whole.

        Older checkpoints beyond ``keep`` are removed then.
        """
        final = self.path / "checkpoints" / f"step-{step:06d}"
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            for torn in final.parent.glob(".writing-*"):  # left by a kill; the lock is ours
                shutil.rmtree(torn, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(dir=final.parent, prefix=".writing-"))
        except OSError as error:
            raise RunError(f"{final}: cannot be written ({error.strerror})") from error
        try:
            staging.chmod(0o755)
            yield staging
            for file in staging.rglob("*"):
                if file.is_file():
                    _sync(file)
            shutil.rmtree(final, ignore_errors=True)
            staging.rename(final)
            _sync(final.parent)
        except OSError as error:
            raise RunError(f"{final}: cannot be written ({error.strerror})") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.remove_old_checkpoints(keep)

    def remove_old_checkpoints(self, keep: int) -> None:
        """Remove all but the newest ``keep``."""
        for _, old in self.checkpoints()[:-keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest_model(self) -> Path:
        """The newest model of the run. Raises ``RunError`` where there is none yet."""
        found = self.checkpoints()
        if not found:
            raise RunError(f"{self}: no checkpoint yet")
        return found[-1][1] / "model"

    def save_summary(self, summary: dict[str, Any]) -> None:
        """Write what the run came to."""
        write_atomic(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def summary(self) -> dict[str, Any] | None:
        """What the run came to, ``None`` while it has not ended."""
        return self._json("summary.json") if (self.path / "summary.json").is_file() else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
