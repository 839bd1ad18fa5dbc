"""TransformersBackend: exact ids, exact log-probabilities, replies for themselves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

import agents.transformers_backend as module
from agents.dialects import make_dialect
from agents.episode import Episode, Turn
from agents.models import resolve_model
from agents.protocol import Backend, Completion, Request
from agents.sampling import choose, uniforms
from agents.student import Student
from agents.transformers_backend import TransformersBackend, choose_dtype, load_model
from ovd_envs.errors import OVDError
from ovd_envs.task import Task
from tests.tiny import tiny_model, tiny_tokenizer

#: Besides the end of turn, some bytes end a reply: so replies have all lengths.
ENDS = frozenset(range(0, 256, 12))


def make_backend(*, ends: bool = True, model=None, batch_size: int = 64) -> TransformersBackend:
    backend = TransformersBackend(
        model or tiny_model(), tiny_tokenizer(), name="tiny", batch_size=batch_size
    )
    if ends:
        backend.dialect.stop_ids |= ENDS
    return backend


@pytest.fixture
def backend() -> TransformersBackend:
    return make_backend()


def prompts_of(*lengths: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


def full_logprobs(model, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
    """(tokens, vocabulary): row i is what the model alone, uncached, says after ``ids[:i + 1]``."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].float()
    return (logits / (temperature or 1.0)).log_softmax(-1)


def check_exact(backend: TransformersBackend, request: Request, completion: Completion) -> None:
    """The log-probabilities of ``completion`` are those of a full forward over its own ids."""
    ids = [*request.ids, *completion.ids]
    logprobs = full_logprobs(backend.model, ids, request.temperature)
    start = len(request.ids)
    expected = [logprobs[i - 1, ids[i]].item() for i in range(start, len(ids))]
    assert completion.logprobs == pytest.approx(expected, abs=3e-5)


def same(one: Completion, other: Completion) -> None:
    assert (one.ids, one.stop, one.text) == (other.ids, other.stop, other.text)
    assert one.logprobs == pytest.approx(other.logprobs, abs=3e-5)


@contextmanager
def forwards(backend: TransformersBackend) -> Iterator[list[tuple[int, int]]]:
    """(rows, tokens a row) of every forward of the model."""
    seen: list[tuple[int, int]] = []
    handle = backend.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield seen
    finally:
        handle.remove()


def test_is_a_backend(backend):
    assert isinstance(backend, Backend)
    assert backend.generate([]) == []
    assert backend.next_token_logprobs([], [1, 2]) == []


def test_greedy_is_what_transformers_generates():
    backend = make_backend()
    prompts = prompts_of(1, 4, 17, 40, 9, seed=3)
    found = backend.generate([Request(p, 24, temperature=0.0) for p in prompts])
    for prompt, completion in zip(prompts, found, strict=True):
        expected = backend.model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=sorted(backend.dialect.stop_ids),
            pad_token_id=257,
        )
        assert completion.ids == expected[0, len(prompt) :].tolist()
        check_exact(backend, Request(prompt, 24, temperature=0.0), completion)
    # Both ends must have come up, or this says little.
    assert {c.stop for c in found} == {"end_of_turn", "length"}


def test_sampled_logprobs_are_those_of_a_full_forward(backend):
    temperatures = [0.3, 1.0, 1.7, 0.0, 5.0]
    requests = [
        Request(prompt, 30, temperature=temperatures[i % 5], key=(i,))
        for i, prompt in enumerate(prompts_of(*range(1, 41, 3)))
    ]
    found = backend.generate(requests)
    for request, completion in zip(requests, found, strict=True):
        assert len(completion.ids) == len(completion.logprobs) <= 30
        check_exact(backend, request, completion)
    assert sum(len(c.ids) for c in found) > 60


SHARED = make_backend()
prompt = st.lists(st.integers(0, 257), min_size=1, max_size=30)
asked = st.builds(
    Request,
    ids=st.one_of(prompt, st.sampled_from(prompts_of(5, 12))),
    max_tokens=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    key=st.tuples(st.integers(0, 9)),
)


@given(st.lists(asked, min_size=1, max_size=7), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_a_reply_does_not_depend_on_its_neighbours(requests, rng):
    alone = [SHARED.generate([request])[0] for request in requests]
    order = list(range(len(requests)))
    rng.shuffle(order)
    for size in (64, 2):
        SHARED.batch_size = size
        together = SHARED.generate(requests)
        shuffled = SHARED.generate([requests[i] for i in order])
        for one, other in zip(alone, together, strict=True):
            same(one, other)
        for place, one in zip(order, shuffled, strict=True):
            same(alone[place], one)


def test_the_key_names_the_draws(backend):
    [prompt] = prompts_of(8)
    found = [c.ids for c in backend.generate([Request(prompt, 8, key=(k,)) for k in (1, 2, 1)])]
    assert found[0] == found[2] != found[1]


def test_token_t_is_drawn_with_number_t_of_its_stream(backend, monkeypatch):
    seen: list[list[float]] = []

    def spy(logits, temperature, draws):
        seen.append(draws.tolist())
        return choose(logits, temperature, draws)

    monkeypatch.setattr(module, "choose", spy)
    requests = [Request(p, 20, key=(i, 4)) for i, p in enumerate(prompts_of(*range(3, 12)))]
    found = backend.generate(requests)
    for t, draws in enumerate(seen):
        alive = [r for r, c in zip(requests, found, strict=True) if len(c.ids) > t]
        # In any order: the rows of replies that go on fill the places of those that ended.
        assert sorted(draws) == sorted(uniforms(r.key, 20)[t].tolist() for r in alive)
    assert len(seen) > 5


def test_frequencies_of_a_reply_are_those_of_the_model():
    backend = make_backend(ends=False)
    [prompt] = prompts_of(6)
    count = 3000
    probabilities = full_logprobs(backend.model, prompt, 0.5)[-1].exp().double()
    replies = backend.generate([Request(prompt, 1, 0.5, key=(5, n)) for n in range(count)])
    observed = torch.bincount(torch.tensor([c.ids[0] for c in replies]), minlength=260).double()
    order = probabilities.argsort(descending=True)
    # The eleven likeliest tokens, and all the others as one class.
    shares = torch.cat([probabilities[order[:11]], probabilities[order[11:]].sum()[None]]) * count
    seen = torch.cat([observed[order[:11]], observed[order[11:]].sum()[None]])
    assert shares.min() > 5
    assert ((seen - shares) ** 2 / shares).sum() < 31.26  # 99.9 % of chi-square, 11 degrees


def test_a_shared_prompt_is_read_once(backend):
    one, other = prompts_of(20, 9)
    requests = [Request(p, 6, key=(i,)) for i, p in enumerate([one, other, one, one, other])]
    with forwards(backend) as seen:
        found = backend.generate(requests)
    assert seen[0] == (2, 20)
    for request, completion in zip(requests, found, strict=True):
        same(completion, make_backend().generate([request])[0])


def test_what_all_prompts_begin_with_is_read_once(backend):
    beginning, *ends = prompts_of(24, 3, 9, 1)
    prompts = [[*beginning, *end] for end in ends]
    requests = [
        Request(p, 6, key=(i,), session=f"s{i}") for i, p in enumerate([*prompts, *prompts])
    ]
    with forwards(backend) as seen:
        found = backend.generate(requests)
    assert seen[:2] == [(1, 24), (3, 9)]
    for request, completion in zip(requests, found, strict=True):
        same(completion, make_backend().generate([request])[0])
        check_exact(backend, request, completion)
    # What was read together is each conversation's own afterwards.
    more = [
        Request([*r.ids, *c.ids, 5], 4, key=(i, 1), session=r.session)
        for i, (r, c) in enumerate(zip(requests, found, strict=True))
    ]
    with forwards(backend) as seen:
        found = backend.generate(more)
    assert seen[0] == (6, 2)
    for request, completion in zip(more, found, strict=True):
        check_exact(backend, request, completion)


def test_a_short_beginning_is_not_worth_a_pass(backend):
    one, other = prompts_of(9, 7)
    with forwards(backend) as seen:
        backend.generate([Request([*one, *other], 2), Request([*one, 1], 2)])
    assert seen[0] == (2, 16)


def test_a_reply_that_ended_is_not_computed(backend):
    requests = [Request(p, 3 + i, key=(i,)) for i, p in enumerate(prompts_of(*range(4, 24, 2)))]
    with forwards(backend) as seen:
        found = backend.generate(requests)
    lengths = [len(c.ids) for c in found]
    assert len(set(lengths)) > 3
    # The last token of a reply is read by nobody.
    expected = [(sum(n > t for n in lengths), 1) for t in range(1, max(lengths))]
    assert seen == [(len(requests), 22), *expected]


def test_the_keys_and_values_of_a_turn_are_kept_for_the_next(backend):
    first = [Request(p, 9, key=(i,), session=f"s{i}") for i, p in enumerate(prompts_of(30, 12, 21))]
    replies = backend.generate(first)
    more = prompts_of(5, 5, 5, seed=1)
    second = [
        Request([*r.ids, *c.ids, *new], 9, key=(i, 1), session=r.session)
        for i, (r, c, new) in enumerate(zip(first, replies, more, strict=True))
    ]
    with forwards(backend) as seen:
        found = backend.generate(second)
    # What is new, and the last token of the reply, which nobody had read yet.
    assert seen[0] == (3, 6)
    for request, completion in zip(second, found, strict=True):
        same(completion, make_backend().generate([request])[0])
        check_exact(backend, request, completion)
    # And a third turn, on what the second kept.
    third = [
        Request([*r.ids, *c.ids, 7], 9, key=(i, 2), session=r.session)
        for i, (r, c) in enumerate(zip(second, found, strict=True))
    ]
    with forwards(backend) as seen:
        last = backend.generate(third)
    assert seen[0] == (3, 2)
    for request, completion in zip(third, last, strict=True):
        check_exact(backend, request, completion)


def test_only_the_prefix_that_is_shared_is_used_again(backend):
    [prompt] = prompts_of(30)
    [reply] = backend.generate([Request(prompt, 5, session="s")])
    changed = [*prompt[:18], (prompt[18] + 1) % 256, *prompt[19:], *reply.ids, 3]
    request = Request(changed, 8, key=(1,), session="s")
    with forwards(backend) as seen:
        [found] = backend.generate([request])
    assert seen[0] == (1, len(changed) - 18)
    same(found, make_backend().generate([request])[0])
    check_exact(backend, request, found)


@pytest.mark.parametrize("kept", [1, 7, 30])
def test_the_same_or_a_shorter_prompt_again(backend, kept):
    [prompt] = prompts_of(30)
    backend.generate([Request(prompt, 5, session="s")])
    request = Request(prompt[:kept], 8, key=(1,), session="s")
    with forwards(backend) as seen:
        [found] = backend.generate([request])
    assert seen[0] == (1, 1)  # one token must be read for its logits
    check_exact(backend, request, found)


def test_another_conversation_in_the_same_session(backend):
    one, other = prompts_of(20, 20)
    other[0] = (one[0] + 1) % 256
    backend.generate([Request(one, 5, session="s")])
    request = Request(other, 8, session="s")
    same(backend.generate([request])[0], make_backend().generate([request])[0])


SMALL = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
}


def other_model(name: str):
    torch.manual_seed(0)
    if name == "gpt2":  # positions are learned
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
        kept = {k: SMALL[k] for k in ("vocab_size", "initializer_range", "eos_token_id")}
        return GPT2LMHeadModel(GPT2Config(**sizes, **kept))
    if name == "mistral":  # every layer sees a window
        return MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8))
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=8, layer_types=kinds
        )
    )


def test_a_model_with_a_state_of_its_own_is_refused():
    kinds = ["conv", "full_attention"]
    model = Lfm2ForCausalLM(Lfm2Config(**SMALL, num_key_value_heads=2, layer_types=kinds))
    with pytest.raises(OVDError, match="'tiny': has recurrent or convolving layers"):
        make_backend(model=model)


@pytest.mark.parametrize("beginning", [0, 21])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma3"])
def test_windows_and_learned_positions_over_several_turns(name, beginning):
    """Rows of a batch that keep and read different numbers of tokens: columns are not positions."""
    backend = make_backend(model=other_model(name).eval())
    rng = random.Random(1)
    shared, *prompts = prompts_of(beginning, 3, 20, 40, 11)
    requests = [
        Request([*shared, *p], 12, key=(i,), session=f"s{i}") for i, p in enumerate(prompts)
    ]
    for turn in range(3):
        found = backend.generate(requests)
        for request, completion in zip(requests, found, strict=True):
            check_exact(backend, request, completion)
        new = (30, 2, 9, 1) if turn == 0 else (1, 14, 1, 25)
        requests = [
            Request(
                [*r.ids, *c.ids, *(rng.randrange(256) for _ in range(n))],
                12,
                key=(i, turn),
                session=r.session,
            )
            for i, (r, c, n) in enumerate(zip(requests, found, new, strict=True))
        ]


@given(st.data())
@settings(deadline=None, max_examples=15)
def test_conversations_of_any_shape_are_exact(data):
    backend = make_backend(batch_size=data.draw(st.integers(1, 5)))
    count = data.draw(st.integers(1, 4))
    beginning = prompts_of(data.draw(st.sampled_from([0, 15, 16, 40])))[0]
    history = [[*beginning, *data.draw(prompt)] for _ in range(count)]
    for turn in range(data.draw(st.integers(2, 3))):
        requests = [
            Request(history[i], data.draw(st.integers(1, 6)), key=(i, turn), session=f"s{i}")
            for i in data.draw(st.permutations(range(count)))
        ]
        for request, completion in zip(requests, backend.generate(requests), strict=True):
            check_exact(backend, request, completion)
            i = int(request.session[1:])
            # The next prompt may also go back on what was said.
            cut = data.draw(st.sampled_from([None, None, -1, 1]))
            history[i] = [*request.ids, *completion.ids][:cut] + data.draw(prompt)


def test_released_sessions_are_forgotten(backend):
    prompts = prompts_of(20, 20)
    requests = [Request(p, 4, session=str(i)) for i, p in enumerate(prompts)]
    backend.generate(requests)
    backend.release(["0", "never heard of"])
    with forwards(backend) as seen:
        backend.generate(requests[:1])
        backend.generate(requests[1:])
    firsts = [shape for shape in seen if shape != (1, 1)]
    assert firsts == [(1, 20)]


def test_nothing_is_kept_without_a_session(backend):
    backend.generate([Request(p, 4) for p in prompts_of(5, 9)])
    assert not backend._sessions


def test_changed_weights_leave_no_stale_cache():
    [prompt] = prompts_of(25)
    request = Request(prompt, 8, temperature=0.0, session="s")
    stale, fresh = make_backend(model=tiny_model(0)), make_backend(model=tiny_model(1))
    stale.generate([request])
    stale.model.load_state_dict(tiny_model(1).state_dict())
    kept = dict(stale._sessions)
    assert kept
    stale.follow(stale.model, 1)
    expected = fresh.generate([request])[0]
    same(stale.generate([request])[0], expected)
    # The test has teeth: with the old cache the reply is another one.
    stale._sessions = kept
    assert stale.generate([request])[0].logprobs != pytest.approx(expected.logprobs, abs=1e-3)


@contextmanager
def scripted(monkeypatch: pytest.MonkeyPatch, *replies: list[int]) -> Iterator[None]:
    """The model's choice of tokens, row by row and in turn, is the given one."""
    with monkeypatch.context() as patch:
        step = iter(range(1000))
        left = list(replies)

        def follow(logits, temperature, draws):
            t = next(step)
            ids = [reply[t] for reply in left if len(reply) > t][: len(logits)]
            return torch.tensor(ids), torch.full((len(ids),), -float(t + 1))

        patch.setattr(module, "choose", follow)
        yield


@pytest.mark.parametrize("text", ["<answer>95</answer> and more", "é</answer>", "</answer>"])
def test_a_stop_string_cuts_the_text_and_not_the_ids(monkeypatch, text):
    backend = make_backend(ends=False)
    ids = backend.dialect.encode(text)
    end = len(backend.dialect.encode(text.partition("</answer>")[0] + "</answer>"))
    request = Request([1, 2, 3], 40, stop=("nothing", "</answer>"))
    with scripted(monkeypatch, ids):
        [found] = backend.generate([request])
    # One byte a token: the stop string spans nine of them, and ends the reply at its last.
    assert found.ids == ids[:end]
    assert found.stop == "stop_string"
    assert found.text == text.partition("</answer>")[0]
    assert found.logprobs == [-float(t + 1) for t in range(end)]


def test_the_first_of_several_stop_strings_cuts(monkeypatch):
    backend = make_backend(ends=False)
    with scripted(monkeypatch, backend.dialect.encode("abcd")):
        [found] = backend.generate([Request([1], 9, stop=("cd", "d", "bcd"))])
    assert (found.text, len(found.ids)) == ("a", 4)


def test_a_token_that_holds_more_than_the_stop_string_stays_whole(monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2-135m"))
    backend = TransformersBackend(tiny_model(vocabulary=len(tokenizer)), tokenizer)
    ids = tokenizer.encode(" The answer is nothing")
    with scripted(monkeypatch, [*ids, 2]):
        [found] = backend.generate([Request([1], 40, stop=("no",))])
    assert tokenizer.decode(found.ids) == " The answer is nothing"
    assert (found.text, found.stop) == (" The answer is ", "stop_string")


def test_the_end_of_turn_is_kept_in_the_ids_and_left_out_of_the_text(monkeypatch):
    backend = make_backend(ends=False)
    with scripted(monkeypatch, [104, 105, 257]):
        [found] = backend.generate([Request([1], 9)])
    assert (found.ids, found.stop) == ([104, 105, 257], "end_of_turn")
    assert found.text == backend.dialect.tokenizer.decode([104, 105])
    with scripted(monkeypatch, [257]):
        [found] = backend.generate([Request([1], 9)])
    assert (found.ids, found.text, found.stop) == ([257], "", "end_of_turn")


def test_the_end_of_turn_as_the_last_token_allowed_is_an_end_of_turn(monkeypatch):
    backend = make_backend(ends=False)
    with scripted(monkeypatch, [104, 257]):
        [found] = backend.generate([Request([1], 2)])
    assert found.stop == "end_of_turn"
    ids = backend.dialect.encode("ab")
    with scripted(monkeypatch, ids):
        [found] = backend.generate([Request([1], 2, stop=("b",))])
    assert found.stop == "stop_string"


def test_max_tokens_ends_a_reply():
    backend = make_backend(ends=False)
    requests = [Request(p, n, key=(n,)) for n, p in enumerate(prompts_of(5, 5, 5, 5), start=1)]
    found = backend.generate(requests)
    assert [len(c.ids) for c in found] == [1, 2, 3, 4]
    assert {c.stop for c in found} == {"length"}
    # A smaller limit is a cut, not another reply.
    longer = backend.generate([Request(r.ids, 9, key=r.key) for r in requests])
    assert [c.ids[: len(d.ids)] for c, d in zip(longer, found, strict=True)] == [
        c.ids for c in found
    ]


def test_ids_beyond_the_tokenizer_have_no_text(monkeypatch):
    backend = make_backend(ends=False)
    # The model has 260 tokens, the tokenizer 258: real models are padded so, too.
    with scripted(monkeypatch, [104, 259, 105, 257]):
        [found] = backend.generate([Request([1], 9)])
    assert found.ids == [104, 259, 105, 257]
    assert found.text == backend.dialect.tokenizer.decode([104, 105])


def test_the_ends_of_the_generation_config_count():
    model = tiny_model()
    model.generation_config.eos_token_id = [257, 42]
    backend = TransformersBackend(model, tiny_tokenizer())
    assert backend.dialect.stop_ids == {257, 42}
    assert backend.dialect.end_of_turn == 257


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request([], 4), "an empty prompt"),
        (
            Request([1] * 1000, 25),
            "a prompt of 1000 tokens and a reply of 25: expected at most 1024",
        ),
        (Request([1], 0), "max_tokens: expected at least 1, got 0"),
        (Request([1], 4, temperature=-1.0), "temperature: expected 0"),
        (Request([1], 4, temperature=float("nan")), "temperature: expected 0"),
        (Request([1], 4, stop=("a", "")), "stop: expected strings that are not empty"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_read(backend, request_, reason):
    with forwards(backend) as seen, pytest.raises(OVDError, match=reason):
        backend.generate([Request([1], 4), request_])
    assert not seen


def test_a_prompt_that_just_fits(backend):
    [found] = backend.generate([Request([1] * 1000, 24, key=(3,))])
    assert 1 <= len(found.ids) <= 24


def test_weights_that_diverged_are_told():
    backend = make_backend()
    with torch.no_grad():
        backend.model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(OVDError, match="'tiny': its logits are not numbers"):
        backend.generate([Request([1, 2], 4)])


def test_next_token_logprobs_are_those_of_a_full_forward(backend):
    backend.batch_size = 3
    prompts = prompts_of(1, 30, 8, 8, 17)
    prompts.append(prompts[1])
    choices = [48, 49, 57, 257, 0]
    found = backend.next_token_logprobs(prompts, choices)
    assert len(found) == 6
    for prompt, row in zip(prompts, found, strict=True):
        expected = full_logprobs(backend.model, prompt)[-1, choices].tolist()
        assert row == pytest.approx(expected, abs=3e-5)


@pytest.mark.parametrize(("prompt", "reason"), [([], "empty prompt"), ([1] * 1024, "at most 1024")])
def test_next_token_logprobs_refuses_what_generate_refuses(backend, prompt, reason):
    with pytest.raises(OVDError, match=reason):
        backend.next_token_logprobs([[1], prompt], [48])


def test_load_model_reads_what_was_saved_and_nothing_else(tmp_path):
    tiny_model(3).save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    model, tokenizer, place = load_model(str(tmp_path / "m"), dtype="float32", device="cpu")
    assert place == str(tmp_path / "m")
    assert not model.training
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(ids).logits, tiny_model(3)(ids).logits)
    assert tokenizer.chat_template == tiny_tokenizer().chat_template
    # Cut off in the middle, as by a full disk: told in one line.
    with (tmp_path / "m/model.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(OVDError, match="cannot be loaded") as caught:
        load_model(str(tmp_path / "m"), dtype="float32", device="cpu")
    assert "\n" not in str(caught.value)
    # A pickle is not read.
    torch.save(tiny_model(3).state_dict(), tmp_path / "m/pytorch_model.bin")
    (tmp_path / "m/model.safetensors").unlink()
    with pytest.raises(OVDError, match="cannot be loaded"):
        load_model(str(tmp_path / "m"), dtype="float32", device="cpu")


def test_dtypes():
    assert choose_dtype("float32") == torch.float32
    assert choose_dtype("bfloat16") == torch.bfloat16
    assert choose_dtype("auto") in (torch.float32, torch.bfloat16)
    with pytest.raises(OVDError, match="dtype 'float16': expected auto, float32 or bfloat16"):
        choose_dtype("float16")


@pytest.mark.parametrize(
    ("written", "text", "stop_string"),
    [
        ("<search>x</search>", "<search>x", "</search>"),
        ("a STOP", "a ", "STOP"),
        ("a</answer>", "a", "</answer>"),
    ],
)
def test_a_completion_tells_which_string_ended_it(monkeypatch, written, text, stop_string):
    backend = make_backend(ends=False)
    stops = ("STOP", "</search>", "</answer>")
    with scripted(monkeypatch, [*backend.dialect.encode(written), 5]):
        [found] = backend.generate([Request([1], 40, stop=stops)])
    assert (found.text, found.stop_string) == (text, stop_string)
    assert found.ids == backend.dialect.encode(written)
    with scripted(monkeypatch, [104, 257]):
        [found] = backend.generate([Request([1], 40, stop=stops)])
    assert (found.text, found.stop_string) == (backend.dialect.decode([104]), "")


def test_inline_turns_are_the_same_with_and_without_kept_keys_and_values():
    def episode_of(*, keep: bool) -> tuple[list[int], list[float], list[int]]:
        backend = make_backend()
        backend.dialect = make_dialect("inline", tiny_tokenizer())
        backend.dialect.stop_ids |= ENDS
        student = Student(backend, max_tokens=9)
        episode = Episode(Task("t/0", "q", ("a",)), "e", "s", observation="q", seed=(0, 1, 2, 3))
        read = []
        for turn in range(4):
            with forwards(backend) as seen:
                [act] = student.act([episode])
            read.append(seen[0][1])
            words = f"\n\n<information>Doc 1(Title: {turn}) x</information>\n\n"
            episode.turns.append(Turn(act.text, words, stop=act.stop))
            if not keep:
                backend.follow(backend.model, 1)
        [segment] = episode.segments
        return segment.ids, segment.logprobs, read

    ids, logprobs, read = episode_of(keep=True)
    others, expected, read_anew = episode_of(keep=False)
    assert ids == others
    assert logprobs == pytest.approx(expected, abs=3e-5)
    # What is new, and the last token of the message, which nobody had read yet.
    new = len("\n\n<information>Doc 1(Title: 0) x</information>\n\n")
    assert read[1:] == [new + 1] * 3
    assert all(anew > few for anew, few in zip(read_anew[1:], read[1:], strict=True))
