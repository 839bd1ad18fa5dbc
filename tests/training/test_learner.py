"""The learner: rows in, exactly the update that the formula asks for, and nothing lost."""

import copy
import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Lfm2Config, Lfm2ForCausalLM

from ovd_envs.errors import OVDError
from tests.tiny import SIZES, tiny_model
from tests.training.made import batches_of, row_of
from training.config import OptimizerConfig
from training.learner import Learner, learning_rate
from training.loss import score_tokens
from training.rows import total_weight

GOOD = row_of([256, 1, 2, 5, 6, 257], [0, 0, 0, 1, 1, 1], 1.0)
BAD = row_of([256, 1, 2, 9, 8, 7, 257], [0, 0, 0, 1, 1, 1, 1], -0.5)
SHOWN = row_of([256, 44, 20, 257], [0, 0, 1, 1], 0.75, group=1, weight=3.0, teacher=True)
STILL = row_of([256, 44, 30, 31], [0, 0, 1, 1], 0.0, group=1)
ROWS = [GOOD, BAD, SHOWN, STILL]


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def by_hand(rows, *, updates, rate, kl, clip=0.2, max_norm=1.0):
    """The update with the model's own full logits and torch's AdamW; (weights, gradient norms)."""
    policy = tiny_model()
    start = copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=0.0)

    def logprobs(net, row):
        logits = net(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        return logits.log_softmax(-1).gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]

    old = [logprobs(start, row) for row in rows]
    norms = []
    for _ in range(updates):
        total = 0.0
        for row, before in zip(rows, old, strict=True):
            now, mask = logprobs(policy, row), torch.tensor(row.mask[1:])
            gain, ratio = torch.tensor(row.advantages[1:]), (now - before).exp()
            surrogate = torch.min(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
            k3 = (before - now).exp() - (before - now) - 1
            total = total + row.weight * (mask * (kl * k3 - surrogate)).sum()
        optimizer.zero_grad()
        (total / total_weight(rows)).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm).item())
        optimizer.step()
    return weights(policy), norms


@pytest.mark.parametrize(("updates", "kl"), [(1, 0.0), (1, 0.1), (2, 0.0), (3, 0.1)])
@pytest.mark.parametrize("micro_batch_tokens", [6, 2048])
def test_a_step_is_the_formula_and_adamw(updates, kl, micro_batch_tokens):
    expected, norms = by_hand(ROWS, updates=updates, rate=3e-3, kl=kl)
    start = weights(tiny_model())
    learner = Learner(
        tiny_model(),
        OptimizerConfig(
            learning_rate=3e-3,
            kl=kl,
            updates_per_step=updates,
            micro_batch_tokens=micro_batch_tokens,
        ),
    )
    log = learner.step(ROWS, 1)
    assert log["grad_norm"] == pytest.approx(norms[-1], rel=1e-3)
    moved, missed = 0.0, 0.0
    for name, weight in weights(learner.model).items():
        moved += (expected[name] - start[name]).square().sum().item()
        missed += (expected[name] - weight).square().sum().item()
    assert moved > 0
    assert math.sqrt(missed / moved) < 0.01
    # The ratio is 1 before the first update: the loss is minus the mean advantage.
    tokens = total_weight(ROWS)
    mean = sum(row.weight * sum(row.advantages) for row in ROWS) / tokens
    assert log["loss"] == pytest.approx(-mean, rel=1e-5)
    assert log["learning_rate"] == 3e-3


def test_the_log_tells_who_wrote_the_tokens_and_how_far_the_sampler_was():
    learner = Learner(tiny_model(), OptimizerConfig(kl=0.1))
    log = learner.step(ROWS, 1)
    assert log["teacher_token_share"] == pytest.approx(6 / total_weight(ROWS))
    assert log["kl"] == 0
    assert log["clip_fraction"] == 0
    gaps, entropies = [], []
    for row in ROWS:
        [batch] = batches_of([row])
        scores = score_tokens(tiny_model(), batch)
        entropies += (row.weight * scores.entropy).tolist()
        if not row.teacher:  # row_of says -1.0 for every sampled token
            gaps += (scores.logprobs + 1).abs().tolist()
    assert log["sampler_mismatch"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-4)
    assert log["entropy"] == pytest.approx(sum(entropies) / total_weight(ROWS), rel=1e-4)


def test_a_row_leaves_no_trace_in_another_of_its_prompt():
    """Layers that convolve, or keep a state, heed no mask: what they sampled must come out."""
    torch.manual_seed(0)
    kinds = ["conv", "full_attention"]
    policy = Lfm2ForCausalLM(Lfm2Config(**SIZES, layer_types=kinds)).eval()
    rows = []
    for reply in ([5, 6, 7], [9, 8, 257, 20]):
        row = row_of([256, 1, 2, *reply], [0, 0, 0, *(1 for _ in reply)])
        with torch.no_grad():
            logprobs = policy(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        sampled = [logprobs[place - 1, row.ids[place]].item() for place in range(3, len(row.ids))]
        rows.append(dataclasses.replace(row, sampler_logprobs=(0.0, 0.0, 0.0, *sampled)))
    log = Learner(policy, OptimizerConfig(kl=0)).step(rows, 1)
    assert log["sampler_mismatch"] == pytest.approx(0, abs=1e-4)


def test_clipping_shows_in_the_log_once_the_policy_has_moved():
    """The ratio is 1 at the first update: only the later ones can tell."""
    learner = Learner(tiny_model(), OptimizerConfig(learning_rate=0.05, kl=0, updates_per_step=3))
    assert 0 < learner.step(ROWS, 1)["clip_fraction"] <= 1


def test_an_update_below_the_resolution_of_bfloat16_is_not_lost():
    steps, rate = 100, 2e-5
    policy = tiny_model(dtype=torch.bfloat16)
    start = weights(policy)
    norm = "model.norm.weight"
    assert (start[norm] == 1).all()
    # One step is far too small for a bfloat16 next to 1.
    assert (start[norm] - rate).eq(1).all()
    assert start[norm].dtype == torch.bfloat16
    learner = Learner(policy, OptimizerConfig(learning_rate=rate, kl=0))
    for number in range(1, steps + 1):
        learner.step([GOOD], number)
    moved = learner.masters[norm] - 1
    assert learner.masters[norm].dtype == torch.float32
    # A hundred of them are not: Adam moves by about the rate each time.
    assert steps * rate / 2 < moved.abs().max() < steps * rate * 2
    assert moved.abs().min() > 0
    assert policy.model.norm.weight.dtype == torch.bfloat16
    for name, p in policy.named_parameters():
        assert torch.equal(p, learner.masters[name].to(torch.bfloat16))
    assert not same(start, weights(policy))


def with_adapter(policy, *, started: bool):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    made = get_peft_model(policy, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"))
    if started:  # an adapter that has been trained before: its second factor is not zero
        for name, p in made.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.3)
    return made


def test_the_reference_is_the_first_student_with_its_adapter():
    options = OptimizerConfig(kl=0.5, learning_rate=1e-2)
    policy = with_adapter(tiny_model(), started=True)
    learner = Learner(policy, options)
    still = [row_of(row.ids, row.mask, 0.0, group=row.group) for row in ROWS]
    start = weights(policy)
    # Before any update there is nothing between the two: "adapter off" would be far away.
    assert learner.step(still, 1)["kl"] == 0
    assert same(start, weights(policy))
    with policy.disable_adapter():
        [batch] = batches_of([GOOD])
        off = score_tokens(policy, batch).logprobs
    assert not torch.allclose(off, score_tokens(policy, batch).logprobs, atol=1e-2)
    learner.step(ROWS, 2)
    assert learner.step(still, 3)["kl"] > 1e-6
    for name, p in learner.reference.named_parameters():
        assert torch.equal(p, start[name])


def test_the_reference_stays_where_the_run_began():
    learner = Learner(tiny_model(), OptimizerConfig(kl=0.5, learning_rate=1e-2))
    for number in range(1, 4):
        learner.step(ROWS, number)
    assert same(weights(learner.reference), weights(tiny_model()))
    assert Learner(tiny_model(), OptimizerConfig(kl=0)).reference is None


def test_lora_trains_the_adapter_alone():
    policy = with_adapter(tiny_model(), started=False)
    start = weights(policy)
    learner = Learner(policy, OptimizerConfig(learning_rate=1e-2))
    assert learner.masters
    assert all("lora_" in name for name in learner.masters)
    for number in (1, 2):
        learner.step(ROWS, number)
    end = weights(policy)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == set(learner.masters)
    assert set(learner.state()) >= {f"master/{name}" for name in learner.masters}


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate(schedule):
    options = OptimizerConfig(learning_rate=1.0, steps=10, warmup_steps=3, schedule=schedule)
    rates = [learning_rate(options, step) for step in range(1, 11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    done = [i / 7 for i in range(7)]
    assert rates[3:] == pytest.approx(
        {
            "constant": [1.0] * 7,
            "linear": [1 - d for d in done],
            "cosine": [(1 + math.cos(math.pi * d)) / 2 for d in done],
        }[schedule]
    )
    if schedule != "constant":
        assert learning_rate(options, 11) == pytest.approx(0)
        assert 0 < rates[-1] < 0.2
    learner = Learner(tiny_model(), options)
    assert learner.step([GOOD], 2)["learning_rate"] == 0.5
    assert {group["lr"] for group in learner.optimizer.param_groups} == {0.5}


def test_warmup_as_long_as_the_run():
    options = OptimizerConfig(learning_rate=1.0, steps=3, warmup_steps=5, schedule="cosine")
    rates = [learning_rate(options, step) for step in (1, 2, 3)]
    assert rates == pytest.approx([1 / 6, 1 / 3, 1 / 2])


@pytest.mark.parametrize("advantage", [math.inf, math.nan])
def test_a_gradient_that_is_no_number_changes_nothing(advantage):
    options = OptimizerConfig(learning_rate=1e-2, kl=0.1)
    learner, other = (Learner(tiny_model(), options) for _ in range(2))
    for each in (learner, other):
        each.step(ROWS, 1)
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    gains = tuple(advantage if m else 0.0 for m in GOOD.mask)
    wrong = dataclasses.replace(GOOD, advantages=gains)
    with pytest.raises(FloatingPointError, match="nothing was updated"):
        learner.step([wrong, BAD], 2)
    assert same(before, learner.state())
    assert same(weights(learner.model), weights(other.model))
    # And it leaves nothing behind for the next step.
    learner.step(ROWS, 2)
    other.step(ROWS, 2)
    assert same(weights(learner.model), weights(other.model))


def test_without_any_advantage_nothing_moves():
    learner = Learner(tiny_model(), OptimizerConfig(learning_rate=1.0, kl=0, weight_decay=0.1))
    learner.step([GOOD], 1)  # momentum, which a step must not use up on nothing
    start, state = weights(learner.model), {k: v.clone() for k, v in learner.state().items()}
    for rows in ([], [STILL], [STILL, row_of(GOOD.ids, GOOD.mask, -0.0)]):
        log = learner.step(rows, 2)
        assert log["grad_norm"] == log["loss"] == 0
        assert same(start, weights(learner.model))
        assert same(state, learner.state())


@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_a_row_without_trained_tokens_is_passed_over(kl):
    """A user's algorithm may make one."""
    nothing = row_of([256, 1, 2], [0, 0, 0])
    learner, other = (Learner(tiny_model(), OptimizerConfig(kl=kl)) for _ in range(2))
    learner.step([nothing, GOOD], 1)
    other.step([GOOD], 1)
    assert same(weights(learner.model), weights(other.model))
    learner.step([nothing], 2)
    assert same(weights(learner.model), weights(other.model))


def test_gradients_are_clipped_to_their_norm():
    small, large = (
        Learner(tiny_model(), OptimizerConfig(kl=0, max_grad_norm=norm)) for norm in (1e-3, 1e9)
    )
    # What is logged is the norm before.
    assert small.step(ROWS, 1)["grad_norm"] == large.step(ROWS, 1)["grad_norm"] > 0.1
    total = sum(s["exp_avg"].square().sum() for s in small.optimizer.state.values())
    assert math.sqrt(total) == pytest.approx(0.1 * 1e-3, rel=1e-3)  # 1 - beta1 of the gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lora", [False, True])
def test_state_goes_through_a_file_and_on_to_the_same_bits(tmp_path, dtype, lora):
    def make():
        policy = tiny_model(dtype=dtype)
        policy = with_adapter(policy, started=False) if lora else policy
        return Learner(policy, OptimizerConfig(learning_rate=1e-2, kl=0.1))

    learner, other = make(), make()
    for number in (1, 2):
        learner.step(ROWS, number)
    save_file({k: v.contiguous() for k, v in learner.state().items()}, tmp_path / "s.safetensors")
    other.load_state(load_file(tmp_path / "s.safetensors"))
    assert same(weights(learner.model), weights(other.model))
    assert same(learner.state(), other.state())
    for each in (learner, other):
        each.step(ROWS, 3)
    assert same(weights(learner.model), weights(other.model))
    assert same(learner.state(), other.state())


def test_the_state_of_another_model_is_refused():
    learner = Learner(tiny_model(), OptimizerConfig(kl=0))
    state = learner.state()
    with pytest.raises(KeyError):
        learner.load_state({k: v for k, v in state.items() if "layers.1" not in k})
    # Before the first step there are no moments: the state of a run that has only begun.
    learner.load_state(state)
    assert not learner.optimizer.state


def test_a_row_longer_than_the_sliding_window_is_refused():
    model = tiny_model()
    model.config.sliding_window = 8
    learner = Learner(model, OptimizerConfig(kl=0.0))
    learner.step([row_of(range(8), [0] * 4 + [1] * 4)], 1)
    with pytest.raises(OVDError, match="expected at most 8, the model's sliding window"):
        learner.step([row_of(range(9), [0] * 4 + [1] * 5)], 2)
