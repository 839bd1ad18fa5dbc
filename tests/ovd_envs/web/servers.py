"""Real servers on loopback, polite and hostile ones."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

Script = Callable[[socket.socket, bytes], None]


class Server:
    """A TCP server: for each connection, its request (up to the blank line) and what ``script``
    does with the socket then. ``requests`` holds what was asked.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script, self.requests, self._tls = script, [], tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open = True
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._open = False
        self._listening.close()

    @property
    def open(self) -> bool:
        return self._open

    def _serve(self) -> None:
        while self._open:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                data = connection.recv(65536)
                if not data:
                    break
                request += data
            self.requests.append(request.decode("latin-1"))
            self.script(connection, request)


def reply(
    body: bytes | str = b"", status: str = "200 OK", type: str = "text/html", **headers: str
) -> bytes:
    """A whole HTTP answer."""
    body = body.encode() if isinstance(body, str) else body
    lines = {"Content-Type": type, "Content-Length": str(len(body)), "Connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


PAGE = "<html><title>A page</title><body><p>Some words that are here.</p></body></html>"
