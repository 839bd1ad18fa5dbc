import importlib
import sys

import numpy as np
import pytest

from ovd_envs.errors import OVDError
from teachers import Verdict, make_judge, score
from teachers.program_judge import ProgramJudge
from tests.teachers.conftest import make_episode

CODE = """
def plain(episode):
    return len(episode.answer)

def fails(episode):
    return 1 / (len(episode.answer) - 1)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path / "my_rules.py"
    sys.modules.pop("my_rules", None)


def ask(function, *actions):
    return score(ProgramJudge(function), [make_episode(a, index=i) for i, a in enumerate(actions)])


def test_a_function_by_name(module):
    judge = make_judge("program", function="my_rules:plain")
    assert [v.score for v in score(judge, [make_episode("abc")])] == [3]
    assert judge.fingerprint.startswith("program/1 my_rules:plain ")


def test_an_exception_is_an_error_of_that_episode_alone(module):
    first, second = ask("my_rules:fails", "a", "ab")
    assert (
        first.error == "my_rules:fails (my_rules.py, line 6): ZeroDivisionError: division by zero"
    )
    assert second.score == 1


def test_what_a_function_may_say():
    assert ask(lambda e: (7, "good"), "a")[0].reason == "good"
    assert ask(lambda e: np.float32(2.5), "a")[0].score == 2.5
    assert ask(lambda e: Verdict(e.id, "mine", 4), "a")[0].judge == "mine"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "expected a score, (score, reason) or a Verdict, got None"),
        (True, "got True"),
        ("7", "got '7'"),
        ((7, 8), "got (7, 8)"),
        (10, "score must be in 0..9, got 10"),
        (float("nan"), "got nan"),
        (Verdict("another", "mine", 4), "gave a verdict on 'another'"),
    ],
)
def test_anything_else_is_an_error(answer, told):
    [verdict] = ask(lambda e: answer, "a")
    assert verdict.failed
    assert told in verdict.error


def test_a_function_that_ends_the_process_ends_nothing():
    [verdict] = ask(lambda e: sys.exit(3), "a")
    assert "SystemExit: 3" in verdict.error


def test_the_fingerprint_follows_the_text_of_the_file(module):
    first = ProgramJudge("my_rules:plain").fingerprint
    assert ProgramJudge("my_rules:fails").fingerprint != first
    module.write_text(CODE + "\n# changed\n")
    assert ProgramJudge("my_rules:plain").fingerprint not in ("", first)
    assert ProgramJudge(lambda e: 1).fingerprint == ""
    assert ProgramJudge("math:sqrt").fingerprint == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "expected module:function"),
        ("my_rules", "expected module:function"),
        ("no_such_rules:f", "is its folder on PYTHONPATH"),
        ("my_rules:nothing", "my_rules has no 'nothing'"),
        ("my_rules:__name__", "expected a function, got 'my_rules'"),
    ],
)
def test_a_function_that_is_not_there(module, name, told):
    with pytest.raises(OVDError, match=told):
        make_judge("program", function=name)
