"""A world on the web: a real HTTP server on this machine."""

from __future__ import annotations

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from ovd_envs.errors import OVDError
from ovd_envs.world.pages import missing_page
from ovd_envs.world.world import World

_HOST = "127.0.0.1"
_HTML = "text/html; charset=utf-8"
_ROBOTS = "User-agent: *\nDisallow:\n"

#: Seconds that a client may take to send its request.
_PATIENCE = 30.0


class WorldServer:
    """Serves every page of a world on the loopback address, until it is closed.

        with WorldServer(World()) as server:
            print(server.url)

    Former names of towns and companies answer 301, unknown addresses 404.

    Args:
        world: whose pages.
        port: 0 takes one that is free.

    Raises:
        OVDError: where the port cannot be had.
    """

    def __init__(self, world: World, *, port: int = 0) -> None:
        self.world = world
        try:
            self._server = _Server(world, port)
        except (OSError, OverflowError) as error:
            raise OVDError(f"port {port}: cannot be served on ({error})") from error
        #: Where the pages are, without a slash at the end; hand it to ``world.documents``.
        self.url = f"http://{_HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="world server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: Connections that may wait; the library's 5 would turn a burst of clients away.
    request_queue_size = 128

    def __init__(self, world: World, port: int) -> None:
        self.world = world
        super().__init__((_HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that went away is no fault of ours.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE

    def do_GET(self) -> None:
        world = self.server.world
        path = unquote(re.split("[?#]", self.path)[0])
        target = world.redirects.get(path)
        if target is not None:
            self._send(301, "", "text/plain", location=target)
        elif path == "/robots.txt":
            self._send(200, _ROBOTS, "text/plain")
        else:
            html = world.html(path)
            if html is None:
                self._send(404, missing_page(path), _HTML)
            else:
                self._send(200, html, _HTML)

    do_HEAD = do_GET

    def _send(self, status: int, text: str, content_type: str, *, location: str = "") -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are no news."""
