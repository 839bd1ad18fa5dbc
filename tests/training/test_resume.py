"""Killed at any moment and resumed: the numbers of a run that was never stopped, bit by bit."""

import json
import random
import shutil
import signal
import time

import pytest
import yaml

from tests.training.conftest import tiny_config
from training.run import Run

STEPS = 6


def plain(data):
    """JSON without what the clock says."""
    clocks = ("time", "seconds", "started", "agent_seconds", "env_seconds", "train_seconds")
    if isinstance(data, dict):
        return {k: plain(v) for k, v in data.items() if k not in clocks}
    return [plain(v) for v in data] if isinstance(data, list) else data


def lines(path):
    return [plain(json.loads(line)) for line in path.read_text().splitlines()]


def contents(folder):
    """All that a finished run holds, clocks aside; weights and optimizer state as bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name == ".lock" or path.name.startswith("."):
            continue
        if path.suffix == ".jsonl":
            found[name] = lines(path)
        elif path.suffix == ".json":
            found[name] = plain(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def assert_same(folder, reference):
    ours, theirs = contents(folder), contents(reference)
    assert ours.keys() == theirs.keys()
    assert ours["metrics.jsonl"] == theirs["metrics.jsonl"]
    assert [row["step"] for row in ours["metrics.jsonl"]] == list(range(1, len(ours["metrics.jsonl"]) + 1))
    for name in theirs:
        assert ours[name] == theirs[name], name


KINDS = {
    "full": {},
    "two updates": {"optimizer": {"updates_per_step": 2}, "checkpoint": {"every": 4}},
    "lora": {"optimizer": {"lora": {"rank": 2, "alpha": 4}}},
    "bfloat16": {"dtype": "bfloat16"},
}


class Runs:
    """A configuration and its run that was never stopped."""

    def __init__(self, ovd, folder, student, kind):
        self.ovd, self.folder = ovd, folder
        self.config = folder / "tiny.yaml"
        self.config.write_text(yaml.safe_dump(tiny_config(student, **KINDS[kind])))
        self.reference = folder / "reference"
        began = time.monotonic()
        code, process = self.train(self.reference)
        assert code == 0, process.err
        self.seconds = time.monotonic() - began

    def train(self, run, *more, **options):
        return self.ovd.run("train", self.config, "--run", run, *more, **options)

    def start(self, run, *more, **options):
        return self.ovd.start("train", self.config, "--run", run, *more, **options)

    def resumes(self, run):
        """Resume ``run`` to its end and compare."""
        code, process = self.train(run, "--resume")
        assert code == 0, process.err
        assert_same(run, self.reference)


@pytest.fixture(scope="module")
def runs(ovd, student_folder, tmp_path_factory):
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = Runs(ovd, tmp_path_factory.mktemp("runs"), student_folder, kind)
        return made[kind]

    return get


def test_the_run_that_was_never_stopped_learned_something(runs):
    """Else all the rest proves nothing."""
    reference = runs("full").reference
    metrics = lines(reference / "metrics.jsonl")
    assert len({row["loss"] for row in metrics}) == STEPS
    assert all(row["groups_without_advantage"] == 0 for row in metrics)
    assert 0 < metrics[0]["teacher_token_share"] < 1
    weights = contents(reference)
    [(_, checkpoint)] = Run(reference).checkpoints()
    assert checkpoint.name == "step-000006"
    assert weights["checkpoints/step-000006/model/model.safetensors"] != (
        Run(reference).config().student
    )


@pytest.mark.parametrize("moment", range(10))
def test_killed_at_a_random_moment(runs, moment, tmp_path):
    """One of ten moments, spread over the steps: how far the run is, and then a random while."""
    full, run = runs("full"), tmp_path / "run"
    rng = random.Random(moment)
    process = full.start(run)
    step = moment * (STEPS + 1) // 10
    marker = run / (f"steps/step-{step:06d}.jsonl" if step else "run.json")
    process.wait_for(marker.exists)
    time.sleep(rng.uniform(0, full.seconds / STEPS))
    process.signal(signal.SIGKILL)
    assert process.wait() in (-9, 0)  # on a busy machine it may have been quicker than we are
    full.resumes(run)


def test_killed_again_and_again(runs, tmp_path):
    """Ten kills in one run; each resume gets a little further."""
    full, run = runs("two updates"), tmp_path / "run"
    rng, kills = random.Random(1), 0
    while kills < 10:
        process = full.start(run, "--resume")
        process.wait_for((run / "run.json").exists)
        time.sleep(rng.uniform(0, full.seconds / 2))
        process.signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
    assert kills >= 3
    full.resumes(run)


def short(full, tmp_path):
    """The same with three steps, for the tests that train it many times."""
    config = yaml.safe_load(full.config.read_text())
    config["optimizer"]["steps"] = 3
    config["evaluation"] = {"tasks": 1, "every": 2}
    config["rollout"] = {"tasks_per_step": 1, "group_size": 2, "max_tokens": 3}
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_killed_before_every_file_operation(runs, tmp_path):
    """Whatever is half done on the disk: between two files, in a checkpoint, before a rename."""
    full = runs("full")
    config = short(full, tmp_path)
    reference = tmp_path / "reference"
    assert full.ovd.run("train", config, "--run", reference)[0] == 0
    number, died = 0, 0
    while True:
        number += 1
        run = tmp_path / f"run-{number}"
        code, _ = full.ovd.run("train", config, "--run", run, die_at=number)
        if code == 0:
            break
        assert code == -9
        died += 1
        code, process = full.ovd.run("train", config, "--run", run, "--resume")
        assert code == 0, f"after operation {number}: {process.err}"
        assert_same(run, reference)
    assert died > 30
