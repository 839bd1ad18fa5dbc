"""Scores of turns: which turn was bad, as the judges that need no model tell it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ovd_envs
from agents.rollout import rollout
from agents.scripted import ScriptedAgent
from ovd_envs.errors import OVDError
from teachers import PathJudge, StepJudge, Verdict, VerdictCache, VerdictError, make_judge, score
from teachers.cache import verdict_key
from tests.teachers.conftest import make_episode
from training.groups import Judged


def of_math(*messages, **fields):
    [found] = score(StepJudge(score_level="turn"), [make_episode(*messages, **fields)])
    assert not found.failed, found.error
    return found.turns


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([r"37 + 58 = 95. \boxed{95}"], (9,)),
        ([r"37 + 58 = 96. \boxed{96}", r"\boxed{95}"], (0, 8)),
        ([r"30 + 50 = 80, 80 + 7 = 87. \boxed{87}", r"37 + 58 = 95. \boxed{95}"], (4, 9)),
        # Sound working without an answer yet; nothing to check; a wrong step without an answer.
        (["30 + 50 = 80", r"80 + 15 = 95. \boxed{95}"], (7, 9)),
        (["let me think", r"\boxed{95}"], (None, 8)),
        (["30 + 50 = 90", r"\boxed{95}"], (0, 8)),
        # The last turn must answer.
        (["30 + 50 = 80", "80 + 15 = 95"], (7, 3)),
        (["hm", "hm"], (None, 0)),
        ([], ()),
    ],
)
def test_the_turns_of_a_calculation(messages, turns):
    assert of_math(*messages) == turns


def test_what_was_not_read_to_its_end_has_no_score():
    assert of_math("x" * 99_990, r"37 + 58 = 95. \boxed{95}") == (None, None)


def played(*messages, **options):
    """The verdict on an episode of WorldQA in which the messages were said."""
    env = ovd_envs.make("ovd/WorldQA-v0", people=100, hops=2, **options)
    task = env.tasks.task("train", 0)
    said = [message(task) if callable(message) else message for message in messages]
    [episode] = rollout(
        ScriptedAgent(said), "ovd/WorldQA-v0", [task], env_options={"people": 100, "hops": 2}
    )
    [found] = score(PathJudge(score_level="turn"), [episode])
    assert not found.failed, found.error
    return found.turns


def page(number):
    return lambda task: f"<search>{task.metadata['path'][number]['title']}</search>"


def gold(task):
    return f"<answer>{task.answers[0]}</answer>"


def test_the_turns_of_a_search():
    assert played(page(0), page(1), gold) == (9, 9, 9)
    assert played(page(0), page(0), "what now?", page(1), gold) == (9, 2, 0, 9, 9)
    assert played("<search>zzz</search>", page(0), "<answer>no</answer>") == (3, 9, 1)
    assert played(gold) == (1,)  # right, but unsupported
    assert played("<open>9</open>", *[page(0)] * 3, page(0)) == (0, 9, 2, 2, 0)


def test_an_environment_that_does_not_tell_what_each_message_did():
    info = {"searches": [], "opened": [], "answer": None}
    episode = make_episode("a", metadata={"support": ["p"]}, info=info)
    [found] = score(PathJudge(score_level="turn"), [episode])
    assert (found.score, found.turns) == (0, None)


def test_turns_are_scored_on_demand_and_cached_apart(tmp_path):
    cache, episode = VerdictCache(tmp_path), make_episode(r"37 + 58 = 95. \boxed{95}")
    for name in ("steps", "path"):
        episodes, turns = (make_judge(name, score_level=n) for n in ("episode", "turn"))
        assert (episodes.score_level, turns.score_level) == ("episode", "turn")
        assert verdict_key(episodes, "x") != verdict_key(turns, "x")
        assert make_judge(name).fingerprint == episodes.fingerprint
        with pytest.raises(OVDError, match="score_level: expected episode or turn, got 'step'"):
            make_judge(name, score_level="step")
    [plain] = score(StepJudge(), [episode], cache=cache)
    [scored] = score(StepJudge(score_level="turn"), [episode], cache=cache)
    [again] = score(StepJudge(score_level="turn"), [episode], cache=cache)
    assert plain.turns is None
    assert scored.turns == (9,)
    assert again == scored


class Careless:
    """A judge that scores two turns, whatever there are."""

    name = "careless"

    def judge(self, episodes):
        return [Verdict(e.id, self.name, 5, turns=(9, None)) for e in episodes]


def test_scores_of_other_turns_than_there_are_become_no_scores():
    two, three = make_episode("a", "b"), make_episode("a", "b", "c", index=1)
    fitting, other = score(Careless(), [two, three])
    assert fitting.turns == (9, None)
    assert other.failed
    assert "expected scores of 3 turns, got 2" in other.error
    Judged(two, fitting)
    with pytest.raises(VerdictError, match="expected scores of 3 turns"):
        Judged(three, Verdict(three.id, "j", 5, turns=(9, None)))


@given(st.none() | st.lists(st.none() | st.floats(0, 9), max_size=5).map(tuple))
def test_json_and_back(turns):
    verdict = Verdict("e", "j", 5, turns=turns)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


@pytest.mark.parametrize("turns", [(10,), (-1,), (True,), ("7",), (float("nan"),)])
def test_nonsense_is_refused(turns):
    with pytest.raises(VerdictError, match="turn 1"):
        Verdict("e", "j", 5, turns=turns)
    with pytest.raises(VerdictError, match="an error has no scores"):
        Verdict("e", "j", None, error="down", turns=(5,))
    with pytest.raises(VerdictError, match="turns must be a list"):
        Verdict.from_dict({"episode": "e", "judge": "j", "score": 5, "turns": 5})
