import gc
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ovd_envs.errors import OVDError
from teachers import Verdict, make_judge, score
from teachers.program_judge import ProgramJudge
from tests.teachers.conftest import make_episode

ROOT = Path(__file__).resolve().parents[2]

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


# --- a deadline --------------------------------------------------------------------------------

SLOW = """
import os, sys, threading, time

def by_the_word(episode):
    print("said for people")
    if "loop" in episode.answer:
        while True:
            pass
    if "sleep" in episode.answer:
        time.sleep(60)
    if "leave" in episode.answer:
        os._exit(0)
    if "fail" in episode.answer:
        raise KeyError(episode.answer)
    return 6, f"{os.getpid()} {episode.task.id}"
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    (tmp_path / "my_slow_rules.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "my_slow_rules:by_the_word"
    sys.modules.pop("my_slow_rules", None)


def test_a_function_that_hangs_is_killed_and_the_next_episode_judged(slow):
    judge = make_judge("program", function=slow, deadline=1.0)
    said = ["good", "loop", "sleep", "leave", "fail", "good too"]
    began = time.monotonic()
    verdicts = score(judge, [make_episode(text, index=i) for i, text in enumerate(said)])
    assert time.monotonic() - began < 40
    assert [v.score for v in verdicts] == [6, None, None, None, None, 6]
    assert [v.error for v in verdicts[1:4]] == [
        f"{slow}: no answer within 1 s",
        f"{slow}: no answer within 1 s",
        f"{slow}: its process ended",
    ]
    assert verdicts[4].error.startswith(f"{slow} (my_slow_rules.py, line 14): KeyError")
    first, last = (int(v.reason.split()[0]) for v in (verdicts[0], verdicts[5]))
    assert len({first, last, os.getpid()}) == 3
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_process_serves_until_it_has_to_be_killed(slow):
    judge = ProgramJudge(slow, deadline=20)
    first, second = (score(judge, [make_episode("good")])[0] for _ in range(2))
    assert (first.reason, first.judge) == (second.reason, "program")
    process = int(first.reason.split()[0])
    del judge
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


ALONE = """
import sys
from teachers.program_judge import ProgramJudge
from tests.teachers.conftest import make_episode

sys.path.insert(0, sys.argv[1])
ProgramJudge("my_slow_rules:by_the_word", deadline=1.5).judge([make_episode("tell and loop")])
"""


def test_a_hung_function_does_not_outlive_a_judge_that_was_killed(slow, tmp_path):
    rules = tmp_path / "my_slow_rules.py"
    rules.write_text(SLOW + "\nopen(__file__ + '.pid', 'a').write(f'{os.getpid()} ')\n")
    told = tmp_path / "my_slow_rules.py.pid"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", ALONE, str(tmp_path)], env=environment)
    end = time.monotonic() + 60
    while not told.exists() or len(told.read_text().split()) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    child = int(told.read_text().split()[1])  # the parent loads it too
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    os.kill(child, 0)
    while time.monotonic() < end:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(child, 9)
    raise AssertionError("it runs on")


def test_verdicts_are_those_without_a_deadline(module):
    actions = ["a", "abc"]
    asked = [make_episode(a, index=i) for i, a in enumerate(actions)]
    plain = score(ProgramJudge("my_rules:fails"), asked)
    limited = score(ProgramJudge("my_rules:fails", deadline=30), asked)
    assert [(v.score, v.error, v.reason) for v in limited] == [
        (v.score, v.error, v.reason) for v in plain
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"function": "my_rules:plain", "deadline": 0}, "deadline: expected a number of more than"),
        ({"function": "my_rules:plain", "deadline": "5 s"}, "deadline: expected a number"),
        ({"function": len, "deadline": 5}, "deadline: expected the function as module:function"),
    ],
)
def test_a_deadline_that_cannot_be(module, options, told):
    with pytest.raises(OVDError) as raised:
        make_judge("program", **options)
    assert told in str(raised.value)
