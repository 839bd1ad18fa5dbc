"""Backends by name, those of installed packages among them (entry points "ovd.backends").

What search needs of models is registered here too: the engine "simulated", and the encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from agents import capabilities
from agents.protocol import capabilities_of
from ovd_envs.registry import Registry
from ovd_envs.search.encoders import encoders
from ovd_envs.search.registry import search_engines


def _describe(factory: Callable[..., Any]) -> Mapping[str, bool]:
    return asdict(capabilities_of(factory))


#: A name stands for a function from a model's name (and ``dtype``, ``device``, ``batch_size``,
#: ``dialect``; ``address`` where one was given) to a ``Backend`` that runs it: its class, a class
#: method of it, or a function with the attribute ``capabilities``. One that declares no
#: ``token_ids`` makes an ``Agent`` instead.
backends: Registry[Callable[..., Any]] = Registry("ovd.backends", "backend", describe=_describe)

backends.register(
    "transformers",
    "agents.transformers_backend:TransformersBackend.load",
    "any causal language model, in this process",
    capabilities=asdict(capabilities.TRANSFORMERS),
)
backends.register(
    "vllm",
    "agents.vllm_backend:VLLMBackend.load",
    "vLLM in this process: continuous batching (make vllm)",
    capabilities=asdict(capabilities.VLLM),
)
backends.register(
    "vllm-server",
    "agents.vllm_server:VLLMServerBackend.load",
    "vLLM servers over HTTP (vllm-server:http://HOST:PORT, several with commas)",
    capabilities=asdict(capabilities.VLLM_SERVER),
)
backends.register(
    "openai",
    "agents.openai_backend:OpenAIStudent.load",
    "any API of OpenAI's chat completions: text, no tokens (openai:http://HOST/v1)",
    capabilities=asdict(capabilities.OPENAI),
)

search_engines.register(
    "simulated",
    "agents.simulated:simulated_engine",
    "a language model plays the engine, as in ZeroSearch (simulated:MODEL)",
)

encoders.register(
    "minilm-l6", "agents.encoder:minilm", "all-MiniLM-L6-v2: small, English, 384 dimensions"
)
encoders.register(
    "transformers",
    "agents.encoder:transformers_encoder",
    "a model of mean pooling without prefixes (transformers:MODEL)",
)
encoders.register("e5", "agents.encoder:e5", "a model of the E5 family (e5:intfloat/e5-base-v2)")
