"""Episodes that go on each for itself: nobody waits, nothing is lost, nothing is mixed up."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from typing import ClassVar

import gymnasium
import pytest

from agents import rollout
from agents.free_rollout import stream_episodes
from agents.protocol import Act, Completion
from agents.student import Student
from agents.transformers_backend import TransformersBackend
from ovd_envs.env import Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.task import ListTasks, Task
from tests.tiny import tiny_model, tiny_tokenizer

TASKS = [Task(f"t/{i}", f"question {i}", (str(i),)) for i in range(6)]


class World(TextEnv):
    """One to three turns; counts how many worlds are open, and can be told what to do."""

    open_worlds: ClassVar[set[int]] = set()
    most = 0
    lock = threading.Lock()

    def __init__(self, on_act=None):
        super().__init__(ListTasks("t", train=TASKS), budget={"turns": 9})
        self.on_act = on_act
        with self.lock:
            World.open_worlds.add(id(self))
            World.most = max(World.most, len(World.open_worlds))

    def observe(self, task):
        return task.question

    def respond(self, action):
        if self.on_act is not None:
            self.on_act(self)
        number = int(self.task.id[2:])
        if self.turn > number % 3:
            return Reply(f"over: {action}", reward=float(number), end="done")
        return Reply(f"again: {action}")

    def close(self):
        with self.lock:
            World.open_worlds.discard(id(self))


@pytest.fixture(autouse=True)
def fresh_worlds():
    World.open_worlds, World.most = set(), 0
    yield
    assert not World.open_worlds  # whatever happened, every world was closed


class Speaker:
    name = "speaker"

    def act(self, episodes):
        return [Act(f"{e.task.id} {e.index} {len(e.turns)}") for e in episodes]


def requests(count):
    """(task, seed) without end, or ``count`` of them."""
    numbers = itertools.count() if count is None else range(count)
    return ((TASKS[n % 6], (0, 0, n, 0)) for n in numbers)


def test_a_straggler_holds_nobody():
    """The first episode's world waits until all the others have ended."""
    others = threading.Event()

    def wait(world):
        if world.task.id == "t/0":
            assert others.wait(20)

    ended = []
    for episode in stream_episodes(Speaker(), lambda: World(wait), requests(6), batch_size=2):
        ended.append(episode.task.id)
        if len(ended) == 5:
            others.set()
    assert ended[-1] == "t/0"
    assert sorted(ended) == [task.id for task in TASKS]


def test_requests_without_end_and_a_reader_that_leaves():
    drawn = []

    def endless():
        for request in requests(None):
            drawn.append(request)
            yield request

    stream = stream_episodes(Speaker(), World, endless(), batch_size=4)
    seen = [next(stream) for _ in range(50)]
    stream.close()
    assert len({episode.seed for episode in seen}) == 50
    assert World.most <= 4
    assert len(drawn) <= 54  # none is drawn before there is a place for it


def test_a_world_that_raises_ends_its_own_episode():
    def fail(world):
        if world.task.id == "t/3":
            raise ValueError("a broken page")

    episodes = list(stream_episodes(Speaker(), lambda: World(fail), requests(24), batch_size=5))
    failed = [e for e in episodes if e.error]
    assert [e.task.id for e in failed] == ["t/3"] * 4
    assert all("ValueError: a broken page" in e.error for e in failed)
    assert {e.end_reason for e in episodes if not e.error} == {"done"}
    assert len(episodes) == 24


def test_an_agent_that_raises_ends_its_own_episode():
    class Stumbling(Speaker):
        def act(self, episodes):
            if any(e.task.id == "t/2" and len(e.turns) == 1 for e in episodes):
                raise RuntimeError("no idea")
            return super().act(episodes)

    episodes = list(stream_episodes(Stumbling(), World, requests(12), batch_size=4))
    assert sorted(e.task.id for e in episodes if e.error) == ["t/2"] * 2
    assert all(len(e.turns) == 1 for e in episodes if e.error)


@pytest.mark.parametrize("where", ["world", "agent"])
def test_bad_input_goes_up(where):
    class Refusing(Speaker):
        def act(self, episodes):
            raise OVDError("no such thing")

    def refuse(world):
        raise OVDError("no such thing")

    agent, world = (Speaker(), lambda: World(refuse)) if where == "world" else (Refusing(), World)
    with pytest.raises(OVDError, match="no such thing"):
        list(stream_episodes(agent, world, requests(6), batch_size=3))


class Later(Speaker):
    """Answers each request by itself, the newest first, from a thread of its own."""

    def __init__(self):
        self.asked: list[tuple[object, Future[Act]]] = []
        self.news = threading.Condition()
        self.left = False
        self.thread = threading.Thread(target=self.answer, daemon=True)
        self.thread.start()

    def submit(self, episode):
        future = Future()
        with self.news:
            self.asked.append((episode, future))
            self.news.notify()
        return future

    def answer(self):
        while True:
            with self.news:
                self.news.wait_for(lambda: self.asked or self.left)
                if self.left:
                    return
                episode, future = self.asked.pop()
            if episode.task.id == "t/5":
                future.set_exception(RuntimeError("lost the line"))
            else:
                future.set_result(self.act([episode])[0])

    def leave(self):
        with self.news:
            self.left = True
            self.news.notify()
        self.thread.join()


def test_an_agent_that_is_asked_for_each_by_itself():
    agent = Later()
    episodes = rollout(agent, World, TASKS, group_size=3, batch_size=7, mode="free")
    agent.leave()
    assert [e.task.id for e in episodes] == [t.id for t in TASKS for _ in range(3)]
    for episode in episodes:
        if episode.task.id == "t/5":
            assert "RuntimeError: lost the line" in episode.error
            continue
        said = [turn.action for turn in episode.turns]
        assert said == [f"{episode.task.id} {episode.index} {n}" for n in range(len(said))]
        assert [t.observation.partition(": ")[2] for t in episode.turns] == said


class OneByOne:
    """A backend whose replies come as futures, from the real tiny model."""

    def __init__(self):
        self.inner = TransformersBackend(tiny_model(), tiny_tokenizer(), name="tiny")
        self.inner.dialect.stop_ids |= frozenset(range(0, 256, 6))
        self.name, self.dialect = "tiny", self.inner.dialect
        self.context_length = self.inner.context_length
        self.generate = self.inner.generate

    def submit(self, request) -> Future[Completion]:
        future = Future()
        future.set_result(self.inner.generate([request])[0])
        return future


@pytest.mark.parametrize("max_context", [None, 60])
def test_a_student_samples_the_tokens_of_lockstep(max_context):
    def play(backend, mode):
        student = Student(backend, max_tokens=10, max_context=max_context)
        done = rollout(student, World, TASKS, group_size=2, batch_size=5, seed=3, mode=mode)
        return [(e.segments[0].ids, e.segments[0].mask, e.end_reason) for e in done]

    expected = play(OneByOne().inner, "lockstep")
    assert play(OneByOne().inner, "free") == expected
    assert play(OneByOne(), "free") == expected
    ends = {end for _, _, end in expected}
    assert ends == ({"done"} if max_context is None else {"done", "context_limit"})


def test_a_student_submits_only_where_its_backend_does():
    assert not hasattr(Student(OneByOne().inner), "submit")
    assert hasattr(Student(OneByOne()), "submit")


def test_a_world_that_cannot_be_made():
    def nothing() -> gymnasium.Env[str, str]:
        raise OVDError("env: no such environment")

    with pytest.raises(OVDError, match="no such environment"):
        list(stream_episodes(Speaker(), nothing, requests(3)))
