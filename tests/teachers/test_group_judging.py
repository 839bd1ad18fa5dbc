"""Groups are judged while others act: in any order of ending, what judging at the end gives."""

import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

import ovd_envs
from agents import Act, rollout
from teachers import JudgeStopError, StepJudge, Verdict, score
from teachers.group_judging import GroupJudging
from tests.teachers.conftest import make_episode

PATIENCE = 20.0  # seconds; only a fault uses them up


@pytest.fixture(scope="module")
def tasks():
    return ovd_envs.make("ovd/Math-v0").unwrapped.tasks.distinct("test", 6)


class Delayed:
    """Answers request by request, each when ``ready(episode)`` returns."""

    name = "delayed"

    def __init__(self, pool, ready):
        self.pool, self.ready = pool, ready

    def act(self, episodes):
        raise AssertionError("asked together")

    def submit(self, episode):
        def answer():
            self.ready(episode)
            return Act(f"\\boxed{{{sum(episode.seed) % 3 + 70}}}")

        return self.pool.submit(answer)


class Remembering(StepJudge):
    """A judge that says which episodes it has read, and tells an event of its first question."""

    def __init__(self):
        super().__init__()
        self.read, self.first = [], threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.threads = set()

    def judge(self, episodes):
        self.read.append([episode.id for episode in episodes])
        self.threads.add(threading.current_thread().name)
        self.first.set()
        assert self.gate.wait(PATIENCE)
        return super().judge(episodes)


def run(judge, tasks, ready, group_size=3):
    with (
        ThreadPoolExecutor(32) as pool,
        closing(GroupJudging(judge, group_size)) as judging,
    ):
        episodes = rollout(
            Delayed(pool, ready),
            "ovd/Math-v0",
            tasks,
            group_size=group_size,
            progress=judging.ended,
        )
        return episodes, judging.verdicts()


def contents(verdicts):
    found = {v.episode: {**v.to_dict(), "seconds": 0} for v in verdicts}
    assert len(found) == len(verdicts)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_same_verdicts_as_at_the_end(tasks, seed):
    rng = random.Random(seed)
    delays = {}

    def ready(episode):
        time.sleep(delays.setdefault(episode.id, rng.uniform(0, 0.03)))

    judge = Remembering()
    episodes, verdicts = run(judge, tasks, ready)
    assert contents(verdicts) == contents(score(StepJudge(), episodes))
    assert [e.seed for e in episodes] == [(0, 0, p, i) for p in range(6) for i in range(3)]
    assert sum(map(len, judge.read)) == 18
    assert len(judge.threads) == 1


def test_a_straggler_does_not_hold_the_others(tasks):
    """The last episode ends only when the judge has read a group: without that, never."""
    judge, held = Remembering(), []

    def ready(episode):
        if episode.seed[2:] == (5, 2):
            held.append(judge.first.wait(PATIENCE))

    episodes, verdicts = run(judge, tasks, ready)
    assert held == [True]
    straggler = episodes[-1].id
    assert straggler not in judge.read[0]
    assert len(verdicts) == 18


def test_whole_groups_that_wait_are_asked_for_together(tasks):
    judge, ended = Remembering(), []
    judge.gate.clear()
    with closing(GroupJudging(judge, 2)) as judging:

        def take(episode):
            judging.ended(episode)
            ended.append(episode)
            if len(ended) == 2:
                assert judge.first.wait(PATIENCE)

        class Script:
            name = "script"

            def act(self, episodes):
                return [Act(f"\\boxed{{{episode.index}}}") for episode in episodes]

        rollout(Script(), "ovd/Math-v0", tasks, group_size=2, batch_size=2, progress=take)
        judge.gate.set()
        told = []
        verdicts = judging.verdicts(progress=told.append)
    assert [len(read) for read in judge.read] == [2, 10]
    assert told == verdicts


def test_a_judge_that_fails_and_an_episode_that_failed(tasks):
    class Broken(Remembering):
        def judge(self, episodes):
            raise RuntimeError("no reply")

    def ready(episode):
        if episode.seed[2:] == (1, 0):
            raise ZeroDivisionError("oh")

    _, verdicts = run(Broken(), tasks, ready)
    assert len(verdicts) == 18
    assert all(verdict.failed for verdict in verdicts)
    assert sum("ZeroDivisionError" in verdict.error for verdict in verdicts) == 1


def test_a_group_that_has_not_ended_is_no_result(tasks):
    with closing(GroupJudging(StepJudge(), 4)) as judging:
        with ThreadPoolExecutor(4) as pool:
            agent = Delayed(pool, lambda _: None)
            rollout(agent, "ovd/Math-v0", tasks, group_size=3, progress=judging.ended)
        with pytest.raises(ValueError, match="have not ended"):
            judging.verdicts()


def test_what_is_no_exception_goes_up(tasks):
    class Stopped(BaseException):
        pass

    class Stopping:
        name = "stopping"

        def judge(self, episodes):
            raise Stopped

    with pytest.raises(Stopped):
        run(Stopping(), tasks, lambda _: None)


def test_closing_asks_for_nothing_more(tasks):
    judge = Remembering()
    judge.gate.clear()
    judging = GroupJudging(judge, 1)
    with ThreadPoolExecutor(4) as pool:
        agent = Delayed(pool, lambda _: None)
        rollout(agent, "ovd/Math-v0", tasks[:1], progress=judging.ended)
        assert judge.first.wait(PATIENCE)
        rollout(agent, "ovd/Math-v0", tasks, progress=judging.ended)
    threading.Timer(0.05, judge.gate.set).start()
    judging.close()
    assert len(judge.read) == 1
    assert isinstance(judging._asked[0].result()[0], Verdict)


def test_closing_does_not_wait_for_an_outage_to_end():
    class Waiting:
        name, concurrency = "waiting", 4

        def __init__(self):
            self.futures = []

        def submit(self, episode):
            self.futures.append(Future())
            begun.set()
            return self.futures[-1]

        def judge(self, episodes):
            raise AssertionError("it has submit")

        def halt(self):
            for future in self.futures:
                future.set_exception(JudgeStopError("nothing more is asked"))

    begun = threading.Event()
    judging = GroupJudging(Waiting(), 1)
    judging.ended(make_episode("x"))
    assert begun.wait(10)
    judging.close()  # would hang without ``halt``
