"""Killed at any moment and resumed: the numbers of a run that was never stopped, bit by bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from teachers.cache import content_hash
from tests.teachers.fault_server import FaultServer, free_port
from tests.training.conftest import write_config
from tests.training.ovd_process import ROOT
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
    assert [row["step"] for row in ours["metrics.jsonl"]] == list(
        range(1, len(ours["metrics.jsonl"]) + 1)
    )
    for name in theirs:
        assert ours[name] == theirs[name], name


KINDS = {
    "full": {},
    "two updates": {"optimizer": {"updates_per_step": 2}, "checkpoint": {"every": 4}},
    "lora": {"optimizer": {"lora": {"rank": 2, "alpha": 4}}},
    "bfloat16": {"dtype": "bfloat16"},
    # A tiny student says nothing that can be checked, and does not answer: its last turn is bad.
    "suffix": {
        "env_options": {"attempts": 2},
        "algorithm": {"name": "ovd", "replace": "suffix"},
        "judge": {"name": "steps", "score_level": "turn"},
    },
}


class Runs:
    """A configuration and its run that was never stopped."""

    def __init__(self, ovd, folder, student, kind):
        self.ovd, self.folder = ovd, folder
        self.config = write_config(folder / "tiny.yaml", student, **KINDS[kind])
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
    """The same with two steps, for the test that trains it many times."""
    config = yaml.safe_load(full.config.read_text())
    config["optimizer"]["steps"] = 2
    config["checkpoint"]["every"] = 1
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
    assert died >= 14


@pytest.mark.parametrize("kind", ["lora", "bfloat16", "suffix"])
def test_other_kinds_of_runs_resume_to_the_same_bits_too(runs, kind, tmp_path):
    made = runs(kind)
    for step in (3, 4):  # one replayed from the checkpoint of step 2, one right after that of 4
        run = tmp_path / f"run-{step}"
        process = made.start(run)
        process.wait_for((run / f"steps/step-{step:06d}.jsonl").exists)
        process.signal(signal.SIGKILL)
        assert process.wait() in (-9, 0)
        made.resumes(run)


def stopped_at(full, run, step):
    """A run that was killed when the groups of ``step`` were kept, and not yet the next."""
    process = full.start(run)
    process.wait_for((run / f"steps/step-{step:06d}.jsonl").exists)
    process.signal(signal.SIGKILL)
    process.wait()
    assert not (run / "summary.json").exists()


@pytest.fixture
def stopped(runs, tmp_path):
    """A run with a checkpoint of step 2, killed at step 3 or soon after."""
    stopped_at(runs("full"), tmp_path / "run", 3)
    return tmp_path / "run"


def test_what_was_kept_of_a_step_is_used_and_not_asked_for_again(runs, stopped):
    """A judge need not say the same twice: what it said of a kept step stands."""
    path = stopped / "steps/step-000003.jsonl"
    group, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    group["student"][0]["verdict"]["reason"] = "said once"
    for key, row in group["teacher"].items():
        row["turns"][0]["action"] = f"another demonstration {key}"
    path.write_text("".join(json.dumps(row) + "\n" for row in (group, *rest)))
    kept = path.read_bytes()
    code, process = runs("full").train(stopped, "--resume")
    assert code == 0, process.err
    assert path.read_bytes() == kept
    # It was learned from, too: from here on it is another run.
    theirs = lines(runs("full").reference / "metrics.jsonl")
    assert lines(stopped / "metrics.jsonl")[3:] != theirs[3:]


def test_a_torn_line_of_the_metrics_is_cut_off(runs, stopped):
    whole = Run(stopped).metrics()
    with (stopped / "metrics.jsonl").open("ab") as handle:
        handle.write(b'{"step": 99, "rew')
    # Who only reads sees the whole lines: it may be read while it is written.
    assert Run(stopped).metrics() == whole
    runs("full").resumes(stopped)


def test_a_checkpoint_that_is_half_written_is_not_read(runs, stopped):
    folder = stopped / "checkpoints"
    [(step, _)] = Run(stopped).checkpoints()
    torn = folder / ".writing-abc"
    shutil.copytree(folder / f"step-{step:06d}", torn)
    (torn / "optimizer.safetensors").write_bytes(b"half")
    (torn / "state.json").write_text(json.dumps({"step": 5}))
    assert Run(stopped).checkpoints() == [(step, folder / f"step-{step:06d}")]
    runs("full").resumes(stopped)
    assert not torn.exists()


def test_another_configuration_is_refused_and_named(runs, stopped):
    full, before = runs("full"), contents(stopped)
    for change, said in [
        ("optimizer.learning_rate=0.5", "optimizer.learning_rate is 0.003 in the run and 0.5 here"),
        ("seed=1", "seed is 0 in the run and 1 here"),
        ("algorithm.theta=3", "algorithm.theta"),
        ("optimizer.lora.rank=2", "optimizer.lora"),
        ("demonstrator=null", "demonstrator"),
    ]:
        code, process = full.train(stopped, "--resume", "--set", change)
        assert code == 2
        assert process.err.startswith("error: --resume: ")
        assert said in process.err
        assert process.err.count("\n") == 1
    assert contents(stopped) == before
    full.resumes(stopped)


def test_what_the_run_has_and_the_configuration_has_not_is_named_too(runs, tmp_path, ovd):
    lora = runs("lora")
    config = yaml.safe_load(lora.config.read_text())
    del config["optimizer"]["lora"], config["algorithm"]["keep_rejected"]
    path = tmp_path / "other.yaml"
    for key, expected in (
        ("optimizer", "optimizer.lora"),
        ("algorithm", "algorithm.keep_rejected"),
    ):
        other = {**yaml.safe_load(lora.config.read_text()), key: config[key]}
        path.write_text(yaml.safe_dump(other))
        code, process = ovd.run("train", path, "--run", lora.reference, "--resume")
        assert code == 2
        assert f"error: --resume: {expected}" in process.err


def test_a_run_that_nothing_has_come_of_is_begun_anew(ovd, student_folder, tmp_path):
    """A mistake that shows only once the folder is there does not keep its mended form out."""
    run = tmp_path / "run"
    config = write_config(tmp_path / "tiny.yaml", student_folder, optimizer={"steps": 1})
    code, process = ovd.run("train", config, "--run", run, "--set", "evaluation.tasks=1000000")
    assert code == 2
    assert "distinct tasks asked for" in process.err
    assert (run / "run.json").exists()
    code, process = ovd.run("train", config, "--run", run)
    assert code == 0, process.err
    assert Run(run).config().evaluation.tasks == 3


def test_a_run_is_begun_once(runs):
    full = runs("full")
    before = contents(full.reference)
    code, process = full.train(full.reference)
    assert code == 2
    assert "--resume goes on with it" in process.err
    assert contents(full.reference) == before


def everything(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_resuming_a_finished_run_prints_it_again_and_changes_nothing(runs):
    full = runs("full")
    before = everything(full.reference)
    code, process = full.train(full.reference, "--resume", "--json")
    assert code == 0
    assert json.loads(process.out) == json.loads((full.reference / "summary.json").read_text())
    code, process = full.train(full.reference, "--resume")
    assert code == 0
    assert "on held-out tasks" in process.out
    assert "the same tasks, before and after" in process.out
    assert everything(full.reference) == before


def test_a_second_process_in_the_same_run_is_refused(runs, tmp_path):
    full, run = runs("full"), tmp_path / "run"
    first = full.start(run)
    first.wait_for((run / "run.json").exists)
    first.signal(signal.SIGSTOP)
    try:
        code, process = full.train(run, "--resume")
        assert code == 2
        assert process.err == f"error: {run}: another process is training in this run\n"
    finally:
        first.signal(signal.SIGCONT)
    assert first.wait() == 0
    assert_same(run, full.reference)


def test_ctrl_c_says_how_to_go_on(runs, tmp_path):
    full, run = runs("full"), tmp_path / "run"
    process = full.start(run)
    process.wait_for((run / "steps/step-000003.jsonl").exists)
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert process.err.splitlines()[-1] == (
        f"stopped: all whole steps are in {run}; the same command with --resume goes on"
    )
    assert "Traceback" not in process.err
    full.resumes(run)


def test_an_outage_of_the_judge_stops_and_the_step_is_judged_later(ovd, student_folder, tmp_path):
    """A training that went on without its judge would learn nothing of its steps."""
    port, run = free_port(), tmp_path / "run"
    judge = {
        "name": "llm",
        "model": "m",
        "backend": f"openai:http://127.0.0.1:{port}/v1",
        "patience": 0.5,
        "base_wait": 0.02,
    }
    config = write_config(tmp_path / "tiny.yaml", student_folder, judge=judge)
    code, process = ovd.run("train", config, "--run", run)
    assert code == 2
    assert "did not answer for 0.5 s" in process.err
    assert "the same command with --resume goes on" in process.err.replace("\n", " ")
    assert not (run / "steps").exists()
    server = FaultServer(port=port).start()
    try:
        code, process = ovd.run("train", config, "--run", run, "--resume")
    finally:
        server.stop()
    assert code == 0, process.err
    groups = [group for step in range(1, STEPS + 1) for group in Run(run).groups(step)]
    assert {one.verdict.score for group in groups for one in group.student} == {7}


@pytest.mark.parametrize("answers", [3, 15])  # in the first step; later, after steps to replay
def test_a_verdict_of_the_step_under_way_is_not_asked_for_again(
    ovd, student_folder, tmp_path, answers
):
    """A judge is paid for what it said, whether or not the step came to its end."""
    server, run = FaultServer({"?": ["good"] * answers + ["401"]}).start(), tmp_path / "run"
    judge = {"name": "llm", "model": "m", "backend": f"openai:{server.url}", "concurrency": 1}
    changes = {"judge": judge, "checkpoint": {"every": 10}}
    config = write_config(tmp_path / "tiny.yaml", student_folder, **changes)
    code, process = ovd.run("train", config, "--run", run)
    assert code == 2
    assert "401" in process.err
    assert server.charged.total() == answers
    assert (len(list((run / "steps").glob("*"))) > 1) == (answers > 8)
    code, process = ovd.run("train", config, "--run", run, "--resume")
    server.stop()
    assert code == 0, process.err
    steps = [Run(run).groups(step) for step in range(1, STEPS + 1)]
    different = [
        {content_hash(one.episode) for group in groups for one in group.student} for groups in steps
    ]
    assert server.charged.total() == sum(map(len, different))
    assert not (run / ".verdicts").exists()


def test_a_full_disk_loses_nothing(runs, tmp_path):
    """No file above 64 kB: the groups of the first steps fit, a checkpoint does not."""
    full, run = runs("full"), tmp_path / "run"
    for arguments in ((), ("--resume",)):
        code, process = full.train(run, *arguments, file_size=64_000)
        assert code == 2
        assert process.err.startswith(f"error: {run}/checkpoints/step-000002: cannot be written (")
        assert process.err.count("\n") == 1
        assert [row["step"] for row in lines(run / "metrics.jsonl")] == [1, 2]
        assert not list((run / "checkpoints").iterdir())
    full.resumes(run)


@pytest.mark.parametrize("name", ["config.yaml", "evaluations/step-000000.jsonl"])
def test_a_disk_that_is_full_earlier_loses_nothing(runs, tmp_path, name):
    full, run = runs("full"), tmp_path / "run"
    size = (full.reference / name).stat().st_size
    code, process = full.train(run, file_size=size * 9 // 10)
    assert code == 2
    assert process.err == f"error: {run / name}: cannot be written (File too large)\n"
    full.resumes(run)


@pytest.mark.parametrize(
    ("algorithm", "said"),
    [
        ("ovd", ".verdicts/verdicts.sqlite3: the verdict cache cannot be written (disk I/O error)"),
        ("grpo", "steps/step-000001.jsonl: cannot be written (File too large)"),
    ],
)
def test_a_disk_that_is_full_in_a_step_loses_nothing(
    ovd, student_folder, tmp_path, algorithm, said
):
    changes = {"algorithm": algorithm, "optimizer": {"steps": 1}, "evaluation": {"tasks": 0}}
    config = write_config(tmp_path / "tiny.yaml", student_folder, **changes)
    runs = {name: tmp_path / name for name in ("reference", "full")}
    assert ovd.run("train", config, "--run", runs["reference"])[0] == 0
    code, process = ovd.run("train", config, "--run", runs["full"], file_size=4_000)
    assert code == 2
    assert process.err == f"error: {runs['full']}/{said}\n"
    code, process = ovd.run("train", config, "--run", runs["full"], "--resume")
    assert code == 0, process.err
    assert_same(runs["full"], runs["reference"])


def test_python_m_ovd_gives_the_same_bits_in_any_process(runs, tmp_path, student_folder):
    """A process of its own, with other hashes of strings, and nothing imported beforehand."""
    run, full = tmp_path / "run", runs("full")
    ended = subprocess.run(
        [sys.executable, "-m", "ovd", "train", str(full.config), "--run", str(run)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert_same(run, full.reference)
