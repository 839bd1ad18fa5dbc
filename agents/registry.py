"""Backends by name, those of installed packages among them (entry points "ovd.backends").

The search engine that needs a backend, "simulated", is registered here too.
"""

from __future__ import annotations

from collections.abc import Callable

from agents.protocol import Backend
from ovd_envs.registry import Registry
from ovd_envs.search.registry import search_engines

#: A name stands for a function from a model's name (and ``dtype``, ``device``, ``batch_size``,
#: ``dialect``) to a backend that runs it.
backends: Registry[Callable[..., Backend]] = Registry("ovd.backends", "backend")

backends.register(
    "transformers",
    "agents.transformers_backend:TransformersBackend.load",
    "any causal language model, in this process",
)

search_engines.register(
    "simulated",
    "agents.simulated:simulated_engine",
    "a language model plays the engine, as in ZeroSearch (simulated:MODEL)",
)
