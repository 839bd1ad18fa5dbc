"""The client of /retrieve, against real servers on loopback: good, bad, slow and absent ones."""

import email.utils
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchError, SearchResult, make_engine
from ovd_envs.search.http import HttpEngine
from ovd_envs.search.server import ServerLimits, create_app


class Tilted:
    """Results whose scores have no short decimal form."""

    name = "tilted"

    def search(self, queries, k):
        return [
            [SearchResult(f"{i}", f"T{i}", f"{q}\n{i}", score=len(q) / (i + 3)) for i in range(k)]
            for q in queries
        ]


@contextmanager
def running(app):
    """A real uvicorn in a thread; gives the address of the server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Scripted:
    """A server that answers the n-th request with the n-th of some replies, the last for ever.

    A reply is (status, headers, body), or a function that is given the request's handler.
    """

    def __init__(self, *replies):
        self.bodies, self.connections, script = [], set(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                script.connections.add(self.client_address)
                length = int(self.headers["Content-Length"])
                script.bodies.append(json.loads(self.rfile.read(length)))
                reply = replies[min(len(script.bodies), len(replies)) - 1]
                if callable(reply):
                    reply(self)
                    return
                status, headers, body = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/retrieve"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def found(*texts):
    """The reply of one query."""
    return 200, {}, json.dumps({"result": [[{"contents": f'"t"\n{t}'} for t in texts]]}).encode()


@pytest.fixture(scope="module")
def ours():
    with running(create_app(Tilted(), limits=ServerLimits(queries=8))) as url:
        yield url


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(max_size=10), max_size=20), st.integers(1, 4))
def test_our_own_server_gives_what_its_engine_gives(ours, queries, k):
    engine = HttpEngine(ours, batch_size=8)
    assert engine.search(queries, k) == Tilted().search(queries, k)
    engine.close()


def test_half_a_surrogate_pair_is_no_reason_to_fail(ours):
    [results] = HttpEngine(ours).search(["a\ud800"], 1)
    assert results[0].text == "a?\n0"


@pytest.mark.parametrize("spelling", ["auto", "queries", "query"])
def test_both_spellings_with_our_server(ours, spelling):
    engine = HttpEngine(ours, spelling=spelling, batch_size=2)
    assert engine.search(["a", "bb", "ccc"], 2) == Tilted().search(["a", "bb", "ccc"], 2)


def test_many_threads_share_one_engine(ours):
    engine = HttpEngine(ours)

    def ask(number):
        queries = [f"{number} {n}" for n in range(5)]
        return engine.search(queries, 2) == Tilted().search(queries, 2)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(100)))


def test_a_server_that_is_often_full_serves_everybody_in_the_end():
    class Slow(Tilted):
        def search(self, queries, k):
            time.sleep(0.005)
            return super().search(queries, k)

    limits = ServerLimits(queries=2, waiting=4)
    with running(create_app(Slow(), limits=limits, max_batch=1)) as url:
        engine = HttpEngine(url)
        with ThreadPoolExecutor(16) as pool:
            queries = [[str(n), f"{n}!"] for n in range(64)]
            found = list(pool.map(lambda pair: engine.search(pair, 1), queries))
        refused = requests.get(f"{url}/metrics", timeout=10).text
    assert found == [Tilted().search(pair, 1) for pair in queries]
    assert 'requests_total{code="503"}' in refused


# Search-R1's and SkyRL's own servers, from the shapes that they publish.


class SearchR1Request(BaseModel):
    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


class SkyRLRequest(BaseModel):
    query: str
    topk: int | None = None
    return_scores: bool = False


def search_r1():
    app = FastAPI()

    @app.post("/retrieve")
    def retrieve(request: SearchR1Request):
        assert request.return_scores  # without it, theirs fails
        return {
            "result": [
                [
                    {"document": {"id": str(i), "contents": f'"T{i}"\n{q}'}, "score": 1 - i / 3}
                    for i in range(request.topk or 10)
                ]
                for q in request.queries
            ]
        }

    return app


def skyrl():
    app = FastAPI()

    @app.post("/retrieve")
    def retrieve(request: SkyRLRequest):
        one = SearchR1Request(
            queries=[request.query], topk=request.topk, return_scores=request.return_scores
        )
        return {
            "result": [
                [
                    {"document": {"id": str(i), "contents": f'"T{i}"\n{q}'}, "score": 1 - i / 3}
                    for i in range(one.topk or 10)
                ]
                for q in one.queries
            ]
        }

    return app


@pytest.mark.parametrize("app", [search_r1, skyrl])
def test_the_servers_of_others(app):
    with running(app()) as url:
        engine = make_engine(f"http:{url}/retrieve")
        for queries in (["one"], ["one", "two", "three"], []):
            assert engine.search(queries, 2) == [
                [SearchResult("0", "T0", q, score=1.0), SearchResult("1", "T1", q, score=1 - 1 / 3)]
                for q in queries
            ]


def test_a_spelling_that_was_asked_for_is_kept_to():
    with running(skyrl()) as url:
        assert len(HttpEngine(url, spelling="query").search(["a", "b"], 1)) == 2
        with pytest.raises(SearchError, match="HTTP 422"):
            HttpEngine(url, spelling="queries").search(["a"], 1)
    with running(search_r1()) as url, pytest.raises(SearchError, match="HTTP 422"):
        HttpEngine(url, spelling="query").search(["a"], 1)


def test_a_server_that_gives_more_than_asked_for_is_cut():
    with Scripted(found("a", "b", "c")) as server:
        [results] = HttpEngine(server.url).search(["q"], 2)
    assert [r.text for r in results] == ["a", "b"]


def test_what_is_sent_and_that_connections_stay_open():
    with Scripted(found("a")) as server:
        engine = HttpEngine(server.url)
        for n in range(5):
            engine.search([f"q{n}"], 3)
    assert server.bodies[0] == {"queries": ["q0"], "topk": 3, "return_scores": True}
    assert len(server.connections) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_failure_passes(status):
    with Scripted((status, {}, b"busy"), found("a")) as server:
        [[result]] = HttpEngine(server.url).search(["q"], 1)
    assert (result.text, len(server.bodies)) == ("a", 2)


def test_a_connection_that_breaks_is_tried_again():
    def drop(handler):
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    with Scripted(drop, drop, found("a")) as server:
        [[result]] = HttpEngine(server.url).search(["q"], 1)
    assert result.text == "a"


def test_the_server_says_when_to_come_back():
    when = email.utils.formatdate(time.time() + 2, usegmt=True)
    for header, least in (("0.4", 0.4), (when, 0.5)):
        with Scripted((503, {"Retry-After": header}, b""), found("a")) as server:
            began = time.monotonic()
            HttpEngine(server.url).search(["q"], 1)
            assert time.monotonic() - began >= least


def test_a_wait_past_the_deadline_is_not_begun():
    with Scripted((503, {"Retry-After": "100"}, b'{"detail": "full"}'), found("a")) as server:
        with pytest.raises(SearchError) as caught:
            HttpEngine(server.url, timeout=5).search(["q"], 1)
        assert len(server.bodies) == 1
    assert str(caught.value).startswith(f"{server.url}: HTTP 503: full (attempt 1, after ")


def test_attempts_are_counted():
    with Scripted((500, {}, b"<html>no</html>")) as server:
        with pytest.raises(SearchError, match=r"HTTP 500: <html>no</html> \(attempt 3, after "):
            HttpEngine(server.url, attempts=3).search(["q"], 1)
        assert len(server.bodies) == 3


def test_a_busy_server_is_waited_for_beyond_the_attempts():
    busy = (503, {"Retry-After": "0.01"}, b"")
    with Scripted(busy, busy, busy, found("a")) as server:
        [[result]] = HttpEngine(server.url, attempts=1).search(["q"], 1)
    assert (result.text, len(server.bodies)) == ("a", 4)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422])
def test_a_refusal_is_not_tried_again(status):
    with Scripted((status, {}, b'{"detail": "so it is"}')) as server:
        with pytest.raises(SearchError, match=f"HTTP {status}: so it is$"):
            HttpEngine(server.url).search(["q"], 1)
        assert len(server.bodies) == 1


def test_a_redirect_is_not_followed():
    away = (302, {"Location": "http://192.0.2.1/"}, b"")
    with Scripted(away) as server, pytest.raises(SearchError, match=r"HTTP 302$"):
        HttpEngine(server.url).search(["q"], 1)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "it is not JSON"),
        (b"<html>", "it is not JSON"),
        (b'{"result": [[{"contents": "a"', "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"{}", 'expected an object with "result"'),
        (b'{"result": []}', "expected 1 lists, one a query, got 0"),
        (b'{"result": [[], []]}', "expected 1 lists, one a query, got 2"),
        (b'{"result": [null]}', "expected a list of documents"),
        (b'{"result": [[{"contents": "a", "score": NaN}]]}', "expected a finite number"),
    ],
)
def test_nonsense_is_an_error_and_never_an_empty_result(body, told):
    with Scripted((200, {}, body)) as server, pytest.raises(SearchError) as caught:
        HttpEngine(server.url).search(["q"], 1)
    assert str(caught.value).startswith(f"{server.url}: not an answer to a search: ")
    assert told in str(caught.value)


def test_no_server_at_all_is_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SearchError) as caught:
        HttpEngine(f"127.0.0.1:{port}", attempts=2).search(["q"], 1)
    told = f"http://127.0.0.1:{port}/retrieve: cannot be reached (Connection refused) (attempt 2, "
    assert str(caught.value).startswith(told)


def test_a_server_that_never_answers_ends_at_the_deadline():
    ended = threading.Event()
    with Scripted(lambda handler: ended.wait(20)) as server:
        began = time.monotonic()
        with pytest.raises(SearchError, match=r"no answer within 0.3 s"):
            HttpEngine(server.url, timeout=0.3).search(["q"], 1)
        assert time.monotonic() - began < 5
        ended.set()


def test_a_server_that_drips_ends_at_the_deadline():
    ended = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not ended.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    with Scripted(drip) as server:
        began = time.monotonic()
        with pytest.raises(SearchError, match="the answer did not end in time"):
            HttpEngine(server.url, timeout=0.3).search(["q"], 1)
        assert time.monotonic() - began < 5
        ended.set()


def test_secrets_of_the_address_are_shown_nowhere():
    with Scripted((401, {}, b"")) as server:
        address = server.url.removeprefix("http://").removesuffix("/retrieve")
        engine = HttpEngine(f"http://nobody:pass@{address}/retrieve?key=word")
        with pytest.raises(SearchError) as caught:
            engine.search(["q"], 1)
    for text in (engine.name, engine.url, str(caught.value)):
        assert address in text
        assert not any(secret in text for secret in ("nobody", "pass", "word"))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://host:8000", "http://host:8000/retrieve"),
        ("host:8000/", "http://host:8000/retrieve"),
        ("https://host/api/retrieve", "https://host/api/retrieve"),
        ("http://host/search", "http://host/search"),  # the whole address: nothing is added
        ("http://[::1]:80/retrieve", "http://[::1]:80/retrieve"),
    ],
)
def test_addresses(given, url):
    assert HttpEngine(given).url == url


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:99999", "http://[::1"])
def test_what_is_no_address(url):
    with pytest.raises(OVDError, match=r"^url: "):
        HttpEngine(url)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"spelling": "both"}, "spelling: expected one of auto, queries, query, got 'both'"),
        ({"timeout": 0}, "timeout: expected more than 0"),
        ({"attempts": 0}, "attempts: expected more than 0"),
        ({"batch_size": -1}, "batch_size: expected more than 0"),
    ],
)
def test_options_that_make_no_sense(options, told):
    with pytest.raises(OVDError, match=told):
        HttpEngine("http://host", **options)


def test_k_is_at_least_one(ours):
    with pytest.raises(OVDError, match="k: expected at least 1, got 0"):
        HttpEngine(ours).search(["q"], 0)
