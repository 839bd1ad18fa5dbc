"""Servers that mean no good: each page ends within its limits, with a reason in a few words."""

import contextlib
import gzip
import socket
import time
import tracemalloc
import zlib

import pytest

from ovd_envs.web.content import text_type
from ovd_envs.web.fetcher import Fetcher
from ovd_envs.web.page import FetchError
from tests.ovd_envs.web.servers import PAGE, reply

LIMIT = 0.6  # seconds
SMALL = 200_000  # bytes
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


def reader(**options):
    return Fetcher(**{"allow": {"localhost"}, "time_limit": LIMIT, "max_bytes": SMALL, **options})


def drip(data, pause=0.02, after=b""):
    """Sends ``after`` at once, then ``data`` byte by byte for ever."""

    def script(connection, request):
        connection.sendall(after)
        while True:
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(pause)

    return script


def flood(data, before=b""):
    def script(connection, request):
        connection.sendall(before)
        while True:
            connection.sendall(data)

    return script


def silent(connection, request):
    time.sleep(5)


def half_closed(connection, request):
    connection.sendall(HEAD + b"Content-Length: 5000\r\n\r\n<p>Only the beginning")
    connection.shutdown(socket.SHUT_WR)
    time.sleep(3)


def reset(connection, request):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def never_ending_chunk_line(connection, request):
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"0" * 65536)


BOMB = gzip.compress(b"\0" * 50_000_000)
SLOW, LARGE = r"^too slow: more than 0\.6 s$", r"^too large: more than 0\.2 MB$"

CASES = {
    "silent": (silent, SLOW),
    "drip of the status line": (drip(b"HTTP/1.1 200 OK"), SLOW),
    "drip of headers": (drip(b"X-A: b\r\n", after=b"HTTP/1.1 200 OK\r\n"), SLOW),
    "drip of the body": (drip(b"<p>slow ", after=HEAD + b"\r\n"), SLOW),
    "drip of a long body": (drip(b"<p>", after=HEAD + b"Content-Length: 100000\r\n\r\n"), SLOW),
    "drip of chunks": (
        drip(b"1\r\nx\r\n", after=HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        SLOW,
    ),
    "endless body": (flood(b"<p>more</p>" * 1000, HEAD + b"\r\n"), LARGE),
    "endless chunks": (
        flood(b"8\r\n<p>more \r\n" * 1000, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        LARGE,
    ),
    "endless header": (
        flood(b"a" * 65536, b"HTTP/1.1 200 OK\r\nX: "),
        "^broken answer: a header that does not end$",
    ),
    "endless status line": (flood(b"a" * 65536), "^broken answer: "),
    "header flood": (
        flood(b"X-Header: 1\r\n" * 1000, b"HTTP/1.1 200 OK\r\n"),
        "^broken answer: too many headers$",
    ),
    "endless chunk line": (never_ending_chunk_line, "^broken off"),
    "a length beyond the limit": (HEAD + b"Content-Length: 99999999999\r\n\r\n", LARGE),
    "a body beyond its length": (
        HEAD + b"Content-Length: 25\r\n\r\n<p>Some words of a page.\n<p>Not these.",
        None,
    ),
    "a length that is none": (
        HEAD + b"Content-Length: many\r\n\r\n<p>Some words of a page.",
        None,
    ),
    "two lengths": (
        HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + PAGE.encode(),
        "^broken",
    ),
    "less than announced": (
        HEAD + b"Content-Length: 5000\r\n\r\n" + PAGE.encode(),
        "^broken off: less came than was announced$",
    ),
    "half-closed": (half_closed, "^broken off: less came than was announced$"),
    "closed at once": (lambda *_: None, "closed the connection without an answer$"),
    "reset": (reset, "^broken off"),
    "not HTTP": (b"220 mail.example ESMTP ready\r\n", "^broken answer: not HTTP$"),
    "gzip bomb": (reply(BOMB, Content_Encoding="gzip"), LARGE),
    "deflate bomb": (reply(zlib.compress(b" " * 50_000_000), Content_Encoding="deflate"), LARGE),
    "many-member gzip bomb": (
        reply(gzip.compress(b"\n" * 10_000) * 1000, Content_Encoding="gzip"),
        LARGE,
    ),
    "gzip in gzip": (
        reply(gzip.compress(BOMB), Content_Encoding="gzip, gzip"),
        "^cannot be decoded: Content-Encoding",
    ),
    "an encoding that was not asked for": (
        reply(b"\x0b\x02\x80", Content_Encoding="br"),
        "^cannot be decoded: Content-Encoding 'br'$",
    ),
    "no gzip": (reply(PAGE, Content_Encoding="gzip"), "^cannot be decoded: broken gzip$"),
    "half a gzip": (
        reply(gzip.compress(PAGE.encode() * 50)[:-20], Content_Encoding="gzip"),
        "^broken off: the compressed page has no end$",
    ),
    "bomb in a redirect": (
        reply(BOMB, "302 Found", Content_Encoding="gzip", Location="/"),
        "^redirect loop$",
    ),
    "redirect to itself": (reply("", "301 Moved", Location="/"), "^redirect loop$"),
    "redirect without an address": (reply("", "302 Found"), "^HTTP 302 Found$"),
    "redirect to nowhere": (reply("", "302 Found", Location="http://[::1"), "^broken redirect"),
    "PDF": (reply(b"%PDF-1.7 ...", type="application/pdf"), "^not text: PDF$"),
    "PDF that says it is HTML": (reply(b"\n%PDF-1.7\n%\xe2\xe3"), "^not text: PDF$"),
    "image": (reply(b"\x89PNG\r\n\x1a\n", type="image/png"), "^not text: image/png$"),
    "image that says it is text": (
        reply(b"\x89PNG\r\n\x1a\n\0\0\0", type="text/plain"),
        "^not text: a PNG image$",
    ),
    "binary without a type": (reply(bytes(range(256)) * 20, type=""), "^not text: binary data$"),
    "binary that says it is HTML": (reply(bytes(range(32)) * 99), "^not text: binary data$"),
    "endless binary": (
        flood(b"\x1f\x8b\x08" + bytes(60_000), HEAD + b"\r\n"),
        "^not text: a gzip archive$",
    ),
    "nothing": (reply(""), "^no text: "),
    "only pictures": (reply("<html><body><img src=a><script>x()</script>"), "^no text: "),
    "not found": (reply(PAGE, "404 Whatever\x1b[31m"), "^HTTP 404 Not Found$"),
    "an unknown status": (reply(PAGE, "799 \x1b[31mred"), "^HTTP 799$"),
    "busy for an hour": (
        reply("", "503 Busy", Retry_After="3600"),
        "^HTTP 503 Service Unavailable$",
    ),
    "busy until the year 9999": (
        reply("", "429 Slow", Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"),
        "^HTTP 429 Too Many Requests$",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_ends_within_its_limits_with_a_reason(case, serve):
    script, reason = CASES[case]
    server = serve(script)
    begun = time.monotonic()
    if reason is None:
        assert reader().read(server.url()).text == "Some words of a page."
    else:
        with pytest.raises(FetchError, match=reason) as caught:
            reader().read(server.url())
        message = str(caught.value)
        assert len(message) < 300
        assert message.isprintable()
    assert time.monotonic() - begun < LIMIT + 1.4


@pytest.mark.parametrize(
    "script",
    [
        flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        flood(
            b"X: y\r\n" * 1000, HEAD + b"Transfer-Encoding: chunked\r\n\r\n8\r\n<p>words\r\n0\r\n"
        ),
    ],
    ids=["interim answers", "trailers"],
)
def test_what_is_no_body_is_counted_as_well(script, serve):
    with pytest.raises(FetchError, match=r"^too large: the server does not stop sending$"):
        reader(time_limit=20).read(serve(script).url())


def test_comments_before_the_beginning_cost_no_more_than_their_length():
    begun = time.monotonic()
    assert text_type(b"<!---->" * 27 + b"x") == "text/plain"
    assert (
        text_type(b"<!-- a > b -->\n<?xml version='1.0'?>" * 60 + b"<!DOCTYPE html>") == "text/html"
    )
    assert text_type(b"<!-- " * 800) == "text/plain"
    # No measure of speed: it doubled with each comment, and 27 took half a minute.
    assert time.monotonic() - begun < 5


def test_a_bomb_is_not_unpacked(serve):
    server = serve(reply(gzip.compress(b" " * 60_000_000), Content_Encoding="gzip"))
    tracemalloc.start()
    try:
        with pytest.raises(FetchError, match=r"^too large"):
            reader(max_bytes=1_000_000, time_limit=5).read(server.url())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_the_limit_is_of_the_whole_way_not_of_each_step(serve):
    """Ten redirects of 0.2 s each: every step is quick enough, the way is not."""

    def slow_redirects(connection, request):
        time.sleep(0.2)
        step = int(request.split(b" ")[1].lstrip(b"/") or b"0")
        connection.sendall(reply("", "302 Found", Location=f"/{step + 1}"))

    begun = time.monotonic()
    with pytest.raises(
        FetchError, match=r"^too slow: more than 0\.6 s \(after a redirect to http://l"
    ):
        reader().read(serve(slow_redirects).url())
    assert time.monotonic() - begun < 1.2


def test_a_look_up_that_hangs_ends_in_time():
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"^too slow"):
        Fetcher(time_limit=0.3, resolve=lambda *_: time.sleep(3)).read("http://slow.test/")
    assert time.monotonic() - begun < 1.5


def test_a_server_that_accepts_and_says_nothing_in_tls(serve):
    server = serve(drip(b"\x16\x03\x03\x40"))
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"^(too slow|no secure connection)"):
        reader().read(f"https://localhost:{server.port}/")
    assert time.monotonic() - begun < 2


def test_too_many_redirects(serve):
    def onward(connection, request):
        step = int(request.split(b" ")[1].lstrip(b"/") or b"0")
        connection.sendall(reply("", "302 Found", Location=f"/{step + 1}"))

    server = serve(onward)
    with pytest.raises(FetchError, match=r"^too many redirects: more than 3$"):
        reader(max_redirects=3, time_limit=5).read(server.url())
    assert len(server.requests) == 4


def test_as_many_redirects_as_are_allowed(serve):
    def three(connection, request):
        step = int(request.split(b" ")[1].lstrip(b"/") or b"0")
        done = step == 3
        connection.sendall(
            reply(PAGE) if done else reply("", "307 Temporary", Location=f"/{step + 1}")
        )

    server = serve(three)
    assert reader(max_redirects=3, time_limit=5).read(server.url()).url == server.url("/3")


def test_no_connection_is_left_open(serve):
    closed = []

    def watch(connection, request):
        with contextlib.suppress(OSError):
            connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
            connection.settimeout(2)
            closed.append(connection.recv(1))

    with pytest.raises(FetchError, match=r"^too large"):
        reader().read(serve(watch).url())
    time.sleep(0.1)
    assert closed == [b""]
