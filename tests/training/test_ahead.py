"""Steps collected ahead: never by older weights than said, and nothing lost whatever happens.

Who waits for whom is settled by events, not by the clock: a wait that runs out is the fault.
"""

import _thread
import json
import shutil
import threading
import time
from contextlib import closing

import pytest
import torch

from agents.episode import read_episodes
from ovd_envs.errors import OVDError
from teachers.demonstrators import scripted_demonstrator
from teachers.protocol import JudgeStopError
from teachers.registry import demonstrators, judges
from teachers.step_judge import StepJudge
from tests.training.beside import PATIENCE, Beside, OneByOne, register
from tests.training.conftest import tiny_config
from tests.training.made import group_of
from training.ahead import AheadCollector
from training.checkpoint import write_checkpoint
from training.config import ConfigError, parse_config
from training.learner import Learner
from training.run import Run
from training.staleness import StaleError, check_staleness
from training.trainer import Trainer

STEPS = 6


def trainer_of(student_folder, folder, *, n=1, resume=False, reporter=None, **changes):
    rollout = {"max_staleness": n, **changes.pop("rollout", {})}
    config = tiny_config(student_folder, backend="beside", rollout=rollout, **changes)
    return Trainer(parse_config(config), folder, resume=resume, reporter=reporter)


def versions(groups):
    return {turn.version for g in groups for j in g.student for turn in j.episode.turns}


def collecting():
    return [t for t in threading.enumerate() if t.name == "collector"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert collecting() == []


def slow_learner(monkeypatch, before):
    """Let ``before(step)`` happen within each step of the learner."""
    step = Learner.step

    def waiting(self, rows, number):
        before(number)
        return step(self, rows, number)

    monkeypatch.setattr(Learner, "step", waiting)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_steps_are_collected_while_others_are_learned(student_folder, tmp_path, monkeypatch, n):
    """A step is learned only when the n after it were collected: alone, it would wait for ever.

    Also where the collecting thread is slow to wake: it gets the weights before they change again.
    """
    register()
    begin = AheadCollector._begin
    monkeypatch.setattr(
        AheadCollector, "_begin", lambda self, step: (time.sleep(0.05), begin(self, step))
    )
    run = Run(tmp_path / "run")
    there = threading.Condition()
    save = Run.save_groups

    def saved(self, step, groups):
        save(self, step, groups)
        with there:
            there.notify_all()

    def ahead(step):
        wanted = range(step, min(step + n, STEPS) + 1)
        with there:
            assert there.wait_for(
                lambda: all(run._step_file(s).is_file() for s in wanted), PATIENCE
            ), f"step {step} is learned, and of {list(wanted)} not all are collected"

    monkeypatch.setattr(Run, "save_groups", saved)
    slow_learner(monkeypatch, ahead)
    trainer_of(student_folder, run.path, n=n).train()
    for row in run.metrics():
        # Version 0 has sampled the first 1 + n; each later one is begun as soon as it may be.
        stale = min(row["step"] - 1, n)
        assert versions(run.groups(row["step"])) == {row["step"] - 1 - stale}
        assert (row["staleness_mean"], row["staleness_max"]) == (stale, stale)
    # Older weights are another policy: the difference is logged, and corrected for.
    mismatch = [row["sampler_mismatch"] for row in run.metrics()]
    assert mismatch[0] < 1e-4 < 1e-3 < min(mismatch[n:])


@pytest.mark.parametrize("n", [0, 1, 3])
def test_nothing_is_older_than_said_and_evaluations_are_exact(student_folder, tmp_path, n):
    """However the threads run: also where the collector is the slower one."""
    trainers = []

    def hears(thread, requests):
        [trainer] = trainers
        if {request.key[1] for request in requests} == {0}:  # an evaluation
            assert thread == "MainThread"
            ours, theirs = trainer.sampler.model, trainer.learner.model
            for name, weight in theirs.state_dict().items():
                assert torch.equal(ours.state_dict()[name], weight), name

    made = register(hears)
    evaluation = {"every": 1}
    trainers.append(trainer_of(student_folder, tmp_path / "run", n=n, evaluation=evaluation))
    trainers[0].train()
    run = trainers[0].run
    for row in run.metrics():
        step = row["step"]
        found = versions(run.groups(step))
        assert len(found) == 1, "new weights within a rollout"
        assert step - 1 - n <= min(found) <= step - 1
        assert row["staleness_max"] == step - 1 - min(found)
        assert row["judge_errors"] == row["episode_errors"] == 0
    for step in range(STEPS + 1):
        episodes = list(read_episodes(run.evaluation_episodes(step)))
        assert {turn.version for episode in episodes for turn in episode.turns} == {step}
        assert not any(episode.error for episode in episodes)
    followed = [version for what, version in made[0].done if what == "follow"]
    assert followed == sorted(set(followed))


def test_without_staleness_the_numbers_are_those_of_transformers(student_folder, tmp_path):
    """The sampler beside the model, in step with it, is the model."""
    register()
    names = ("reward", "loss", "grad_norm", "sampled_tokens")
    rows = []
    for name in ("beside", "transformers"):
        config = tiny_config(student_folder, backend=name)
        trainer = Trainer(parse_config(config), tmp_path / name)
        trainer.train()
        rows.append([[row[key] for key in names] for row in trainer.run.metrics()])
    torch.testing.assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), rtol=1e-3, atol=1e-4)


def test_the_learner_and_the_collector_read_with_tokenizers_of_their_own(student_folder, tmp_path):
    """A tokenizer keeps in itself whether a text may spell control tokens."""
    register()
    trainer = trainer_of(student_folder, tmp_path / "run", optimizer={"steps": 1})
    trainer.train()
    assert trainer.dialect.tokenizer is not trainer.sampler.dialect.tokenizer
    assert type(trainer.dialect) is type(trainer.sampler.dialect)
    assert trainer.dialect.stop_ids == trainer.sampler.dialect.stop_ids


@pytest.mark.parametrize("n", [1, 2])
def test_weights_are_not_copied_while_they_change(student_folder, tmp_path, monkeypatch, n):
    """A copy takes its while; no step of the learner, and no checkpoint, begins within it."""
    changing, faults = threading.Event(), []

    class Slow(Beside):
        def follow(self, model, version):
            if changing.is_set():
                faults.append(f"version {version} is copied while the weights change")
            if changing.wait(0.05):
                faults.append(f"the weights change while version {version} is copied")
            super().follow(model, version)

    def busy(function):
        def wrapper(*arguments):
            changing.set()
            try:
                return function(*arguments)
            finally:
                changing.clear()

        return wrapper

    register(kind=Slow)
    monkeypatch.setattr(Learner, "step", busy(Learner.step))
    monkeypatch.setattr("training.trainer.write_checkpoint", busy(write_checkpoint))
    trainer_of(student_folder, tmp_path / "run", n=n, checkpoint={"every": 1}).train()
    assert faults == []


def test_weights_that_are_fresh_enough_are_kept_while_the_newest_change(
    student_folder, tmp_path, monkeypatch
):
    """Step 4 may be sampled by version 0: it does not wait for the step that is learned."""
    learning = threading.Event()
    sampling = {3: threading.Event(), 4: threading.Event()}

    def hears(thread, requests):
        step = requests[0].key[1]
        if step in sampling:
            sampling[step].set()
        if step == 3:  # begun by version 0, and under way until step 2 is learned
            assert learning.wait(PATIENCE)

    def before(step):
        if step == 1:
            assert sampling[3].wait(PATIENCE)
        elif step == 2:
            learning.set()
            assert sampling[4].wait(PATIENCE)

    register(hears)
    slow_learner(monkeypatch, before)
    trainer = trainer_of(student_folder, tmp_path / "run", n=3)
    trainer.train()
    assert [versions(trainer.run.groups(step)) for step in (1, 2, 3, 4)] == [{0}] * 4


# Staleness


def test_staleness_is_counted_turn_by_turn():
    groups = [group_of([0, 1], number=n) for n in range(2)]
    for group in groups:
        for judged in group.student:
            judged.episode.turns[0].version = 5
    assert check_staleness(groups, 6, 0) == {"staleness_mean": 0, "staleness_max": 0}
    groups[1].student[1].episode.turns[0].version = 3
    assert check_staleness(groups, 6, 2) == {"staleness_mean": 0.5, "staleness_max": 2}
    assert check_staleness([], 6, 2) == {"staleness_mean": 0, "staleness_max": 0}
    with pytest.raises(
        StaleError,
        match=r"^step 6, episode '.*:1-1:1', turn 0: sampled by version 3 of the weights, "
        r"expected 4 to 5 \(rollout.max_staleness is 1\)$",
    ):
        check_staleness(groups, 6, 1)
    with pytest.raises(StaleError, match="version 5 of the weights, expected 2 to 4"):
        check_staleness(groups, 5, 2)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_sampler_that_keeps_its_old_weights_is_found_out(student_folder, tmp_path, n):
    class Deaf(Beside):
        def follow(self, model, version):
            """Nothing: its replies go on to say version 0."""

    register(kind=Deaf)
    trainer = trainer_of(student_folder, tmp_path / "run", n=n, evaluation={"tasks": 0})
    with pytest.raises(StaleError, match=f"^step {n + 2}, episode .* turn 0: .* version 0 of"):
        trainer.train()
    assert [row["step"] for row in trainer.run.metrics()] == list(range(1, n + 2))


def test_a_collector_that_runs_too_far_ahead_is_found_out(student_folder, tmp_path, monkeypatch):
    register()
    monkeypatch.setattr(AheadCollector, "_may_begin", lambda self, step: not self._evaluation)
    slow_learner(monkeypatch, lambda step: collected.wait(PATIENCE))
    collected = threading.Event()
    save = Run.save_groups

    def saved(self, step, groups):
        save(self, step, groups)
        if step == STEPS:
            collected.set()

    monkeypatch.setattr(Run, "save_groups", saved)
    with pytest.raises(StaleError, match=r"^step 3, "):
        trainer_of(student_folder, tmp_path / "run", n=1).train()


# What goes wrong


class Failing:
    """A demonstrator that fails at a step, until it is ``mended``."""

    name = "failing"
    mended = False

    def __init__(self, step=3, bug=False):
        self.step, self.bug = step, bug

    def demonstrate(self, env, requests, env_options=None):
        if requests[0][1][1] == self.step and not Failing.mended:
            raise RuntimeError("a bug") if self.bug else OVDError("the teacher has left")
        return scripted_demonstrator().demonstrate(env, requests, env_options)


demonstrators.register("failing", Failing, "for tests")


@pytest.mark.parametrize("bug", [False, True])
@pytest.mark.parametrize("step", [1, 3, STEPS])
def test_what_the_collector_raises_is_raised_at_its_step(student_folder, tmp_path, step, bug):
    register()
    spec = {"name": "failing", "step": step, "bug": bug}
    trainer = trainer_of(student_folder, tmp_path / "run", n=2, demonstrator=spec)
    with pytest.raises(RuntimeError if bug else OVDError) as raised:
        trainer.train()
    assert str(raised.value) == ("a bug" if bug else "the teacher has left")
    # What was collected before is learned from, as without a thread.
    assert [row["step"] for row in trainer.run.metrics()] == list(range(1, step))


def test_what_the_learner_raises_ends_the_collector(student_folder, tmp_path):
    register()
    with pytest.raises(OVDError, match=r"are not numbers|norm is nan"):
        trainer_of(
            student_folder, tmp_path / "run", optimizer={"learning_rate": 1e38, "kl": 0}
        ).train()


def kept(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "steps").iterdir())}


def test_ctrl_c_while_the_student_acts_loses_nothing_that_was_saved(student_folder, tmp_path):
    """The main thread waits for step 4, whose first reply brings Ctrl-C."""
    stopped = threading.Event()

    def hears(thread, requests):
        if requests[0].key[1] == 4 and not stopped.is_set():
            stopped.set()
            _thread.interrupt_main()

    made = register(hears)
    folder = tmp_path / "run"
    rollout = {"batch_size": 1}  # batches of one: it stops between two of them
    with pytest.raises(KeyboardInterrupt):
        trainer_of(student_folder, folder, rollout=rollout).train()
    before, steps = kept(folder), [row["step"] for row in Run(folder).metrics()]
    assert list(before) == [f"step-00000{n}.jsonl" for n in (1, 2, 3)]
    assert [step for what, step in made[0].done if (what, step) == ("sample", 4)] == [4]
    assert not list(folder.rglob(".*.jsonl*"))

    trainer = trainer_of(student_folder, folder, rollout=rollout, resume=True)
    trainer.train()
    assert {name: data for name, data in kept(folder).items() if name in before} == before
    assert [row["step"] for row in trainer.run.metrics()] == list(range(1, STEPS + 1))
    assert trainer.run.metrics()[: len(steps)] == Run(folder).metrics()[: len(steps)]
    assert ("sample", 3) not in made[1].done


def test_ctrl_c_while_the_learner_learns(student_folder, tmp_path, monkeypatch):
    """The collector acts for step 3 meanwhile, and ends."""
    acting, interrupted = threading.Event(), threading.Event()

    def hears(thread, requests):
        if requests[0].key[1] == 3:
            acting.set()
            assert interrupted.wait(PATIENCE)

    def before(step):
        if step == 2:
            assert acting.wait(PATIENCE)
            interrupted.set()
            raise KeyboardInterrupt

    register(hears)
    with monkeypatch.context() as patch:
        slow_learner(patch, before)
        with pytest.raises(KeyboardInterrupt):
            trainer_of(student_folder, tmp_path / "run").train()
    run = Run(tmp_path / "run")
    assert [row["step"] for row in run.metrics()] == [1]
    trainer_of(student_folder, run.path, resume=True).train()
    assert len(run.metrics()) == STEPS


class Away(StepJudge):
    """A judge that waits for an outage to end; its first question brings Ctrl-C."""

    halted = threading.Event()

    def judge(self, episodes):
        _thread.interrupt_main()
        Away.halted.wait(PATIENCE)
        raise JudgeStopError("nothing more is asked")

    def halt(self):
        Away.halted.set()


judges.register("away", Away, "for tests")


@pytest.mark.parametrize("kind", [Beside, OneByOne])
def test_ctrl_c_does_not_wait_for_an_outage_of_the_judge_to_end(student_folder, tmp_path, kind):
    """As without a thread: who waits for the judge is not who hears of Ctrl-C."""
    Away.halted.clear()
    made = register(kind=kind)
    trainer = trainer_of(student_folder, tmp_path / "run", judge="away", evaluation={"tasks": 0})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    if kind is OneByOne:
        made[0].pool.shutdown()
    assert Away.halted.is_set()
    assert not (trainer.run.path / "steps").exists()


# Going on


def test_kept_groups_are_used_again_unless_they_are_too_old(student_folder, tmp_path, monkeypatch):
    """A run with the checkpoint of step 2, and the groups of steps 3 and 4, one of them stale."""
    register()
    folder = tmp_path / "run"
    changes = {"demonstrator": {"name": "failing", "step": 5}, "checkpoint": {"keep": 2}, "n": 2}
    with pytest.raises(OVDError, match="the teacher has left"):
        trainer_of(student_folder, folder, **changes).train()
    run, before = Run(folder), kept(folder)
    assert list(before) == [f"step-00000{n}.jsonl" for n in (1, 2, 3, 4)]
    # As if the kill had come while step 3 was learned.
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(lines[:2]))
    shutil.rmtree(folder / "checkpoints/step-000004")
    rows = [json.loads(line) for line in before["step-000004.jsonl"].splitlines()]
    rows[0]["student"][0]["episode"]["turns"][0]["version"] = 0
    (folder / "steps/step-000004.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    made = register()
    monkeypatch.setattr(Failing, "mended", True)
    trainer_of(student_folder, folder, resume=True, **changes).train()
    after = kept(folder)
    assert after["step-000003.jsonl"] == before["step-000003.jsonl"]
    assert after["step-000004.jsonl"] != before["step-000004.jsonl"]
    sampled = {step for what, step in made[0].done if what == "sample"}
    assert sampled == {0, 4, 5, 6}  # 0: the evaluations
    assert min(versions(run.groups(4))) >= 1
    assert [row["step"] for row in run.metrics()] == list(range(1, STEPS + 1))


# Judging while others act


class Prompt(StepJudge):
    """A step judge that tells an event of its first question."""

    first = threading.Event()

    def judge(self, episodes):
        Prompt.first.set()
        return super().judge(episodes)


judges.register("prompt", Prompt, "for tests")


@pytest.mark.parametrize("n", [0, 1])
def test_a_group_is_judged_while_others_act(student_folder, tmp_path, n):
    """The last episode of step 1 waits for the judge to have read another group."""
    held = []
    Prompt.first.clear()

    def hears(thread, requests):
        if requests[0].key[1:4] == (1, 1, 1):
            held.append(Prompt.first.wait(PATIENCE))

    [one] = [register(hears, kind=OneByOne)]
    folder = tmp_path / "run"
    trainer = trainer_of(student_folder, folder, n=n, judge="prompt", optimizer={"steps": 2})
    with closing(trainer.env):
        trainer.train()
    one[0].pool.shutdown()
    assert held == [True]
    for step in (1, 2):
        groups = trainer.run.groups(step)
        assert [[j.episode.seed[1:] for j in g.student] for g in groups] == [
            [(step, p, i) for i in range(2)] for p in range(2)
        ]
        for group in groups:
            said = StepJudge().judge([judged.episode for judged in group.student])
            assert [j.verdict.score for j in group.student] == [v.score for v in said]
            assert all(j.verdict.episode == j.episode.id for j in group.student)


# Configuration, and what a person sees


def test_what_cannot_be_is_refused_in_one_line(student_folder):
    def refused(**changes):
        with pytest.raises(ConfigError) as raised:
            parse_config(tiny_config(student_folder, **changes))
        return str(raised.value)

    assert refused(rollout={"max_staleness": 1}) == (
        "config: rollout.max_staleness: expected 0 with backend transformers, whose model is the "
        "very one that learns, got 1; vllm and vllm-server sample beside it"
    )
    said = refused(backend="vllm", rollout={"max_staleness": -1})
    assert "rollout.max_staleness" in said
    said = refused(backend="vllm", rollout={"max_staleness": 1}, optimizer={"importance_cap": None})
    assert said.startswith("config: optimizer.importance_cap: expected a number of at least 1 (")
    assert "rollout.max_staleness" in said
    assert parse_config(tiny_config(student_folder)).rollout.max_staleness == 0


class Listener:
    """A reporter that remembers what it was told, and that no other thread speaks out of turn."""

    def __init__(self):
        self.phases, self.steps = [], []
        self.acting = threading.Event()

    def phase(self, name, total):
        self.phases.append([name, total, 0])
        if name == "acting":
            self.acting.set()

    def advance(self):
        self.phases[-1][2] += 1
        assert self.phases[-1][2] <= self.phases[-1][1]

    def stepped(self, metrics):
        self.steps.append(metrics["step"])

    def evaluated(self, result):
        pass


def test_the_collector_is_heard_while_it_is_waited_for(student_folder, tmp_path):
    listener = Listener()

    def hears(thread, requests):
        if requests[0].key[1] == 1:  # what is under way when the waiting begins is told as well
            assert listener.acting.wait(PATIENCE)

    register(hears)
    trainer_of(student_folder, tmp_path / "run", n=2, reporter=listener).train()
    assert listener.steps == list(range(1, STEPS + 1))
    assert next(p for p in listener.phases if p[0] == "acting") == ["acting", 4, 4]
    learning = [p for p in listener.phases if p[0] in ("learning", "saving", "evaluating")]
    assert {tuple(p[1:]) for p in learning} == {(0, 0), (3, 3)}
