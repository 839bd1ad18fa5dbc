"""A real vLLM engine, in this process, with the real student: beside transformers, in float32."""

import json
from concurrent.futures import Future

import pytest
import torch

import agents
from agents.protocol import Request
from agents.transformers_backend import TransformersBackend, load_model
from agents.vllm_backend import VLLMBackend
from ovd_envs.errors import OVDError
from tests.integration.needs import needs_vllm

pytestmark = [needs_vllm, pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

#: Mean absolute difference of log-probabilities that two engines may have in float32.
TOLERANCE = 1e-4

QUESTIONS = [
    "What is 37 + 58?",
    "Name a river in France.",
    "Write one sentence about rain.",
    "Which colour has a ripe banana?",
    "Who wrote Hamlet?",
    "Say hello in three languages.",
]


@pytest.fixture(scope="module")
def reference():
    model, tokenizer, _ = load_model("smollm2-135m", dtype="float32", device="cpu")
    return TransformersBackend(model, tokenizer)


@pytest.fixture(scope="module")
def backend():
    made = agents.load_backend("smollm2-135m", backend="vllm", dtype="float32", batch_size=16)
    yield made
    made.close()


def prompts(backend):
    return [backend.dialect.open(question) for question in QUESTIONS]


def full_logprobs(model, prompt, reply, temperature):
    """Log-probabilities of the tokens of ``reply`` by one forward over everything."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *reply]])).logits[0].float()
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
    return [logprobs[len(prompt) + i - 1, token].item() for i, token in enumerate(reply)]


def difference(model, requests, completions):
    """The mean absolute difference between a backend's log-probabilities and the model's own."""
    gaps = []
    for request, completion in zip(requests, completions, strict=True):
        expected = full_logprobs(model, request.ids, completion.ids, request.temperature)
        gaps += [abs(a - b) for a, b in zip(completion.logprobs, expected, strict=True)]
    return sum(gaps) / len(gaps)


def test_greedy_replies_are_those_of_transformers(backend, reference):
    requests = [Request(ids, 24, temperature=0) for ids in prompts(backend)]
    ours, theirs = backend.generate(requests), reference.generate(requests)
    assert [c.ids for c in ours] == [c.ids for c in theirs]
    assert [(c.stop, c.text) for c in ours] == [(c.stop, c.text) for c in theirs]
    assert difference(reference.model, requests, ours) < TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_at_the_sampling_temperature(backend, reference, temperature):
    requests = [
        Request(ids, 24, temperature=temperature, key=(7, number))
        for number, ids in enumerate(prompts(backend))
    ]
    completions = backend.generate(requests)
    assert difference(reference.model, requests, completions) < TOLERANCE
    assert len({tuple(c.ids) for c in completions}) == len(requests)


def test_more_prompts_than_one_step_can_read(backend):
    # Without a GPU vLLM crashes where a seeded prompt is read in parts: see VLLMBackend.load.
    long = backend.dialect.encode(" ".join(["The rain fell on the old town again."] * 90))
    requests = [
        Request([*prompts(backend)[number % 6], *long, number], 2, key=(number,))
        for number in range(13)
    ]
    assert sum(len(request.ids) for request in requests) > 9000
    together = backend.generate(requests)
    assert [len(reply.ids) for reply in together] == [2] * len(requests)
    assert backend.generate(requests[-1:])[0].ids == together[-1].ids


def test_the_key_names_the_draws(backend):
    ids = prompts(backend)[2]
    one, same, other = backend.generate(
        [Request(ids, 16, key=(1, 2)), Request(ids, 16, key=(1, 2)), Request(ids, 16, key=(1, 3))]
    )
    assert one.ids == same.ids != other.ids


def test_why_a_reply_ends(backend):
    replies = backend.generate([Request(ids, 80, temperature=0) for ids in prompts(backend)])
    ids, whole = next(
        (ids, reply)
        for ids, reply in zip(prompts(backend), replies, strict=True)
        if reply.stop == "end_of_turn"
    )
    [cut] = backend.generate([Request(ids, 3, temperature=0)])
    assert (cut.stop, cut.ids) == ("length", whole.ids[:3])
    assert whole.ids[-1] == backend.dialect.end_of_turn
    assert "<|im_end|>" not in whole.text
    word = whole.text.split()[2]
    [stopped] = backend.generate([Request(ids, 80, temperature=0, stop=(word,))])
    assert (stopped.stop, stopped.stop_string) == ("stop_string", word)
    assert stopped.text == whole.text.partition(word)[0]
    # The ids are never cut, and are the ones that were sampled.
    assert stopped.ids == whole.ids[: len(stopped.ids)]
    assert word in backend.dialect.decode(stopped.ids)


def test_a_reply_is_ready_when_it_has_ended(backend):
    ids = prompts(backend)[2]
    long = backend.submit(Request(ids, 200, key=(5,), stop=("no such text",)))
    short = backend.submit(Request(ids, 1))
    assert len(short.result().ids) == 1
    assert isinstance(long, Future)
    assert not long.done()
    assert len(long.result().ids) > 1


def test_bad_requests_are_refused_and_harm_nobody(backend):
    good = backend.submit(Request(prompts(backend)[1], 4))
    for request, reason in [
        (Request([], 4), "empty prompt"),
        (Request([1] * backend.context_length, 4), "expected at most"),
        (Request([1], 0), "max_tokens: expected at least 1"),
    ]:
        with pytest.raises(OVDError, match=reason):
            backend.generate([request])
    assert len(good.result().ids) == 4


SCHEMA = {
    "type": "object",
    "properties": {
        "reason": {"type": "string", "maxLength": 20},
        "score": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["reason", "score"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_reply_is_held_to_a_schema(backend, temperature):
    """The student was never trained to write JSON: without the schema it writes none."""
    options = {"max_tokens": 128, "temperature": temperature}
    free = backend.generate([Request(ids, **options) for ids in prompts(backend)])
    held = backend.generate([Request(ids, **options, schema=SCHEMA) for ids in prompts(backend)])
    assert not any(c.text.lstrip().startswith("{") for c in free)
    for completion in held:
        assert completion.stop == "end_of_turn"
        value = json.loads(completion.text)
        assert value.keys() == {"reason", "score"}
        assert type(value["reason"]) is str
        assert value["score"] in range(10)
        # What was sampled, token by token: the end of turn too, and nothing re-tokenised.
        assert completion.ids[-1] in backend.dialect.stop_ids
        assert backend.dialect.decode(completion.ids) == completion.text
        assert len(completion.logprobs) == len(completion.ids)
        assert all(logprob <= 0 for logprob in completion.logprobs)


def test_logprobs_of_a_held_reply_are_those_among_what_is_allowed(backend, reference):
    schema = {"enum": list(range(10))}
    requests = [
        Request(ids, 4, temperature=1.0, key=(n,), schema=schema)
        for n, ids in enumerate(prompts(backend))
    ]
    digits = [backend.dialect.encode(str(digit)) for digit in range(10)]
    assert all(len(ids) == 1 for ids in digits)
    for request, completion in zip(requests, backend.generate(requests), strict=True):
        digit, end = completion.ids
        assert completion.text == str(digits.index([digit]))
        assert end in backend.dialect.stop_ids
        free = [full_logprobs(reference.model, request.ids, ids, 1.0)[0] for ids in digits]
        among = torch.tensor(free).log_softmax(-1)[digits.index([digit])].item()
        assert completion.logprobs[0] == pytest.approx(among, abs=1e-3)


def test_a_schema_that_is_none_is_refused_and_harms_nobody(backend):
    with pytest.raises(OVDError, match="model 'smollm2-135m'"):
        backend.generate([Request(prompts(backend)[0], 4, schema={"type": "nonsense"})])
    assert len(backend.generate([Request(prompts(backend)[0], 4)])[0].ids) == 4


def test_new_weights_are_the_ones_that_sample(backend, reference):
    """Far enough from the old ones that a stale engine, or a stale prefix, would be seen."""
    requests = [Request(ids, 12, temperature=0) for ids in prompts(backend)]
    before = backend.generate(requests)
    assert {c.version for c in before} == {0}
    original = {n: p.detach().clone() for n, p in reference.model.named_parameters()}
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in reference.model.parameters():
                parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
        assert difference(reference.model, requests, before) > 10 * TOLERANCE
        backend.follow(reference.model, 3)
        after = backend.generate(requests)
        assert {c.version for c in after} == {3}
        assert difference(reference.model, requests, after) < TOLERANCE
    finally:
        with torch.no_grad():
            for name, parameter in reference.model.named_parameters():
                parameter.copy_(original[name])
        backend.follow(reference.model, 4)
    assert [c.ids for c in backend.generate(requests)] == [c.ids for c in before]


def test_an_adapter_is_followed(reference):
    from peft import LoraConfig, get_peft_model

    backend = VLLMBackend.load("smollm2-135m", dtype="float32", batch_size=8, lora_rank=4)
    try:
        requests = [Request(ids, 12, temperature=0) for ids in prompts(backend)]
        before = backend.generate(requests)
        torch.manual_seed(0)
        options = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(reference.model, options)
        try:
            with torch.no_grad():
                for name, parameter in adapted.named_parameters():
                    if "lora_" in name:
                        parameter.copy_(0.05 * torch.randn_like(parameter))
            assert difference(adapted, requests, before) > 10 * TOLERANCE
            backend.follow(adapted, 1)
            after = backend.generate(requests)
            assert {c.version for c in after} == {1}
            assert difference(adapted, requests, after) < TOLERANCE
            numbers = set()
            for version in (2, 3, 3, 4, 5):
                with torch.no_grad():
                    for name, parameter in adapted.named_parameters():
                        if "lora_" in name:
                            parameter.mul_(0.9)
                backend.follow(adapted, version)
                assert difference(adapted, requests, backend.generate(requests)) < TOLERANCE
                loaded = backend._engine.list_loras()
                assert len(loaded) == 1
                numbers |= loaded
            assert len(numbers) == 5
        finally:
            adapted.unload()
    finally:
        backend.close()
