"""A chat API over real HTTP that misbehaves by a script, episode by episode, and counts.

An episode is known by the word after "case:" in its text. Its script is a list of faults by name
(``TEXTS``, ``STATUSES`` and some more); each call takes the next, and once it is used up the
replies are good. It runs in threads of the test.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROMPT_TOKENS, COMPLETION_TOKENS = 100, 20
_CASE = re.compile(r"case:([\w-]+)")
_MARK = re.compile(r'"id": "([0-9a-f]{8})"')


def reply_text(mark, score=7, reason="Sound."):
    return json.dumps({"id": mark, "reason": reason, "score": score})


#: name -> text of a reply of status 200.
TEXTS = {
    "wrong id": lambda mark: reply_text("00000000"),
    "score 10": lambda mark: reply_text(mark, 10),
    "score -1": lambda mark: reply_text(mark, -1),
    'score "7/9"': lambda mark: reply_text(mark, "7/9"),
    'score "nine"': lambda mark: reply_text(mark, "nine"),
    "prose": lambda mark: "I would give this a 9.",
    "empty": lambda mark: "",
    "thinking block": lambda mark: "<think>Is it a 3?</think>\n" + reply_text(mark),
    "cut reply": lambda mark: reply_text(mark)[:20],
    "good": reply_text,
}

#: name -> status and headers.
STATUSES = {
    "429 with Retry-After in seconds": (429, lambda: {"Retry-After": "1"}),
    "429 with Retry-After as a date": (
        429,
        lambda: {"Retry-After": formatdate(time.time() + 2, usegmt=True)},
    ),
    "429 with Retry-After of a day": (429, lambda: {"Retry-After": "86400"}),
    "408": (408, dict),
    "409": (409, dict),
    "500": (500, dict),
    "503": (503, dict),
    "400": (400, dict),
    "401": (401, dict),
    "404": (404, dict),
}


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class FaultServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, scripts=None, *, port=0, seconds=0.0, logprobs=None, usage=True, good=None):
        self.scripts = {case: list(faults) for case, faults in (scripts or {}).items()}
        self.seconds = seconds
        self.logprobs = logprobs
        self.usage = usage
        #: Writes the good replies: (mark, message) -> text.
        self.good = good or (lambda mark, message: reply_text(mark))
        #: Calls, and replies that were paid for, by case.
        self.asked, self.charged = Counter(), Counter()
        #: When each call of a case came.
        self.times: dict[str, list[float]] = {}
        self.bodies = []
        self.keys = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        #: What an option does: ``refuses`` names options that are answered with 400.
        self.refuses: tuple[str, ...] = ()
        self.echo_key = False
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = self.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def start(self):
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self):
        """Finish the replies under way, then be gone: connections that were kept are closed."""
        self.shutdown()
        self.server_close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def handle_error(self, request, client_address):
        pass  # a client that went away in the middle of a hang


class _Handler(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self):
        with self.server.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = [message["content"] for message in body["messages"]]
        found = _CASE.search("\n".join(texts))
        case = found.group(1) if found else "?"
        with server.lock:
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            server.asked[case] += 1
            server.times.setdefault(case, []).append(time.monotonic())
            server.bodies.append(body)
            server.keys.append(self.headers["Authorization"])
            script = server.scripts.get(case, [])
            fault = script.pop(0) if script else "good"
        try:
            time.sleep(server.seconds)
            self._answer(fault, _MARK.findall(texts[1])[-1], case, body)
        finally:
            with server.lock:
                server.under_way -= 1

    def _answer(self, fault, mark, case, body):
        server = self.server
        refused = [name for name in server.refuses if name in body]
        if refused:
            return self._send(400, {"error": {"message": f"unknown option {refused[0]}"}})
        if fault in STATUSES:
            status, headers = STATUSES[fault]
            told = f"this is {fault}"
            if server.echo_key:
                told += f" {self.headers['Authorization']}"
            return self._send(status, {"error": {"message": told}}, headers())
        if fault == "hang":
            time.sleep(2.0)
            self.close_connection = True
            return None
        if fault == "HTML":
            return self._send(200, "<html>busy</html>", {"Content-Type": "text/html"})
        if fault in TEXTS and fault != "good":
            text = TEXTS[fault](mark)
        else:
            text = server.good(mark, body["messages"][1]["content"])
        answer = self._completion(text, fault)
        if fault == "body cut":
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        if fault == "body no JSON":
            return self._send(200, json.dumps(answer)[:-30])
        with server.lock:
            server.charged[case] += 1
        return self._send(200, answer)

    def _completion(self, text, fault):
        server = self.server
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if fault == "cut reply" else "stop",
        }
        if server.logprobs is not None:
            choice["logprobs"] = {"content": server.logprobs(text)}
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        }
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            **({"usage": usage if server.usage is True else server.usage} if server.usage else {}),
        }

    def _send(self, status, answer, headers=None):
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass
