"""When groups are collected: a step's own, in its turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from training.group_maker import GroupMaker
from training.groups import Group
from training.reporter import Reporter
from training.run import Run
from training.staleness import fresh


@dataclass(frozen=True, slots=True)
class Collected:
    """The groups of a step, and the seconds that it took to make them (or to read them again)."""

    groups: list[Group]
    seconds: float


class Collector:
    """Gives the groups of each step, and keeps sampler and weights apart.

    ``version`` is the number of steps that ``model`` has made. Whoever changes its weights does so
    within ``updating``, whoever else samples does so within ``evaluating``. This one collects a
    step when it is asked for; ``training.ahead`` has one that is ahead.
    """

    def __init__(
        self, maker: GroupMaker, run: Run, model: Any, version: int, reporter: Reporter
    ) -> None:
        self.maker = maker
        self.run = run
        self.model = model
        self.version = version
        self.reporter = reporter
        self.max_staleness = maker.config.rollout.max_staleness
        self._followed = 0  # what the sampler began with

    def groups(self, step: int) -> Collected:
        """The groups of ``step``: those that the run has kept, or new ones, which it then keeps."""
        return self._collect(step, self.reporter)

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """The weights become those of the next version."""
        yield
        self.version += 1

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Nobody else touches the model."""
        yield

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The sampler has exactly the newest weights, and nobody else uses it."""
        self._follow()
        yield

    def close(self) -> None:
        """Collect nothing more."""

    def _collect(self, step: int, reporter: Reporter) -> Collected:
        began = time.perf_counter()
        groups = self.run.groups(step)
        if groups is None or not fresh(groups, step, self.max_staleness):
            groups = self.maker.make(step, self._sampling(), reporter)
            self.run.save_groups(step, groups)
            self.maker.verdicts.remove()  # those of the groups stand in the run
        return Collected(groups, time.perf_counter() - began)

    @contextlib.contextmanager
    def _sampling(self) -> Iterator[None]:
        """The student may act."""
        self._follow()
        yield

    def _follow(self) -> None:
        """Give the sampler the newest weights, where it has older ones."""
        if self._followed != self.version:
            self.maker.sampler.follow(self.model, self.version)
            self._followed = self.version
