"""Algorithms by name, those of installed packages among them (entry points "ovd.algorithms")."""

from __future__ import annotations

from collections.abc import Callable

from ovd_envs.registry import Registry
from training.protocol import Algorithm

#: A name stands for a class or function that returns an algorithm; its keyword arguments, or the
#: fields of a pydantic model, are the algorithm's options.
algorithms: Registry[Callable[..., Algorithm]] = Registry("ovd.algorithms", "algorithm")

algorithms.register(
    "ovd",
    "training.algorithms:OVD",
    "On-policy Verbal Distillation: verbal rejection, and a demonstrator in the rejected's place",
)
algorithms.register(
    "grpo",
    "training.algorithms:GRPO",
    "group-relative policy optimisation on the outcome alone",
)
algorithms.register(
    "sft",
    "training.algorithms:SFT",
    "imitation of the demonstrator, every advantage 1",
)
