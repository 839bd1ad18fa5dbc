"""Packs: rows that share a prompt, with the arithmetic of rows that don't."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

from tests.tiny import SIZES, tiny_model
from tests.training.made import CPU, batches_of, model, row_of
from training.loss import score_tokens, token_loss
from training.packing import batches, collate, pack_rows

TOKEN = st.integers(0, 259)


@st.composite
def groups_of_rows(draw, max_rows=4, max_groups=2):
    """Rows of some groups: a common prompt, then own tokens with observations between them."""
    rows = []
    for group in range(draw(st.integers(1, max_groups))):
        prompt = draw(st.lists(TOKEN, min_size=1, max_size=6))
        for _ in range(draw(st.integers(1, max_rows))):
            # Few different tokens first, so that replies have beginnings in common too.
            reply = draw(st.lists(st.sampled_from([5, 6]) | TOKEN, min_size=1, max_size=8))
            mask = draw(
                st.lists(st.booleans(), min_size=len(reply), max_size=len(reply)).filter(any)
            )
            rows.append(
                row_of(
                    [*prompt, *reply],
                    [0] * len(prompt) + [int(m) for m in mask],
                    draw(st.sampled_from([1.0, -0.5])),
                    group=group,
                    weight=draw(st.sampled_from([1.0, 2.0])),
                )
            )
    return rows


def plain_logprobs(policy, row):
    """Log-probability of every token of one row by itself, from the model's own logits."""
    logits = policy(input_ids=torch.tensor([row.ids])).logits[0].float()
    logprobs = logits[:-1].log_softmax(-1).gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
    trained = [i for i, m in enumerate(row.mask) if m]
    return logprobs[torch.tensor(trained) - 1]


def by_row(rows, tokens):
    """Split flat numbers, one for each trained token, into rows."""
    return dict(enumerate(tokens.split([row.num_trained for row in rows])))


def packed_rows(parts):
    return [row for part in parts for pack in part for row in pack.rows]


@settings(max_examples=150, deadline=None)
@given(rows=groups_of_rows(), max_tokens=st.sampled_from([1, 12, 30, 2048]))
def test_packed_rows_score_as_they_do_alone(rows, max_tokens):
    parts = batches(pack_rows(rows, max_tokens=max_tokens), max_tokens)
    order = packed_rows(parts)
    assert sorted(map(id, order)) == sorted(map(id, rows))
    seen = []
    for part in parts:
        batch = collate(part, CPU)
        scores = score_tokens(model(), batch)
        seen += scores.logprobs.tolist()
        members = packed_rows([part])
        flat = [(i, row) for row in members for i, m in enumerate(row.mask) if m]
        assert batch.targets.tolist() == [row.ids[i] for i, row in flat]
        assert batch.advantages.tolist() == [row.advantages[i] for i, row in flat]
        assert batch.weights.tolist() == [row.weight for _, row in flat]
        assert batch.teacher.tolist() == [row.teacher for _, row in flat]
    expected = torch.cat([plain_logprobs(model(), row) for row in order])
    torch.testing.assert_close(torch.tensor(seen), expected, rtol=1e-4, atol=1e-4)


def gradients(rows, *, share, max_tokens):
    policy = tiny_model()
    total = sum(row.weight * row.num_trained for row in rows)
    value = 0.0
    for batch in batches_of(rows, share=share, max_tokens=max_tokens):
        scores = score_tokens(policy, batch)
        part = token_loss(scores.logprobs, scores.logprobs.detach(), batch.advantages)
        loss = (batch.weights * part.loss).sum() / total
        loss.backward()
        value += loss.item()
    return value, torch.cat([p.grad.flatten() for p in policy.parameters()])


@settings(max_examples=60, deadline=None)
@given(rows=groups_of_rows(), share=st.booleans(), max_tokens=st.sampled_from([1, 12, 30, 2048]))
def test_neither_packs_nor_micro_batches_change_loss_or_gradient(rows, share, max_tokens):
    value, gradient = gradients(rows, share=share, max_tokens=max_tokens)
    expected, whole = gradients(rows, share=False, max_tokens=10_000)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-5 * whole.abs().max().item())


@settings(max_examples=100, deadline=None)
@given(rows=groups_of_rows(), data=st.data())
def test_no_row_reads_another(rows, data):
    """Other tokens in one row's reply: every other row's log-probabilities keep their bits."""
    index = data.draw(st.integers(0, len(rows) - 1))
    row = rows[index]
    start = row.mask.index(1)
    changed = [*row.ids[:start], *((i + 1) % 260 for i in row.ids[start:])]
    others = [*rows]
    others[index] = row_of(changed, row.mask, group=row.group, weight=row.weight)
    packs, again = (pack_rows(r) for r in (rows, others))
    for pack, other in zip(packs, again, strict=True):
        # A beginning that only the old replies had in common may be packed otherwise.
        if pack.prefix != other.prefix:
            return
    for pack, other in zip(packs, again, strict=True):
        before = by_row(pack.rows, score_tokens(model(), collate([pack], CPU)).logprobs)
        after = by_row(other.rows, score_tokens(model(), collate([other], CPU)).logprobs)
        for place, member in enumerate(pack.rows):
            if member is not row:
                assert torch.equal(before[place], after[place])


def test_a_batch_is_padded_without_a_trace():
    """What stands beside a pack in its batch, and how wide it is, changes nothing but rounding."""
    short = row_of([256, 1, 5], [0, 0, 1], group=0)
    long = row_of([256, *range(2, 30)], [0] * 14 + [1] * 15, group=1)
    [batch] = batches_of([short, long])
    assert batch.ids.shape == (2, 29)
    together = score_tokens(model(), batch)
    assert torch.isfinite(together.logprobs).all()
    assert torch.isfinite(together.entropy).all()
    alone = torch.cat([plain_logprobs(model(), row) for row in (long, short)])
    torch.testing.assert_close(together.logprobs, alone, rtol=1e-4, atol=1e-4)


def test_a_prompt_is_read_once():
    prompt, rows = list(range(40)), []
    for i in range(6):
        rows.append(row_of([*prompt, 100 + i, 257], [0] * 40 + [1, 1]))
    [pack] = pack_rows(rows)
    assert (pack.prefix, pack.length) == (40, 40 + 6 * 2)
    assert all(p.prefix == 40 and len(p.rows) == 1 for p in pack_rows(rows, share_prompts=False))
    # As many rows in a pack as fit, and a row that fits nowhere has a pack of its own.
    assert [len(p.rows) for p in pack_rows(rows, max_tokens=46)] == [3, 3]
    assert [len(p.rows) for p in pack_rows(rows, max_tokens=5)] == [1] * 6


def test_a_common_beginning_ends_before_what_is_trained():
    same = [row_of([1, 2, 5, 6, 7], [0, 0, 1, 1, 1], a) for a in (1.0, -1.0)]
    [pack] = pack_rows(same)
    assert pack.prefix == 2
    # A row that ends where the others go on keeps a token of its own.
    [pack] = pack_rows([row_of([1, 2, 3], [0, 0, 1]), row_of([1, 2, 3, 4], [0, 0, 0, 1])])
    assert pack.prefix == 2


def test_batches_hold_at_most_their_tokens():
    rows = [row_of([256] * n + [5], [0] * n + [1], group=n) for n in range(1, 40)]
    parts = batches(pack_rows(rows), 100)
    assert sum(len(part) for part in parts) == 39
    for part in parts:
        assert len(part) == 1 or len(part) * max(pack.length for pack in part) <= 100


# What the environment wrote


def logits_of(policy, rows, *, share=True):
    """Score ``rows``; (input and output of the output layer, the decoder's hidden states)."""
    seen = {"heads": [], "hidden": []}

    def head(module, inputs, output):
        output.retain_grad()
        seen["heads"].append((inputs[0], output))

    def decoder(module, inputs, output):
        output.last_hidden_state.retain_grad()
        seen["hidden"].append(output.last_hidden_state)

    handles = [
        policy.get_output_embeddings().register_forward_hook(head),
        policy.get_decoder().register_forward_hook(decoder),
    ]
    [batch] = batches_of(rows, share=share)
    scores = score_tokens(policy, batch)
    part = token_loss(scores.logprobs, scores.logprobs.detach() - 0.1, batch.advantages, kl=0.0)
    part.loss.sum().backward()
    for handle in handles:
        handle.remove()
    return batch, seen


@pytest.mark.parametrize("share", [True, False])
def test_logits_stand_only_for_trained_tokens(share):
    rows = [
        # prompt, own, own, observation, observation, own
        row_of([256, 1, 2, 5, 6, 30, 31, 7], [0, 0, 0, 1, 1, 0, 0, 1], 1.0),
        row_of([256, 1, 2, 9, 257], [0, 0, 0, 1, 1], -1.0),
    ]
    batch, seen = logits_of(tiny_model(), rows, share=share)
    [(states, logits)] = seen["heads"]
    assert logits.shape == (5, 260)
    assert states.shape[0] == 5
    # Each of them learns, and is the prediction of a token with mask 1.
    assert (logits.grad.abs().sum(-1) > 0).all()
    assert sorted(batch.targets.tolist()) == [5, 6, 7, 9, 257]
    [hidden] = seen["hidden"]
    flat = hidden.grad.reshape(-1, hidden.shape[-1])
    learning = {i for i in range(len(flat)) if flat[i].abs().sum() > 0}
    # Where a prediction of an observation, of the prompt or of padding stands: exactly zero.
    assert learning == set(batch.source.tolist())
    ids = batch.ids.flatten().tolist()
    if not share:
        assert [ids[i] for i in sorted(learning)] == [2, 5, 31, 2, 9]


def reference_gradient(rows):
    """Gradient of the same loss by the model's own full logits; (gradients, logits' gradients)."""
    policy = tiny_model()
    total, every = 0.0, []
    for row in rows:
        logits = policy(input_ids=torch.tensor([row.ids])).logits[0]
        logits.retain_grad()
        logprobs = logits[:-1].log_softmax(-1)
        logp = logprobs.gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        ratio = (logp - logp.detach() + 0.1).exp()
        mask, gain = torch.tensor(row.mask[1:]), torch.tensor(row.advantages[1:])
        clipped = ratio.clamp(0.8, 1.2) * gain
        total = total - (mask * torch.minimum(ratio * gain, clipped)).sum()
        every.append((row, logits))
    total.backward()
    return [p.grad for p in policy.parameters()], every


def test_the_gradient_is_that_of_the_mask_and_of_no_other():
    """A mask off by one in either direction is another gradient."""
    rows = [
        row_of([256, 1, 2, 5, 6, 30, 31, 7], [0, 0, 0, 1, 1, 0, 0, 1], 1.0),
        row_of([256, 1, 2, 9, 257], [0, 0, 0, 1, 1], -1.0),
    ]
    expected, every = reference_gradient(rows)
    for row, logits in every:
        for i in range(len(row.ids) - 1):
            assert bool(logits.grad[i].abs().sum() > 0) == bool(row.mask[i + 1])
    policy = tiny_model()
    logits_of(policy, rows)
    for ours, theirs in zip(policy.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=1e-5)
    shifted = [row_of(row.ids, [0, *row.mask[:-1]], max(row.advantages, key=abs)) for row in rows]
    wrong, _ = reference_gradient(shifted)
    assert any(
        not torch.allclose(ours.grad, theirs, rtol=1e-2)
        for ours, theirs in zip(policy.parameters(), wrong, strict=True)
    )


def test_in_bfloat16_a_masked_token_is_masked_too():
    policy = tiny_model(dtype=torch.bfloat16)
    rows = [row_of([256, 1, 2, 5, 6, 7], [0, 0, 0, 1, 1, 1])]
    rows.append(row_of([256, 1, 2, 9, 9, 9], [0, 0, 0, 1, 1, 1]))
    other = [rows[0], row_of([256, 1, 2, 77, 78, 79], [0, 0, 0, 1, 1, 1])]
    first, second = (
        score_tokens(policy, b).logprobs[:3] for r in (rows, other) for b in batches_of(r)
    )
    assert torch.equal(first, second)
    assert first.dtype == torch.float32


def family(name):
    """A model whose forward does something to the logits that its head gives."""
    config = {
        "granite": lambda: GraniteConfig(**SIZES, logits_scaling=8.0),
        "gemma-2": lambda: Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0),
        "cohere": lambda: CohereConfig(**SIZES, logit_scale=0.0625),
    }[name]()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["granite", "gemma-2", "cohere"])
def test_logits_are_the_models_own_and_not_its_heads(name):
    policy = family(name)
    rows = [
        row_of([256, 1, 2, 5, 6, 30, 7], [0, 0, 0, 1, 1, 0, 1]),
        row_of([256, 1, 2, 9, 257], [0, 0, 0, 1, 1]),
    ]
    [batch] = batches_of(rows)
    expected = torch.cat([plain_logprobs(policy, row) for row in rows])
    assert score_tokens(policy, batch).logprobs.tolist() == pytest.approx(
        expected.tolist(), abs=1e-4
    )


def test_a_chunk_of_the_vocabulary_changes_nothing():
    rows = [row_of([256, *range(20)], [0] * 5 + [1] * 16)]
    [batch] = batches_of(rows)
    whole = score_tokens(model(), batch)
    for chunk in (1, 5, 16):
        part = score_tokens(model(), batch, vocabulary_chunk=chunk)
        torch.testing.assert_close(part.logprobs, whole.logprobs)
        torch.testing.assert_close(part.entropy, whole.entropy)
    assert math.isclose(
        whole.entropy[0].item(),
        torch.distributions.Categorical(
            logits=model()(input_ids=batch.ids).logits[0, batch.source[0]]
        )
        .entropy()
        .item(),
        rel_tol=1e-4,
    )
