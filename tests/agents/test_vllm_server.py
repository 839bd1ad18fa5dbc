"""The client of vLLM servers against a scripted one: adapters come and go, replies are held.

Real servers are in tests/integration.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agents.protocol import Request
from agents.transformers_backend import TransformersBackend
from agents.vllm_server import VLLMServerBackend
from ovd_envs.errors import OVDError
from tests.tiny import tiny_model, tiny_tokenizer

END = 257


class Server(ThreadingHTTPServer):
    """Knows adapters by name; a reply waits for ``gate``; says which folders were there."""

    daemon_threads = True

    def __init__(self):
        self.loaded: dict[str, str] = {}
        self.most = 0
        self.asked: list[dict] = []
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, path, body):
        with self.lock:
            self.calls.append(path)
        if path == "/v1/models":
            return 200, {"data": [{"max_model_len": 100}]}
        if path == "/v1/load_lora_adapter":
            if not (Path(body["lora_path"]) / "adapter").is_file():
                return 400, {"error": "no adapter there"}
            with self.lock:
                self.loaded[body["lora_name"]] = body["lora_path"]
                self.most = max(self.most, len(self.loaded))
            return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
        if path == "/v1/unload_lora_adapter":
            known = self.loaded.pop(body["lora_name"], None)
            return (200 if known else 404), None
        assert path == "/inference/v1/generate"
        if "model" in body and body["model"] not in self.loaded:
            return 404, {"error": "no such model"}
        self.asked.append(body)
        self.arrived.release()
        assert self.gate.wait(20)
        # An adapter that is evicted while it is used is read from its folder again.
        folder = self.loaded.get(body.get("model"))
        if "model" in body and not (folder and (Path(folder) / "adapter").is_file()):
            return 500, None
        entries = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
        return 200, {
            "choices": [{"finish_reason": "stop", "token_ids": [65, END], "logprobs": entries}]
        }


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(*self.server.answer(self.path, None))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(*self.server.answer(self.path, body))

    def reply(self, status, answer):
        words = isinstance(answer, str)  # as vLLM's own: no JSON
        data = answer.encode() if words else json.dumps(answer).encode() if answer else b""
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if words else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


class Adapted:
    """A model with an adapter, as far as the backend looks at it."""

    peft_config = ()

    def save_pretrained(self, folder):
        (Path(folder) / "adapter").touch()


@pytest.fixture
def servers():
    made = [Server(), Server()]
    yield made
    for server in made:
        server.gate.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def backend(servers):
    made = VLLMServerBackend([server.url for server in servers], tiny_tokenizer(), patience=5)
    yield made
    made.close()


REQUEST = Request([1, 2, 3], 8)


def test_five_follows_leave_one_adapter(servers, backend):
    assert backend.dialect.end_of_turn == END
    for version in range(1, 6):
        backend.follow(Adapted(), version)
        completions = backend.generate([REQUEST] * 4)
        assert {c.version for c in completions} == {version}
    for server in servers:
        assert server.most <= 2
        [name] = server.loaded
        assert name.startswith("version-5-")


def test_an_adapter_in_use_stays_until_its_last_reply_has_ended(servers, backend):
    for server in servers:
        server.gate.clear()
    backend.follow(Adapted(), 1)
    first = [backend.submit(REQUEST) for _ in range(4)]
    for server in servers:
        for _ in range(2):
            assert server.arrived.acquire(timeout=20)
    before = {name: Path(path) for name, path in servers[0].loaded.items()}
    backend.follow(Adapted(), 2)
    assert all(len(server.loaded) == 2 for server in servers), "the first is in use"
    assert all(folder.is_dir() for folder in before.values())
    for server in servers:
        server.gate.set()
    assert [future.result(20).version for future in first] == [1] * 4
    backend.follow(Adapted(), 3)  # what was let go of by then is gone
    for server in servers:
        [name] = server.loaded
        assert name.startswith("version-3-")
        assert server.calls.count("/v1/unload_lora_adapter") == 2
        assert server.calls.count("/inference/v1/generate") == 2, "none was asked twice"
    assert not any(folder.exists() for folder in before.values())


def test_the_same_version_twice_is_two_adapters(servers, backend):
    """Unloading the first by its name must not take the second with it."""
    for _ in range(2):
        backend.follow(Adapted(), 7)
    calls = list(servers[0].calls)
    assert [c.version for c in backend.generate([REQUEST] * 2)] == [7, 7]
    assert servers[0].calls.count("/v1/load_lora_adapter") == 2
    assert calls.count("/v1/unload_lora_adapter") == 1


def test_a_server_that_lost_its_adapter_is_given_the_newest(servers, backend):
    backend.follow(Adapted(), 1)
    for server in servers:
        server.loaded.clear()
    assert {c.version for c in backend.generate([REQUEST] * 4)} == {1}


def test_a_schema_is_sent_as_vllm_takes_it(servers, backend):
    schema = {"type": "object"}
    backend.generate([Request([1], 8, schema=schema)])
    [body] = [body for server in servers for body in server.asked]
    assert body["sampling_params"]["structured_outputs"] == {"json": schema}


def test_an_adapter_that_is_refused_is_told(servers, backend):
    class Empty(Adapted):
        def save_pretrained(self, folder):
            pass

    with pytest.raises(OVDError, match="status 400"):
        backend.follow(Empty(), 1)


def test_patience_is_for_servers_that_do_not_answer_not_for_a_long_reply(servers, monkeypatch):
    monkeypatch.setattr("agents.vllm_server._PAUSE", 0.05)
    server, other = servers
    other.shutdown()
    other.server_close()
    backend = VLLMServerBackend([server.url], tiny_tokenizer(), patience=0.5)
    answer, waits = server.answer, [0.7]

    def dies_once(path, body):
        if waits and path == "/inference/v1/generate":
            time.sleep(waits.pop())  # the reply was under way for longer than the patience
            return 500, None
        return answer(path, body)

    server.answer = dies_once
    [completion] = backend.generate([REQUEST])
    backend.close()
    assert completion.ids == [65, END]
    assert not waits


@pytest.mark.parametrize("answer", [{"data": [{"id": "m"}]}, {"data": []}, {}, "<html>"])
def test_another_kind_of_server_is_told_in_one_line(servers, answer):
    servers[0].answer = lambda path, body: (200, answer)
    with pytest.raises(OVDError, match="expected a server as `ovd serve-model model` starts it"):
        VLLMServerBackend([servers[0].url], tiny_tokenizer())


def test_a_reply_ends_where_the_model_says_it_as_in_every_backend(servers, tmp_path):
    model = tiny_model()
    model.generation_config.eos_token_id = [END, 42]
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    backend = VLLMServerBackend.load(str(tmp_path), address=servers[0].url)
    backend.generate([REQUEST])
    backend.close()
    assert backend.dialect.stop_ids == TransformersBackend.load(str(tmp_path)).dialect.stop_ids
    [asked] = servers[0].asked
    assert asked["sampling_params"]["stop_token_ids"] == [42, END]


def test_a_model_without_a_tokenizer_is_told_in_one_line(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(OVDError, match="its tokenizer cannot be loaded") as raised:
        VLLMServerBackend.load(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_an_address_with_a_password_is_refused_without_it():
    with pytest.raises(OVDError, match="without a password, of host:8000") as raised:
        VLLMServerBackend(["http://me:hunter2@host:8000"], tiny_tokenizer())
    assert "hunter2" not in str(raised.value)
