"""Episodes that do not wait for one another: each goes on when its own reply or step is done."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gymnasium

from agents.env_processes import EnvProcesses
from agents.episode import Episode
from agents.protocol import NO_MESSAGE, Act, Agent
from agents.stepping import (
    EnvFactory,
    Start,
    ask,
    begin,
    checked,
    close,
    end,
    env_factory,
    fail,
    finish,
    new_episode,
    step,
)
from ovd_envs.errors import OVDError

#: Where environments are reset and stepped; a number is that many processes.
Workers = Literal["threads", "processes"] | int

#: Share of its last call's seconds that an idle agent waits for more episodes to answer at once:
#: without, it would be asked for the first that comes, and all others would wait for that call.
_PATIENCE = 0.05
#: Seconds that it waits before its first call.
_FIRST_PATIENCE = 0.1


def stream_episodes(
    agent: Agent,
    env: str | EnvFactory,
    requests: Iterable[Start],
    *,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    training: bool = False,
    workers: Workers = "threads",
) -> Generator[Episode, None, None]:
    """One episode for each (task, seed), as they end.

    At most ``batch_size`` are alive at a time, so ``requests`` may be endless. An agent with
    ``submit(episode)``, which returns a ``Future`` of its act, is asked for each episode by itself;
    of another, the episodes that are waiting are asked for together whenever it is idle, in a
    thread of its own. Random numbers are named by seed and turn, so an agent whose acts depend on
    nothing else gives the episodes of lockstep.

    ``workers`` "threads": environments are reset and stepped in threads, each by one at a time and
    in different ones. "processes": as many processes as there are processors hold them, and each
    process steps one at a time, in its main thread; ``env`` is then a name, or a function that can
    be pickled. A number: as "processes", with that many.

    An environment or an agent that raises ends its own episode; a process that dies, the episodes
    in it. An ``OVDError`` and Ctrl-C go up. Closing the generator waits for the steps under way,
    and closes the environments.
    """
    if batch_size < 1:
        raise OVDError(f"batch_size: expected at least 1, got {batch_size}")
    check_workers(workers)
    factory, name = env_factory(env, env_options)
    with contextlib.ExitStack() as stack:
        if workers != "threads":
            count = len(os.sched_getaffinity(0)) if workers == "processes" else workers
            processes = EnvProcesses(factory, min(batch_size, count))
            factory = stack.enter_context(contextlib.closing(processes)).make
        stream = _Stream(agent, (factory, name), iter(requests), batch_size, training)
        stack.callback(stream.close)
        yield from stream.run()


def check_workers(workers: object) -> None:
    """Raise ``OVDError`` where there are no such workers."""
    if workers in ("threads", "processes") or (type(workers) is int and workers > 0):
        return
    raise OVDError(
        f"workers: expected threads, processes or a number of them above 0, got {workers!r}"
    )


@dataclass(slots=True, eq=False)
class _Place:
    """An episode under way, and where it happens."""

    episode: Episode
    world: gymnasium.Env[str, str] | None = None
    #: A world that raised: it may be broken for good, and is closed before another is made.
    broken: gymnasium.Env[str, str] | None = None
    asked: float = 0.0
    reply: Future[Act] | None = None


class _Idle:
    """The agent has answered, and has nothing to do."""


#: What a thread reports: a place whose episode goes on with the agent's next act, or has ended;
#: that the agent is idle; or what must go up.
_Event = _Place | _Idle | BaseException


class _Stream:
    """A scheduler in the caller's thread; resets, steps and acts happen in others, and report."""

    def __init__(
        self,
        agent: Agent,
        env: tuple[EnvFactory, str],
        requests: Iterator[Start],
        batch_size: int,
        training: bool,
    ) -> None:
        self._agent = agent
        self._submit: Callable[[Episode], Future[Act]] | None = getattr(agent, "submit", None)
        self._factory, self._env = env
        self._requests = requests
        self._batch_size = batch_size
        self._training = training
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._stepping = ThreadPoolExecutor(batch_size, thread_name_prefix="environment")
        self._acting = ThreadPoolExecutor(1, thread_name_prefix="agent")
        self._alive: set[_Place] = set()
        self._idle: list[gymnasium.Env[str, str]] = []
        self._broken: list[gymnasium.Env[str, str]] = []
        # An agent without submit: who waits for it, what it has not been told is over, and since
        # when it has had nothing to do.
        self._waiting: list[_Place] = []
        self._over: list[Episode] = []
        self._busy = False
        self._closing = False
        self._gate = threading.Lock()  # nothing begins once it is closing
        self._free_since = time.perf_counter()
        self._patience = _FIRST_PATIENCE

    def run(self) -> Iterator[Episode]:
        """Every episode, as it ends."""
        self._fill()
        while self._alive:
            event = self._next()
            if event is None:
                self._ask_together()
            elif isinstance(event, BaseException):
                raise event
            elif isinstance(event, _Idle):
                self._busy, self._free_since = False, time.perf_counter()
            elif not event.episode.done:
                self._ask(event)
            else:
                self._alive.remove(event)
                self._let_go(event)
                self._fill()
                yield event.episode

    def _next(self) -> _Event | None:
        """The next report; ``None`` where it is time to ask the agent for all that wait for it."""
        if self._busy or not (self._waiting or self._over):
            return self._events.get()
        left = 0.0
        if len(self._alive) > len(self._waiting):  # others are on their way
            since = max([self._free_since, *(place.asked for place in self._waiting[:1])])
            left = max(0.0, since + self._patience - time.perf_counter())
        try:
            return self._events.get(timeout=left)
        except queue.Empty:
            return None

    def _fill(self) -> None:
        """Begin as many episodes as there are places for."""
        while len(self._alive) < self._batch_size:
            request = next(self._requests, None)
            if request is None:
                return
            place = _Place(new_episode(request, env=self._env, agent=self._agent.name))
            if self._idle:
                place.world = self._idle.pop()
            elif self._broken:
                place.broken = self._broken.pop()
            elif not self._alive:
                # The first is made here: what it loads is there for the others, and where none
                # can be made, this is where it is told.
                place.world = self._factory()
            self._alive.add(place)
            self._stepping.submit(self._guarded, self._begin, place)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do ``work`` in another thread: what it raises goes up in the caller's."""
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - goes up in the caller's thread
            self._events.put(error)

    def _begin(self, place: _Place) -> None:
        if place.broken is not None:
            close(place.broken)
            place.broken = None
        try:
            if place.world is None:
                place.world = self._factory()
        except OVDError:
            raise
        except Exception:  # noqa: BLE001 - somebody's environment can fail in any way
            place.episode.started = time.time()
            fail(place.episode, traceback.format_exc())
        else:
            begin(place.world, place.episode, training=self._training)
        self._events.put(place)

    def _step(self, place: _Place, act: Act, seconds: float) -> None:
        assert place.world is not None
        step(place.world, place.episode, act, seconds)
        self._events.put(place)

    def _ask(self, place: _Place) -> None:
        place.asked = time.perf_counter()
        if self._submit is None:
            self._waiting.append(place)
            return
        try:
            place.reply = self._submit(place.episode)
            place.reply.add_done_callback(partial(self._guarded, self._answered, place))
        except OVDError:
            raise
        except Exception:  # noqa: BLE001 - somebody's agent can fail in any way
            self._go_on(place, traceback.format_exc())

    def _answered(self, place: _Place, done: Future[Act]) -> None:
        """An agent's future has come, in whatever thread."""
        act: Act | str
        try:
            act = checked(self._agent, done.result())
        except OVDError:
            raise
        except Exception:  # noqa: BLE001 - somebody's agent can fail in any way
            act = traceback.format_exc()
        self._go_on(place, act)

    def _ask_together(self) -> None:
        """Tell the agent, in its thread, what is over, and ask it for all that wait."""
        over, self._over = self._over, []
        places, self._waiting, self._busy = self._waiting, [], True

        def work() -> None:
            finish(self._agent, over, None)
            if places:
                began = time.perf_counter()
                acts = ask(self._agent, [place.episode for place in places])
                self._patience = _PATIENCE * (time.perf_counter() - began)
                for place, act in zip(places, acts, strict=True):
                    self._go_on(place, act)
            self._events.put(_Idle())

        self._acting.submit(self._guarded, work)

    def _go_on(self, place: _Place, act: Act | str) -> None:
        """Let the act happen, in a thread of the environments; a text is a traceback."""
        if isinstance(act, str):
            fail(place.episode, act)
            self._events.put(place)
        elif act.stop in NO_MESSAGE:
            end(place.episode, act.stop, truncated=True)
            self._events.put(place)
        else:
            seconds = time.perf_counter() - place.asked
            with self._gate:
                if not self._closing:
                    self._stepping.submit(self._guarded, self._step, place, act, seconds)

    def _let_go(self, place: _Place) -> None:
        """An episode has ended: its world is free, and the agent is told when it can listen."""
        if place.world is not None:
            (self._idle if place.episode.error is None else self._broken).append(place.world)
        if self._submit is not None:
            finish(self._agent, [place.episode], None)
        elif hasattr(self._agent, "finish"):
            self._over.append(place.episode)

    def close(self) -> None:
        """Wait for what is under way, begin nothing more, close the environments."""
        with self._gate:
            self._closing = True
        for place in self._alive:
            if place.reply is not None:
                place.reply.cancel()
        self._acting.shutdown()
        self._stepping.shutdown(cancel_futures=True)
        for place in self._alive:
            self._idle += [world for world in (place.world, place.broken) if world is not None]
            if not place.episode.done:
                end(place.episode, "abandoned", truncated=True)
        for world in [*self._idle, *self._broken]:
            close(world)
        finish(self._agent, [*self._over, *(place.episode for place in self._alive)], None)
