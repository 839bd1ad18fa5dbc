"""Reading pages: redirects, retries, cookies, politeness, robots.txt, the cache, TLS."""

import gzip
import itertools
import json
import ssl
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from ovd_envs.errors import OVDError
from ovd_envs.web.fetcher import Fetcher
from ovd_envs.web.page import FetchError, PageReader
from ovd_envs.web.page_cache import PageCache
from ovd_envs.web.politeness import Politeness
from tests.ovd_envs.web.servers import PAGE, reply


def reader(**options):
    return Fetcher(**{"allow": {"localhost"}, "time_limit": 5.0, **options})


def test_a_page(serve):
    server = serve(reply(PAGE, type="text/html; charset=utf-8"))
    page = reader().read(server.url("/a?b#c"))
    assert isinstance(reader(), PageReader)
    assert page.url == server.url("/a?b")
    assert (page.title, page.text, page.status) == ("A page", "Some words that are here.", 200)
    assert (page.content_type, page.encoding) == ("text/html; charset=utf-8", "utf-8")
    (request,) = server.requests
    assert "User-Agent: ovd/" in request
    assert "Accept-Encoding: gzip, deflate\r\n" in request


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(PAGE.encode()), "gzip"),
        (gzip.compress(PAGE[:30].encode()) + gzip.compress(PAGE[30:].encode()), "x-gzip"),
        (gzip.compress(PAGE.encode()) + bytes(16), "GZip"),
        (zlib.compress(PAGE.encode()), "deflate"),
        (zlib.compress(PAGE.encode(), wbits=-15), "deflate"),
        (PAGE.encode(), "identity"),
    ],
)
def test_compressed(body, encoding, serve):
    server = serve(reply(body, Content_Encoding=encoding))
    assert reader().read(server.url()).text == "Some words that are here."


def test_chunked_and_without_a_length(serve):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (PAGE[:9].encode(), PAGE[9:].encode()))
    chunked = serve(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    closed = serve(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE.encode())
    for server in (chunked, closed):
        assert reader().read(server.url()).title == "A page"


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "a <b>\r\n\r\nc\0", "a <b>\n\nc"),
        ("application/json", '{"a": [1, "é"]}', '{"a": [1, "é"]}'),
        ("application/ld+json", "{}", "{}"),
        ("application/xhtml+xml", '<?xml version="1.0"?>' + PAGE, "Some words that are here."),
        ("application/rss+xml", "<rss><item><title>T</title><link>x</link></item></rss>", "T\nx"),
        ("application/octet-stream", "just text", "just text"),
        ("application/octet-stream", PAGE, "Some words that are here."),
        ("", PAGE, "Some words that are here."),
        ("nonsense", "words", "words"),
        ("image/svg+xml", "<svg><text>label</text></svg>", "label"),
    ],
)
def test_kinds_of_text(kind, body, text, serve):
    assert reader().read(serve(reply(body, type=kind)).url()).text == text


def test_a_redirect_keeps_cookies_and_reads_utf8_addresses(serve):
    def script(connection, request):
        if b"Cookie: seen=1" in request:
            connection.sendall(reply(PAGE))
        else:
            location = "/ziel-ü?q=ü".encode().decode("latin-1")
            data = reply("", "302 Found", Location="LOCATION", Set_Cookie="seen=1")
            connection.sendall(data.replace(b"LOCATION", location.encode("latin-1")))

    server = serve(script)
    assert reader().read(server.url()).url == server.url("/ziel-%C3%BC?q=%C3%BC")
    # The next page begins without: nothing is carried from one episode to another.
    fetcher = reader()
    fetcher.read(server.url())
    fetcher.read(server.url())
    assert "Cookie" not in server.requests[-2]


def test_busy_is_asked_again_when_the_server_says(serve):
    times = []

    def script(connection, request):
        times.append(time.monotonic())
        busy = len(times) < 3
        connection.sendall(reply("", "503 Busy", Retry_After="0.3") if busy else reply(PAGE))

    assert reader().read(serve(script).url()).title == "A page"
    assert len(times) == 3
    assert all(b - a >= 0.3 for a, b in itertools.pairwise(times))


def test_busy_for_ever_is_given_up(serve):
    server = serve(reply("", "429 Busy", Retry_After="0"))
    with pytest.raises(FetchError, match=r"^HTTP 429 Too Many Requests$"):
        reader().read(server.url())
    assert len(server.requests) == 3


def test_one_host_is_not_asked_too_often(serve):
    server = serve(reply(PAGE))
    starts = []
    polite = Fetcher(
        resolve=lambda host, port: starts.append(time.monotonic()) or ["10.0.0.1"], delay=0.2
    )
    begun = time.monotonic()

    def refused(url):
        with pytest.raises(FetchError, match="private"):
            polite.read(url)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(refused, [f"http://{host}.test/{n}" for host in "ab" for n in range(3)]))
    assert 0.4 <= time.monotonic() - begun < 1.0  # two hosts, side by side
    assert len(starts) == 6
    # Who allows a host by name owns it.
    begun = time.monotonic()
    for _ in range(3):
        reader(delay=5).read(server.url())
    assert time.monotonic() - begun < 1


def test_the_wait_for_our_turn_is_not_the_servers_fault():
    slow = Fetcher(resolve=lambda *_: ["10.0.0.1"], delay=0.5, time_limit=0.3)
    for _ in range(2):
        with pytest.raises(FetchError, match=r"^refused: private address"):
            slow.read("http://a.test/")


def test_a_queue_that_is_too_long_is_not_joined():
    politeness = Politeness(50)
    politeness.wait("a.test")
    threading.Thread(target=politeness.wait, args=("a.test",), daemon=True).start()
    time.sleep(0.1)
    with pytest.raises(FetchError, match=r"^busy: "):
        politeness.wait("a.test")


ROBOTS = """
User-agent: ovd
Disallow: /private
Allow: /private/open
Disallow: /*.cgi$

User-agent: *
Disallow: /
"""


def test_robots_are_kept_to_where_wanted(serve):
    paths = ("/", "/private/a", "/private/open/b", "/x.cgi", "/x.cgi?y")
    server = serve(
        {"/robots.txt": reply(ROBOTS, type="text/plain")} | dict.fromkeys(paths, reply(PAGE))
    )
    careful = reader(robots=True)
    for path in ("/", "/private/open/b", "/x.cgi?y"):
        assert careful.read(server.url(path)).title == "A page"
    for path in ("/private/a", "/x.cgi"):
        with pytest.raises(
            FetchError, match=r"^refused: the site's robots\.txt does not allow it$"
        ):
            careful.read(server.url(path))
        assert reader().read(server.url(path)).title == "A page"
    asked = [request.split()[1] for request in server.requests]
    assert asked.count("/robots.txt") == 1
    with pytest.raises(FetchError, match=r"robots\.txt does not allow"):
        reader(robots=True, user_agent="other/1").read(server.url("/"))


def test_robots_of_a_redirect_count_too(serve):
    there = serve({"/robots.txt": reply("User-agent: *\nDisallow: /"), "/": reply(PAGE)})
    here = serve({"/": reply("", "302 Found", Location=there.url())})
    with pytest.raises(FetchError, match=r"robots\.txt does not allow it \(after a redirect"):
        reader(robots=True).read(here.url())


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (reply("", "404 Not Found"), True),
        (reply("", "403 Forbidden"), True),
        (reply("", "500 Broken"), False),
        (reply("", "302 Found", Location="/robots.txt"), False),
        (b"nonsense", False),
        (reply(b"\xff\xfe\x00 not robots at all" * 99, type="text/plain"), True),
        (reply("<html>not robots</html>"), True),
    ],
)
def test_sites_without_readable_robots(answer, read, serve):
    server = serve({"/robots.txt": answer, "/": reply(PAGE)})
    if read:
        assert reader(robots=True).read(server.url()).title == "A page"
    else:
        with pytest.raises(FetchError, match=r"^refused: the site's robots\.txt cannot be read"):
            reader(robots=True).read(server.url())


def test_a_hostile_robots_file_does_not_keep_us_busy(serve):
    rules = "User-agent: *\n" + "Disallow: /" + "*a" * 40 + "*b$\n"
    server = serve({"/robots.txt": reply(rules, type="text/plain"), "/" + "a" * 60: reply(PAGE)})
    begun = time.monotonic()
    reader(robots=True).read(server.url("/" + "a" * 60))
    assert time.monotonic() - begun < 2


def test_a_page_is_read_once(serve, tmp_path):
    server = serve(reply(PAGE))
    first = reader(cache=tmp_path).read(server.url())
    again = reader(cache=tmp_path).read(server.url("/#part"))
    assert len(server.requests) == 1
    assert not first.from_cache
    assert again.from_cache
    assert (again.text, again.url, again.how) == (first.text, first.url, first.how)
    reader(cache=tmp_path).read(server.url("/other"))
    reader().read(server.url())
    assert len(server.requests) == 3


def test_errors_are_not_kept(serve, tmp_path):
    answers = [reply("", "404 Not Found"), reply(PAGE)]
    server = serve(lambda connection, request: connection.sendall(answers.pop(0)))
    with pytest.raises(FetchError, match="404"):
        reader(cache=tmp_path).read(server.url())
    assert reader(cache=tmp_path).read(server.url()).title == "A page"


def test_a_kept_page_is_no_way_round_the_refusal(serve, tmp_path):
    """Read by somebody who allows the host, it is not shown to somebody who does not."""
    server = serve(reply(PAGE))
    names = {"resolve": lambda *_: ["127.0.0.1"], "cache": tmp_path}
    inside = serve(reply("", "302 Found", Location=f"http://inside.test:{server.port}/"))
    start = f"http://start.test:{inside.port}/"
    Fetcher(allow={"start.test", "inside.test"}, **names).read(start)
    with pytest.raises(FetchError, match=r"^refused"):
        Fetcher(allow={"start.test"}, **names).read(start)
    assert Fetcher(allow={"start.test", "inside.test"}, **names).read(start).from_cache


def test_age_and_damage_of_kept_pages(tmp_path):
    now = [1000.0]
    cache = PageCache(tmp_path, max_age=60, clock=lambda: now[0])
    cache.put("http://a/", {"x": 1})
    assert cache.get("http://a/") == {"x": 1}
    assert cache.get("http://b/") is None
    now[0] += 61
    assert cache.get("http://a/") is None
    assert PageCache(tmp_path).get("http://a/") == {"x": 1}
    (file,) = tmp_path.rglob("*.json")
    for damage in (b"", b"{", b"[]", b'"x"', b"\xff", b'{"asked": "http://a/", "value": 5}',
                   file.read_bytes().replace(b"http://a/", b"http://c/")):  # fmt: skip
        file.write_bytes(damage)
        assert PageCache(tmp_path).get("http://a/") is None


def test_a_damaged_entry_is_read_anew_and_mended(serve, tmp_path):
    server = serve(reply(PAGE))
    reader(cache=tmp_path).read(server.url())
    (file,) = tmp_path.rglob("*.json")
    entry = json.loads(file.read_text())
    for value in ({}, {"allowed": []}, {"allowed": [5]}, {"allowed": [], "url": "x"}):
        file.write_text(json.dumps({**entry, "value": value}))
        assert not reader(cache=tmp_path).read(server.url()).from_cache
        assert reader(cache=tmp_path).read(server.url()).from_cache


def test_a_cache_that_cannot_be_written_loses_no_page(serve, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="a page is not kept: "):
        page = reader(cache=tmp_path / "file").read(serve(reply(PAGE)).url())
    assert page.title == "A page"


def test_processes_share_a_cache(serve, tmp_path):
    server = serve(reply(PAGE))
    code = (
        "import sys; from ovd_envs.web.fetcher import Fetcher\n"
        "f = Fetcher(allow={'localhost'}, cache=sys.argv[1])\n"
        "print({f.read(sys.argv[2] + str(n % 5)).text for n in range(15)})"
    )
    command = [sys.executable, "-c", code, str(tmp_path), server.url()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate()[0] for process in running} == {"{'Some words that are here.'}\n"}
    assert 5 <= len(server.requests) <= 15
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".json"] * 5


def test_many_threads_share_a_fetcher(serve):
    def script(connection, request):
        number = request.split(b" ")[1][1:].decode()
        connection.sendall(
            reply(f"<title>T{number}</title><p>This is the page of number {number}.")
        )

    server, fetcher = serve(script), reader(time_limit=20)
    with ThreadPoolExecutor(12) as pool:
        pages = list(pool.map(lambda n: fetcher.read(server.url(f"/{n}")), range(60)))
    assert [page.title for page in pages] == [f"T{n}" for n in range(60)]
    assert all(f"number {n}" in page.text for n, page in enumerate(pages))


def test_a_certificate_is_checked_against_the_name(serve, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
         "/CN=site.test", "-addext", "subjectAltName=DNS:site.test", "-keyout", key, "-out", cert],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("needs openssl to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    names = []
    context.sni_callback = lambda sock, name, _: names.append(name)
    server = serve(reply(PAGE), tls=context)
    fetcher = Fetcher(allow={"site.test", "other.test"}, resolve=lambda *_: ["127.0.0.1"])
    with pytest.raises(FetchError, match=r"^bad certificate: self-signed certificate$"):
        fetcher.read(f"https://site.test:{server.port}/")
    assert names == ["site.test"]  # TLS sees the name, though the connection is to the address


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_bytes": 0}, "max_bytes: expected more than 0, got 0"),
        ({"time_limit": -1}, "time_limit: expected more than 0, got -1"),
        ({"delay": -1}, "delay: expected at least 0, got -1"),
        ({"allow": ["http://x/"]}, r"allow: expected HOST or HOST:PORT, got 'http://x/'"),
        ({"allow": ["a b"]}, "allow: expected HOST or HOST:PORT, got 'a b'"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(OVDError, match=message):
        Fetcher(**option)
