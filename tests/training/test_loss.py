"""The loss against TRL's on the same rows, and against the formula written down again."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.made import batches_of, model, row_of
from training.loss import importance_weights, score_tokens, token_loss
from training.rows import merge_rows, total_weight

NUMBER = st.floats(-3, 3).map(lambda x: round(x, 4))


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def by_hand(logp, old, gain, ref, clip, kl):
    """One token's loss, and whether the clipped branch counts: the formula, in ten lines."""
    ratio = math.exp(logp - old)
    if gain >= 0:
        surrogate = min(ratio, 1 + clip) * gain
    else:
        surrogate = max(ratio, 1 - clip) * gain
    clipped = (gain > 0 and ratio > 1 + clip) or (gain < 0 and ratio < 1 - clip)
    k3 = math.exp(ref - logp) - 1 - (ref - logp)
    return -surrogate + kl * k3, clipped, k3


@settings(max_examples=300, deadline=None)
@given(
    logp=NUMBER,
    old=NUMBER,
    gain=NUMBER,
    ref=NUMBER,
    clip=st.sampled_from([0.1, 0.2, 0.3]),
    kl=st.sampled_from([0.0, 0.001, 0.5]),
)
def test_one_token_by_the_formula(logp, old, gain, ref, clip, kl):
    part = token_loss(
        tensor([logp]), tensor([old]), tensor([gain]), tensor([ref]), clip=clip, kl=kl
    )
    loss, clipped, k3 = by_hand(logp, old, gain, ref, clip, kl)
    assert part.loss.item() == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert part.kl.item() == pytest.approx(k3, rel=1e-4, abs=1e-5)
    edge = min(abs(math.exp(logp - old) - bound) for bound in (1 - clip, 1 + clip))
    if edge > 1e-4 and abs(gain) > 1e-3:
        assert part.clipped.item() == clipped


@settings(max_examples=100, deadline=None)
@given(logp=st.lists(st.floats(-30, 0), min_size=1, max_size=8), shift=st.floats(-5, 5))
def test_k3_is_never_below_zero(logp, shift):
    now = tensor(logp)
    part = token_loss(now, now, torch.ones_like(now), now + shift, kl=1.0)
    assert (part.kl >= -1e-6).all()
    same = token_loss(now, now, torch.ones_like(now), now, kl=1.0)
    assert torch.equal(same.kl, torch.zeros_like(now))


def test_a_clipped_token_has_no_gradient_and_its_kl_has():
    logp = tensor([0.0, 0.0, 0.0, 0.0]).requires_grad_()
    old, gain = tensor([-1.0, 1.0, -1.0, 1.0]), tensor([1.0, -1.0, -1.0, 1.0])
    part = token_loss(logp, old, gain)
    part.loss.sum().backward()
    assert part.clipped.tolist() == [True, True, False, False]
    assert part.kl is None
    expected = [0.0, 0.0, math.e, -1 / math.e]
    assert logp.grad.tolist() == pytest.approx(expected)
    logp.grad = None
    token_loss(logp, old, gain, tensor([0.5] * 4), kl=0.1).loss.sum().backward()
    assert logp.grad.tolist() == pytest.approx([g + 0.1 * (1 - math.exp(0.5)) for g in expected])


def test_importance_weighs_the_surrogate_alone_and_is_truncated():
    """Two students' tokens, one sampled likelier than it was, and a demonstrator's."""
    rows = [row_of([1, 2, 3], [0, 1, 1], 2.0), row_of([1, 4], [0, 1], 2.0, teacher=True)]
    [batch] = batches_of(rows, share=False)
    old = batch.sampler_logprobs + tensor([math.log(0.5), math.log(7.0), math.log(5.0)])
    weights = importance_weights(batch, old, 2.0)
    assert weights.tolist() == pytest.approx([0.5, 2.0, 1.0])
    ref = old + 0.3
    plain = token_loss(old, old, batch.advantages, ref, kl=0.1)
    part = token_loss(old, old, batch.advantages, ref, importance=weights, kl=0.1)
    expected = weights * -batch.advantages + 0.1 * plain.kl
    assert part.loss.tolist() == pytest.approx(expected.tolist())


def test_logits_are_divided_by_the_temperature():
    row = row_of([256, 1, 5, 6, 257], [0, 0, 1, 1, 1])
    [batch] = batches_of([row])
    logits = model()(input_ids=torch.tensor([row.ids])).logits[0, 1:4]
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits / temperature).log_softmax(-1)
        scores = score_tokens(model(), batch, temperature=temperature)
        want = expected.gather(1, torch.tensor([[5], [6], [257]]))[:, 0]
        torch.testing.assert_close(scores.logprobs, want, rtol=1e-4, atol=1e-4)
        entropy = -(expected.exp() * expected).sum(-1)
        torch.testing.assert_close(scores.entropy, entropy, rtol=1e-4, atol=1e-4)


# TRL

ROWS = [
    # (prompt, reply, mask of the reply, advantage); two are the same, one has an observation.
    ((256, 1, 2, 3), (5, 6, 257), (1, 1, 1), 1.25),
    ((256, 1, 2, 3), (5, 6, 257), (1, 1, 1), 1.25),
    ((256, 1, 2, 3), (9, 8, 30, 31, 7, 257), (1, 1, 0, 0, 1, 1), -0.75),
    ((256, 44), (9, 10, 11, 12, 13), (1, 1, 1, 1, 1), 0.5),
    ((256, 44), (20, 21), (1, 1), -1.0),
]


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory):
    """A real GRPOTrainer of TRL on the tiny model; call it with beta and temperature."""
    pytest.importorskip("trl", reason="pip install --no-deps trl")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    place = str(tmp_path_factory.mktemp("tiny"))
    tiny_model().save_pretrained(place)

    def make(beta, temperature):
        return GRPOTrainer(
            model=place,
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            args=GRPOConfig(
                output_dir=str(tmp_path_factory.mktemp("trl")),
                loss_type="dapo",
                beta=beta,
                # Ours is the k3 of the GRPO paper, not multiplied by the ratio.
                use_bias_correction_kl=False,
                epsilon=0.2,
                temperature=temperature,
                bf16=False,
                use_cpu=True,
                report_to="none",
                num_generations=2,
                per_device_train_batch_size=2,
            ),
            train_dataset=Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}]),
            processing_class=tiny_tokenizer(),
        )

    return make


def padded(rows, *, left=False):
    width = max(map(len, rows))
    fill = [[0] * (width - len(row)) for row in rows]
    both = zip(fill, rows, strict=True)
    return torch.tensor([[*f, *r] if left else [*r, *f] for f, r in both])


def moved(logprobs, scale):
    """Numbers around ``logprobs``: as if of another policy, so that clipping and KL act."""
    offsets = torch.linspace(0, 9, logprobs.numel()).sin().reshape(logprobs.shape)
    return (logprobs + scale * offsets).detach()


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_loss_and_gradient_are_trls(trl_trainer, beta, temperature):
    trainer = trl_trainer(beta, temperature)
    theirs = trainer.model.eval()
    assert theirs.dtype == torch.float32
    replies = padded([reply for _, reply, _, _ in ROWS])
    tool_mask = padded([mask for _, _, mask, _ in ROWS])
    inputs = {
        "prompt_ids": padded([prompt for prompt, _, _, _ in ROWS], left=True),
        "prompt_mask": padded([[1] * len(p) for p, _, _, _ in ROWS], left=True),
        "completion_ids": replies,
        "completion_mask": padded([[1] * len(r) for _, r, _, _ in ROWS]),
        "tool_mask": tool_mask,
        "advantages": torch.tensor([gain for _, _, _, gain in ROWS]),
        "num_items_in_batch": tool_mask.sum(),
    }
    with torch.no_grad():
        now, _, _ = trainer._get_per_token_logps_and_entropies(
            theirs,
            torch.cat([inputs["prompt_ids"], replies], 1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            replies.shape[1],
        )
    old, reference = moved(now, 0.5), moved(now, -0.4)
    # The two equal rows have equal numbers, or they could not be one.
    old[1], reference[1] = old[0], reference[0]
    inputs |= {"old_per_token_logps": old, "ref_per_token_logps": reference}
    expected = trainer._compute_loss(theirs, inputs)
    expected.backward()

    rows = [
        row_of([*p, *r], [0] * len(p) + list(m), gain, group=int(p == ROWS[-1][0]))
        for p, r, m, gain in ROWS
    ]
    numbers = {
        (row.ids, i): (old[n, i - len(p)], reference[n, i - len(p)])
        for n, (row, (p, _, _, _)) in enumerate(zip(rows, ROWS, strict=True))
        for i, m in enumerate(row.mask)
        if m
    }
    merged = merge_rows(rows)
    assert [row.weight for row in merged] == [2.0, 1.0, 1.0, 1.0]
    policy, total, clipped = tiny_model(), torch.zeros(()), 0
    for row in merged:  # one row a batch: which number is whose needs no thought
        [batch] = batches_of([row])
        scores = score_tokens(policy, batch, temperature=temperature)
        pairs = [numbers[row.ids, i] for i, m in enumerate(row.mask) if m]
        old_row, reference_row = (torch.stack(column) for column in zip(*pairs, strict=True))
        part = token_loss(
            scores.logprobs,
            old_row,
            batch.advantages,
            reference_row if beta else None,
            clip=0.2,
            kl=beta,
        )
        clipped += int(part.clipped.sum())
        total = total + (batch.weights * part.loss).sum() / total_weight(merged)
    total.backward()
    assert 2 <= clipped <= total_weight(merged) - 2  # clipping acted, and not everywhere
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    known = dict(theirs.named_parameters())
    assert known.keys() == dict(policy.named_parameters()).keys()
    ours = torch.cat([p.grad.flatten() for _, p in policy.named_parameters()])
    wanted = torch.cat([known[n].grad.flatten() for n, _ in policy.named_parameters()])
    assert (ours - wanted).norm() < 1e-5 * wanted.norm()
