"""Tasks from rows: your own JSONL files, and datasets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ovd_envs.errors import TaskError
from ovd_envs.formats import Record, check_format, read_record
from ovd_envs.grading.number import parse_number
from ovd_envs.jsonl import read_jsonl_numbered
from ovd_envs.stable import stable_hash
from ovd_envs.task import Task, TaskSource

#: Where one file serves two splits, one in this many questions belongs to the test.
TEST_SHARE = 10


class RecordTasks(TaskSource):
    """Tasks from rows that were read already; the common part of files and datasets.

    Rows that come as one lot are split by a hash of the question, so that the split of a question
    never changes, whatever rows are added. Rows that come with their splits keep them; then no
    question may be in two of them.
    """

    def __init__(
        self, name: str, lots: Mapping[str, Iterable[Record]], *, drop_common: bool
    ) -> None:
        self.name = name
        #: Rows left out because their question is also in a later split.
        self.dropped = 0
        rows = {split: list(found) for split, found in lots.items()}
        if list(rows) == [""]:
            rows = _split(rows[""])
        else:
            self.dropped = _separate(name, rows, drop_common)
        self.splits = tuple(rows)
        self._rows = rows
        everything = [row for found in rows.values() for row in found]
        ids = [row.id for row in everything]
        self._own_ids = None not in ids and len(set(ids)) == len(ids)
        self._by_id = {
            row.id: (split, index)
            for split, found in rows.items()
            for index, row in enumerate(found)
            if self._own_ids
        }
        numeric = all(parse_number(gold) is not None for row in everything for gold in row.answers)
        self.grading = "number" if numeric else "math"

    def size(self, split: str) -> int:
        """Number of tasks in ``split``."""
        self._check(split)
        return len(self._rows[split])

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of ``split``."""
        self._check(split, index)
        row = self._rows[split][index]
        name = row.id if self._own_ids and row.id is not None else f"{self.name}/{split}/{index}"
        return Task(name, row.question, row.answers, dict(row.metadata))

    def find(self, task_id: str) -> Task:
        """The task with this id."""
        if task_id in self._by_id:
            return self.task(*self._by_id[task_id])
        return super().find(task_id)


class JsonlTasks(RecordTasks):
    """Tasks from JSONL files.

    ``JsonlTasks("mine.jsonl")`` splits one file (nine tenths for training), ``JsonlTasks({"train":
    "a.jsonl", "test": "b.jsonl"})`` has a file a split, of which one alone is fine. GSM8K, MATH and
    plain question/answer rows are recognized (see ``ovd_envs.formats.FORMATS``).

    Args:
        files: a path, or a path for each split.
        question: field of the question, where it is not a usual one.
        answer: field of the gold answer, likewise.
        format: "gsm8k", "math" or "qa", where it should not be guessed.
        name: name of the source; by default that of the first file.

    Raises:
        OVDError: naming file and row, for a missing file or a bad row.
        TaskError: where a question is in two splits.
    """

    def __init__(
        self,
        files: str | Path | Mapping[str, str | Path],
        *,
        question: str | None = None,
        answer: str | None = None,
        format: str | None = None,
        name: str | None = None,
    ) -> None:
        check_format(format)
        by_split = files if isinstance(files, Mapping) else {"": files}
        if not by_split:
            raise TaskError("files: expected a file for at least one split, got none")
        lots = {
            split: [
                read_record(
                    row,
                    f"{path}, row {number}",
                    format=format,
                    question=question,
                    answer=answer,
                )
                for number, row in read_jsonl_numbered(path)
            ]
            for split, path in by_split.items()
        }
        for split, path in by_split.items():
            if not lots[split]:
                raise TaskError(f"{path}: expected a task a line, the file holds none")
        super().__init__(name or Path(next(iter(by_split.values()))).stem, lots, drop_common=False)


class HubTasks(RecordTasks):
    """Tasks from a dataset of the Hugging Face hub (or a local folder), by name.

    Its own splits are kept; a question that is in a training split and in a later one is dropped
    from the former (``dropped`` counts them). A dataset of one split is split by a hash.

    Args:
        dataset: as ``datasets.load_dataset`` takes it, e.g. "openai/gsm8k".
        config: name of the configuration, e.g. "main".
        splits: our splits and the dataset's, e.g. {"train": "train", "test": "validation"}.
        files: instead of splits, a file of the dataset for each: then they are read one by one,
            and may have different columns.
        question: field of the question, where it is not a usual one.
        answer: field of the gold answer, likewise.
        format: "gsm8k", "math" or "qa", where it should not be guessed.

    Raises:
        TaskError: where the dataset cannot be loaded, or naming split and row for a bad row.
    """

    def __init__(
        self,
        dataset: str,
        config: str | None = None,
        *,
        splits: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        question: str | None = None,
        answer: str | None = None,
        format: str | None = None,
    ) -> None:
        check_format(format)
        loaded = _load_dataset(dataset, config, files)
        chosen = dict(splits or {split: split for split in loaded})
        # A common question stays in the last split that has it: not in one for training.
        chosen = dict(sorted(chosen.items(), key=lambda split: not split[0].startswith("train")))
        for ours, theirs in chosen.items():
            if theirs not in loaded:
                known = ", ".join(loaded)
                raise TaskError(f"{dataset!r}: no split {theirs!r} (for {ours!r}), it has {known}")
        if splits is None and files is None and len(chosen) == 1:
            chosen = {"": next(iter(chosen.values()))}
        lots = {
            ours: [
                read_record(
                    row,
                    f"{dataset}, split {theirs}, row {number}",
                    format=format,
                    question=question,
                    answer=answer,
                )
                for number, row in enumerate(loaded[theirs], start=1)
            ]
            for ours, theirs in chosen.items()
        }
        super().__init__(dataset.rstrip("/").rpartition("/")[2], lots, drop_common=True)


def _key(question: str) -> str:
    """What makes two questions the same one."""
    return " ".join(question.casefold().split())


def _split(rows: list[Record]) -> dict[str, list[Record]]:
    """One lot of rows as two splits, decided by the question alone."""
    split: dict[str, list[Record]] = {"train": [], "test": []}
    for row in rows:
        test = stable_hash(_key(row.question)) % TEST_SHARE == 0
        split["test" if test else "train"].append(row)
    return split


def _separate(name: str, rows: dict[str, list[Record]], drop: bool) -> int:
    """Make sure that no question is in two splits: drop it from the earlier one, or refuse."""
    dropped = 0
    seen: dict[str, tuple[str, int]] = {}
    for split in reversed(list(rows)):
        kept = []
        for number, row in enumerate(rows[split], start=1):
            other, where = seen.setdefault(_key(row.question), (split, number))
            if other == split:
                kept.append(row)
            elif drop:
                dropped += 1
            else:
                raise TaskError(
                    f"{name!r}: splits {split!r} and {other!r} overlap: task {number} of {split!r} "
                    f"asks the same as task {where} of {other!r} ({row.question[:50]!r})"
                )
        rows[split] = kept
    return dropped


def _load_dataset(
    dataset: str, config: str | None, files: Mapping[str, str] | None
) -> Mapping[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise TaskError(f"{dataset!r}: needs the package datasets") from error
    try:
        if files is None:
            return dict(datasets.load_dataset(dataset, config))
        return {
            split: datasets.load_dataset(dataset, config, data_files={split: file}, split=split)
            for split, file in files.items()
        }
    except Exception as error:  # network, disk, or the dataset's own troubles
        # What went wrong while a dataset was made is told by the cause alone.
        reasons = [str(e).strip().partition("\n")[0] for e in (error, error.__cause__) if e]
        if isinstance(error, ConnectionError) and datasets.config.HF_HUB_OFFLINE:
            reasons.append(
                "HF_HUB_OFFLINE is set: only folders and what was loaded before are there"
            )
        raise TaskError(f"dataset {dataset!r} cannot be loaded: {'; '.join(reasons)}") from error
