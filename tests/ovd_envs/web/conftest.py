from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from tests.ovd_envs.web.servers import Script, Server, reply


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers: ``serve(script)``, ``serve(answer)`` or ``serve({path: answer})``."""
    servers: list[Server] = []

    def start(what: Script | bytes | dict[str, bytes], tls: ssl.SSLContext | None = None) -> Server:
        def script(connection: socket.socket, request: bytes) -> None:
            if isinstance(what, bytes):
                connection.sendall(what)
            elif isinstance(what, dict):
                path = request.split(b" ")[1].decode("latin-1")
                connection.sendall(what.get(path, reply("no", "404 Not Found")))
            else:
                what(connection, request)

        servers.append(Server(script, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
