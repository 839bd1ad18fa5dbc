"""Rows: episodes as tokens to learn from, and merged rows that stand for their copies."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ovd_envs
from agents.dialects import make_dialect
from agents.episode import Episode, Segment, Turn
from ovd_envs.task import Task
from teachers.path_demonstrator import PathDemonstrator
from tests.chat_templates import made_tokenizer
from tests.tiny import tiny_model, tiny_tokenizer
from tests.training.made import batches_of, dialect, row_of, student, teacher
from training.loss import score_tokens, token_loss
from training.packing import collate, pack_rows
from training.rows import Row, episode_rows, merge_rows, total_weight

TASK = Task("t/0", "?", ("!",))


def test_a_students_tokens_are_trained_as_they_were_sampled():
    """Not one id is made again from text: these ids decode to no valid text at all."""
    reply = (195, 195, 40, 257)
    episode = student(1.0, reply, prompt=(256, 200, 201))
    [row] = episode_rows(3, episode, 0.5, dialect())
    assert row.ids == (256, 200, 201, *reply)
    assert row.mask == (0, 0, 0, 1, 1, 1, 1)
    assert row.advantages == (0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5)
    assert row.sampler_logprobs == tuple(episode.segments[0].logprobs)
    assert (row.group, row.weight, row.teacher, row.num_trained) == (3, 1.0, False, 4)


def test_observations_between_turns_are_not_trained():
    episode = student(1.0, (5, 6, 257), prompt=(256, 1))
    episode.segments[0].extend_given((9, 8))
    episode.segments[0].extend_sampled((7, 257), (-1.0, -2.0))
    [row] = episode_rows(0, episode, -1.0, dialect())
    assert row.mask == (0, 0, 1, 1, 1, 0, 0, 1, 1)
    assert row.advantages == (0.0, 0.0, -1.0, -1.0, -1.0, 0.0, 0.0, -1.0, -1.0)


def test_every_segment_is_a_row_and_one_without_own_tokens_is_none():
    episode = student(1.0, (5, 257))
    episode.segments += [Segment([256, 4], [0, 0], [0.0, 0.0]), Segment()]
    episode.segments.append(Segment([256, 4, 9], [0, 0, 1], [0.0, 0.0, -1.0]))
    assert [row.ids[-1] for row in episode_rows(0, episode, 1.0, dialect())] == [257, 9]


@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1"])
def test_an_episode_in_several_segments_counts_by_its_tokens_and_each_of_them_once(name):
    """Past thoughts are dropped from later prompts: a row for each turn, nothing trained twice."""
    own = make_dialect("chat", made_tokenizer(name))
    thinks = ["<think>\nh\n</think>\n\none", "<think>\nhm\n</think>\n\ntwo", "three"]
    group = []
    for replies in (thinks, thinks, ["four"]):
        episode = Episode(TASK, "e", "s", "q", [Turn(text, "go on") for text in replies])
        episode.segments = own.segments(episode)
        group.append(episode)
    assert [len(episode.segments) for episode in group] == [3, 3, 1]
    # A demonstrator's, whose own tokens mean nothing here, likewise.
    shown = replace(group[0], segments=student(1.0, (99, 98)).segments)
    taught = episode_rows(0, shown, 1.0, own, teacher=True)
    assert [row.ids for row in taught] == [tuple(s.ids) for s in group[0].segments]
    rows = [
        row
        for episode, gain in zip(group, (0.5, 0.5, -1.0), strict=True)
        for row in episode_rows(0, episode, gain, own)
    ]
    trained = [
        [t for r in rows[a:b] for t, m in zip(r.ids, r.mask, strict=True) if m]
        for a, b in ((0, 3), (6, 7))
    ]
    assert trained[0] == [i for n, text in enumerate(thinks) for i in own.encode_turn(text, n)]
    assert trained[1] == own.encode_turn("four")
    assert {g for r in rows[:6] for g, m in zip(r.advantages, r.mask, strict=True) if m} == {0.5}
    merged = merge_rows(rows)
    assert [row.weight for row in merged] == [2.0, 2.0, 2.0, 1.0]
    assert total_weight(merged) == total_weight(rows) == sum(e.num_sampled_tokens for e in group)
    # Packed, they share what none of them trains; each scores as it does alone.
    policy = tiny_model(vocabulary=300)
    [pack] = pack_rows(merged)
    assert pack.prefix >= len(own.open("q")) - len(own.encode("<think>\n"))
    together = score_tokens(policy, collate([pack], policy.device)).logprobs
    alone = [
        score_tokens(policy, collate(pack_rows([row]), policy.device)).logprobs for row in merged
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_a_teachers_text_is_tokenised_with_the_students_tokenizer():
    episode = teacher(1.0, "ok")
    # Another model's tokens, which mean nothing to this student.
    episode.segments = student(1.0, (99, 98)).segments
    [row] = episode_rows(0, episode, 1.0, dialect(), teacher=True)
    own = [i for i, m in zip(row.ids, row.mask, strict=True) if m]
    assert dialect().tokenizer.decode(own) == "ok<|im_end|>"
    assert list(row.ids[: -len(own)]) == dialect().open("q")
    assert row.teacher
    assert set(row.sampler_logprobs) == {0.0}


def test_the_first_token_is_never_trained():
    with pytest.raises(ValueError, match="first token"):
        row_of([5, 6], [1, 1])
    with pytest.raises(ValueError, match="one length"):
        Row(0, (1, 2), (0, 1), (0.0,), (0.0, 0.0))


ROWS = st.builds(
    row_of,
    ids=st.sampled_from([(1, 2, 3), (1, 2, 4)]),
    mask=st.sampled_from([(0, 1, 1), (0, 0, 1)]),
    advantage=st.sampled_from([1.0, 0.5, 0.0]),
    group=st.integers(0, 1),
    teacher=st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(ROWS, max_size=12))
def test_merging_keeps_every_weight_and_joins_all_that_is_equal(rows):
    merged = merge_rows(rows)
    assert total_weight(merged) == total_weight(rows)
    counts: dict = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    assert {replace(row, weight=1.0): row.weight for row in merged} == counts
    assert len(merged) == len(counts)
    assert merge_rows(merged) == merged


def loss_and_gradient(rows):
    """The design's loss of ``rows`` on a tiny model, and the gradient of every parameter."""
    policy = tiny_model()
    for parameter in policy.parameters():
        parameter.data *= 0.3  # weights of a usual size: less rounding in the comparison
    loss = torch.zeros(())
    for batch in batches_of(rows):
        scores = score_tokens(policy, batch)
        shift = 0.1
        part = token_loss(
            scores.logprobs,
            scores.logprobs.detach() - shift,
            batch.advantages,
            scores.logprobs.detach() + 0.3,
            kl=0.1,
        )
        loss = loss + (batch.weights * part.loss).sum() / total_weight(rows)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in policy.parameters()])


def test_a_merged_row_is_its_copies():
    ids, mask = (256, 1, 2, 5, 6, 257), (0, 0, 0, 1, 1, 1)
    copies = [row_of(ids, mask, 0.5)] * 3
    other = row_of((256, 1, 2, 9, 257), (0, 0, 0, 1, 1), -0.5)
    merged = merge_rows([*copies, other])
    assert [row.weight for row in merged] == [3.0, 1.0]
    assert total_weight(merged) == total_weight([*copies, other]) == 11
    loss, gradient = loss_and_gradient(merged)
    expected, expected_gradient = loss_and_gradient([*copies, other])
    assert loss == pytest.approx(expected, rel=1e-6)
    assert (gradient - expected_gradient).norm() < 1e-6 * expected_gradient.norm()
    # The weight counts: one copy is another loss.
    assert loss_and_gradient([copies[0], other])[0] != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("protocol", "name"), [("search-r1", "inline"), ("tags", "chat")])
def test_what_was_retrieved_gets_no_gradient_at_all(protocol, name):
    """Zero, exactly, where the model predicts retrieved text: in both dialects."""
    options = {"protocol": protocol, "people": 100, "observation_limit": 300}
    env = ovd_envs.make("ovd/WorldQA-v0", **options)
    assert env.dialect == name
    [episode] = PathDemonstrator().demonstrate(
        "ovd/WorldQA-v0", [(env.tasks.task("train", 0), (0, 0, 0, 0))], options
    )
    assert episode.reward == 1
    found = episode.turns[0].observation
    episode.segments = []
    [row] = episode_rows(0, episode, 1.0, make_dialect(name, tiny_tokenizer()), teacher=True)
    decode = tiny_tokenizer().decode
    own = [i for i, m in zip(row.ids, row.mask, strict=True) if m]
    given_ = [i for i, m in zip(row.ids, row.mask, strict=True) if not m]
    end = "<|im_end|>" if name == "chat" else ""
    assert decode(own) == "".join(turn.action + end for turn in episode.turns)
    assert found in decode(given_)

    kept = []
    policy = tiny_model()

    def keep(module, inputs, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    policy.get_decoder().register_forward_hook(keep)
    [batch] = batches_of([row], max_tokens=8192)
    scores = score_tokens(policy, batch)
    old, gains = scores.logprobs.detach() - 0.1, batch.advantages
    token_loss(scores.logprobs, old, gains, old, kl=0.1).loss.sum().backward()
    # The logits of a position are a map of its last hidden state alone.
    gradient = kept[0].grad[0].abs().sum(dim=-1)
    assert gradient.shape == (len(row.ids),)
    for position, mask in enumerate(row.mask[1:]):
        assert (gradient[position] > 0) == bool(mask), position
    assert gradient[-1] == 0
