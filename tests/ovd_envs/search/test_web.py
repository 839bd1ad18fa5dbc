"""Search APIs of the web, against a real server on loopback that speaks each provider's shape."""

import json
import logging
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovd_envs.errors import OVDError
from ovd_envs.search import QueryError, SearchEngine, SearchError, make_engine
from ovd_envs.search.cassette import record
from ovd_envs.search.hybrid import HybridEngine
from ovd_envs.search.providers import PROVIDERS
from ovd_envs.search.web import WebEngine

KEY = "tvly-5ecret0123456789"
ITEMS = [
    (f"https://site{i}.example/page?x={i}&y", f"Title {i} & more", f"Snippet {i}.")
    for i in (1, 2, 3)
]


class Api:
    """The four providers in one server; replies of ``script`` come before the usual one."""

    def __init__(self, items=ITEMS):
        self.items, self.script, self.asked = list(items), [], []
        self.refused = {}  # replies to queries, always
        self.under_way = self.most_under_way = 0
        self.pause = 0.0
        self.lock = threading.Lock()

    def answer(self, handler, body):
        parts = urlsplit(handler.path)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        sent = json.loads(body) if body else {}
        with self.lock:
            self.asked.append((handler.command, parts.path, dict(handler.headers), params, sent))
            reply = self.script.pop(0) if self.script else self.refused.get(sent.get("q"))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(self.pause)
        with self.lock:
            self.under_way -= 1
        return reply or (200, {}, self.usual(handler, parts.path, params, sent))

    def usual(self, handler, path, params, sent):
        match handler.command, path:
            case "POST", "/search" if "q" in sent:
                if handler.headers["X-API-KEY"] != KEY:
                    return {"message": "Unauthorized."}
                found = self.items[: sent["num"]]
                organic = [
                    {"title": t, "link": u, "snippet": s, "position": i}
                    for i, (u, t, s) in enumerate(found, start=1)
                ]
                return {"searchParameters": sent, "organic": organic, "credits": 1}
            case "POST", "/search":
                assert handler.headers["Authorization"] == f"Bearer {KEY}"
                found = self.items[: sent["max_results"]]
                results = [{"title": t, "url": u, "content": s, "score": 0.5} for u, t, s in found]
                return {"query": sent["query"], "answer": None, "images": [], "results": results}
            case "GET", "/res/v1/web/search":
                assert handler.headers["X-Subscription-Token"] == KEY
                found = self.items[: int(params["count"])]
                results = [
                    {
                        "title": t.replace("&", "&amp;"),
                        "url": u,
                        "description": f"<strong>{s}</strong>",
                    }
                    for u, t, s in found
                ]
                web = {"web": {"type": "search", "results": results}} if found else {}
                return {"type": "search", "query": {"original": params["q"]}, **web}
            case "GET", "/search":
                assert params["format"] == "json"
                results = [
                    {"title": t, "url": u, "content": s, "engine": "x"} for u, t, s in self.items
                ]
                return {"query": params["q"], "results": results, "unresponsive_engines": []}
        raise AssertionError(path)


@contextmanager
def serving(api):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, reply = api.answer(self, body)
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def keys(monkeypatch):
    for provider in PROVIDERS.values():
        monkeypatch.setenv(provider.variable, KEY)


@pytest.fixture
def api(keys):
    return Api()


@pytest.fixture
def url(api):
    with serving(api) as url:
        yield url


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_gives_the_same_results(provider, api, url):
    engine = WebEngine(provider, url=url)
    assert isinstance(engine, SearchEngine)
    found = engine.search(["first", "second ☃", "third"], 2)
    assert len(found) == 3
    for results in found:
        assert [(r.id, r.url, r.title, r.text) for r in results] == [
            (u, u, t, s) for u, t, s in ITEMS[:2]
        ]
        assert [r.score for r in results] == [1.0, 0.5]
    words = {
        sent.get("q") or sent.get("query") or params.get("q") for *_, params, sent in api.asked
    }
    assert words == {"first", "second ☃", "third"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nothing_found_is_an_empty_list(provider, api, url):
    api.items = []
    assert WebEngine(provider, url=url).search(["x"], 5) == [[]]


def test_the_registry_makes_one(keys):
    assert make_engine("web:serper").name == "web:serper"
    with pytest.raises(OVDError, match="provider: expected one of serper, tavily, brave, searxng"):
        make_engine("web:gogle")


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda p: p.name)
def test_a_missing_key_says_which_and_where_to_get_it(provider, monkeypatch):
    monkeypatch.delenv(provider.variable, raising=False)
    with pytest.raises(OVDError) as caught:
        WebEngine(provider.name)
    assert provider.variable in str(caught.value)
    assert provider.wanted in str(caught.value)


def test_searxng_takes_its_address_from_the_environment(api, url, monkeypatch):
    monkeypatch.setenv("SEARXNG_URL", url + "/")
    assert len(WebEngine("searxng").search(["x"], 3)[0]) == 3


def test_a_key_with_a_line_end_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("SERPER_API_KEY", "5ecret\nkey")
    with pytest.raises(OVDError, match="SERPER_API_KEY: not a key") as caught:
        WebEngine("serper")
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize("provider", ["serper", "tavily", "brave"])
def test_the_key_is_shown_nowhere(provider, api, url, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    # A server that repeats the key, also where a cut would leave half of it.
    api.script = [(401, {}, (b"x" * 195 + KEY.encode()))]
    engine = WebEngine(provider, url=url)
    with pytest.raises(SearchError) as caught:
        engine.search(["x"], 3)
    said = str(caught.value)
    assert said.startswith(f"web:{provider}: HTTP 401")
    assert f"is {PROVIDERS[provider].variable} right?" in said
    shown = said + repr(engine) + engine.name + caplog.text + "".join(capfd.readouterr())
    assert all(KEY[:length] not in shown for length in range(6, len(KEY) + 1))


def test_a_redirect_does_not_carry_the_key_away(api, url):
    other = Api()
    with serving(other) as elsewhere:
        api.script = [(307, {"Location": f"{elsewhere}/search"}, b"")]
        with pytest.raises(SearchError, match="HTTP 307"):
            WebEngine("serper", url=url).search(["x"], 3)
    assert other.asked == []


def test_a_query_that_is_refused_loses_no_answer_to_another(api, url, tmp_path):
    api.refused = {"bad": (400, {}, b"not a query")}
    engine = make_engine({"name": "web", "provider": "serper", "url": url})
    recording = record(engine, tmp_path / "tape.jsonl")
    for _ in range(2):
        with pytest.raises(QueryError, match="web:serper: HTTP 400: not a query"):
            recording.search(["a", "bad", "b", "c"], 1)
    assert sorted(sent["q"] for *_, sent in api.asked) == ["a", "b", "bad", "bad", "c"]
    assert [len(found) for found in recording.search(["c", "b", "a"], 1)] == [1, 1, 1]
    assert len(api.asked) == 5


def test_what_a_part_has_found_is_not_recorded_as_the_wholes(api, url, tmp_path):
    api.refused = {"bad": (400, {}, b"not a query")}
    web = WebEngine("serper", url=url)
    recording = record(HybridEngine([web, web]), tmp_path / "tape.jsonl")
    with pytest.raises(QueryError):
        recording.search(["a", "bad"], 1)
    [[result]] = recording.search(["a"], 1)
    assert result.score == 2 / 61


def test_a_refused_key_is_no_fault_of_the_query(api, url):
    api.script = [(403, {}, b"no")]
    with pytest.raises(SearchError) as caught:
        WebEngine("serper", url=url).search(["x"], 1)
    assert not isinstance(caught.value, QueryError)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(status, api, url):
    api.script = [(status, {"Retry-After": "0"}, b"busy")] * 2
    assert len(WebEngine("serper", url=url).search(["x"], 3)[0]) == 3
    assert len(api.asked) == 3


def test_retry_after_is_kept_to(api, url):
    api.script = [(429, {"Retry-After": "0.5"}, b"")]
    begun = time.monotonic()
    WebEngine("brave", url=url).search(["x"], 3)
    assert time.monotonic() - begun >= 0.5


def test_a_wait_beyond_the_limit_is_not_begun(api, url):
    api.script = [(429, {"Retry-After": "3600"}, b"quota")]
    begun = time.monotonic()
    with pytest.raises(SearchError, match="web:brave: HTTP 429: quota"):
        WebEngine("brave", url=url, timeout=5).search(["x"], 3)
    assert time.monotonic() - begun < 4
    assert len(api.asked) == 1


def test_a_silent_server_ends_within_the_limit(api, url):
    api.pause = 3
    begun = time.monotonic()
    with pytest.raises(SearchError, match=r"no answer within 0\.5 s"):
        WebEngine("tavily", url=url, timeout=0.5).search(["x"], 3)
    assert time.monotonic() - begun < 2.5


def test_a_server_that_is_not_there(keys):
    with pytest.raises(SearchError, match=r"web:serper: cannot be reached \(Connection refused\)"):
        WebEngine("serper", url="http://127.0.0.1:9", attempts=2).search(["x"], 3)


def test_queries_of_a_batch_are_sent_side_by_side_but_not_all_at_once(api, url):
    api.pause = 0.1
    queries = [f"q{i}" for i in range(12)]
    found = WebEngine("serper", url=url, parallel=3, timeout=0.9).search(queries, 1)
    assert [len(results) for results in found] == [1] * 12
    assert api.most_under_way == 3


@pytest.mark.parametrize(
    "answer",
    [
        *(b"<html>", b"", b"null", b"[]", b"[" * 9999),
        *(b'{"message": "x"}', b'{"organic": 5}', b'{"organic": {}}'),
    ],
)
def test_nonsense_is_an_error_and_not_an_empty_result(answer, api, url):
    api.script = [(200, {}, answer)]
    with pytest.raises(SearchError, match="not an answer to a search"):
        WebEngine("serper", url=url).search(["x"], 3)


def test_results_without_an_address_and_repeated_ones_are_left_out(api, url):
    items = [
        {"title": "no link"},
        5,
        None,
        {"link": "http://a/", "title": None},
        {"link": "http://a/"},
    ]
    api.script = [(200, {}, {"organic": items})]
    (found,) = WebEngine("serper", url=url).search(["x"], 9)
    assert [(r.url, r.title, r.text, r.score) for r in found] == [("http://a/", "", "", 1.0)]


def test_k_below_one(keys):
    with pytest.raises(OVDError, match="k: expected at least 1, got 0"):
        WebEngine("serper").search(["x"], 0)


def test_what_a_provider_cannot_take_is_cut(api, url):
    WebEngine("brave", url=url).search(["word " * 200], 500)
    *_, params, _ = api.asked[0]
    assert len(params["q"]) <= 400
    assert params["q"].endswith("word")
    assert params["count"] == "20"


def test_blank_queries_are_not_sent(api, url):
    assert WebEngine("serper", url=url).search(["", " \n", "\x00"], 3) == [[], [], []]
    assert WebEngine("serper", url=url).search([], 3) == []
    assert api.asked == []


@pytest.mark.parametrize("provider", PROVIDERS)
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=st.text(st.characters(codec=None), max_size=600))
def test_any_text_is_a_query(provider, api, url, query):
    assert len(WebEngine(provider, url=url).search([query], 1)) == 1
