"""Real ``vllm serve`` processes with the real student: beside transformers, in float32."""

import json
import threading
import time

import httpx2
import pytest
import torch
from peft import LoraConfig, get_peft_model

import agents
from agents.openai_backend import OpenAIStudent, connect
from agents.protocol import Request
from agents.rollout import rollout
from agents.student import Student
from agents.transformers_backend import TransformersBackend, load_model
from agents.vllm_server import VLLMServerBackend
from ovd_envs import make
from ovd_envs.errors import OVDError
from teachers import make_judge, score
from tests.integration.needs import needs_vllm
from tests.integration.test_vllm_backend import TOLERANCE, difference, prompts
from tests.integration.vllm_process import VLLMProcess, free_port

pytestmark = [needs_vllm, pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    process = VLLMProcess("smollm2-135m", log).start().wait()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def reference():
    model, tokenizer, _ = load_model("smollm2-135m", dtype="float32", device="cpu")
    return TransformersBackend(model, tokenizer)


@pytest.fixture
def backend(server):
    made = VLLMServerBackend.load("smollm2-135m", address=server.url)
    yield made
    made.close()


def test_tokens_in_tokens_out(backend, reference):
    requests = [Request(ids, 24, temperature=0) for ids in prompts(backend)]
    ours, theirs = backend.generate(requests), reference.generate(requests)
    assert [(c.ids, c.stop, c.text) for c in ours] == [(c.ids, c.stop, c.text) for c in theirs]
    assert difference(reference.model, requests, ours) < TOLERANCE
    sampled = [
        Request(ids, 24, temperature=0.6, key=(n,)) for n, ids in enumerate(prompts(backend))
    ]
    assert difference(reference.model, sampled, backend.generate(sampled)) < TOLERANCE


def test_as_a_chat_api(server, backend):
    """The same model by messages says what it says by tokens."""
    tasks = make("ovd/Math-v0").unwrapped.tasks.distinct("test", 4)
    by_messages = agents.load_student(
        "smollm2-135m", backend=f"openai:{server.url}/v1", temperature=0, max_tokens=16
    )
    by_tokens = Student(backend, temperature=0, max_tokens=16)
    one, other = (rollout(agent, "ovd/Math-v0", tasks) for agent in (by_messages, by_tokens))
    assert [e.turns[0].action for e in one] == [e.turns[0].action for e in other]
    assert [e.turns[0].stop for e in one] == [e.turns[0].stop for e in other]
    assert not any(e.segments for e in one)


def test_a_reply_is_held_to_a_schema(backend):
    """By tokens and by messages; a schema that is none is refused, and the server goes on."""
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["score"],
        "additionalProperties": False,
    }
    [completion] = backend.generate([Request(prompts(backend)[0], 24, schema=schema)])
    assert json.loads(completion.text)["score"] in range(10)
    assert completion.ids[-1] in backend.dialect.stop_ids
    assert len(completion.ids) == len(completion.logprobs)
    with pytest.raises(OVDError, match="status 400"):
        backend.generate([Request(prompts(backend)[0], 24, schema={"type": "nonsense"})])
    address = f"{backend._servers[0].url}/v1"
    student = OpenAIStudent(connect(address), "smollm2-135m", max_tokens=24, schema=schema)
    [task] = make("ovd/Math-v0").unwrapped.tasks.distinct("test", 1)
    [episode] = rollout(student, "ovd/Math-v0", [task])
    assert json.loads(episode.turns[0].action)["score"] in range(10)


def test_criteria_that_a_model_writes_and_checks(server, tmp_path):
    """The judge "rubric" with a real model for both parts: untrained, it has the form at least."""
    [task] = make("ovd/Math-v0").unwrapped.tasks.distinct("test", 1)
    address = f"openai:{server.url}/v1"
    student = agents.load_student("smollm2-135m", backend=address, temperature=1.0, max_tokens=24)
    episodes = rollout(student, "ovd/Math-v0", [task], group_size=2)
    options = {"model": "smollm2-135m", "backend": address, "max_tokens": 400}
    options |= {"demonstrator": "scripted", "rubrics": str(tmp_path)}
    first = score(make_judge("rubric", **options), episodes)
    [kept] = tmp_path.glob("*.json")
    assert 3 <= len(json.loads(kept.read_text())["criteria"]) <= 8
    assert all(verdict.score is not None for verdict in first)
    again = score(make_judge("rubric", **options), episodes)
    assert [(v.score, v.reason) for v in again] == [(v.score, v.reason) for v in first]
    # The criteria are not written again.
    paid = [sum(v.completion_tokens for v in verdicts) for verdicts in (first, again)]
    assert 0 < paid[1] < paid[0]


def test_adapters_that_were_left_are_not_listed_any_more(backend, server, reference):
    options = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(reference.model, options)
    try:
        for version in range(1, 4):
            backend.follow(adapted, version)
            assert backend.generate([Request([1, 2], 2)])[0].version == version
            listed = httpx2.get(f"{server.url}/v1/models", trust_env=False).json()["data"]
            assert [m["id"].rpartition("-")[0] for m in listed[1:]] == [f"version-{version}"]
    finally:
        adapted.unload()


def test_a_bad_request_is_told(backend):
    with pytest.raises(OVDError, match="expected at most 2048 together"):
        backend.generate([Request([1] * 2048, 4)])


def test_nobody_is_there():
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(OVDError, match=f"no vLLM server answers at {address}"):
        VLLMServerBackend.load("smollm2-135m", address=address)


@pytest.fixture
def moved(reference):
    """The reference with other weights, for as long as a test lasts."""
    original = {n: p.detach().clone() for n, p in reference.model.named_parameters()}
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in reference.model.parameters():
            parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
    yield reference.model, original
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            parameter.copy_(original[name])


def test_new_weights_and_a_server_that_comes_back_without_them(backend, server, moved):
    """A server killed and started again has its first weights: it is given the newest."""
    model, original = moved
    requests = [Request(ids, 12, temperature=0) for ids in prompts(backend)]
    before = backend.generate(requests)
    assert difference(model, requests, before) > 10 * TOLERANCE
    backend.follow(model, 3)
    after = backend.generate(requests)
    assert {c.version for c in after} == {3}
    assert difference(model, requests, after) < TOLERANCE
    server.kill()
    server.start()
    again = backend.generate(requests)
    assert [c.ids for c in again] == [c.ids for c in after]
    assert difference(model, requests, again) < TOLERANCE
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(original[name])
    backend.follow(model, 4)
    assert [c.ids for c in backend.generate(requests)] == [c.ids for c in before]


def test_killed_in_the_middle_of_a_rollout(server):
    """No episode is lost, none comes twice, none has the tokens of another."""
    server.kill()
    server.start().wait()  # the weights that it began with
    backend = VLLMServerBackend.load("smollm2-135m", address=server.url)
    try:
        student = Student(backend, temperature=1.0, max_tokens=24)
        tasks = make("ovd/WorldQA-v0").unwrapped.tasks.distinct("test", 24)
        ended = []

        def kill_it():
            while len(ended) < 4:
                time.sleep(0.05)
            server.kill()
            time.sleep(1)
            server.start()

        killer = threading.Thread(target=kill_it)
        killer.start()
        options = {"env_options": {"turns": 3}, "batch_size": 8, "progress": ended.append}
        episodes = rollout(student, "ovd/WorldQA-v0", tasks, **options)
        killer.join()
    finally:
        backend.close()
    assert [e.task.id for e in episodes] == [task.id for task in tasks]
    assert len({e.id for e in episodes}) == len(ended) == 24
    for episode in episodes:
        assert episode.error is None
        [segment] = episode.segments
        # Its own question, and its own messages, in its own tokens.
        text = backend.dialect.tokenizer.decode(segment.ids)
        assert episode.task.question in text
        position = 0
        for turn in episode.turns:
            position = text.index(turn.action, position)
