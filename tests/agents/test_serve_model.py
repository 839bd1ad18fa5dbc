import importlib.util
import sys

import pytest
import torch

import agents
from agents.protocol import Request
from agents.serve_model import rank_of_vllm, server_command
from agents.vllm_sampling import sampling_options, seed_of
from ovd_envs.errors import OVDError
from tests.tiny import tiny_tokenizer


def test_the_command_of_a_server(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    command, environment = server_command(
        str(tmp_path), host="127.0.0.1", port=8123, lora_rank=12, more=["--dtype", "float32"]
    )
    text = " ".join(command)
    assert command[0] == sys.executable
    assert command[-2:] == ["--dtype", "float32"]
    for part in (
        f"--model {tmp_path} ",
        "--host 127.0.0.1 --port 8123",
        "--enable-scale-out",
        "--logprobs-mode processed_logprobs",
        "--worker-extension-cls agents.vllm_worker.FollowingWorker",
        "--structured-outputs-config",
        "--enable-lora --max-lora-rank 16",
    ):
        assert part in text
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert "--no-enable-chunked-prefill" not in command
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command, _ = server_command(str(tmp_path), host="127.0.0.1", port=8123)
    assert "--no-enable-chunked-prefill" in command
    # What the user has set stays.
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "9")
    _, environment = server_command(str(tmp_path), host="::1", port=1)
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "9"


def test_without_vllm(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OVDError, match="vLLM is not installed: expected `make vllm`"):
        server_command("smollm2-135m", host="127.0.0.1", port=8000)


@pytest.mark.parametrize(("rank", "known"), [(1, 8), (8, 8), (9, 16), (33, 64), (512, 512)])
def test_ranks(rank, known):
    assert rank_of_vllm(rank) == known


def test_the_seed_of_a_reply_is_that_of_its_key():
    keys = [(0,), (0, 0), (1, 2), (12,), (1, 2, 3), (123,)]
    seeds = [seed_of(key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of((1, 2)) == seeds[2]


def test_what_vllm_is_asked_for():
    from agents.chat_dialect import ChatDialect

    dialect = ChatDialect(tiny_tokenizer())
    options = sampling_options(dialect, Request([1], 7, temperature=0.5, stop=("</a>",)))
    assert options["max_tokens"] == 7
    assert options["temperature"] == 0.5
    assert options["stop"] == ["</a>"]
    assert set(options["stop_token_ids"]) == set(dialect.stop_ids)
    assert options["ignore_eos"] is True
    assert options["detokenize"] is True


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("vlm", "did you mean 'vllm'"),
        ("transformers:http://localhost:1", "backend 'transformers': no option 'address'"),
    ],
)
def test_backends_by_name(backend, said):
    with pytest.raises(OVDError, match=said):
        agents.load_backend("smollm2-135m", backend=backend)
