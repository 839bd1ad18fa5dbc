import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
from dataclasses import replace

import pytest

from ovd_envs.errors import OVDError
from ovd_envs.task import Task
from teachers import OutcomeJudge, StepJudge, Verdict, VerdictCache, score
from teachers.cache import content_hash
from tests.teachers.conftest import make_episode


class Judge:
    name = "counting"
    fingerprint = "counting/1"

    def __init__(self, points=7, error=None):
        self.points = points
        self.error = error
        self.asked = 0

    def judge(self, episodes):
        self.asked += len(episodes)
        points = None if self.error else self.points
        return [Verdict(e.id, self.name, points, "why", self.error) for e in episodes]


@pytest.fixture
def cache(tmp_path):
    return VerdictCache(tmp_path / "verdicts")


def entries(cache):
    with contextlib.closing(sqlite3.connect(cache.path)) as connection:
        return [text for (text,) in connection.execute("SELECT verdict FROM verdicts")]


def test_the_same_content_is_judged_once_whatever_its_id(cache):
    first, second = make_episode("a", index=1), make_episode("a", index=2, group="9", agent="x")
    judge = Judge()
    [one] = score(judge, [first], cache=cache)
    [two] = score(judge, [second], cache=cache)
    assert judge.asked == 1
    assert (one.episode, two.episode) == (first.id, second.id)
    assert two == replace(one, episode=second.id)


@pytest.mark.parametrize(
    "other",
    [
        make_episode("b"),
        make_episode("a", "a"),
        make_episode("a", observations=["no"]),
        make_episode("a", observation="Another question"),
        make_episode("a", answers=["96"]),
        make_episode("a", metadata={"level": "x"}),
        make_episode("a", reward=1.0),
        make_episode("a", end_reason="turn_limit"),
        make_episode("a", truncated=True),
        make_episode("a", info={"outcome": "right"}),
    ],
)
def test_other_content_is_another_entry(other):
    assert content_hash(other) != content_hash(make_episode("a"))


def test_the_opening_observation_is_content_beside_the_question():
    other = make_episode("a")
    other.observation = "The same task, asked in another way"
    assert content_hash(other) != content_hash(make_episode("a"))


def test_texts_that_run_together_are_told_apart():
    assert content_hash(make_episode("ab", "c")) != content_hash(make_episode("a", "bc"))
    assert content_hash(make_episode("a", observations=["b"])) != content_hash(make_episode("ab"))


def test_who_acted_and_when_is_no_content():
    made = make_episode("a")
    other = make_episode("a", index=5, seed=(1, 2), started=3.0, seconds=4.0)
    other.turns[0].agent_seconds = 9.0
    assert content_hash(made) == content_hash(other)


def test_another_fingerprint_is_another_entry(cache):
    episode = make_episode("a")
    judge = Judge(points=3)
    score(judge, [episode], cache=cache)
    judge.fingerprint = "counting/2"
    judge.points = 4
    assert [v.score for v in score(judge, [episode], cache=cache)] == [4]
    judge.name = "other"
    judge.points = 5
    assert [v.score for v in score(judge, [episode], cache=cache)] == [5]


def test_a_judge_without_a_fingerprint_is_not_cached(cache):
    judge = Judge()
    judge.fingerprint = ""
    score(judge, [make_episode("a")], cache=cache)
    score(judge, [make_episode("a")], cache=cache)
    assert judge.asked == 2
    assert not cache.folder.exists()


def test_an_error_is_not_cached(cache):
    failing = Judge(error="no reply")
    [verdict] = score(failing, [make_episode("a")], cache=cache)
    assert verdict.failed
    assert not cache.folder.exists()
    [verdict] = score(Judge(), [make_episode("a")], cache=cache)
    assert verdict.score == 7


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"episode": "e"}', b"\xff\xfe"])
def test_a_damaged_entry_is_asked_for_again_and_mended(cache, damage):
    judge = Judge()
    score(judge, [make_episode("a")], cache=cache)
    with contextlib.closing(sqlite3.connect(cache.path)) as connection:
        connection.execute("UPDATE verdicts SET verdict = ?", (damage,))
        connection.commit()
    assert [v.score for v in score(judge, [make_episode("a")], cache=cache)] == [7]
    assert judge.asked == 2
    [entry] = entries(cache)
    assert json.loads(entry)["score"] == 7


def test_a_file_of_something_else_is_told_and_left_alone(cache):
    cache.folder.mkdir()
    cache.path.write_bytes(b"my thesis, in which there is no database at all\n" * 40)
    before = cache.path.read_bytes()
    with pytest.raises(OVDError, match=r"verdicts\.sqlite3: the verdict cache cannot be read"):
        score(Judge(), [make_episode("a")], cache=cache)
    assert cache.path.read_bytes() == before


def test_a_fork_may_go_on_with_it(cache):
    judge = Judge()
    score(judge, [make_episode("a")], cache=cache)
    worker = multiprocessing.get_context("fork").Process(
        target=lambda: score(judge, [make_episode("b")], cache=cache)
    )
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert cache.get(judge, make_episode("b")).score == 7


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OVDError, match="cannot be read"):
        score(Judge(), [make_episode("a")], cache=VerdictCache(tmp_path / "file"))
    with pytest.raises(OVDError, match="cannot be written"):
        VerdictCache(tmp_path / "file").put(Judge(), make_episode("a"), Verdict("e", "j", 3))
    # Root may write anywhere, so a read-only folder proves nothing as root.
    if os.geteuid():
        tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
        with pytest.raises(OVDError, match="cannot be written"):
            score(Judge(), [make_episode("a")], cache=VerdictCache(tmp_path / "new"))
        tmp_path.chmod(stat.S_IRWXU)


def test_removed_it_leaves_no_file_and_may_be_used_again(cache):
    judge, episode = Judge(), make_episode("a")
    cache.remove()  # nothing was kept yet
    for asked in (1, 2):
        score(judge, [episode], cache=cache)
        score(judge, [episode], cache=cache)
        assert judge.asked == asked
        cache.remove()
        assert not cache.folder.exists()


def write_and_die(folder):
    cache = VerdictCache(folder)
    cache.put(Judge(), make_episode("a"), Verdict("e", "counting", 7.0))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_too(cache):
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=[cache.folder])
    process.start()
    process.join()
    assert len(list(cache.folder.iterdir())) == 3  # the database, its log and its index
    cache.remove()
    assert not cache.folder.exists()


def test_lone_surrogates_have_a_place(cache):
    episode = make_episode("\ud800")
    score(StepJudge(), [episode], cache=cache)
    assert cache.get(StepJudge(), episode).score == 0


def test_metadata_that_is_no_json_has_a_hash():
    episode = make_episode("a")
    episode.task = Task("t", "q", ("a",), {"when": object})
    assert len(content_hash(episode)) == 64


def write_many(folder, worker):
    cache = VerdictCache(folder)
    judge = Judge(points=worker)
    for number in range(60):
        for index in range(5):
            verdict = cache.get(judge, make_episode(f"text {index}"))
            assert verdict is None or verdict.reason == "why"
        cache.put(
            judge,
            make_episode(f"text {number % 5}"),
            Verdict("e", judge.name, float(worker), "why"),
        )


def test_two_processes_share_one_folder(cache):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(cache.folder, n)) for n in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(entries(cache)) == 5
    for index in range(5):
        assert cache.get(Judge(), make_episode(f"text {index}")).score in (1, 2)


def test_processes_that_begin_a_folder_at_the_same_time_wait_for_one_another(cache):
    """SQLite gives up at once where the journal's mode is set while another process writes."""
    cache.folder.mkdir()
    other = sqlite3.connect(cache.path, isolation_level=None, check_same_thread=False)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE begun (x)")
        ends = threading.Timer(0.3, other.execute, ["COMMIT"])
        ends.start()
        cache.put(Judge(), make_episode("a"), Verdict("e", "counting", 7.0))
        ends.join()
    assert cache.get(Judge(), make_episode("a")).score == 7


def test_real_judges_have_fingerprints():
    assert StepJudge().fingerprint
    assert OutcomeJudge().fingerprint
