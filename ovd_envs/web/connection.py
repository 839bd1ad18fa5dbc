"""Connections to the very address that was checked, with one deadline for every byte.

``requests`` looks a name up when it connects: a name that was harmless when it was checked can be
another's address by then. Here the look-up, the check and the connection are one step, and it is
taken for every new connection, so also after each redirect. TLS and the Host header still see the
name. Nothing else makes a connection: no proxy of the environment, no ``.netrc``.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from ovd_envs.web.addresses import AllowedHosts, is_ip_address, is_public
from ovd_envs.web.deadline import Deadline
from ovd_envs.web.page import FetchError

#: The IP addresses of a host (name, port), as texts. Raises ``OSError`` where there are none.
Resolver = Callable[[str, int], Sequence[str]]

# Its warnings quote headers, which are a stranger's text, on the terminal.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

#: Bytes of headers and framing that may come beside the body.
_FRAMING = 1_000_000


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that the machine's own resolver knows."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Guard:
    """What every connection of one page goes through.

    Args:
        resolve: look-up of names.
        allowed: hosts whose addresses are not checked.
        deadline: of the whole page.
        max_bytes: of its body, as it comes over the wire.
    """

    def __init__(
        self, resolve: Resolver, allowed: AllowedHosts, deadline: Deadline, max_bytes: int
    ) -> None:
        self._resolve = resolve
        self._allowed = allowed
        self.deadline = deadline
        self._bytes_left = max_bytes + _FRAMING

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to an address of ``host`` that was checked. Raises ``FetchError``."""
        addresses = [host] if is_ip_address(host) else self._look_up(host, port)
        if not self._allowed.allows(host, port) and not all(map(is_public, addresses)):
            raise FetchError("refused: private address")
        error = OSError("no address")
        for address in addresses:
            try:
                return socket.create_connection((address, port), self.deadline.left())
            except OSError as failed:
                error = failed
        raise error

    def response(self, sock: socket.socket, **kwargs: Any) -> http.client.HTTPResponse:
        """What ``http.client`` reads an answer with: the usual, from a guarded stream."""
        response = http.client.HTTPResponse(sock, **kwargs)
        raw: Any = response.fp
        response.fp = io.BufferedReader(_GuardedStream(raw.detach(), sock, self))
        return response

    def received(self, count: int) -> None:
        """Count bytes from the wire. Raises ``FetchError`` where there are too many."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise FetchError("too large: the server does not stop sending")

    def _look_up(self, host: str, port: int) -> Sequence[str]:
        """The addresses of ``host``, within the deadline (which getaddrinfo knows nothing of)."""
        answer: list[Sequence[str] | Exception] = []

        def ask() -> None:
            try:
                answer.append(self._resolve(host, port))
            except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
                answer.append(error)

        thread = threading.Thread(target=ask, daemon=True, name="ovd-resolve")
        thread.start()
        thread.join(self.deadline.left())
        if not answer:
            raise self.deadline.error()
        if isinstance(answer[0], (OSError, UnicodeError)) or not answer[0]:
            raise FetchError(f"no such host: {host}")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]


class GuardedAdapter(HTTPAdapter):
    """The transport of ``requests``, with every connection through a ``Guard``."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """The pool for a request (named by ``requests``), with guarded connections."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _GuardedHTTPS if pool.scheme == "https" else _GuardedHTTP
        pool.conn_kw["guard"] = self._guard
        return pool

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """No proxy: it would make the connection, and could not be held to what was checked."""
        raise FetchError("refused: a proxy")


class _GuardedHTTP(HTTPConnection):
    def __init__(self, *args: Any, guard: Guard, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self.response_class: Any = guard.response

    def _new_conn(self) -> socket.socket:
        return self._guard.connect(self.host, self.port or 80)


class _GuardedHTTPS(HTTPSConnection):
    def __init__(self, *args: Any, guard: Guard, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self.response_class: Any = guard.response

    def _new_conn(self) -> socket.socket:
        return self._guard.connect(self.host, self.port or 443)


class _GuardedStream(io.RawIOBase):
    """Bytes of a socket; each wait for them ends with the deadline, a slow drip's too."""

    def __init__(self, raw: Any, sock: socket.socket, guard: Guard) -> None:
        self._raw = raw
        self._sock = sock
        self._guard = guard

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._guard.deadline.left())
        count = int(self._raw.readinto(buffer) or 0)
        self._guard.received(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
