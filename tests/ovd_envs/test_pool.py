from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from ovd_envs.grading import pool as pool_module
from ovd_envs.grading.pool import Expired, WorkerPool, shared_pool

RULES = {"decimals": 6, "strict": True, "relations_as_sets": True}
HANGS = "10^{10^{10}}"


def pair(answer, gold="95"):
    return {"kind": "math", "gold": gold, "answer": answer, "rules": RULES}


@pytest.fixture
def pool():
    made = WorkerPool(1)
    yield made
    made.close()


def test_time_in_the_queue_does_not_count(pool):
    # One worker, three requests at once: two hang for their whole deadline, and the third, which
    # waits behind them for longer than its own deadline, is graded all the same.
    pool.ask(pair("95"), deadline=5)
    results = {}

    def ask(name, answer):
        try:
            results[name] = pool.ask(pair(answer), deadline=1.0)
        except Expired as error:
            results[name] = error.phase

    threads = [threading.Thread(target=ask, args=(f"hangs {n}", HANGS)) for n in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    threads.append(threading.Thread(target=ask, args=("easy", "190/2")))
    start = time.monotonic()
    threads[-1].start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start > 1.5, "the easy one was to wait"
    assert results == {
        "hangs 0": "answer",
        "hangs 1": "answer",
        "easy": {"phase": "done", "correct": True},
    }


def test_the_phase_tells_what_took_the_time(pool):
    with pytest.raises(Expired) as caught:
        pool.ask(pair("95", gold="\\frac{1}{" * 500 + "2" + "}" * 500), deadline=0.5)
    assert caught.value.phase == "gold"


def test_a_worker_that_dies_is_replaced(pool):
    pool.ask(pair("190/2"), deadline=5)
    pool._idle[0]._process.kill()
    pool._idle[0]._process.wait()
    assert pool.ask(pair("190/2"), deadline=5)["correct"], "it had nothing to do with this pair"


def test_a_worker_that_dies_at_its_work_is_told_of(pool):
    pool.ask(pair("190/2"), deadline=5)
    dies = threading.Timer(0.3, pool._idle[0]._process.kill)
    dies.start()
    with pytest.raises(Expired) as caught:
        pool.ask(pair(HANGS), deadline=30)
    assert (caught.value.ended, caught.value.begun) == (True, True)


def test_a_worker_that_takes_too_much_memory_ends_alone(pool):
    # 3^(10^9) needs minutes or gigabytes; whichever comes first, the machine is left alone.
    with pytest.raises(Expired) as caught:
        pool.ask(pair("3^{3^{20}}"), deadline=2)
    assert caught.value.phase == "answer"


def test_an_interrupted_request_does_not_answer_the_next_one(pool, monkeypatch):
    pool.ask(pair("95"), deadline=5)
    worker = pool._idle[0]
    real, calls = worker._next, []

    def interrupted(end):
        calls.append(end)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(end)

    monkeypatch.setattr(worker, "_next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.ask(pair("190/2"), deadline=5)
    assert worker._process.poll() is not None, "it still works on the old request"
    assert not pool.ask(pair("2 + 2"), deadline=5)["correct"]


def test_many_threads_get_their_own_answers():
    pool = WorkerPool(2)
    results = {}

    def ask(n):
        results[n] = pool.ask(pair(f"{n} + 1", gold=str(n + n % 2)), deadline=20)["correct"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert results == {n: n % 2 == 1 for n in range(20)}


def test_a_forked_child_has_workers_of_its_own():
    shared_pool().ask(pair("190/2"), deadline=20)
    child = os.fork()
    if child == 0:
        os._exit(0 if pool_module._pool is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared_pool().ask(pair("190/2"), deadline=20)["correct"]


def test_workers_end_with_a_parent_that_was_killed():
    code = (
        "from ovd_envs.grading.pool import shared_pool\n"
        "import sys, time\n"
        f"shared_pool().ask({pair('190/2')!r}, deadline=20)\n"
        "print(shared_pool()._idle[0]._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    psutil.wait_procs([worker], timeout=20)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    # What multiprocessing's "spawn" would do.
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "from ovd_envs.grading import grade_math\n"
        "print(grade_math('x + 1', '1 + x').outcome)\n"
    )
    # Modules that would be imported instead of Python's own, were the folder on the worker's path.
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')\n")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=120,
    )
    assert done.stdout == "once\nright\n", done.stderr


def test_odd_texts_cross_the_pipe(pool):
    for text in ("\x00", "\n\n", "\ud800", "\u202e", '"}', "\U0001f600"):
        assert pool.ask(pair(text), deadline=20) | {"error": ""} in (
            {"phase": "done", "correct": False, "error": ""},
            {"phase": "done", "error": ""},
        )
