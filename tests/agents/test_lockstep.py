"""Lockstep: environments that block wait together, and nothing else is different."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from agents import lockstep, rollout
from agents.protocol import Act
from ovd_envs.env import Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.task import ListTasks, Task

TASKS = [Task(f"t/{i}", f"question {i}", (str(i),)) for i in range(6)]
SOURCE = ListTasks("t", train=TASKS)


class World(TextEnv):
    """Two turns; does what it is told to with each message."""

    blocks = True

    def __init__(self, work=lambda world: None):
        super().__init__(SOURCE, budget={"turns": 9})
        self.work = work
        self.closed = 0

    def observe(self, task):
        return task.question

    def respond(self, action):
        self.work(self)
        return Reply(f"again: {action}", end="done" if self.turn == 2 else None)


class Speaker:
    name = "speaker"

    def act(self, episodes):
        return [Act(f"{e.task.id} {len(e.turns)}") for e in episodes]


class Dice(TextEnv):
    """Turns, rewards and faults by chance, from its own generator; takes a moment for each."""

    def __init__(self):
        super().__init__(SOURCE, budget={"turns": 5, "characters": 60})

    def observe(self, task):
        if self.np_random.random() < 0.05:
            raise RuntimeError(f"no page for {task.id}")
        return f"{task.question}: {self.np_random.integers(1000)}"

    def respond(self, action):
        time.sleep(random.random() * 0.001)  # who is first is another chance
        chance = self.np_random.random()
        if chance < 0.05:
            raise ValueError(f"{action}: a broken page")
        end = "done" if chance < 0.3 else None
        return Reply(f"{action} {chance:.3f}", reward=chance, end=end, info={"chance": chance})


class Blocking(Dice):
    blocks = True


class Chance:
    """Messages by chance, named by seed and turn; fails and ends some; hears of every end."""

    name = "chance"

    def __init__(self):
        self.heard = []

    def act(self, episodes):
        self.heard.append([e.id for e in episodes])
        return [self.one(episode) for episode in episodes]

    def one(self, episode):
        draw = random.Random(repr((episode.seed, len(episode.turns), episode.observation)))
        if draw.random() < 0.04:
            raise RuntimeError("no idea")
        if draw.random() < 0.04:
            return Act("", stop=draw.choice(["context_limit", "token_limit"]))
        return Act("x" * draw.randrange(1, 30), stop=draw.choice(["end_of_turn", "length"]))

    def finish(self, episodes):
        self.heard.append(["over", *(e.id for e in episodes)])


def bare(episode):
    """An episode without what a clock wrote, and where a traceback is, its last line."""
    row = episode.to_dict()
    row["error"] = (row["error"] or "").strip().rpartition("\n")[2]
    del row["started"], row["seconds"], row["env"]
    for turn in row["turns"]:
        del turn["agent_seconds"], turn["env_seconds"]
    return row


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_300_episodes_by_chance_are_the_same_and_in_the_same_order(batch_size):
    def play(env):
        agent, ended = Chance(), []
        done = rollout(
            *(agent, env, TASKS),
            group_size=50,
            seed=8,
            batch_size=batch_size,
            progress=lambda episode: ended.append(episode.id),
        )
        return [bare(episode) for episode in done], agent.heard, ended

    expected = play(Dice)
    assert play(Blocking) == expected
    ends = {row["end_reason"] for row in expected[0]}
    assert ends >= {"done", "error", "turn_limit", "context_limit"}


def test_what_blocks_waits_together():
    """Each step goes on only when all six are at theirs; so does each reset."""
    together = threading.Barrier(len(TASKS), timeout=20)

    class Meeting(World):
        def observe(self, task):
            together.wait()
            return super().observe(task)

    episodes = rollout(Speaker(), lambda: Meeting(lambda _: together.wait()), TASKS)
    assert [e.end_reason for e in episodes] == ["done"] * 6
    assert [e.turns[-1].observation for e in episodes] == [f"again: {t.id} 1" for t in TASKS]


def test_no_more_than_so_many_wait_at_once(monkeypatch):
    monkeypatch.setattr(lockstep, "_AT_ONCE", 2)
    lock, now, most = threading.Lock(), [0], [0]

    def work(_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1

    rollout(Speaker(), lambda: World(work), TASKS)
    assert most == [2]


def test_what_does_not_say_that_it_blocks_is_stepped_in_the_callers_thread():
    class Instant(World):
        blocks = False

    threads = set()
    rollout(Speaker(), lambda: Instant(lambda _: threads.add(threading.get_ident())), TASKS)
    assert threads == {threading.get_ident()}


def test_an_environment_that_raises_ends_its_own_episode():
    def work(world):
        if world.task.id == "t/3" and world.turn == 2:
            raise ValueError("a broken page")

    episodes = rollout(Speaker(), lambda: World(work), TASKS, group_size=2)
    for episode in episodes:
        assert (episode.error is not None) == (episode.task.id == "t/3")
        if episode.error:
            assert episode.end_reason == "error"
            assert "Traceback" in episode.error
            assert "in work" in episode.error
            assert "ValueError: a broken page" in episode.error


@pytest.mark.parametrize("error", [OVDError("bad option"), KeyboardInterrupt(), SystemExit(3)])
def test_bad_input_goes_up_when_the_steps_under_way_have_ended(error):
    worlds, under_way = [], threading.Event()

    def work(world):
        if world.task.id == "t/1":
            assert under_way.wait(20)
            raise error
        if world.task.id == "t/2":
            under_way.set()
            time.sleep(0.05)
            world.ended = True

    class Watched(World):
        ended = False

        def close(self):
            self.closed += 1
            if self.task.id == "t/2":
                assert self.ended, "closed while it was being stepped"

    def make():
        worlds.append(Watched(work))
        return worlds[-1]

    with pytest.raises(type(error)):
        rollout(Speaker(), make, TASKS)
    assert [world.closed for world in worlds] == [1] * 6
    assert worlds[2].ended
    assert not [t for t in threading.enumerate() if t.name.startswith("environment")]


def test_ctrl_c_while_environments_wait(monkeypatch):
    """The steps under way end, no other begins; what had ended was shown, all are closed."""
    monkeypatch.setattr(lockstep, "_AT_ONCE", 2)
    stopped, begun, worlds = threading.Event(), [], []

    def work(world):
        if world.task.id not in ("t/0", "t/1"):
            begun.append(world.task.id)
            assert stopped.wait(20)

    def make():
        worlds.append(World(work))
        worlds[-1].close = lambda: closed.append(1)
        return worlds[-1]

    def press():
        while len(begun) < 2:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)
        stopped.set()

    shown, closed = [], []
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rollout(
            Speaker(),
            make,
            [*TASKS[:2], *TASKS[:2], *TASKS[2:]],
            batch_size=4,
            progress=shown.append,
        )
    thread.join()
    assert [e.task.id for e in shown] == ["t/0", "t/1", "t/0", "t/1"]
    assert sorted(begun) == ["t/2", "t/3"]
    assert len(closed) == 4
