"""The circuit by itself; with a real server it is in tests/teachers/test_faults.py."""

import asyncio
import time

import pytest

from agents.outage import Circuit, HaltedError, OutageError


def circuit(told=None, **options):
    settings = {"threshold": 3, "first_pause": 0.02, "patience": 30.0, **options}
    return Circuit("it", tell=(told if told is not None else []).append, **settings)


def fail(made, call, *, knocked=False, refused=False, pending=10):
    made.failed(call, "down", knocked=knocked, refused=refused, pending=pending)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


def test_it_opens_once_as_many_calls_as_the_threshold_fail_in_a_row():
    told = []
    made = circuit(told)
    for call in (1, 2, 1, 2, 1):
        fail(made, call)
    assert not made.is_open  # two calls, however often
    made.succeeded(knocked=False)
    for call in (3, 4, 5, 6):
        fail(made, call)
    assert made.is_open
    assert len(told) == 1
    made.succeeded(knocked=True)
    assert not made.is_open
    assert len(told) == 2


def test_an_answer_that_was_under_way_when_it_opened_does_not_close_it():
    told = []
    made = circuit(told)
    for call in (1, 2, 3):
        fail(made, call)
    made.succeeded(knocked=False)
    assert made.is_open
    assert len(told) == 1


def test_where_nobody_is_there_a_single_call_is_enough():
    made = circuit()
    fail(made, 1, pending=1)
    assert not made.is_open
    fail(made, 1, refused=True, pending=1)
    assert made.is_open


def test_one_call_at_a_time_knocks_and_success_lets_all_pass():
    made = circuit()
    for call in range(3):
        fail(made, call)
    inside, most, knocks = 0, 0, 0

    async def call(number):
        nonlocal inside, most, knocks
        while True:
            knocked = await made.enter()
            if not knocked:
                return
            inside, knocks = inside + 1, knocks + 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1
            if knocks == 4:
                made.succeeded(knocked=True)
            else:
                fail(made, number, knocked=True)
            made.leave()
            if knocks == 4:
                return

    async def all_of_them():
        await asyncio.gather(*(call(number) for number in range(20)))

    run(all_of_them())
    assert (most, knocks) == (1, 4)


def test_a_timer_that_fires_early_is_no_end_of_patience(monkeypatch):
    made = circuit(first_pause=5.0)

    async def early(seconds):
        assert seconds > 3

    monkeypatch.setattr(made, "sleep", early)
    for call in range(3):
        fail(made, call)
    assert run(made.enter()) is True


def test_patience_ends_and_later_calls_end_at_once_but_those_that_knock():
    made = circuit(first_pause=0.3, patience=0.05)
    for call in range(3):
        fail(made, call)

    async def work():
        for _ in range(3):
            with pytest.raises(OutageError, match=r"did not answer for 0\.05 s"):
                await made.enter()
        await asyncio.sleep(0.3)
        assert await made.enter() is True
        made.succeeded(knocked=True)
        made.leave()
        assert await made.enter() is False

    run(work())


def test_halting_wakes_who_waits():
    made = circuit(first_pause=20.0)
    for call in range(3):
        fail(made, call)

    async def work():
        waiting = [asyncio.ensure_future(made.enter()) for _ in range(3)]
        await asyncio.sleep(0.01)
        made.halt(True)
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, HaltedError)
        with pytest.raises(HaltedError):
            await made.enter()
        made.halt(False)

    began = time.monotonic()
    run(work())
    assert time.monotonic() - began < 15
