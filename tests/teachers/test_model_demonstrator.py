"""A language model as the demonstrator: the best of its attempts, its budget, what runs it."""

import pytest

import agents
from agents import student_source
from agents.protocol import Act
from agents.student import Student
from agents.student_source import StudentSource
from ovd_envs import OVDError, make
from ovd_envs.math_tasks import ArithmeticTasks
from teachers import AgentDemonstrator, StepJudge, Verdict, make_demonstrator
from tests.tiny import tiny_model, tiny_tokenizer

TASK = ArithmeticTasks("addition").task("train", 0)

#: Right without working; wrong; right with its working.
SAID = ("\\boxed{{{a}}}", "\\boxed{{-1}}", "{s} \\boxed{{{a}}}")


class Three:
    """Another message at each attempt."""

    name = "three"

    def act(self, episodes):
        return [Act(self._say(episode)) for episode in episodes]

    def _say(self, episode):
        solution = episode.task.metadata["solution"][0]
        return SAID[episode.seed[-1] % 3].format(a=episode.task.answers[0], s=solution)


class Blank:
    """A judge that fails on what has no working."""

    name = "blank"

    def judge(self, episodes):
        return [
            Verdict(e.id, self.name, 1)
            if "=" in e.answer
            else Verdict(e.id, self.name, None, error="no working")
            for e in episodes
        ]


class Down:
    name = "down"

    def judge(self, episodes):
        raise ConnectionError("nobody there")


@pytest.mark.parametrize(
    ("judge", "attempt"), [(None, 0), (StepJudge(), 2), (Blank(), 2), (Down(), 0)]
)
def test_the_best_is_by_outcome_or_by_verdict(judge, attempt):
    shown = AgentDemonstrator(Three(), attempts=3, judge=judge)
    [episode] = shown.demonstrate("ovd/Math-v0", [(TASK, (0, 0, 0, 4))])
    assert episode.seed[-1] - 12 == attempt
    assert episode.index == 4


def test_a_judge_is_not_asked_where_there_is_nothing_to_choose():
    shown = AgentDemonstrator(Three(), judge=Down())
    [episode] = shown.demonstrate("ovd/Math-v0", [(TASK, (0, 0, 0, 2))])
    assert episode.error is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return str(place)


def test_a_model_acts_within_its_own_budget(folder):
    shown = make_demonstrator(
        "model",
        model=folder,
        attempts=2,
        best_by="verdict",
        judge={"name": "steps", "score_level": "turn"},
        max_tokens=5,
        max_episode_tokens=8,
    )
    assert isinstance(shown.agent, Student)
    assert (shown.judge.name, shown.judge.score_level) == ("steps", "turn")
    [episode] = shown.demonstrate("ovd/Math-v0", [(TASK, (0, 0, 0, 0))], {"attempts": 4})
    assert episode.num_sampled_tokens <= 8
    assert all(len(turn.action.encode()) <= 15 for turn in episode.turns)
    plain = make_demonstrator("model", model=folder)
    assert (plain.agent.max_tokens, plain.agent.max_episode_tokens, plain.judge) == (
        256,
        None,
        None,
    )


def test_it_reads_each_environment_in_that_ones_dialect(folder):
    shown = make_demonstrator("model", model=folder, max_tokens=3)
    stops = shown.agent.backend.dialect.stop_ids
    seen = []
    for env, options in (
        ("ovd/Math-v0", {}),
        ("ovd/WorldQA-v0", {"protocol": "search-r1"}),
        ("ovd/WorldQA-v0", {"protocol": "tags"}),
    ):
        task = make(env, **options).tasks.task("train", 0)
        [episode] = shown.demonstrate(env, [(task, (0, 0, 0, 0))], options)
        assert episode.error is None
        dialect = shown.agent.backend.dialect
        assert dialect.stop_ids >= stops
        assert episode.segments[0].ids[: len(dialect.open(episode.observation))] == dialect.open(
            episode.observation
        )
        seen.append(dialect.name)
    assert seen == ["chat", "inline", "chat"]


def test_a_runs_student_keeps_the_dialect_that_it_learned(folder, monkeypatch):
    source = StudentSource(folder, dialect="chat", max_tokens=3)
    monkeypatch.setattr(student_source, "readers", [lambda name: source])
    shown = make_demonstrator("model", model="runs/any")
    options = {"protocol": "search-r1"}
    task = make("ovd/WorldQA-v0", **options).tasks.task("train", 0)
    shown.demonstrate("ovd/WorldQA-v0", [(task, (0, 0, 0, 0))], options)
    assert shown.agent.backend.dialect.name == "chat"


def test_the_backend_is_that_of_a_student(monkeypatch):
    asked = {}

    def load(model, **options):
        asked.update(options, model=model)
        return Three()

    monkeypatch.setattr(agents, "load_student", load)
    shown = make_demonstrator("model", model="big", backend="openai:http://localhost:1/v1")
    assert shown.name == "big"
    assert (asked["model"], asked["backend"]) == ("big", "openai:http://localhost:1/v1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"best_by": "luck"}, "best_by: expected outcome or verdict, got 'luck'"),
        ({"best_by": "verdict"}, "best_by: verdict goes with a judge"),
        ({"judge": "steps"}, "best_by: verdict goes with a judge"),
        ({"max_tokens": 0}, "max_tokens: expected a whole number of at least 1, got 0"),
        ({"max_episode_tokens": "9"}, "max_episode_tokens: expected a whole number"),
        ({"best_by": "verdict", "judge": {"score_level": "turn"}}, "a mapping with 'name'"),
        ({"best_by": "verdict", "judge": "stepz"}, "did you mean 'steps'"),
        ({"backend": "openai", "max_episode_tokens": 9}, "a chat API gives no tokens to count"),
        ({"backend": "vlm"}, "did you mean 'vllm'"),
        ({"attempts": 0}, "attempts: expected at least 1"),
    ],
)
def test_options_that_cannot_be_are_named(folder, options, said):
    with pytest.raises(OVDError) as raised:
        make_demonstrator("model", model=folder, **options)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
