"""The whole loop on a tiny student: what it writes, whom it asks, and what it never trains on."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.chat_dialect import ChatDialect
from agents.episode import read_episodes
from agents.transformers_backend import TransformersBackend
from ovd_envs.errors import OVDError
from ovd_envs.math_tasks import ArithmeticTasks
from ovd_envs.task import ListTasks, Task
from teachers.demonstrators import scripted_demonstrator
from teachers.registry import demonstrators, judges
from teachers.step_judge import StepJudge
from teachers.verdict import Verdict
from tests.training.conftest import tiny_config
from training.algorithms import GRPO, SFT
from training.commands import _run_student
from training.config import ConfigError, parse_config
from training.learner import Learner
from training.registry import algorithms
from training.run import Run, RunError
from training.task_order import training_tasks
from training.trainer import Trainer


class Listener:
    """A reporter that remembers."""

    def __init__(self):
        self.phases, self.steps, self.evaluations = [], [], []

    def phase(self, name, total):
        self.phases.append([name, total, 0])

    def advance(self):
        self.phases[-1][2] += 1

    def stepped(self, metrics):
        self.steps.append(metrics)

    def evaluated(self, result):
        self.evaluations.append(result)


def train(model, folder, *, reporter=None, **changes):
    named = {"student": changes.pop("student")} if "student" in changes else {}
    config = {**tiny_config(model, **changes), **named}
    trainer = Trainer(parse_config(config), folder, reporter=reporter)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def trained(student_folder, tmp_path_factory):
    """A run of six steps with every option that has a trace in the metrics; (trainer, listener)."""
    listener = Listener()
    folder = tmp_path_factory.mktemp("trained") / "run"
    trainer = train(
        student_folder,
        folder,
        reporter=listener,
        rollout={"temperature": 0.7, "tasks_per_step": 4},
        checkpoint={"keep": 2},
    )
    return trainer, listener


def test_the_run_folder(trained):
    run = trained[0].run
    names = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    expected = {".lock", "config.yaml", "run.json", "metrics.jsonl", "summary.json"}
    expected |= {f"steps/step-00000{step}.jsonl" for step in range(1, 7)}
    expected |= {f"evaluations/step-00000{n}.{e}" for n in (0, 3, 6) for e in ("json", "jsonl")}
    for step in (4, 6):  # keep: 2
        expected |= {
            f"checkpoints/step-00000{step}/{name}"
            for name in ("optimizer.safetensors", "state.json")
        }
    assert expected <= names
    rest = {n for n in names - expected if "/model/" not in n}
    assert rest == set()
    assert not any(name.endswith((".bin", ".pt", ".pkl", ".py")) for name in names)
    facts = run.facts()
    assert (facts["dtype"], facts["threads"], facts["device"]) == ("float32", 1, "cpu")
    assert facts["versions"]["torch"] == torch.__version__
    assert run.config() == trained[0].config


def test_the_metrics(trained):
    trainer, listener = trained
    rows = trainer.run.metrics()
    assert rows == listener.steps
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert set(row) >= {
            "reward",
            "alpha",
            "score",
            "loss",
            "kl",
            "entropy",
            "clip_fraction",
            "grad_norm",
            "learning_rate",
            "sampler_mismatch",
            "teacher_token_share",
            "groups_without_advantage",
            "judge_errors",
            "demonstrator_errors",
            "episode_errors",
            "demonstrations_not_better",
            "teacher_episodes",
            "student_episodes",
            "time",
        }
        assert row["student_episodes"] == 8
        assert row["teacher_episodes"] == 8  # a tiny student answers nothing
        assert row["alpha"] == row["reward"] == 0
        assert row["row_weight"] == 16  # keep_rejected: both are in the group
        assert 0 < row["teacher_token_share"] < 1
        assert row["sampled_tokens"] <= 8 * 6
        assert row["time"]["tokens_per_second"] > 0
        assert all(math.isfinite(row[name]) for name in ("loss", "kl", "entropy", "grad_norm"))
    assert rows[0]["kl"] == 0
    assert rows[-1]["kl"] > 0
    assert rows[0]["learning_rate"] == 3e-3


def test_what_was_sampled_is_what_is_trained_on(trained):
    """The trainer's own forward finds the sampler's log-probabilities, at its temperature."""
    for row in trained[0].run.metrics():
        assert row["sampler_mismatch"] < 1e-4


def test_the_reporter_hears_of_every_part(trained):
    listener = trained[1]
    per_step = [
        ["acting", 8, 8],
        ["judging", 8, 8],
        ["demonstrating", 8],
        ["learning", 0, 0],
    ]
    names = [phase[0] for phase in listener.phases]
    assert names.count("evaluating") == 3
    assert names.count("saving") == 3
    for wanted in per_step:
        found = [phase for phase in listener.phases if phase[0] == wanted[0]]
        assert [phase[: len(wanted)] for phase in found] == [wanted] * 6
    assert [result["step"] for result in listener.evaluations] == [0, 3, 6]


def test_the_summary(trained):
    trainer = trained[0]
    summary = json.loads((trainer.run.path / "summary.json").read_text())
    assert summary == trainer.run.summary()
    assert summary.keys() == {
        "before",
        "after",
        "train_seconds",
        "steps",
        "student_episodes",
        "teacher_episodes",
    }
    for name in ("before", "after"):
        assert summary[name]["n"] == 3
        assert summary[name]["interval"] == pytest.approx([0, 0.5614970])
    assert (summary["steps"], summary["student_episodes"]) == (6, 48)
    assert summary["teacher_episodes"] == 48
    assert summary["train_seconds"] > 0


def test_plain_transformers_loads_a_checkpoint(trained):
    trainer = trained[0]
    place = trainer.run.latest_model()
    assert place.parent.name == "step-000006"
    model = AutoModelForCausalLM.from_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    assert model.dtype == torch.float32
    for name, weight in trainer.learner.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    dialect = trainer.sampler.dialect
    assert ChatDialect(tokenizer).open("What is 1 + 1?") == dialect.open("What is 1 + 1?")
    moments = load_file(place.parent / "optimizer.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in moments.values())
    assert len(moments) == 4 * len(trainer.learner.masters)


def test_held_out_questions_are_never_trained(trained):
    """By the unordered pair: 58 + 37 is not new to who has seen 37 + 58."""
    run = trained[0].run

    def pairs(tasks):
        return {frozenset(task.metadata["operands"]) for task in tasks}

    seen = pairs(group.task for step in range(1, 7) for group in run.groups(step) or [])
    held_out = pairs(e.task for e in read_episodes(run.evaluation_episodes(0)))
    assert len(seen) >= 20
    assert len(held_out) == 3
    assert not seen & held_out
    split = {e.task.id.split("/")[1] for e in read_episodes(run.evaluation_episodes(0))}
    assert split == {"test"}
    # And none of the whole split, however long one trains.
    tasks = ArithmeticTasks("addition")
    everything = pairs(tasks.iterate("train"))
    test = tasks.distinct("test", 200)
    assert len(pairs(test)) == 200
    assert not everything & pairs(test)
    # Every evaluation asks the same.
    for step in (3, 6):
        again = pairs(e.task for e in read_episodes(run.evaluation_episodes(step)))
        assert again == held_out


def test_every_step_asks_other_questions(trained):
    run = trained[0].run
    asked = [group.task.question for step in range(1, 7) for group in run.groups(step) or []]
    assert len(set(asked)) == len(asked) == 24


def test_groups_are_kept_whole(trained):
    run, config = trained[0].run, trained[0].config
    for group in run.groups(1) or []:
        assert len(group.student) == config.rollout.group_size
        for slot, judged in enumerate(group.student):
            assert judged.verdict.episode == judged.episode.id
            assert judged.episode.task == group.task
            assert group.teacher[slot].task == group.task
            assert group.teacher[slot].seed == judged.episode.seed
            assert group.teacher[slot].reward == 1


# Other runs


def test_the_same_seed_gives_the_same_run_and_another_one_another(student_folder, tmp_path):
    runs = [
        train(student_folder, tmp_path / str(n), optimizer={"steps": 2}, seed=seed)
        for n, seed in enumerate((0, 0, 1))
    ]
    weights = [run.learner.state() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_without_evaluation(student_folder, tmp_path):
    trainer = train(
        student_folder, tmp_path / "run", evaluation={"tasks": 0}, optimizer={"steps": 1}
    )
    summary = trainer.run.summary()
    assert summary["before"] is summary["after"] is None
    assert summary["steps"] == 1
    assert not (tmp_path / "run" / "evaluations").exists()
    with pytest.raises(RunError, match="a run is here already"):
        train(student_folder, tmp_path / "run", optimizer={"steps": 1})


def test_a_run_goes_on_where_it_began_though_there_is_a_gpu_now(tmp_path, monkeypatch):
    config, run = parse_config(tiny_config(tmp_path)), Run(tmp_path / "run")
    run.create(config, {"dtype": "float32", "threads": 1, "device": "cpu"})
    run.save_groups(1, [])
    asked = []

    def load(*_, dtype, device):
        asked.append(device)
        raise OVDError("enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("training.trainer.load_trainable", load)
    with pytest.raises(OVDError, match="enough"):
        Trainer(config, run.path, resume=True).train()
    assert asked == ["cpu"]


def test_the_tokens_that_an_episode_may_sample_are_bounded(student_folder, tmp_path):
    trainer = train(
        student_folder,
        tmp_path / "run",
        rollout={"max_episode_tokens": 8, "max_tokens": 6},
        env_options={"attempts": 9},
        optimizer={"steps": 1},
    )
    episodes = [j.episode for g in trainer.run.groups(1) for j in g.student]
    episodes += read_episodes(trainer.run.evaluation_episodes(1))
    assert {e.num_sampled_tokens for e in episodes} == {8}
    assert {e.end_reason for e in episodes} == {"token_limit"}
    # Who evaluates the run later does so with the same budget.
    assert _run_student(str(trainer.run.path)).max_episode_tokens == 8


class Moody:
    """A step judge that answers in reverse order, and fails on every third episode."""

    name = "moody"

    def __init__(self, fails=True):
        self.fails = fails

    def judge(self, episodes):
        verdicts = StepJudge().judge(episodes)
        if self.fails:
            for n in range(0, len(verdicts), 3):
                verdicts[n] = Verdict(
                    episode=episodes[n].id, judge="moody", score=None, error="no reply"
                )
        return verdicts[::-1]


class Careless:
    """A demonstrator that gives back its episodes in another order, or too few, or broken ones."""

    name = "careless"

    def __init__(self, fault="order"):
        self.fault = fault

    def demonstrate(self, env, requests, env_options=None):
        episodes = scripted_demonstrator().demonstrate(env, requests, env_options)
        if self.fault == "few":
            return episodes[1:]
        if self.fault == "broken":
            for episode in episodes[::2]:
                episode.error, episode.end_reason = "down", "error"
            return episodes
        return episodes[::-1]


class Keen:
    """An algorithm of a user's own, without pydantic: GRPO on groups of which it asks nothing."""

    needs_judge = needs_demonstrator = False

    def __init__(self, gain=1.0):
        self.gain = gain

    def slots(self, group):
        return []

    def rows(self, groups, dialect):
        for group in groups:
            group.student[0].episode.reward = self.gain
        return GRPO(scale="none").rows(groups, dialect)


@pytest.fixture(autouse=True)
def _registered():
    for registry, name, target in (
        (judges, "moody", Moody),
        (demonstrators, "careless", Careless),
        (algorithms, "keen", Keen),
    ):
        registry.register(name, target, "for tests")


def test_a_judge_that_fails_on_some_stops_nothing(student_folder, tmp_path):
    trainer = train(student_folder, tmp_path / "run", judge="moody", optimizer={"steps": 2})
    for row in trainer.run.metrics():
        assert row["judge_errors"] == 2
        assert row["teacher_episodes"] == 2  # none in the place of an episode without a score
        assert row["student_episodes"] == 4
    # Two groups of two, of which one episode each has no score: fewer than two are left.
    assert row["rows"] == 0
    assert row["groups_without_advantage"] == 2
    assert row["loss"] == 0


def test_the_order_of_verdicts_is_nothing(student_folder, tmp_path):
    judge = {"name": "moody", "fails": False}
    one, other = (
        train(student_folder, tmp_path / name, judge=spec, optimizer={"steps": 2})
        for name, spec in (("one", "steps"), ("other", judge))
    )
    plain = [
        [{k: v for k, v in row.items() if k != "time"} for row in t.run.metrics()]
        for t in (one, other)
    ]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("fault", ["order", "few"])
def test_a_demonstrator_that_mixes_up_its_tasks_is_refused(student_folder, tmp_path, fault):
    with pytest.raises(OVDError, match="demonstrator 'careless'"):
        train(student_folder, tmp_path / "run", demonstrator={"name": "careless", "fault": fault})


def test_a_demonstrator_that_fails_is_counted(student_folder, tmp_path):
    spec = {"name": "careless", "fault": "broken"}
    trainer = train(student_folder, tmp_path / "run", demonstrator=spec, optimizer={"steps": 1})
    [row] = trainer.run.metrics()
    assert (row["teacher_episodes"], row["demonstrator_errors"]) == (4, 2)
    assert (row["demonstrations_not_better"], row["row_weight"]) == (0, 6)


def test_imitation_learns_the_same_whether_the_student_acts_or_not(
    student_folder, tmp_path, monkeypatch
):
    """``sft`` lets nobody act: the rows, and so the weights, are those of a run in which it did."""

    class Acting(SFT):
        needs_student = True

    algorithms.register("acting sft", Acting)
    learned, step = [], Learner.step
    asked, generate = [], TransformersBackend.generate

    def learn(self, rows, number):
        learned.append(rows)
        return step(self, rows, number)

    def sample(self, requests):
        asked.append(len(requests))
        return generate(self, requests)

    monkeypatch.setattr(Learner, "step", learn)
    monkeypatch.setattr(TransformersBackend, "generate", sample)
    runs = []
    for name in ("acting sft", "sft"):
        changes = {"algorithm": name, "evaluation": {"tasks": 0}, "optimizer": {"steps": 3}}
        runs.append(train(student_folder, tmp_path / name, **changes).run)
        if name == "acting sft":
            assert sum(asked) == 12
            asked.clear()
    assert asked == []
    assert learned[:3] == learned[3:]
    assert all(learned)
    one, other = (load_file(run.latest_model() / "model.safetensors") for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for acted, imitated in zip(*(run.groups(2) for run in runs), strict=True):
        for slot, shown in imitated.teacher.items():
            # Each place of a group is shown another episode: the wording hangs on the seed.
            assert shown.seed == acted.teacher[slot].seed == acted.student[slot].episode.seed
    for row in runs[1].metrics():
        assert (row["student_episodes"], row["teacher_episodes"], row["reward"]) == (0, 4, None)
        assert row["demonstrations_not_better"] == 0


def test_an_algorithm_of_ones_own(student_folder, tmp_path):
    trainer = train(
        student_folder,
        tmp_path / "run",
        algorithm={"name": "keen", "gain": 2.0},
        judge=None,
        demonstrator=None,
        optimizer={"steps": 1},
    )
    [row] = trainer.run.metrics()
    assert row["alpha"] is row["score"] is None
    assert row["grad_norm"] > 0
    with pytest.raises(ConfigError, match=r"algorithm 'keen': .*unexpected keyword"):
        train(student_folder, tmp_path / "other", algorithm={"name": "keen", "zeal": 2.0})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": None}, "needs a judge"),
        ({"demonstrator": None}, "needs a demonstrator"),
        ({"rollout": {"group_size": 1}}, "algorithm 'ovd' expects at least 2, got 1"),
        ({"algorithm": "grpo", "rollout": {"group_size": 1}}, "rollout.group_size"),
        ({"backend": "openai"}, "nothing can be trained with it"),
        ({"backend": "vlm"}, "did you mean 'vllm'"),
        ({"backend": {"name": "vllm", "rank": 3}}, "backend 'vllm': no option 'rank'"),
        ({"judge": "stepz"}, "no judge 'stepz': did you mean 'steps'?"),
        ({"judge": {"name": "steps", "strict": 1}}, "no option 'strict'"),
        ({"demonstrator": "scriptd"}, "did you mean 'scripted'?"),
        ({"algorithm": "gpro"}, "did you mean 'grpo'?"),
        (
            {"algorithm": {"name": "ovd", "replace": "suffix"}},
            "replace: suffix keeps the turns before the first bad one, but judge 'steps' scores "
            "whole episodes alone",
        ),
        (
            {
                "algorithm": {"name": "ovd", "replace": "suffix"},
                "judge": {"name": "steps", "score_level": "turn"},
                "demonstrator": "careless",
            },
            "replace: suffix needs a demonstrator that goes on from a student's turns",
        ),
        (
            {
                "algorithm": {"name": "ovd", "replace": "suffix"},
                "judge": {"name": "llm", "model": "m", "backend": "openai:http://localhost:1/v1"},
            },
            "judge 'llm' scores whole episodes alone",
        ),
        (
            {
                "algorithm": {"name": "ovd", "replace": "suffix"},
                "judge": {
                    "name": "llm",
                    "model": "m",
                    "backend": "openai:http://localhost:1/v1",
                    "score_level": "turn",
                },
                "demonstrator": "careless",
            },
            "replace: suffix needs a demonstrator that goes on from a student's turns",
        ),
        ({"algorithm": {"name": "ovd", "theta": 12}}, "algorithm: theta: "),
        ({"env": "ovd/Maths-v0"}, "did you mean 'ovd/Math-v0'?"),
        ({"env_options": {"levle": "addition"}}, "did you mean 'level'?"),
        ({"student": "/none/there"}, "model '/none/there'"),
        (
            {"backend": {"name": "transformers", "memory": 0.4}},
            "backend 'transformers': no option 'memory'",
        ),
        (
            {"backend": {"name": "vllm", "dtype": "float32"}},
            "backend 'vllm': dtype is that of the run; expected dtype instead",
        ),
        (
            {"backend": {"name": "vllm-server", "batch_size": 8}},
            "backend 'vllm-server': batch_size is that of the run; expected rollout.batch_size",
        ),
        ({"device": "warp"}, "device: 'warp' cannot be used"),
        ({"optimizer": {"lora": {"targets": ["q_projj"]}}}, "optimizer.lora.targets: ['q_projj']"),
        ({"split": "trian"}, "split"),
        ({"evaluation": {"tasks": 10**6}}, "distinct tasks asked for"),
        ({"rollout": {"tasks_per_step": 10**6}}, "rollout.tasks_per_step: expected at most"),
    ],
)
def test_what_is_not_there_is_named(student_folder, tmp_path, changes, said):
    with pytest.raises(OVDError) as raised:
        train(student_folder, tmp_path / "run", **changes)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_run_that_diverges_says_so_and_keeps_what_it_has(student_folder, tmp_path):
    with pytest.raises(OVDError, match=r"are not numbers|norm is nan"):
        train(student_folder, tmp_path / "run", optimizer={"learning_rate": 1e38, "kl": 0})
    assert [row["step"] for row in Run(tmp_path / "run").metrics()] == [1]


# Adapters


def test_lora_from_checkpoint_to_checkpoint(student_folder, tmp_path):
    """An adapter's checkpoint is loaded by plain transformers, trained on, and made one."""
    ids = torch.tensor([[256, 1, 2, 3]])
    lora = {"lora": {"rank": 2, "alpha": 4}, "steps": 1, "learning_rate": 0.05}

    def logits(model):
        with torch.no_grad():
            return model(ids).logits

    def loaded(trainer):
        return AutoModelForCausalLM.from_pretrained(trainer.run.latest_model())

    first = train(student_folder, tmp_path / "first", optimizer=lora)
    assert torch.equal(logits(loaded(first)), logits(first.learner.model))
    assert not torch.allclose(logits(first.learner.model), logits(first.learner.reference))

    place = first.run.latest_model()
    # The reference is the student as this run found it, its adapter included.
    second = train(place, tmp_path / "second", optimizer=lora)
    assert torch.equal(logits(second.learner.reference), logits(first.learner.model))
    assert torch.equal(logits(loaded(second)), logits(second.learner.model))
    assert second.run.metrics()[0]["kl"] == 0
    assert all("lora_" in name for name in second.learner.masters)

    # All weights: the adapter becomes part of them.
    whole = train(place, tmp_path / "whole", optimizer={**lora, "lora": None})
    torch.testing.assert_close(
        logits(whole.learner.reference), logits(first.learner.model), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(logits(loaded(whole)), logits(whole.learner.model))
    assert not hasattr(loaded(whole), "peft_config")

    with pytest.raises(ConfigError, match=r"rank 2 and alpha 4, got 3 and 4"):
        train(place, tmp_path / "other", optimizer={"lora": {"rank": 3, "alpha": 4}})


# The order of tasks


class Unlimited(ListTasks):
    """Few questions, drawn without end."""

    def __init__(self, questions):
        super().__init__("u", train=[Task(f"u/train/{n}", f"q{n}", ("1",)) for n in questions])

    def size(self, split):
        return None

    def task(self, split, index):
        return self._tasks[split][index % len(self._tasks[split])]


def tasks_of(source, step, **rollout):
    config = parse_config({"student": "s", "env": "e", "rollout": rollout, "seed": 3})
    return [task.id for task in training_tasks(source, config, step)]


def test_a_finite_split_is_gone_through():
    source = ListTasks("t", train=[Task(f"t/train/{n}", f"q{n}", ("1",)) for n in range(10)])
    steps = [tasks_of(source, step, tasks_per_step=5) for step in range(1, 9)]
    epochs = [steps[i] + steps[i + 1] for i in range(0, 8, 2)]
    for epoch in epochs:
        assert len(set(epoch)) == 10
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert steps[3] == tasks_of(source, 4, tasks_per_step=5)


@pytest.mark.parametrize(("size", "count"), [(10, 8), (10, 7), (9, 4), (5, 5), (3, 2)])
def test_no_question_twice_in_a_step_whatever_the_epoch(size, count):
    source = ListTasks("t", train=[Task(f"t/train/{n}", f"q{n}", ("1",)) for n in range(size)])
    seen = set()
    for step in range(1, 40):
        ids = tasks_of(source, step, tasks_per_step=count)
        assert len(set(ids)) == count
        seen |= set(ids)
    assert len(seen) == size


def test_an_unlimited_source_is_drawn_from():
    source = Unlimited(range(12))
    steps = [tasks_of(source, step, tasks_per_step=6) for step in range(1, 20)]
    assert all(len(set(ids)) == 6 for ids in steps)
    assert len({tuple(ids) for ids in steps}) > 10
    assert steps[4] == tasks_of(source, 5, tasks_per_step=6)
    with pytest.raises(ConfigError, match="has not 13 questions"):
        tasks_of(source, 1, tasks_per_step=13)


def test_every_message_tells_which_weights_sampled_it(trained):
    trainer, _ = trained
    for step in (0, 3, 6):
        episodes = read_episodes(trainer.run.evaluation_episodes(step))
        assert {turn.version for episode in episodes for turn in episode.turns} == {step}
