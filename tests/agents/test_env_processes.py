"""Environments in other processes: the same episodes, and a process that dies takes no more."""

# The children import this file: no torch here.
from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import ovd_envs
from agents.env_processes import EnvProcesses, ProcessEnded
from agents.free_rollout import stream_episodes
from agents.protocol import Act
from agents.rollout import rollout
from ovd_envs.env import Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.task import ListTasks, Task

TASKS = [Task(f"t/{i}", f"question {i}", (str(i),)) for i in range(6)]
ROOT = Path(__file__).resolve().parents[2]


class World(TextEnv):
    """One to three turns; does what it is told to at the second turn of task 3."""

    def __init__(self, deed: str = "", marks: str = ""):
        super().__init__(ListTasks("t", train=TASKS), budget={"turns": 9})
        self.deed, self.marks = deed, marks

    def observe(self, task):
        return f"{task.question}, {self.np_random.integers(10**9)}, {self.training_step}"

    def respond(self, action):
        number = int(self.task.id[2:])
        if number == 5 and self.turn == 2:
            self.do(self.deed)
        if self.turn > number % 3:
            return Reply(f"over: {action}", reward=float(number), end="done", info=self.extra())
        return Reply(f"again: {action}")

    def do(self, deed):
        if deed == "raise":
            raise ValueError("a broken page")
        if deed == "refuse":
            raise OVDError("search: no such index")
        if deed == "exit":
            sys.exit(3)
        if deed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

    def extra(self):
        return {"said": 1} if self.deed != "lambda" else {"said": _local()}

    def close(self):
        if self.marks:
            (Path(self.marks) / f"{os.getpid()}-{id(self)}").touch()


def _local():
    class Local:
        pass

    return Local()


class Speaker:
    name = "speaker"

    def act(self, episodes):
        return [Act(f"{e.task.id} {e.index} {len(e.turns)}") for e in episodes]


def bare(episode):
    row = episode.to_dict()
    del row["started"], row["seconds"]
    for turn in row["turns"]:
        del turn["agent_seconds"], turn["env_seconds"]
    return row


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    yield
    assert not multiprocessing.active_children()  # whatever happened, all have been ended


def test_the_same_episodes_as_in_this_process(tmp_path):
    options = {"group_size": 3, "seed": 4, "step": 2, "training": True}
    factory = partial(World, marks=str(tmp_path))
    expected = rollout(Speaker(), World, TASKS, **options)
    found = rollout(Speaker(), factory, TASKS, batch_size=7, workers="processes", **options)
    for episode in found:
        episode.env = "World"
    assert [bare(e) for e in found] == [bare(e) for e in expected]
    assert "2" in found[0].observation.split(", ")  # the training step reached them
    closed = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert 2 <= len(closed) <= 7  # each that was made was closed, there
    assert len(set(closed)) == 2
    assert str(os.getpid()) not in closed


def test_as_many_processes_as_are_asked_for(tmp_path):
    factory = partial(World, marks=str(tmp_path))
    rollout(Speaker(), factory, TASKS, batch_size=6, workers=3)
    assert len({path.name.partition("-")[0] for path in tmp_path.iterdir()}) == 3


def test_a_registered_environment_by_its_name():
    tasks = ovd_envs.make("ovd/Math-v0").tasks.distinct("test", 3)
    options = {"env_options": {"attempts": 2}, "group_size": 2}
    one, other = (
        rollout(Speaker(), "ovd/Math-v0", tasks, workers=workers, **options)
        for workers in ("threads", "processes")
    )
    assert [bare(e) for e in one] == [bare(e) for e in other]


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("raise", "ValueError: a broken page"),
        ("lambda", "Can't"),
        ("exit", "was ended with exit code 3"),
        ("kill", "was ended by SIGKILL"),
    ],
)
def test_what_fails_in_a_process_ends_its_own_episode(deed, reason):
    """One environment a process: exactly the episodes of the task that fails have an error."""
    factory = partial(World, deed)
    episodes = rollout(Speaker(), factory, TASKS, group_size=2, batch_size=2, workers="processes")
    failed = [e for e in episodes if e.error]
    assert {e.task.id for e in failed} == ({"t/5"} if deed != "lambda" else {t.id for t in TASKS})
    assert len([e for e in failed if e.task.id == "t/5"]) == 2
    for episode in failed:
        last = episode.error.strip().splitlines()[-1]
        assert reason in last
        assert (episode.end_reason, episode.truncated) == ("error", True)
        assert "Traceback" in episode.error
    good = rollout(Speaker(), World, TASKS, group_size=2)
    for one, other in zip(episodes, good, strict=True):
        if not one.error:
            assert [t.observation for t in one.turns] == [t.observation for t in other.turns]


def test_a_process_that_dies_takes_what_it_holds_and_no_more():
    """Four environments in two processes: at most two episodes end with the one that dies."""
    tasks = [TASKS[0], TASKS[1], TASKS[2], TASKS[5], *TASKS[:5], *TASKS[:5]]
    episodes = rollout(Speaker(), partial(World, "kill"), tasks, batch_size=4, workers="processes")
    failed = [e for e in episodes if e.error]
    assert 1 <= len(failed) <= 2
    assert all("was ended by SIGKILL" in e.error for e in failed)
    assert {e.end_reason for e in episodes if not e.error} == {"done"}


def test_bad_input_goes_up_as_one_line():
    with pytest.raises(OVDError, match=r"^search: no such index$"):
        rollout(Speaker(), partial(World, "refuse"), TASKS, workers="processes")
    with pytest.raises(OVDError, match="no option 'hops'"):
        rollout(Speaker(), "ovd/Math-v0", TASKS, env_options={"hops": 2}, workers="processes")


def test_what_cannot_be_sent_to_a_process_is_named():
    with pytest.raises(OVDError, match="expected an environment that another process can make"):
        rollout(Speaker(), lambda: World(), TASKS, workers="processes")
    with pytest.raises(OVDError, match=r"^workers 'processes': expected mode free, got lockstep$"):
        rollout(Speaker(), World, TASKS, workers="processes", mode="lockstep")
    with pytest.raises(OVDError, match=r"^workers: expected threads, processes or .*'thread'$"):
        rollout(Speaker(), World, TASKS, workers="thread")


class Unreadable:
    def __reduce__(self):
        return int, ("not a number",)

    def __call__(self):
        return World()


def test_a_process_that_cannot_start_is_told_once(capfd):
    with pytest.raises(OVDError, match=r"ended with exit code 1 before it could start; .*__main__"):
        rollout(Speaker(), Unreadable(), TASKS, workers="processes")


def exits() -> World:
    sys.exit(7)


def test_an_environment_whose_making_ends_the_process():
    with pytest.raises(ProcessEnded, match="was ended with exit code 7"):
        rollout(Speaker(), exits, TASKS, workers="processes")


def test_a_process_that_died_unused_is_replaced():
    processes = EnvProcesses(World, 2)
    first = processes.make()
    first._process._process.kill()
    again = [processes.make() for _ in range(4)]
    assert [process.ended for process in processes._running] == [False, False]
    assert [env.reset(seed=1, options={"task": TASKS[0]})[0] for env in again] == [
        World().reset(seed=1, options={"task": TASKS[0]})[0]
    ] * 4
    with pytest.raises(ProcessEnded, match="SIGKILL"):
        first.reset()
    processes.close()


def test_a_reader_that_leaves_ends_the_processes(tmp_path):
    requests = ((TASKS[n % 6], (0, 0, n, 0)) for n in iter(int, 1))
    stream = stream_episodes(
        Speaker(), partial(World, marks=str(tmp_path)), requests, batch_size=4, workers="processes"
    )
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert not multiprocessing.active_children()
    assert 1 <= len(list(tmp_path.iterdir())) <= 4


class Slow(World):
    def respond(self, action):
        (Path(self.marks) / f"step-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.5)
        return super().respond(action)


SCRIPT = """
from functools import partial
from pathlib import Path
import sys
from agents.rollout import rollout
from tests.agents.test_env_processes import TASKS, Slow, Speaker

if __name__ == "__main__":
    shown = []
    try:
        rollout(Speaker(), partial(Slow, marks=sys.argv[1]), TASKS * 20, batch_size=4,
                workers="processes", progress=shown.append)
    except KeyboardInterrupt:
        print("stopped", all(e.done and not e.error for e in shown))
"""


def test_ctrl_c_at_the_terminal_stops_cleanly(tmp_path):
    """A terminal's Ctrl-C reaches parent and children alike."""
    script, marks = tmp_path / "script.py", tmp_path / "marks"
    script.write_text(SCRIPT)
    marks.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(marks)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and len(list(marks.glob("step-*"))) < 4:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("stopped True\n", "", 0)
    # The environments were closed, in their processes, and these are gone.
    names = [path.name.split("-") for path in marks.iterdir()]
    stepped = {int(name[1]) for name in names if name[0] == "step"}
    closed = {int(name[0]) for name in names if name[0] != "step"}
    assert closed >= stepped  # one may have been made, and not been stepped yet
    for pid in closed:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_factory_of_a_name_can_be_pickled():
    from agents.stepping import env_factory

    factory, name = env_factory("ovd/Math-v0", {"attempts": 2})
    assert name == "ovd/Math-v0"
    assert pickle.loads(pickle.dumps(factory))().budget.turns == 2
