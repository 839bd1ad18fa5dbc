"""The search server: Search-R1's and SkyRL's shapes, limits, failures, metrics, a real process."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from ovd_envs.errors import OVDError
from ovd_envs.search import SearchError, SearchResult
from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.search.corpus import Corpus
from ovd_envs.search.http import HttpEngine
from ovd_envs.search.index import build_index
from ovd_envs.search.serve import _listen
from ovd_envs.search.server import ServerLimits, create_app

PEOPLE = ["Ada Brindle", "Tove Lindqvist", "Jun Okafor"]


class Shelf:
    """Three documents, of which each query finds the first ``k``; some queries do harm."""

    name = "shelf"

    def search(self, queries, k):
        for query in queries:
            if query == "down":
                raise SearchError("the shelf is closed")
            if query == "bug":
                raise KeyError("shelf")
            if query == "slow":
                time.sleep(0.3)
        return [
            [
                SearchResult(f"doc-{i}", name, f"{name} wrote about {query}.", score=1 / (i + 3))
                for i, name in enumerate(PEOPLE[:k])
            ]
            for query in queries
        ]


@pytest.fixture(scope="module")
def client():
    limits = ServerLimits(queries=5, query_characters=50, topk=10, body_bytes=5000, seconds=5)
    with TestClient(create_app(Shelf(), topk=2, limits=limits), raise_server_exceptions=False) as c:
        yield c


def document(place, query):
    name = PEOPLE[place]
    return {
        "id": f"doc-{place}",
        "title": name,
        "contents": f'"{name}"\n{name} wrote about {query}.',
    }


def with_score(place, query):
    return {"document": document(place, query), "score": 1 / (place + 3)}


def test_search_r1_with_scores(client):
    body = {"queries": ["rain", "snow"], "topk": 3, "return_scores": True}
    reply = client.post("/retrieve", json=body)
    assert reply.status_code == 200
    assert reply.json() == {
        "result": [[with_score(i, q) for i in range(3)] for q in body["queries"]]
    }


def test_search_r1_without_scores(client):
    body = {"queries": ["rain", "snow"], "topk": 1, "return_scores": False}
    expected = {"result": [[document(0, q)] for q in body["queries"]]}
    assert client.post("/retrieve", json=body).json() == expected
    del body["return_scores"]
    assert client.post("/retrieve", json=body).json() == expected
    assert client.post("/retrieve", json=body | {"return_scores": None}).json() == expected


@pytest.mark.parametrize("number", [{}, {"topk": None}])
def test_without_a_number_the_servers_own(client, number):
    reply = client.post("/retrieve", json={"queries": ["rain"], **number})
    assert reply.json() == {"result": [[document(i, "rain") for i in range(2)]]}


@pytest.mark.parametrize("scores", [True, False])
def test_skyrl(client, scores):
    reply = client.post("/retrieve", json={"query": "rain", "topk": 2, "return_scores": scores})
    shape = with_score if scores else document
    assert reply.json() == {"result": [[shape(i, "rain") for i in range(2)]]}
    listed = client.post("/retrieve", json={"query": ["rain"], "topk": 2, "return_scores": scores})
    assert listed.json() == reply.json()


def test_no_queries_no_results(client):
    assert client.post("/retrieve", json={"queries": []}).json() == {"result": []}


def test_fields_of_others_are_passed_over(client):
    reply = client.post("/retrieve", json={"queries": ["rain"], "topk_retrieval": 10})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("{}", 422, "body: expected either 'queries' (a list of texts) or 'query'"),
        ('{"queries":["a"],"query":"a"}', 422, "body: expected either 'queries'"),
        ('{"queries":"a"}', 422, "queries: expected a list of texts, got str"),
        ('{"queries":["a",1]}', 422, "queries.1: expected a text, got int"),
        ('{"query":{}}', 422, "query: expected a list of texts, got dict"),
        ('{"query":"a","topk":"many"}', 422, "topk: expected a whole number or null, got str"),
        ('{"query":"a","topk":2.5}', 422, "topk: expected a whole number or null, got float"),
        ('{"query":"a","topk":0}', 422, "topk: expected 1 to 10 or null, got 0"),
        ('{"query":"a","topk":11}', 422, "topk: expected 1 to 10 or null, got 11"),
        ('{"query":"a","return_scores":"maybe"}', 422, "return_scores: expected true or false"),
        ('["a"]', 422, "body: expected a JSON object"),
        ("", 422, "body: expected a JSON object"),
        ('{"queries":[', 400, "body: not valid JSON"),
        (b"\xff\xfe", 400, "body"),
        ("[" * 4000, 400, "body"),
        (json.dumps({"queries": ["a"] * 6}), 422, "queries: 6 of them, at most 5"),
        (json.dumps({"queries": ["a", "b" * 51]}), 422, "queries[1]: 51 characters, at most 50"),
        (json.dumps({"query": "a" * 5000}), 413, "body: at most 5000 bytes"),
    ],
)
def test_bad_input_is_one_clear_line(client, body, status, told):
    reply = client.post("/retrieve", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == status
    assert told in reply.json()["detail"]
    assert len(reply.text) < 200


def test_a_body_of_unannounced_length_is_limited_too(client):
    def chunks():
        for _ in range(100):
            yield b" " * 100

    reply = client.post("/retrieve", content=chunks(), headers={"Content-Type": "application/json"})
    assert reply.status_code == 413


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40) | st.text(st.characters(categories=["Cs", "Lu"]), max_size=4))
def test_any_text_is_a_query(client, query):
    reply = client.post(
        "/retrieve",
        content=json.dumps({"queries": [query]}),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == (502 if query == "down" else 200)


@pytest.mark.parametrize("spelling", [{"queries": ["a\ud800"]}, {"query": "a\ud800"}])
def test_an_engine_never_sees_half_a_surrogate_pair(client, spelling):
    body, headers = json.dumps(spelling | {"topk": 1}), {"Content-Type": "application/json"}
    reply = client.post("/retrieve", content=body, headers=headers)
    assert reply.json()["result"][0][0]["contents"].endswith("wrote about a?.")


def test_failures_of_the_engine_have_their_own_statuses(client):
    down = client.post("/retrieve", json={"query": "down"})
    assert (down.status_code, down.json()["detail"]) == (
        502,
        "search engine shelf: the shelf is closed",
    )
    bug = client.post("/retrieve", json={"query": "bug"})
    assert (bug.status_code, bug.json()["detail"]) == (
        500,
        "search engine shelf: KeyError: 'shelf'",
    )
    assert client.post("/retrieve", json={"query": "rain"}).status_code == 200


def test_scores_that_are_not_numbers_are_an_error():
    class Odd:
        name = "odd"

        def search(self, queries, k):
            return [[SearchResult("1", "t", "x", score=float("nan"))] for _ in queries]

    with TestClient(create_app(Odd())) as c:
        reply = c.post("/retrieve", json={"query": "a", "return_scores": True})
        assert reply.status_code == 500
        assert "not JSON" in reply.json()["detail"]


def test_half_a_surrogate_pair_in_a_document_is_sent():
    class Odd:
        name = "odd"

        def search(self, queries, k):
            return [[SearchResult("1", "t", "x\ud800")] for _ in queries]

    with TestClient(create_app(Odd())) as c:
        reply = c.post("/retrieve", json={"query": "a"})
        assert json.loads(reply.content)["result"][0][0]["contents"] == '"t"\nx\ud800'


def test_a_search_that_takes_too_long_gets_504():
    with TestClient(create_app(Shelf(), limits=ServerLimits(seconds=0.05))) as c:
        reply = c.post("/retrieve", json={"query": "slow"})
    assert (reply.status_code, reply.json()["detail"]) == (504, "no result within 0.05 s")


def test_a_full_queue_gets_503_and_when_to_come_back():
    gate = threading.Event()

    class Gated(Shelf):
        def search(self, queries, k):
            assert gate.wait(10)
            return super().search(queries, k)

    limits = ServerLimits(queries=2, waiting=2)
    app = create_app(Gated(), limits=limits, max_batch=1, wait=0.0)
    with TestClient(app) as c, ThreadPoolExecutor(2) as pool:
        first = pool.submit(c.post, "/retrieve", json={"query": "a"})
        while c.get("/metrics").text.count("ovd_search_queries_total 1.0") == 0:
            time.sleep(0.001)
        second = pool.submit(c.post, "/retrieve", json={"queries": ["b", "c"]})
        while c.get("/health").json()["waiting"] != 2:
            time.sleep(0.001)
        refused = c.post("/retrieve", json={"query": "d"})
        gate.set()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["detail"].startswith("the server is busy: 2 queries wait")
        assert first.result().status_code == second.result().status_code == 200


def test_health_and_metrics():
    with TestClient(create_app(Shelf(), topk=2)) as c:
        assert c.get("/health").json() == {
            "status": "ok",
            "engine": "shelf",
            "topk": 2,
            "waiting": 0,
        }
        c.post("/retrieve", json={"queries": ["a", "b"]})
        c.post("/retrieve", json={"query": "c"})
        c.post("/retrieve", json={})
        c.post("/retrieve", json={"query": "down"})
        lines = c.get("/metrics").text.splitlines()
    for line in (
        'ovd_search_requests_total{code="200"} 2.0',
        'ovd_search_requests_total{code="422"} 1.0',
        'ovd_search_requests_total{code="502"} 1.0',
        "ovd_search_errors_total 2.0",
        "ovd_search_queries_total 4.0",
        "ovd_search_request_seconds_count 4.0",
        "ovd_search_engine_seconds_count 2.0",
        "ovd_search_batch_queries_sum 3.0",
        "ovd_search_waiting_queries 0.0",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (lambda: ServerLimits(topk=0), "limit topk: expected more than 0"),
        (lambda: ServerLimits(seconds=float("nan")), "limit seconds"),
        (lambda: ServerLimits(queries=10, waiting=9), "limit waiting: expected at least"),
        (lambda: create_app(Shelf(), topk=101), "topk: expected 1 to 100, got 101"),
    ],
)
def test_limits_that_make_no_sense(limits, told):
    with pytest.raises(OVDError, match=re.escape(told)):
        limits()


# The command, in a process of its own.

#: Runs `ovd` with an engine that answers after 0.5 s.
SLOW = """
import time, ovd
from ovd_envs.search import SearchResult, search_engines
class Slow:
    name = "slow"
    def __init__(self, value):
        pass
    def search(self, queries, k):
        print("searching", flush=True)
        time.sleep(0.5)
        return [[SearchResult("1", "title", "text")] for _ in queries]
search_engines.register("slow", Slow, "slow")
ovd.main()
"""


class Served:
    """`ovd serve-search` in a process, on a port that it chose."""

    def __init__(self, *arguments, script="import ovd; ovd.main()"):
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "serve-search", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.line = self.process.stdout.readline()
        found = re.search(r"http://\S+/retrieve", self.line)
        assert found, self.process.stderr.read()
        self.url = found[0]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


BOOKS = {
    "Moby-Dick": "A whaling captain hunts the white whale that took his leg. By Herman Melville.",
    "Emma": "A young woman in Highbury plays matchmaker and errs. By Jane Austen.",
    "Dracula": "A count leaves Transylvania for England. By Bram Stoker.",
    "Walden": "Two years in a cabin by a pond. By Henry David Thoreau.",
}
QUESTIONS = ["who hunts the white whale", "a cabin by a pond", "matchmaker in Highbury", "count"]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A real index of a small corpus."""
    folder = tmp_path_factory.mktemp("served")
    rows = [
        {"id": str(n), "contents": f'"{title}"\n{text}'}
        for n, (title, text) in enumerate(BOOKS.items())
    ]
    corpus = folder / "books.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(Corpus(corpus), folder / "books.index")
    return folder / "books.index"


@pytest.fixture(scope="module")
def served(index):
    server = Served(str(index), "--topk", "2")
    yield server
    server.stop()


def owed(engine, query, k, *, scores):
    """What the server owes for one query, from the index itself."""
    items = []
    for result in engine.search([query], k)[0]:
        contents = f'"{result.title}"\n{result.text}'
        found = {"id": result.id, "title": result.title, "contents": contents}
        items.append({"document": found, "score": result.score} if scores else found)
    return items


@pytest.mark.integration
def test_protocol_of_a_real_process(served, index):
    """What Search-R1's and SkyRL's clients send, and what they read from the reply."""
    session, engine = requests.Session(), BM25Engine(index)
    body = {"queries": QUESTIONS, "topk": 3, "return_scores": True}
    reply = session.post(served.url, json=body).json()
    assert reply == {"result": [owed(engine, q, 3, scores=True) for q in QUESTIONS]}
    for results in reply["result"]:
        assert results
        for item in results:  # as Search-R1's client reads them
            title, *text = item["document"]["contents"].split("\n")
            assert BOOKS[title.strip('"')] == "\n".join(text)
    for spelling in ({"queries": ["a pond"]}, {"query": "a pond"}, {"query": ["a pond"]}):
        for number in ({}, {"topk": None}):
            for scores in (True, False):
                body = spelling | number | {"return_scores": scores}
                reply = session.post(served.url, json=body)
                assert reply.json() == {"result": [owed(engine, "a pond", 2, scores=scores)]}
    root = served.url.removesuffix("/retrieve")
    assert session.get(f"{root}/health").json()["status"] == "ok"
    assert "ovd_search_queries_total" in session.get(f"{root}/metrics").text


@pytest.mark.integration
def test_our_client_gets_what_the_index_gives(served, index):
    questions = [*QUESTIONS, "", "?!", '"unclosed AND (', "\ud800"]
    assert HttpEngine(served.url).search(questions, 3) == BM25Engine(index).search(questions, 3)


@pytest.mark.integration
def test_sixty_four_clients_at_once(served, index):
    """The benchmark's load for three seconds (benchmarks/search_server.py measures)."""
    engine, end = BM25Engine(index), time.monotonic() + 3
    expected = [{"result": [owed(engine, q, 2, scores=True)]} for q in QUESTIONS]

    def client(number):
        draw, count = random.Random(number), 0
        with requests.Session() as session:
            while time.monotonic() < end:
                place = draw.randrange(len(QUESTIONS))
                body = {"queries": [QUESTIONS[place]], "return_scores": True}
                assert session.post(served.url, json=body).json() == expected[place]
                count += 1
        return count

    with ThreadPoolExecutor(64) as pool:
        counts = list(pool.map(client, range(64)))
    assert min(counts) > 0


@pytest.mark.integration
def test_a_stop_finishes_what_is_under_way():
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        server = Served("slow:", script=SLOW)
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(requests.post, server.url, json={"query": "a"})
            assert server.process.stdout.readline() == "searching\n"
            returned, _, err = server.stop(number)
            assert reply.result().json() == {
                "result": [[{"id": "1", "title": "title", "contents": '"title"\ntext'}]]
            }
        assert returned == code
        assert err == ("" if code == 0 else "stopped; what was under way was answered\n")


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio sets TCP_NODELAY on the connections of a socket whose protocol is named alone."""
    with _listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\udcff"])
def test_a_host_that_can_be_no_name_is_one_clear_line(host):
    with pytest.raises(OVDError, match=r"^--host: expected an address or a name, got '.*'$"):
        _listen(host, 0)


@pytest.mark.integration
def test_a_taken_port_is_one_clear_line(index):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "ovd", "serve-search", str(index), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: cannot listen on 127.0.0.1, port {port}: Address already in use "
        "(--port 0 takes a free port)\n"
    )


@pytest.mark.integration
def test_an_address_of_another_machine_is_one_clear_line(index):
    done = subprocess.run(
        [sys.executable, "-m", "ovd", "serve-search", str(index), "--host", "192.0.2.1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot listen on 192.0.2.1, port 8000: ")
