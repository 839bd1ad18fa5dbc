"""What ``gymnasium.make_vec`` loads: "ovd_envs.vector_entry_points:ovd/Math-v0" and its like.

Gymnasium does not tell an entry point the name that was asked for, and a function in its place
would keep ``EnvSpec.to_json`` from working. So every registered name is an attribute here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ovd_envs.registry import ENVIRONMENTS
from ovd_envs.vector import TextVectorEnv, make_vec


def __getattr__(name: str) -> Callable[..., TextVectorEnv]:
    if name not in ENVIRONMENTS.names():
        raise AttributeError(name)
    return partial(make_vec, name)
