"""Packed weights multiply as the layer itself does, and never outlive the weights."""

from __future__ import annotations

import pytest
import torch

import agents.packed_linear as module
from agents.packed_linear import PackedLinears
from agents.protocol import Request
from agents.transformers_backend import TransformersBackend
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor does not multiply bfloat16",
)


def two_layers(*, bias: bool = True) -> torch.nn.Sequential:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(96, 160, bias=bias), torch.nn.SiLU(), torch.nn.Linear(160, 33, bias=bias)
    )
    return layers.to(torch.bfloat16).eval()


def counted(monkeypatch) -> list[int]:
    """Layers that multiplied by packed weights."""
    seen: list[int] = []
    forward = module._forward

    def spy(layer, packed, x):
        seen.append(x.numel() // x.shape[-1])
        return forward(layer, packed, x)

    monkeypatch.setattr(module, "_forward", spy)
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(96,), (1, 96), (32, 1, 96), (4, 40, 96), (200, 96)])
def test_the_same_products(shape, bias, monkeypatch):
    layers, seen = two_layers(bias=bias), counted(monkeypatch)
    x = torch.randn(shape).to(torch.bfloat16)
    with torch.inference_mode():
        expected = layers(x).float()
        with PackedLinears(layers).used():
            found = layers(x)
        assert found.shape == expected.shape
        assert torch.allclose(found.float(), expected, atol=0.02, rtol=0.02)
        assert len(seen) == 2
        layers(x)
    assert len(seen) == 2  # out of the block the layers are themselves


@pytest.mark.parametrize("change", ["in_place", "data", "load"])
def test_new_weights_are_packed_anew(change):
    layers = two_layers()
    packed = PackedLinears(layers)
    x = torch.randn(8, 96).to(torch.bfloat16)
    with torch.inference_mode(), packed.used():
        before = layers(x).float()
    with torch.no_grad():
        if change == "in_place":
            layers[0].weight.mul_(-1.5)
        elif change == "data":
            layers[0].weight.data = layers[0].weight.data * -1.5
        else:
            state = {name: value * -1.5 for name, value in layers.state_dict().items()}
            layers.load_state_dict(state)
    with torch.inference_mode():
        expected = layers(x).float()
        with packed.used():
            found = layers(x).float()
    assert torch.allclose(found, expected, atol=0.03, rtol=0.03)
    assert not torch.allclose(found, before, atol=0.1)


def test_an_optimizer_step_is_followed():
    model = tiny_model(dtype=torch.bfloat16)
    backend = TransformersBackend(model, tiny_tokenizer())
    optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
    requests = [Request([7, 8, 9], 6, key=(n,)) for n in range(4)]
    for version in (1, 2, 3):
        ids = torch.randint(0, 250, (2, 12))
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        backend.follow(model, version)
        for request, reply in zip(requests, backend.generate(requests), strict=True):
            whole = torch.tensor([[*request.ids, *reply.ids]])
            with torch.inference_mode():
                logits = model(whole).logits[0].float().log_softmax(-1)
            places = range(len(request.ids) - 1, whole.shape[1] - 1)
            expected = [logits[i, whole[0, i + 1]].item() for i in places]
            assert reply.logprobs == pytest.approx(expected, abs=0.25)


def test_a_large_model_is_not_copied(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    layers, seen = two_layers(), counted(monkeypatch)
    with torch.inference_mode(), PackedLinears(layers).used():
        layers(torch.randn(3, 96).to(torch.bfloat16))
    assert not seen


def test_a_hook_of_someone_else_stays():
    layers = two_layers()
    hook = layers[0].forward = lambda x: torch.zeros(*x.shape[:-1], 160, dtype=x.dtype)
    with torch.inference_mode(), PackedLinears(layers).used():
        assert layers[0].forward is hook
    assert layers[0].forward is hook


def test_float32_is_left_alone(monkeypatch):
    layers, seen = two_layers().float(), counted(monkeypatch)
    with torch.inference_mode(), PackedLinears(layers).used():
        layers(torch.randn(3, 96))
    assert not seen
