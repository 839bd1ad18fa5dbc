"""Addresses that must not be read, asked of a real server that would answer: none is reached."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovd_envs.web.addresses import is_public, parse_url
from ovd_envs.web.fetcher import Fetcher
from ovd_envs.web.page import FetchError
from tests.ovd_envs.web.servers import PAGE, reply

PUBLIC = "93.184.216.34"

#: PORT stands for the port of a server that answers on loopback.
REFUSED = """
http://127.0.0.1:PORT/
http://127.0.0.2:PORT/
http://127.255.255.254/
http://localhost:PORT/
http://LOCALHOST:PORT/
http://localhost.:PORT/
http://sub.localhost:PORT/
http://localhost.localdomain/
http://printer.local/
http://metadata.google.internal/computeMetadata/v1/
http://intranet/
http://router.home.arpa/
http://0.0.0.0:PORT/
http://0:PORT/
http://127.1:PORT/
http://127.0.1:PORT/
http://2130706433:PORT/
http://0x7f000001:PORT/
http://0x7f.0.0.1:PORT/
http://0x7F.1:PORT/
http://0177.0.0.1:PORT/
http://017700000001:PORT/
http://127.0.0.01:PORT/
http://127.0.0.1.:PORT/
http://127.0.0.1..:PORT/
http://127。0。0。1:PORT/
http://１２７.０.０.１:PORT/
http://①②⑦.0.0.1:PORT/
http://ｌｏｃａｌｈｏｓｔ:PORT/
http://lo\u00adcalhost:PORT/
http://%31%32%37.0.0.1:PORT/
http://127.0.0.1%00.example.com:PORT/
http://10.0.0.1/
http://172.16.0.1/
http://172.31.255.255/
http://192.168.0.1/
http://169.254.169.254/latest/meta-data/
http://100.64.0.1/
http://100.100.100.200/
http://192.0.0.192/
http://192.0.2.1/
http://198.18.0.1/
http://198.51.100.7/
http://203.0.113.9/
http://224.0.0.1/
http://239.255.255.250/
http://240.0.0.1/
http://255.255.255.255/
http://192.88.99.1/
http://168.63.129.16/
http://[::1]:PORT/
http://[::]:PORT/
http://[0:0:0:0:0:0:0:1]:PORT/
http://[::ffff:127.0.0.1]:PORT/
http://[::ffff:7f00:1]:PORT/
http://[::127.0.0.1]:PORT/
http://[64:ff9b::127.0.0.1]:PORT/
http://[64:ff9b::a00:1]/
http://[64:ff9b:1::1]/
http://[2002:7f00:1::]/
http://[2001:0:53aa:64c:0:0:80ff:fffe]/
http://[fe80::1]/
http://[fe80::1%25eth0]/
http://[fc00::1]/
http://[fd00:ec2::254]/
http://[fec0::1]/
http://[ff02::1]/
http://[100::1]/
http://[2001:db8::1]/
http://[3fff::1]/
http://[5f00::1]/
http://[::1/
http://user@127.0.0.1:PORT/
http://example.com@127.0.0.1:PORT/
http://example.com:80@127.0.0.1:PORT/
http://127.0.0.1:PORT\\@example.com/
http://example.com\\@127.0.0.1:PORT/
http://example.com:80\\.127.0.0.1/
http://93.184.216.34:22/
http://93.184.216.34:25/
http://93.184.216.34:6379/
http://93.184.216.34:PORT/
http://93.184.216.34:0/
http://93.184.216.34:99999/
http://93.184.216.34:8O/
http://example.com:PORT@/
http:///etc/passwd
http://
http:127.0.0.1
//127.0.0.1:PORT/
127.0.0.1:PORT
file:///etc/passwd
ftp://127.0.0.1/
gopher://127.0.0.1:PORT/_GET
data:text/html,hello
javascript:alert(1)
jar:http://127.0.0.1:PORT/!/
ws://127.0.0.1:PORT/
http://exa mple.com/
http://example.com\t.evil/
http://example..com/
http://-example.com/
""".strip().split("\n")
REFUSED += [
    "http://example.com\r\nHost: x/",
    "http://127.0.0.1:PORT/a\r\nX: y",
    "http://\n127.0.0.1/",
]

#: What a name that anybody can register may lead to.
LEADS_TO = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.20.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.3.4",
    "224.0.0.251",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd12:3456::1",
    "not an address",
]


@pytest.fixture
def inside(serve):
    """A server on loopback that nobody from outside should reach."""
    return serve(reply(PAGE))


def resolver(*answers):
    """Gives the n-th answer to the n-th question, the last for ever; keeps what was asked."""

    def resolve(host, port):
        resolve.asked.append(host)
        return answers[min(len(resolve.asked), len(answers)) - 1]

    resolve.asked = []
    return resolve


def with_port(url, server):
    return url.replace("PORT", str(server.port))


def test_the_table_is_large_enough():
    assert len(REFUSED) + len(LEADS_TO) >= 40


@pytest.mark.parametrize("url", REFUSED)
def test_refused_as_asked(url, inside):
    # A resolver that says "public" to every name: nothing here may hang on DNS.
    with pytest.raises(FetchError, match=r"^(refused|not a web address)"):
        Fetcher(resolve=resolver([PUBLIC]), time_limit=2).read(
            url.replace("PORT", str(inside.port))
        )
    assert inside.requests == []


#: A header holds no line end, and ports are the allowed server's own affair.
_REDIRECTS = [u for u in REFUSED if u.isprintable() and "93.184.216.34:" not in u]


@pytest.mark.parametrize("url", _REDIRECTS)
def test_refused_after_a_redirect(url, inside, serve):
    url = with_port(url, inside)
    outside = serve(reply("", "302 Found", Location=url.encode().decode("latin-1")))
    addresses = {"site.test": ["127.0.0.1"]}
    fetcher = Fetcher(
        allow={"site.test"}, resolve=lambda host, port: addresses.get(host, [PUBLIC]), time_limit=2
    )
    # What reads as a path, or has no host, leads back to the same server.
    with pytest.raises(
        FetchError, match=r"^(refused|not a web address|\w+ redirect|redirect loop)"
    ):
        fetcher.read(f"http://site.test:{outside.port}/")
    assert inside.requests == []


@pytest.mark.parametrize("address", LEADS_TO)
@pytest.mark.parametrize("also", [[], [PUBLIC]], ids=["alone", "beside-a-public-one"])
def test_refused_after_dns(address, also, inside):
    with pytest.raises(FetchError, match=r"^refused: private address"):
        Fetcher(resolve=resolver([*also, address]), time_limit=2).read("http://site.test/")


def test_refused_after_the_dns_of_a_redirect(inside, serve, monkeypatch):
    outside = serve(reply("", "302 Found", Location=f"http://evil.test:8080/{inside.port}"))
    answers = {"site.test": ["127.0.0.1"], "evil.test": ["127.0.0.1"]}
    fetcher = Fetcher(allow={"site.test"}, resolve=lambda host, port: answers[host])
    with pytest.raises(FetchError, match=r"^refused: private address \(after a redirect to http"):
        fetcher.read(f"http://site.test:{outside.port}/")


def test_dns_that_changes_its_answer_reaches_what_was_checked(inside, monkeypatch):
    """The first answer is public, every later one is loopback: a second look-up would get in."""
    resolve = resolver([PUBLIC], ["127.0.0.1"])
    monkeypatch.setattr(
        "ovd_envs.web.addresses.WEB_PORTS", (inside.port,)
    )  # so that only the address is in the way
    reached = []

    def create_connection(address, *args, **kwargs):
        reached.append(address)
        host = resolve(address[0], 0)[0] if not address[0][0].isdigit() else address[0]
        if host == PUBLIC:
            raise ConnectionRefusedError(111, "Connection refused")
        return real(("127.0.0.1", address[1]), *args, **kwargs)

    real = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setattr("urllib3.util.connection.create_connection", create_connection)
    with pytest.raises(FetchError, match="connection refused"):
        Fetcher(resolve=resolve).read(f"http://rebind.test:{inside.port}/")
    assert reached == [(PUBLIC, inside.port)]
    assert resolve.asked == ["rebind.test"]
    assert inside.requests == []


def test_dns_that_changes_between_two_pages_is_checked_again(inside):
    resolve = resolver(["127.0.0.1"], ["10.0.0.1"])
    fetcher = Fetcher(allow={f"site.test:{inside.port}"}, resolve=resolve)
    assert fetcher.read(f"http://site.test:{inside.port}/").title == "A page"
    with pytest.raises(FetchError, match="refused: private address"):
        fetcher.read("http://site.test/")


def test_the_host_header_is_the_name_and_the_connection_the_checked_address(inside):
    fetcher = Fetcher(allow={"site.test"}, resolve=resolver(["127.0.0.1"], ["10.255.255.1"]))
    fetcher.read(f"http://site.test:{inside.port}/a?b=c#d")
    (request,) = inside.requests
    assert request.startswith("GET /a?b=c HTTP/1.1\r\n")
    assert f"Host: site.test:{inside.port}\r\n" in request


def test_an_allowed_host_is_read(inside):
    page = Fetcher(allow={"localhost"}).read(inside.url())
    assert (page.title, page.text) == ("A page", "Some words that are here.")
    assert (
        Fetcher(allow=[f"127.0.0.1:{inside.port}"]).read(inside.url(host="127.0.0.1")).status == 200
    )


@pytest.mark.parametrize(
    ("allow", "host"),
    [
        ({"localhost"}, "127.0.0.1"),
        ({"127.0.0.1"}, "localhost"),
        ({"localhost:1"}, "localhost"),
        ({"example.com"}, "localhost"),
        ({"localhost"}, "a.localhost"),
    ],
)
def test_only_what_is_allowed_by_name_is_allowed(allow, host, inside):
    with pytest.raises(FetchError, match=r"^refused"):
        Fetcher(allow=allow).read(inside.url(host=host))
    assert inside.requests == []


def test_an_allowed_host_does_not_lead_to_another(inside, serve):
    first = serve(reply("", "301 Moved", Location=inside.url(host="127.0.0.1")))
    with pytest.raises(FetchError, match=r"^refused: private address \(after a redirect to "):
        Fetcher(allow={"localhost"}).read(first.url())
    assert inside.requests == []


def test_proxies_and_passwords_of_the_environment_are_not_used(inside, monkeypatch, tmp_path):
    proxy_hit = inside.url()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy_hit)
    monkeypatch.delenv("no_proxy", raising=False)
    (tmp_path / ".netrc").write_text("machine site.test login me password 5ecret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    (tmp_path / ".netrc").chmod(0o600)
    fetcher = Fetcher(allow={"site.test"}, resolve=resolver(["127.0.0.1"]))
    fetcher.read(f"http://site.test:{inside.port}/page")
    (request,) = inside.requests
    assert request.startswith("GET /page ")
    assert "authorization" not in request.lower()
    with pytest.raises(FetchError, match="private"):
        Fetcher(resolve=resolver(["127.0.0.1"])).read("http://site.test/")
    assert len(inside.requests) == 1


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", PUBLIC, "2606:4700:4700::1111", "2a00:1450:4001:80b::200e",
     "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"],
)  # fmt: skip
def test_the_public_web_is_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        (" https://example.com:443/a b?c=d e#f ", "https://example.com/a%20b?c=d%20e"),
        ("http://example.com:80?x", "http://example.com/?x"),
        ("https://bücher.example/ü?ü", "https://xn--bcher-kva.example/%C3%BC?%C3%BC"),
        ("https://example.com./%7Ea%2Fb", "https://example.com/%7Ea%2Fb"),
        ("https://[2606:4700:4700:0::1111]:8443/", "https://[2606:4700:4700::1111]:8443/"),
        ("https://en.wikipedia.org/wiki/C++_(a)", "https://en.wikipedia.org/wiki/C++_(a)"),
        ("https://my_host.example/", "https://my_host.example/"),
    ],
)
def test_one_spelling(text, url):
    assert parse_url(text).url == url
    assert parse_url(url).url == url


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://", "http://[", "http://a:"]))
def test_any_text_is_an_address_in_its_one_spelling_or_refused(text, prefix):
    try:
        address = parse_url(prefix + text)
    except FetchError:
        return
    assert address.url.isascii()
    assert address.url.isprintable()
    assert parse_url(address.url) == address
    # What requests makes of it is what was checked.
    from urllib3.util import parse_url as as_requests_reads

    read = as_requests_reads(address.url)
    assert (read.host or "").strip("[]") == address.host
    assert (read.port or {"http": 80, "https": 443}[address.scheme]) == address.port


@given(st.ip_addresses(v=4))
def test_ipv6_forms_of_an_ipv4_address_are_no_way_round(address):
    for form in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(form) == is_public(address)
    assert not is_public(f"::{address}")
    a, b = int(address) >> 16, int(address) & 0xFFFF
    assert not is_public(f"2002:{a:x}:{b:x}::1")
