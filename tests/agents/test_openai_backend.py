"""The chat API's client against a real HTTP server that speaks a little of OpenAI's protocol.

The real model behind a real server is in tests/integration; here are the faults.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import agents
from agents.chat_api import ChatAPI
from agents.episode import Episode, Turn
from agents.openai_backend import OpenAIStudent, connect, messages_of
from ovd_envs.errors import OVDError
from ovd_envs.task import Task


class Api(ThreadingHTTPServer):
    """Answers each request with the next of ``script``, the last of them for ever."""

    daemon_threads = True

    def __init__(self, script):
        self.script, self.asked, self.keys = list(script), [], []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers["Authorization"])
        script = self.server.script
        status, answer = script.pop(0) if len(script) > 1 else script[0]
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def says(text, finish="stop"):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    kind = "chat.completion"
    return 200, {"id": "x", "object": kind, "created": 1, "model": "m", "choices": [choice]}


@pytest.fixture
def api():
    made = []

    def start(*script):
        made.append(Api(script))
        return made[-1]

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def episode(question="1 + 1?"):
    task = Task("t", question, ("2",))
    return Episode(task=task, env="e", agent="a", observation=question, seed=(0, 0, 0, 0))


def test_a_conversation_is_sent_whole(api):
    server = api(says("3"), says("2", "length"))
    student = OpenAIStudent(connect(server.url), "some-model", temperature=0.3, max_tokens=9)
    played = episode()
    [first] = student.act([played])
    played.turns.append(Turn(first.text, "No, try again."))
    [second] = student.act([played])
    assert [(a.text, a.stop) for a in (first, second)] == [("3", "end_of_turn"), ("2", "length")]
    asked = server.asked[-1]
    assert asked["messages"] == messages_of(played)
    assert [(m["role"], m["content"]) for m in asked["messages"]] == [
        ("user", "1 + 1?"),
        ("assistant", "3"),
        ("user", "No, try again."),
    ]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("some-model", 0.3, 9)
    assert server.asked[0]["seed"] != asked["seed"]  # another turn, other random numbers


def test_many_conversations_in_their_order(api):
    server = api(says("x"))
    student = OpenAIStudent(connect(server.url), "m", batch_size=8)
    acts = student.act([episode(f"{n} + 1?") for n in range(40)])
    assert len(acts) == len(server.asked) == 40
    assert {m["messages"][0]["content"] for m in server.asked} == {f"{n} + 1?" for n in range(40)}


def test_what_passes_is_tried_again(api):
    busy = 429, {"error": {"message": "slow down"}}
    server = api(busy, (503, {}), says("2"))
    [act] = OpenAIStudent(connect(server.url), "m").act([episode()])
    assert (act.text, len(server.asked)) == ("2", 3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"error": {"message": "bad key"}}), "bad key"),
        ((404, {"error": {"message": "no model 'm'"}}), "no model 'm'"),
        ((200, {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": []}),
         "an empty reply"),
    ],
)  # fmt: skip
def test_what_does_not_pass_is_told_once(api, answer, said):
    server = api(answer)
    with pytest.raises(OVDError, match=said) as raised:
        OpenAIStudent(connect(server.url), "m").act([episode()])
    assert server.url in str(raised.value)
    assert len(server.asked) == 1


def test_the_key_comes_from_the_environment_and_stays_there(api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")
    server = api((401, {"error": {"message": "no"}}))
    with pytest.raises(OVDError) as raised:
        OpenAIStudent(connect(server.url), "m").act([episode()])
    assert server.keys == ["Bearer sk-secret-1234"]
    assert "secret" not in str(raised.value)


def test_a_key_that_the_server_quotes_is_not_told(api, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1234")
    server = api((401, {"error": {"message": "Incorrect API key provided: sk-secret-1234."}}))
    with pytest.raises(OVDError, match="Incorrect API key provided") as raised:
        OpenAIStudent(connect(server.url), "m").act([episode()])
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("blanks", ["\n", "\r\n", " "])
def test_blanks_around_a_key_are_not_of_it(api, monkeypatch, blanks):
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-secret-1234{blanks}")
    server = api(says("2"))
    chat = ChatAPI(server.url, "m", tries=1)
    chat.run(chat.ask([{"role": "user", "content": "?"}], max_tokens=1, temperature=0)).result(20)
    OpenAIStudent(connect(server.url), "m").act([episode()])
    assert server.keys == ["Bearer sk-secret-1234"] * 2


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("openai", "api.openai.com needs a key; set OPENAI_API_KEY"),
        ("openai:https://example.org/v1", "example.org needs a key"),
        ("openai:localhost:8000", "expected an address"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, backend, said):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(OVDError, match=said):
        agents.load_student("gpt", backend=backend)


def test_messages_that_are_held_to_a_schema(api):
    server = api(says('{"score": 3}'))
    schema = {"type": "object", "properties": {"score": {"type": "integer"}}}
    OpenAIStudent(connect(server.url), "m", schema=schema).act([episode()])
    OpenAIStudent(connect(server.url), "m").act([episode()])
    held, free = server.asked
    assert held["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": schema},
    }
    assert "response_format" not in free
