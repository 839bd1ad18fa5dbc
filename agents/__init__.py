"""Who acts: episodes with exact tokens, agents, backends and rollouts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from agents.episode import Episode, Segment, Turn, read_episodes, write_episodes
from agents.protocol import (
    Act,
    Agent,
    Backend,
    Capabilities,
    Completion,
    Request,
    capabilities_of,
)
from agents.registry import backends
from agents.rollout import rollout, stream_episodes
from ovd_envs.errors import OVDError
from ovd_envs.options import check_options

if TYPE_CHECKING:
    from agents.chat_dialect import ChatDialect
    from agents.dialect import Dialect
    from agents.inline_dialect import InlineDialect
    from agents.openai_backend import OpenAIStudent
    from agents.student import Student
    from agents.transformers_backend import TransformersBackend
    from agents.vllm_backend import VLLMBackend
    from agents.vllm_server import VLLMServerBackend

# Loaded at first use: torch and transformers take seconds.
_LAZY = {
    "ChatDialect": "agents.chat_dialect",
    "Dialect": "agents.dialect",
    "InlineDialect": "agents.inline_dialect",
    "OpenAIStudent": "agents.openai_backend",
    "Student": "agents.student",
    "TransformersBackend": "agents.transformers_backend",
    "VLLMBackend": "agents.vllm_backend",
    "VLLMServerBackend": "agents.vllm_server",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'agents' has no attribute {name!r}")


def load_backend(
    name: str,
    *,
    backend: str = "transformers",
    dtype: str = "auto",
    device: str | None = None,
    batch_size: int = 64,
    dialect: str = "chat",
) -> Backend:
    """A backend for a model: an alias, a folder or a hub name.

    ``backend`` is a name, or NAME:ADDRESS for one that runs elsewhere: "transformers", "vllm",
    "vllm-server:http://localhost:8000". ``dialect`` is "chat", "chat-no-thinking"
    or "inline": see ``TextEnv.dialect``. Raises ``OVDError`` where there is no such model, backend
    or dialect, and for a backend that gives no tokens.
    """
    kind, _, address = backend.partition(":")
    load = backends.get(kind)
    if not capabilities_of(load).token_ids:
        raise OVDError(f"backend {kind!r}: gives no token ids, which are needed here")
    options: dict[str, Any] = {
        "dtype": dtype,
        "device": device,
        "batch_size": batch_size,
        "dialect": dialect,
    }
    if address:
        options["address"] = address
    check_options(f"backend {kind!r}", load, options, [name])
    loaded: Backend = load(name, **options)
    capabilities_of(loaded)  # a function may say what the class that it makes does not
    return loaded


def load_student(
    name: str,
    *,
    temperature: float = 1.0,
    max_tokens: int = 256,
    dtype: str = "auto",
    device: str | None = None,
    batch_size: int = 64,
    dialect: str = "chat",
    backend: str = "transformers",
) -> Student | OpenAIStudent:
    """A student: ``load_backend`` and how it samples. Raises ``OVDError``.

    With ``backend`` "openai", or "openai:http://HOST/v1", a chat API writes its messages: they have
    no tokens, and nothing can be trained on them.
    """
    kind, _, address = backend.partition(":")
    if kind == "openai":
        from agents.openai_backend import OPENAI_ADDRESS, OpenAIStudent

        return OpenAIStudent.load(
            name,
            temperature=temperature,
            max_tokens=max_tokens,
            batch_size=batch_size,
            address=address or OPENAI_ADDRESS,
        )
    from agents.student import Student

    loaded = load_backend(
        name,
        backend=backend,
        dtype=dtype,
        device=device,
        batch_size=batch_size,
        dialect=dialect,
    )
    return Student(loaded, temperature=temperature, max_tokens=max_tokens)


__all__ = [
    "Act",
    "Agent",
    "Backend",
    "Capabilities",
    "ChatDialect",
    "Completion",
    "Dialect",
    "Episode",
    "InlineDialect",
    "OpenAIStudent",
    "Request",
    "Segment",
    "Student",
    "TransformersBackend",
    "Turn",
    "VLLMBackend",
    "VLLMServerBackend",
    "backends",
    "load_backend",
    "load_student",
    "read_episodes",
    "rollout",
    "stream_episodes",
    "write_episodes",
]
