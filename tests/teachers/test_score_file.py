"""``ovd score`` and what is under it: verdicts beside the episodes, resumed, never lost."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agents.episode import read_episodes, write_episodes
from ovd_envs.errors import OVDError
from teachers import JudgeStopError, StepJudge, Verdict, VerdictCache, read_verdicts
from teachers.score_file import score_file
from teachers.verdict_log import VerdictLog
from tests.teachers.conftest import make_episode

ROOT = Path(__file__).resolve().parents[2]


class Judge:
    name = "mine"
    fingerprint = "mine/1"
    batch_size = 2

    def __init__(self, fails=(), stops_at=None):
        self.fails = set(fails)
        self.stops_at = stops_at
        self.asked = []

    def judge(self, episodes):
        if self.stops_at in {e.index for e in episodes}:
            raise KeyboardInterrupt
        self.asked += [e.index for e in episodes]
        return [
            Verdict(e.id, self.name, None, error="no reply")
            if e.index in self.fails
            else Verdict(e.id, self.name, e.index % 10, f"number {e.index}")
            for e in episodes
        ]


@pytest.fixture
def folder(tmp_path):
    episodes = [make_episode(f"message {i}", index=i) for i in range(7)]
    write_episodes(tmp_path / "episodes.jsonl", episodes)
    return tmp_path


def run(judge, folder, **options):
    return score_file(judge, folder / "episodes.jsonl", folder / "verdicts.jsonl", **options)


def test_verdicts_in_the_order_of_the_episodes(folder):
    verdicts = run(Judge(), folder)
    assert [v.score for v in verdicts] == list(range(7))
    assert list(read_verdicts(folder / "verdicts.jsonl")) == verdicts


def test_only_what_is_missing_or_failed_is_asked_again(folder):
    first = run(Judge(fails=[2, 5]), folder)
    assert [v.failed for v in first] == [i in (2, 5) for i in range(7)]
    again = Judge()
    told = []
    second = run(again, folder, progress=lambda verdict, new: told.append(new))
    assert again.asked == [2, 5]
    assert [v.score for v in second] == list(range(7))
    assert sum(told) == 2
    assert list(read_verdicts(folder / "verdicts.jsonl")) == second
    third = Judge()
    run(third, folder)
    assert third.asked == []


def test_more_episodes_in_the_file_are_asked_for_alone(folder):
    run(Judge(), folder)
    episodes = [make_episode(f"message {i}", index=i) for i in range(9)]
    write_episodes(folder / "episodes.jsonl", episodes)
    judge = Judge()
    assert [v.score for v in run(judge, folder)] == list(range(9))
    assert judge.asked == [7, 8]


def test_ctrl_c_loses_the_batch_under_way_alone(folder):
    with pytest.raises(KeyboardInterrupt):
        run(Judge(stops_at=4), folder)
    assert [v.score for v in read_verdicts(folder / "verdicts.jsonl")] == [0, 1, 2, 3]
    judge = Judge()
    assert [v.score for v in run(judge, folder)] == list(range(7))
    assert judge.asked == [4, 5, 6]


@pytest.mark.parametrize("how", ["no money", "ctrl-c"])
def test_what_a_failure_has_cost_is_kept_where_it_could_not_be_asked_again(folder, how):
    class Dear(Judge):
        def judge(self, episodes):
            if how == "no money" and self.stops_at == 0:
                raise JudgeStopError("the budget is spent")
            return [replace(v, prompt_tokens=100) for v in super().judge(episodes)]

    first = run(Dear(fails=[2, 5]), folder)
    stop = threading.Event()
    if how == "ctrl-c":
        stop.set()
    with pytest.raises(JudgeStopError if how == "no money" else KeyboardInterrupt):
        run(Dear(stops_at=0), folder, stop=stop)
    assert list(read_verdicts(folder / "verdicts.jsonl")) == first
    verdicts = run(Dear(), folder)
    assert sum(v.prompt_tokens for v in verdicts) == 900


@pytest.mark.parametrize("cut", [1, 10, 30, 100])
def test_a_line_that_a_kill_cut_is_asked_for_again(folder, cut):
    run(Judge(), folder)
    path = folder / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    judge = Judge()
    assert [v.score for v in run(judge, folder)] == list(range(7))
    assert judge.asked == ([] if cut == 1 else [6])


def test_a_file_of_something_else_is_refused_and_stays_as_it_is(folder):
    path = folder / "verdicts.jsonl"
    for content in [b'{"a": 1}\nhalf a li', b"my thesis", b"\x00\x01"]:
        path.write_bytes(content)
        with pytest.raises(OVDError, match="row 1"):
            run(Judge(), folder)
        assert path.read_bytes() == content


def test_the_episodes_are_never_overwritten(folder):
    path = folder / "episodes.jsonl"
    before = path.read_bytes()
    with pytest.raises(OVDError, match="the file of the episodes"):
        score_file(Judge(), path, folder / "." / "episodes.jsonl")
    assert path.read_bytes() == before


def test_verdicts_on_other_episodes_are_refused(folder):
    run(Judge(), folder)
    before = (folder / "verdicts.jsonl").read_bytes()
    write_episodes(folder / "episodes.jsonl", [make_episode("message 0", index=0)])
    with pytest.raises(OVDError, match="row 2: a verdict on 'student:0:1', which is not in"):
        run(Judge(), folder)
    assert (folder / "verdicts.jsonl").read_bytes() == before


def test_verdicts_on_an_episode_that_changed_are_refused(folder):
    run(Judge(), folder)
    episodes = [make_episode(f"message {i % 6}", index=i) for i in range(7)]
    write_episodes(folder / "episodes.jsonl", episodes)
    with pytest.raises(OVDError, match="row 7: the verdict on 'student:0:6' is of another"):
        run(Judge(), folder)


def test_verdicts_of_a_judge_with_other_options_are_refused(folder):
    run(Judge(), folder)
    other = Judge()
    other.fingerprint = "mine/2"
    with pytest.raises(OVDError, match=r"row 1: .*other options"):
        run(other, folder)
    assert other.asked == []


def test_episodes_of_one_id_keep_their_own_verdicts(tmp_path):
    class Repeats(Judge):
        def judge(self, episodes):
            self.asked += [e.answer for e in episodes]
            fails = self.fails
            return [
                Verdict(e.id, self.name, None, error="no")
                if e.answer in fails
                else Verdict(e.id, self.name, float(e.answer))
                for e in episodes
            ]

    write_episodes(tmp_path / "episodes.jsonl", [make_episode(str(i)) for i in range(4)])
    run(Repeats(fails=["0", "2"]), tmp_path)
    judge = Repeats()
    assert [v.score for v in run(judge, tmp_path)] == [0, 1, 2, 3]
    assert judge.asked == ["0", "2"]


def test_a_cache_serves_another_file(folder, tmp_path):
    cache = VerdictCache(tmp_path / "cache")
    run(Judge(), folder, cache=cache)
    judge = Judge()
    score_file(judge, folder / "episodes.jsonl", folder / "again.jsonl", cache=cache)
    assert judge.asked == []
    assert list(read_verdicts(folder / "again.jsonl")) == list(
        read_verdicts(folder / "verdicts.jsonl")
    )


def test_equal_episodes_of_a_file_are_asked_about_once(tmp_path):
    """However far apart they stand, and whenever the first of them was judged."""
    made = [make_episode(f"message {i % 3}", index=i) for i in range(9)]
    write_episodes(tmp_path / "episodes.jsonl", made)
    judge = Judge(stops_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(judge, tmp_path)
    assert judge.asked == [0, 1]
    judge = Judge()
    verdicts = run(judge, tmp_path)
    assert judge.asked == [2]
    assert [v.score for v in verdicts] == [0, 1, 2] * 3
    assert [v.episode for v in verdicts] == [e.id for e in made]
    assert run(judge, tmp_path) == verdicts == list(read_verdicts(tmp_path / "verdicts.jsonl"))


def test_a_failure_is_not_that_of_an_equal_episode(tmp_path):
    made = [make_episode(f"message {i % 2}", index=i) for i in range(4)]
    write_episodes(tmp_path / "episodes.jsonl", made)
    judge = Judge(fails=[0])
    assert [v.score for v in run(judge, tmp_path)] == [None, 1, 2, 1]
    assert judge.asked == [0, 1, 2]
    assert [v.score for v in run(judge, tmp_path)] == [2, 1, 2, 1]  # nor need it be asked again
    assert judge.asked == [0, 1, 2]


def test_a_judge_that_says_not_on_what_it_depends_is_asked_about_each(tmp_path):
    write_episodes(tmp_path / "episodes.jsonl", [make_episode("m", index=i) for i in range(5)])
    judge = Judge()
    judge.fingerprint = ""
    run(judge, tmp_path)
    assert judge.asked == [0, 1, 2, 3, 4]


def test_no_more_episodes_are_held_than_are_asked_for(tmp_path, monkeypatch):
    from teachers import score_file as module

    read = []

    def counting(path):
        for episode in read_episodes(path):
            read.append(episode.index)
            yield episode

    class Watching(Judge):
        def judge(self, episodes):
            ahead.append(len(read) - len(self.asked))
            return super().judge(episodes)

    ahead = []
    write_episodes(
        tmp_path / "episodes.jsonl", [make_episode(f"m {i}", index=i) for i in range(10)]
    )
    identities = module.identify(tmp_path / "episodes.jsonl")
    monkeypatch.setattr(module, "read_episodes", counting)
    verdicts = run(Watching(), tmp_path, identities=identities)
    assert [v.score for v in verdicts] == [i % 10 for i in range(10)]
    assert max(ahead) <= Judge.batch_size
    read.clear()
    run(Judge(), tmp_path, identities=identities)
    assert read == []  # all is known: nothing to read


def test_a_broken_row_is_named_before_anything_is_judged(folder):
    path = folder / "episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = '{"schema": 1}'
    path.write_text("\n".join(lines))
    judge = Judge()
    with pytest.raises(OVDError, match="row 4"):
        run(judge, folder)
    assert judge.asked == []


def test_no_episodes(tmp_path):
    (tmp_path / "episodes.jsonl").write_text("\n")
    with pytest.raises(OVDError, match="at least one episode"):
        run(Judge(), tmp_path)


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OVDError, match="cannot be written"):
        VerdictLog(tmp_path / "file" / "verdicts.jsonl")
    with pytest.raises(OVDError, match="cannot be written"):
        VerdictLog(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(folder):
    log = VerdictLog(folder / "verdicts.jsonl")
    log._log._handle.close()
    log._log._handle = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with log, pytest.raises(OVDError, match="No space left"):
        log.append("k", Verdict("e", "j", 3))


def test_what_a_student_wrote_can_be_quoted(folder):
    class Quoting(Judge):
        def judge(self, episodes):
            return [Verdict(e.id, self.name, 1, "it wrote \ud800 \u2028 \n \0") for e in episodes]

    verdicts = run(Quoting(), folder)
    assert list(read_verdicts(folder / "verdicts.jsonl")) == verdicts


# --- the command ------------------------------------------------------------------------------


def ovd(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-c", "from training.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )


@pytest.fixture
def sums(tmp_path):
    texts = [r"37 + 58 = 95. \boxed{95}", r"37 + 58 = 85. \boxed{85}", "no idea"]
    write_episodes(tmp_path / "sums.jsonl", [make_episode(t, index=i) for i, t in enumerate(texts)])
    return tmp_path


def test_ovd_score(sums):
    done = ovd("score", sums / "sums.jsonl", "--judge", "steps", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["episodes"] == summary["scored"] == summary["new"] == 3
    assert summary["errors"] == 0
    assert summary["mean_score"] == 3
    assert summary["acceptance"] == pytest.approx(1 / 3)
    assert summary["scores"]["9"] == 1
    out = sums / "sums.steps.verdicts.jsonl"
    assert summary["out"] == str(out)
    verdicts = list(read_verdicts(out))
    assert [v.score for v in verdicts] == [9, 0, 0]
    assert verdicts[1].reason == (
        "The answer 85 is wrong; step 1: 37 + 58 = 85 is wrong (it is 95)."
    )
    again = ovd("score", "sums.jsonl", "--judge", "steps", cwd=sums)
    assert again.returncode == 0, again.stderr
    assert "3 (0 judged now)" in again.stdout
    assert "3.00 of 9" in again.stdout


def test_ovd_score_tells_of_failures(sums):
    write_episodes(sums / "sums.jsonl", [make_episode("x", reward=2.0), make_episode("x", index=1)])
    done = ovd("score", sums / "sums.jsonl", "-j", "outcome", "--json", "--out", sums / "v.jsonl")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert (summary["scored"], summary["errors"], summary["mean_score"]) == (1, 1, 0)
    assert "the reward 2 is not in 0..1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.jsonl", "--judge", "steps"], "none.jsonl: cannot be read"),
        (["sums.jsonl", "--judge", "stepz"], "did you mean 'steps'"),
        (["sums.jsonl", "--judge", "llm"], "--model"),
        (["sums.jsonl", "--judge", "llm", "--model", "/nowhere"], "/nowhere"),
        (["sums.jsonl", "--judge", "steps", "--model", "x"], "no option 'model'"),
        (["sums.jsonl", "--judge", "steps", "--option", "x"], "expected KEY=VALUE"),
        (["sums.jsonl", "--judge", "steps", "--theta", "12"], "--theta"),
        (["sums.jsonl", "--judge", "steps", "--out", "sums.jsonl"], "the file of the episodes"),
        (["sums.jsonl", "--judge", "steps", "--out", "."], "cannot be written"),
        (["sums.jsonl", "--judge", "steps", "--cache", "sums.jsonl"], "sums.jsonl"),
        (["broken.jsonl", "--judge", "steps"], "row 17"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(sums, arguments, told):
    line = (sums / "sums.jsonl").read_text().splitlines()[0]
    (sums / "broken.jsonl").write_text("\n".join([line] * 16 + ["{oops"]))
    done = ovd("score", *arguments, cwd=sums)
    assert done.returncode == 2
    assert told in done.stderr
    errors = [part for part in done.stderr.splitlines() if part.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr


def test_ovd_score_help_has_an_example():
    done = ovd("score", "--help")
    assert done.returncode == 0
    assert "ovd score episodes.jsonl --judge steps" in done.stdout


SLOW_JUDGE = """
import sys, time
from teachers import Verdict, judges

class Slow:
    name, fingerprint, batch_size = "slow", "slow/1", 1

    def judge(self, episodes):
        time.sleep(0.05)
        return [Verdict(e.id, self.name, 7) for e in episodes]

judges.register("slow", Slow, "slow")
from training.cli import main
main(["score", sys.argv[1], "--judge", "slow", "--out", sys.argv[2]])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_goes_on_where_it_was(tmp_path, how):
    episodes, out = tmp_path / "episodes.jsonl", tmp_path / "verdicts.jsonl"
    write_episodes(episodes, [make_episode(f"m {i}", index=i) for i in range(60)])
    command = [sys.executable, "-c", SLOW_JUDGE, str(episodes), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not out.exists() or out.read_text().count("\n") < 5):
        time.sleep(0.02)
    process.send_signal(how)
    stderr = process.communicate(timeout=60)[1]
    kept = out.read_text().count("\n")
    assert 5 <= kept < 60
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on" in stderr
        assert "Traceback" not in stderr
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"({60 - kept} judged now)" in done.stdout
    assert [v.score for v in read_verdicts(out)] == [7] * 60


def test_steps_need_no_torch(sums):
    code = (
        "import sys; from training.cli import main\n"
        "try: main(['score', sys.argv[1], '--judge', 'steps', '--json'])\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sums / "sums.jsonl")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr.strip().endswith("False")


def test_scores_are_those_of_the_judge(sums):
    verdicts = score_file(StepJudge(), sums / "sums.jsonl", sums / "v.jsonl")
    assert [v.score for v in verdicts] == [9, 0, 0]


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_there_is_not_collected_while_judging_and_is_afterwards(folder, fails):
    seen = []

    class Watching(Judge):
        def judge(self, episodes):
            seen.append(gc.get_freeze_count())
            return super().judge(episodes)

    assert gc.get_freeze_count() == 0
    if fails:
        with pytest.raises(KeyboardInterrupt):
            run(Watching(stops_at=0), folder)
    else:
        run(Watching(), folder)
    assert min(seen) > 0
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        run(Judge(), folder)
        assert gc.get_freeze_count() > 0  # the caller's
    finally:
        gc.unfreeze()
