"""Episodes that go on each for itself: nobody waits, nothing is lost, nothing is mixed up."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

import gymnasium
import pytest

import ovd_envs
from agents import free_rollout, rollout
from agents.free_rollout import stream_episodes
from agents.protocol import Act, Capabilities, Completion
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

    capabilities = Capabilities(token_ids=True, logprobs=True, submit=True)

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

    class Silent(OneByOne):  # has it, and does not say so
        capabilities = Capabilities(token_ids=True)

    assert not hasattr(Student(Silent()), "submit")


def test_a_world_that_cannot_be_made():
    def nothing() -> gymnasium.Env[str, str]:
        raise OVDError("env: no such environment")

    with pytest.raises(OVDError, match="no such environment"):
        list(stream_episodes(Speaker(), nothing, requests(3)))


def bare(episode):
    """An episode without what a clock wrote, and where a traceback is, its last line."""
    row = episode.to_dict()
    row["error"] = (row["error"] or "").strip().rpartition("\n")[2]
    del row["started"], row["seconds"]
    for turn in row["turns"]:
        del turn["agent_seconds"], turn["env_seconds"]
    return row


class Dice(TextEnv):
    """Turns, rewards and faults by chance, from its own generator; takes a moment for each."""

    def __init__(self):
        super().__init__(ListTasks("t", train=TASKS), budget={"turns": 5, "characters": 60})

    def observe(self, task):
        if self.np_random.random() < 0.05:
            raise RuntimeError(f"no page for {task.id}")
        return f"{task.question}: {self.np_random.integers(1000)}"

    def respond(self, action):
        time.sleep(random.random() * 0.002)  # who is first is another chance
        chance = self.np_random.random()
        if chance < 0.05:
            raise ValueError(f"{action}: a broken page")
        end = "done" if chance < 0.3 else None
        return Reply(f"{action} {chance:.3f}", reward=chance, end=end, info={"chance": chance})


class Chance(Speaker):
    """Messages by chance, named by the episode's seed and turn; fails and ends some."""

    def act(self, episodes):
        return [self.one(episode) for episode in episodes]

    def one(self, episode):
        draw = random.Random(repr((episode.seed, len(episode.turns), episode.observation)))
        if draw.random() < 0.04:
            raise RuntimeError("no idea")
        if draw.random() < 0.04:
            return Act("", stop=draw.choice(["context_limit", "token_limit"]))
        return Act("x" * draw.randrange(1, 30), stop=draw.choice(["end_of_turn", "length"]))


class ChanceLater(Chance):
    """The same, each asked for by itself, in threads."""

    def __init__(self, pool):
        self.pool = pool

    def submit(self, episode):
        return self.pool.submit(self.one, episode)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_300_episodes_by_chance_are_those_of_lockstep(batch_size):
    def play(agent, mode):
        done = rollout(
            agent, Dice, TASKS, group_size=50, seed=8, step=1, batch_size=batch_size, mode=mode
        )
        return [bare(episode) for episode in done]

    expected = play(Chance(), "lockstep")
    assert play(Chance(), "free") == expected
    with ThreadPoolExecutor(5) as pool:
        assert play(ChanceLater(pool), "free") == expected
    ends = {row["end_reason"] for row in expected}
    assert ends >= {"done", "error", "turn_limit", "character_limit", "context_limit"}
    assert "token_limit" in ends


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("ovd/Math-v0", {"level": "word-1", "attempts": 2}),
        ("ovd/WorldQA-v0", {"people": 100, "turns": 3, "protocol": "search-r1"}),
    ],
)
def test_our_own_environments_in_threads(env, options):
    class Searcher(Speaker):
        def act(self, episodes):
            words = [e.task.question.split()[len(e.turns) :] for e in episodes]
            return [Act(f"<search>{' '.join(w)}</search> \\boxed{{{len(w)}}}") for w in words]

    tasks = ovd_envs.make(env, **options).tasks.distinct("train", 12)

    def play(mode):
        done = rollout(Searcher(), env, tasks, group_size=2, env_options=options, mode=mode)
        return [bare(episode) for episode in done]

    expected = play("lockstep")
    assert not [row["error"] for row in expected if row["error"]]
    assert play("free") == expected


def test_an_idle_agent_is_asked_for_all_that_are_on_their_way(monkeypatch):
    """Asked for the first that comes, it would keep all others waiting for that one's reply."""
    monkeypatch.setattr(free_rollout, "_FIRST_PATIENCE", 1000.0)
    monkeypatch.setattr(free_rollout, "_PATIENCE", 1e9)  # of the seconds of a call
    sizes = []

    class Counting(Speaker):
        def act(self, episodes):
            sizes.append(len(episodes))
            return super().act(episodes)

    def dawdle(world):
        time.sleep(0.001 * int(world.task.id[2:]))

    # However long it would wait for company, it does not where nobody is on the way.
    rollout(Counting(), lambda: World(dawdle), TASKS, mode="free")
    assert sizes == [6, 4, 2]


def test_an_agent_is_not_told_while_it_acts_and_is_told_of_every_end():
    class Strict(Speaker):
        def __init__(self):
            self.inside = threading.Lock()
            self.told = []

        def act(self, episodes):
            assert self.inside.acquire(blocking=False)
            time.sleep(0.001)
            self.inside.release()
            return super().act(episodes)

        def finish(self, episodes):
            assert self.inside.acquire(blocking=False)
            assert all(episode.done for episode in episodes)
            self.told += [episode.seed for episode in episodes]
            self.inside.release()

    agent = Strict()
    done = rollout(agent, World, TASKS, group_size=9, batch_size=8, mode="free")
    assert not [e.error for e in done if e.error]
    assert sorted(agent.told) == [e.seed for e in done]

    # Of those, too, that the reader does not wait for.
    agent, drawn = Strict(), []

    def endless():
        for request in requests(None):
            drawn.append(request[1])
            yield request

    stream = stream_episodes(agent, World, endless(), batch_size=5)
    for _ in range(7):
        next(stream)
    stream.close()
    assert sorted(agent.told) == drawn


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("who", ["make", "reset", "step", "act", "finish", "submit", "reply"])
def test_what_must_go_up_goes_up_from_every_thread(error, who):
    class Stopped(World):
        def __init__(self):
            if who == "make":
                raise error
            super().__init__()

        def observe(self, task):
            if who == "reset" and task.id == "t/1":
                raise error
            return super().observe(task)

        def respond(self, action):
            if who == "step" and self.task.id == "t/1":
                raise error
            return super().respond(action)

    class Agent(Speaker):
        def act(self, episodes):
            if who == "act":
                raise error
            return super().act(episodes)

        def finish(self, episodes):
            if who == "finish" and not raised:
                raised.append(1)
                raise error

    class Submitting(Agent):
        def submit(self, episode):
            if who == "submit":
                raise error
            future = Future()
            future.set_exception(error())
            return future

    raised: list[int] = []
    agent = Submitting() if who in ("submit", "reply") else Agent()
    with pytest.raises(error):
        rollout(agent, Stopped, TASKS, batch_size=3, mode="free")


def test_ctrl_c_while_environments_are_at_work():
    """The steps under way end, nothing begins any more; what had ended was shown."""
    stopped, begun = threading.Event(), []

    def work(world):
        begun.append(world.task.id)
        if world.task.id != "t/0":
            assert stopped.wait(20)

    def press():
        while len(begun) < 4:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.05)
        stopped.set()

    shown = []
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rollout(
            Speaker(), lambda: World(work), TASKS, batch_size=3, mode="free", progress=shown.append
        )
    thread.join()
    assert [e.task.id for e in shown] == ["t/0"]
    assert len(begun) == 4


def test_a_reader_that_fails_closes_the_environments():
    def fail(episode):
        raise ValueError("disk full")

    with pytest.raises(ValueError, match="disk full"):
        rollout(Speaker(), World, TASKS, group_size=5, batch_size=4, mode="free", progress=fail)
    assert not World.open_worlds


def test_an_environment_that_cannot_be_made_later_ends_its_own_episode():
    made = itertools.count()

    def make():
        number = next(made)
        if number == 2:
            raise ConnectionError("no sandbox")
        return World()

    episodes = list(stream_episodes(Speaker(), make, requests(12), batch_size=4))
    assert [("ConnectionError: no sandbox" in e.error) for e in episodes if e.error] == [True]
    assert len(episodes) == 12
    with pytest.raises(ConnectionError):  # where none can be made, it is no episode's fault
        list(
            stream_episodes(
                Speaker(), lambda: (_ for _ in ()).throw(ConnectionError()), requests(3)
            )
        )


def test_worlds_that_raised_are_replaced_and_never_too_many():
    broken = set()

    def fail(world):
        if world.task.id in ("t/1", "t/2") or id(world) in broken:
            broken.add(id(world))
            raise ValueError

    kept, failed = [], set()

    def make():
        kept.append(World(fail))  # no other world gets its id
        return kept[-1]

    for episode in stream_episodes(Speaker(), make, requests(90), batch_size=4):
        assert len(World.open_worlds) <= 4
        failed |= {episode.task.id} if episode.error else set()
    assert World.most == 4
    assert failed == {"t/1", "t/2"}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [("words", "expected an Act, got str"), (None, "expected an Act, got NoneType")],
)
def test_a_reply_that_is_something_else(reply, reason):
    class Wrong(Speaker):
        def submit(self, episode):
            future = Future()
            future.set_result(reply)
            return future

    class NoFuture(Speaker):
        def submit(self, episode):
            return reply

    for episode in rollout(Wrong(), World, TASKS):
        assert reason in episode.error
    for episode in rollout(NoFuture(), World, TASKS):
        assert "AttributeError" in episode.error


def test_requests_with_one_seed_give_an_episode_each():
    twice = [(TASKS[0], (0, 0, 0, 0)), (TASKS[0], (0, 0, 0, 0)), (TASKS[1], (0, 0, 1, 0))]
    episodes = free_and_in_order(twice)
    assert [e.task.id for e in episodes] == ["t/0", "t/0", "t/1"]
    assert episodes[0] is not episodes[1]


def free_and_in_order(pairs):
    from agents.rollout import run_seeded

    return run_seeded(Speaker(), World, pairs, mode="free")


def test_who_leaves_gives_up_the_replies_that_have_not_begun():
    class Busy(OneByOne):
        def submit(self, request):
            asked.append(Future())
            return asked[-1]

    asked: list[Future[Completion]] = []
    backend = Busy()
    stream = stream_episodes(Student(backend), World, requests(None), batch_size=3)

    def answer():
        while len(asked) < 3:
            time.sleep(0.001)
        asked[0].set_exception(RuntimeError("out of memory"))

    thread = threading.Thread(target=answer)
    thread.start()
    with contextlib.closing(stream):
        assert "out of memory" in next(stream).error
    thread.join()
    assert all(future.cancelled() for future in asked[1:])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "fast"}, "mode: expected lockstep or free, got 'fast'"),
        ({"mode": "free", "batch_size": 0}, "expected at least 1, got 1, 0"),
        ({"workers": "fibers"}, "workers: expected threads, processes or a number .* 'fibers'"),
        ({"workers": 0}, "workers: expected threads, processes or a number .* above 0, got 0"),
        ({"workers": True}, "workers: expected threads, processes or a number .* got True"),
        ({"mode": "lockstep", "workers": 2}, "workers 2: expected mode free, got lockstep"),
    ],
)
def test_bad_options(options, reason):
    with pytest.raises(OVDError, match=reason):
        rollout(Speaker(), World, TASKS, **options)
    with pytest.raises(OVDError, match="batch_size: expected at least 1, got 0"):
        next(stream_episodes(Speaker(), World, requests(1), batch_size=0))
