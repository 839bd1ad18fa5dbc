"""Episodes that do not wait for one another: each goes on when its own reply or step is done."""

from __future__ import annotations

import queue
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import gymnasium

from agents.episode import Episode
from agents.protocol import Act, Agent
from agents.stepping import (
    EnvFactory,
    ask,
    begin,
    close,
    end,
    env_factory,
    fail,
    finish,
    new_episode,
    step,
)
from ovd_envs.errors import OVDError
from ovd_envs.task import Task


def stream_episodes(
    agent: Agent,
    env: str | EnvFactory,
    requests: Iterable[tuple[Task, tuple[int, ...]]],
    *,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    training: bool = False,
) -> Iterator[Episode]:
    """One episode for each (task, seed), as they end.

    At most ``batch_size`` are alive at a time, so ``requests`` may be endless. Environments are
    reset and stepped in threads, each by one at a time. An agent with ``submit(episode)``, which
    returns a ``Future`` of its act, is asked for each episode by itself; of another, all episodes
    that are waiting are asked for together whenever it is idle. Random numbers are named by seed
    and turn, so an agent whose acts depend on nothing else gives the episodes of lockstep.

    An environment or an agent that raises ends its own episode; an ``OVDError`` goes up. Closing
    the iterator waits for the steps under way, and closes the environments.
    """
    stream = _Stream(agent, env_factory(env, env_options), iter(requests), batch_size, training)
    try:
        yield from stream.run()
    finally:
        stream.close()


@dataclass(slots=True, eq=False)
class _Place:
    """An episode under way, and where it happens."""

    episode: Episode
    world: gymnasium.Env[str, str] | None = None
    asked: float = 0.0


#: What a thread reports: places with their acts, a place whose world waits for one (``None``), or
#: what must go up.
_Event = tuple[list[_Place], list[Act | str] | None] | Exception


class _Stream:
    def __init__(
        self,
        agent: Agent,
        env: tuple[EnvFactory, str],
        requests: Iterator[tuple[Task, tuple[int, ...]]],
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
        self._waiting: list[_Place] = []
        self._busy = False

    def run(self) -> Iterator[Episode]:
        """The scheduler: everything that is not an act or a step happens here, in one thread."""
        self._fill()
        while self._alive:
            event = self._events.get()
            if isinstance(event, Exception):
                raise event
            places, acts = event
            if acts is None:
                [place] = places
                if place.episode.done:
                    yield self._ended(place)
                    self._fill()
                else:
                    self._ask(place)
            else:
                self._busy = False
                for place, act in zip(places, acts, strict=True):
                    if self._acted(place, act):
                        yield self._ended(place)
                        self._fill()
            if self._waiting and not self._busy and self._events.empty():
                self._ask_together()

    def _fill(self) -> None:
        while len(self._alive) < self._batch_size:
            request = next(self._requests, None)
            if request is None:
                return
            episode = new_episode(*request, env=self._env, agent=self._agent.name)
            place = _Place(episode, self._idle.pop() if self._idle else None)
            self._alive.add(place)
            self._stepping.submit(self._guarded, self._begin, place)

    def _guarded(self, work: Callable[..., None], place: _Place, *arguments: Any) -> None:
        """Do ``work`` in a thread of the environments, and report."""
        try:
            work(place, *arguments)
        except Exception as error:  # noqa: BLE001 - goes up in the caller's thread
            self._events.put(error)
        else:
            self._events.put(([place], None))

    def _begin(self, place: _Place) -> None:
        if place.world is None:
            place.world = self._factory()
        begin(place.world, place.episode, training=self._training)

    def _step(self, place: _Place, act: Act, seconds: float) -> None:
        assert place.world is not None
        step(place.world, place.episode, act, seconds)

    def _ask(self, place: _Place) -> None:
        place.asked = time.perf_counter()
        if self._submit is None:
            self._waiting.append(place)
            return
        try:
            future = self._submit(place.episode)
        except OVDError:
            raise
        except Exception:  # noqa: BLE001 - somebody's agent can fail in any way
            self._events.put(([place], [traceback.format_exc()]))
        else:
            future.add_done_callback(lambda done: self._events.put(_result(place, done)))

    def _ask_together(self) -> None:
        places, self._waiting, self._busy = self._waiting, [], True

        def work() -> None:
            try:
                acts = ask(self._agent, [place.episode for place in places])
            except Exception as error:  # noqa: BLE001 - goes up in the caller's thread
                self._events.put(error)
            else:
                self._events.put((places, acts))

        self._acting.submit(work)

    def _acted(self, place: _Place, act: Act | str) -> bool:
        """Let the act happen; whether the episode is over without. A text is a traceback."""
        if isinstance(act, str):
            fail(place.episode, act)
        elif act.stop == "context_limit":
            end(place.episode, "context_limit", truncated=True)
        else:
            seconds = time.perf_counter() - place.asked
            self._stepping.submit(self._guarded, self._step, place, act, seconds)
            return False
        return True

    def _ended(self, place: _Place) -> Episode:
        self._alive.remove(place)
        finish(self._agent, [place.episode], None)
        if place.world is not None:
            if place.episode.error is None:
                self._idle.append(place.world)
            else:  # what raised may be broken for good
                close(place.world)
            place.world = None
        return place.episode

    def close(self) -> None:
        """Wait for what is under way, begin nothing more, close the environments."""
        self._acting.shutdown(cancel_futures=True)
        self._stepping.shutdown(cancel_futures=True)
        for world in [*self._idle, *(place.world for place in self._alive)]:
            if world is not None:
                close(world)


def _result(place: _Place, done: Future[Act]) -> _Event:
    """What an agent's future came to."""
    try:
        return [place], [done.result()]
    except OVDError as error:
        return error
    except Exception:  # noqa: BLE001 - somebody's agent can fail in any way
        return [place], [traceback.format_exc()]
