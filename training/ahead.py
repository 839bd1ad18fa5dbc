"""Collecting ahead: the student acts for coming steps while the learner learns from this one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from training.collector import Collected, Collector
from training.group_maker import GroupMaker
from training.reporter import Reporter
from training.run import Run
from training.staleness import oldest


class AheadCollector(Collector):
    """Collects the groups of coming steps in a thread of its own, up to ``max_staleness`` ahead.

    One condition guards who does what: the sampler is taken by a rollout or by an evaluation, the
    weights are changed by the learner or copied into the sampler, never both. A rollout that could
    begin copies its weights before the learner changes them again: else each would wait for the
    other, in turn, and nothing were won.

    What the thread raises is raised by ``groups`` at the step that it could not collect.
    """

    def __init__(
        self, maker: GroupMaker, run: Run, model: Any, version: int, reporter: Reporter
    ) -> None:
        super().__init__(maker, run, model, version, reporter)
        self._last = maker.config.optimizer.steps
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._relay = _Relay(reporter)
        self._ready: dict[int, Collected] = {}
        self._failure: BaseException | None = None
        #: The step that waits to be begun; none while one is collected.
        self._next: int | None = None
        self._rollout = self._evaluation = False  # who has the sampler
        self._copying = self._holding = False  # who has the weights

    def groups(self, step: int) -> Collected:
        """The groups of ``step``, as soon as they are there. The first call begins to collect."""
        if self._thread is None:
            self._next = step
            self._thread = threading.Thread(
                target=self._run, args=(step,), name="collector", daemon=True
            )
            self._thread.start()
        if step not in self._ready:
            with self._relay.shown(), self._changed:
                self._changed.wait_for(lambda: step in self._ready or self._failure is not None)
        if self._failure is not None and step not in self._ready:
            raise self._failure
        return self._ready.pop(step)

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """The weights become those of the next version; they are not copied meanwhile."""
        with self.steady():
            yield
            with self._changed:
                self.version += 1

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """The weights are not copied meanwhile; a rollout that could begin gets them before."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._copying and not (self._next and self._may_begin(self._next))
            )
            self._holding = True
        try:
            yield
        finally:
            self._set(_holding=False)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The sampler has exactly the newest weights, and no rollout of a step uses it.

        Waits for the rollout under way, and lets none begin.
        """
        try:
            with self._changed:
                self._evaluation = True
                self._changed.wait_for(lambda: not self._rollout)
            self._follow()
            yield
        finally:
            self._set(_evaluation=False)

    def close(self) -> None:
        """Stop the thread at the next episode or verdict; groups that are not whole are lost.

        A judge that may wait long for others (``halt``) is told to begin nothing more.
        """
        self._relay.stop()
        halt = getattr(self.maker.judge, "halt", None)
        if halt is not None:
            halt()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    # In the collecting thread

    def _run(self, first: int) -> None:
        try:
            for step in range(first, self._last + 1):
                self._begin(step)
                try:
                    collected = self._collect(step, self._relay)
                finally:
                    self._set(_rollout=False, _copying=False)
                with self._changed:
                    self._ready[step] = collected
                    self._next = step + 1 if step < self._last else None
                    self._changed.notify_all()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._failure = error
        finally:
            self._set(_next=None)

    def _begin(self, step: int) -> None:
        """Wait until ``step`` may be collected; take the sampler, and the weights if they rest."""
        with self._changed:
            self._changed.wait_for(lambda: self._relay.stopped or self._may_begin(step))
            self._relay.go_on()
            self._next = None
            self._rollout, self._copying = True, not self._holding

    def _may_begin(self, step: int) -> bool:
        """Whether nobody else has the sampler, and it has, or can get, weights for ``step``."""
        version = self._followed if self._holding else self.version
        return not self._evaluation and version >= oldest(step, self.max_staleness)

    @contextlib.contextmanager
    def _sampling(self) -> Iterator[None]:
        if self._copying:
            self._follow()
            self._set(_copying=False)
        yield
        self._set(_rollout=False)

    def _set(self, **flags: Any) -> None:
        with self._changed:
            for name, value in flags.items():
                setattr(self, name, value)
            self._changed.notify_all()


class _Stopped(BaseException):
    """Nobody wants the groups any more."""


class _Relay:
    """A reporter for the collecting thread, heard while the main thread waits for it.

    Where it was stopped, the next report raises ``_Stopped``: between two episodes or verdicts.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.stopped = False
        self._reporter = reporter
        self._lock = threading.Lock()
        self._shown = False
        self._phase: tuple[str, int] | None = None
        self._done = 0

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Let the reporter hear, of what is under way first."""
        with self._lock:
            self._shown = True
            if self._phase is not None:
                self._reporter.phase(*self._phase)
                for _ in range(self._done):
                    self._reporter.advance()
        try:
            yield
        finally:
            with self._lock:
                self._shown = False

    def stop(self) -> None:
        """Let the collecting thread end."""
        self.stopped = True

    def go_on(self) -> None:
        """Raise ``_Stopped`` where it was stopped."""
        if self.stopped:
            raise _Stopped

    def phase(self, name: str, total: int) -> None:
        """As ``Reporter``."""
        self.go_on()
        with self._lock:
            self._phase, self._done = (name, total), 0
            if self._shown:
                self._reporter.phase(name, total)

    def advance(self) -> None:
        """As ``Reporter``."""
        self.go_on()
        with self._lock:
            self._done += 1
            if self._shown:
                self._reporter.advance()

    def stepped(self, metrics: dict[str, Any]) -> None:
        """Not from here."""

    def evaluated(self, result: dict[str, Any]) -> None:
        """Not from here."""
