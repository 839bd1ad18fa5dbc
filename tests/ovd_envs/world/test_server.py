"""The world over real HTTP."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from ovd_envs.errors import OVDError
from ovd_envs.web.fetcher import Fetcher
from ovd_envs.world import World, WorldServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server():
    with WorldServer(World(people=100)) as server:
        yield server


def get(server, path, **options):
    return requests.get(server.url + path, timeout=10, **options)


def test_every_document_is_served(server):
    documents = list(server.world.documents(server.url))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda d: requests.get(d.url, timeout=10), documents))
    for document, reply in zip(documents, replies, strict=True):
        assert reply.status_code == 200
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert reply.text == server.world.page(document.id)


def test_a_fetcher_reads_a_page_and_follows_a_former_name(server):
    world = server.world
    fetcher = Fetcher(allow=["127.0.0.1"], robots=True)
    path, target = next(iter(world.redirects.items()))
    page = fetcher.read(server.url + path)
    assert page.url == server.url + target
    assert " ".join(world.sentences(world.paths[target])) in page.text


def test_a_former_name_answers_301(server):
    path, target = next(iter(server.world.redirects.items()))
    reply = get(server, path, allow_redirects=False)
    assert reply.status_code == 301
    assert reply.headers["Location"] == target
    assert get(server, path).url == server.url + target


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/?a=1#top", 200),
        ("/list/people/1", 200),
        ("/robots.txt", 200),
        ("/nothing", 404),
        ("/wiki/%00%ff%2e%2e", 404),
        ("/../../etc/passwd", 404),
        ("/wiki/" + "x" * 5000, 404),
    ],
)
def test_addresses(server, path, status):
    assert get(server, path).status_code == status


def test_a_missing_page_shows_its_address_as_text(server):
    reply = get(server, "/<script>alert(1)</script>")
    assert reply.status_code == 404
    assert "<script>" not in reply.text


def test_an_encoded_address_is_the_same_page(server):
    path = server.world.path(server.world.page_key("person-0"))
    assert get(server, path.replace("_", "%5F")).text == get(server, path).text


def test_head_has_no_body(server):
    reply = requests.head(server.url + "/", timeout=10)
    assert reply.status_code == 200
    assert int(reply.headers["Content-Length"]) == len(get(server, "/").content)
    assert reply.content == b""


def test_broken_requests_are_answered_and_clients_may_leave(server, capfd):
    address = server.url.removeprefix("http://").split(":")
    for request in (
        b"",
        b"\x00\xff\r\n\r\n",
        b"POST / HTTP/1.0\r\n\r\n",
        b"GET http://[ HTTP/1.0\r\n\r\n",
    ):
        with socket.create_connection((address[0], int(address[1])), timeout=5) as client:
            client.sendall(request + b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    with socket.create_connection((address[0], int(address[1])), timeout=5) as client:
        # Reset at once: the server writes to nobody.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert get(server, "/").status_code == 200
    assert capfd.readouterr() == ("", "")


def test_closing_ends_the_server_and_its_thread():
    before = threading.active_count()
    server = WorldServer(World(people=50))
    assert get(server, "/").status_code == 200
    server.close()
    server.close()
    assert threading.active_count() == before
    with pytest.raises(requests.ConnectionError):
        get(server, "/")


def test_a_port_that_is_taken_is_one_clear_line(server):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(OVDError, match=f"port {port}: cannot be served on"):
        WorldServer(server.world, port=port)
    with pytest.raises(OVDError, match="port 70000: cannot be served on"):
        WorldServer(server.world, port=70_000)
