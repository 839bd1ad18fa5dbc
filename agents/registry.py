"""Backends by name, those of installed packages among them (entry points "ovd.backends")."""

from __future__ import annotations

from collections.abc import Callable

from agents.protocol import Backend
from ovd_envs.registry import Registry

#: A name stands for a function from a model's name (and ``dtype``, ``device``, ``batch_size``) to
#: a backend that runs it.
backends: Registry[Callable[..., Backend]] = Registry("ovd.backends", "backend")

backends.register(
    "transformers",
    "agents.transformers_backend:TransformersBackend.load",
    "any causal language model, in this process",
)
