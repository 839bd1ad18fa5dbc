"""Addresses of the web: read strictly, and written in one way, so that nobody reads them anew.

What is checked must be what is used. So an address is taken apart once, each part is checked, and
what goes on is put together from the checked parts: plain ASCII, no user name, no fragment.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from ovd_envs.web.page import FetchError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Ports of web servers; others (mail, databases, ...) only where the host is allowed by name.
WEB_PORTS = (80, 443, 8080, 8443)
_DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"([a-z][a-z0-9+.-]*):(//)?([^/?#]*)([^#]*)(?:#.*)?", re.I | re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
#: Other full stops that browsers read as one (UTS 46).
_STOPS = str.maketrans("\u3002\uff0e\uff61", "...")
#: What may stand in a path and a query as it is; "%" because it may be quoted already.
_SAFE = "/?%:@!$&'()*+,;=~[]|"

_LOCAL_NAMES = re.compile(
    r"[^.]+|(?:.+\.)?(?:localhost|localdomain|local|internal|intranet|lan|home|corp|home\.arpa)"
)
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Not private by Python's registers (which miss some in older releases), and no place of the web.
_NO_SITES = (
    ipaddress.ip_network("192.0.0.0/24"),  # protocols; Oracle's cloud has its metadata there
    ipaddress.ip_network("192.88.99.0/24"),  # anycast of 6to4 relays
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's own services, seen from its machines
    ipaddress.ip_network("2001::/23"),  # protocols (Teredo, benchmarks, ORCHID)
    ipaddress.ip_network("2002::/16"),  # 6to4: any IPv4 address, a private one too
    ipaddress.ip_network("2001:db8::/32"),  # documentation
    ipaddress.ip_network("3fff::/20"),  # documentation
)


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An http or https address in its one spelling."""

    scheme: str
    host: str
    """A name in lower case (IDNA, no full stop at its end), or an IP address without brackets."""
    port: int
    target: str
    """Path and query, quoted; begins with "/"."""

    @property
    def origin(self) -> str:
        """Scheme, host and port, as in ``https://example.org``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = _DEFAULT_PORTS[self.scheme] == self.port
        return f"{self.scheme}://{host}" + ("" if standard else f":{self.port}")

    @property
    def url(self) -> str:
        """The whole address."""
        return self.origin + self.target


class AllowedHosts:
    """Hosts that may be read although they are private, local or on an unusual port.

    Each is "host", for all its ports, or "host:port"; an IPv6 address stands in brackets where a
    port follows. Raises ``FetchError`` for what is neither.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts: set[tuple[str, int]] = set()
        for text in [hosts] if isinstance(hosts, str) else hosts:
            self._hosts.add(_host_and_port(text.strip()))

    def allows(self, host: str, port: int) -> bool:
        """Whether ``host`` (as in ``WebAddress``) is among them, with all ports or this one."""
        return (host, 0) in self._hosts or (host, port) in self._hosts


def parse_url(text: str) -> WebAddress:
    """Take an address apart. Raises ``FetchError`` for what is no http(s) address of a host.

    Nothing is guessed: user names, backslashes, line ends, IP addresses in odd spellings (decimal,
    octal, hexadecimal, short) and scoped IPv6 addresses are refused, not read.
    """
    text = text.strip()
    found = _URL.fullmatch(text)
    if found is None or not found[2]:
        if found is not None and found[1].lower() not in _DEFAULT_PORTS:
            raise FetchError(f"refused: only http and https are read, not {found[1].lower()[:20]}")
        raise FetchError("not a web address: it must begin with http:// or https://")
    scheme, authority, target = found[1].lower(), found[3], found[4]
    if scheme not in _DEFAULT_PORTS:
        raise FetchError(f"refused: only http and https are read, not {scheme[:20]}")
    if "@" in authority:
        raise FetchError("refused: a user name or password in the address")
    if "\\" in authority or any(not c.isprintable() or c.isspace() for c in authority):
        raise FetchError("not a web address: a space, backslash or control character in the host")
    if any(unicodedata.category(c) == "Cc" for c in target):
        raise FetchError("not a web address: a control character in the path")
    host, port_text = _split_port(authority)
    port = _port(port_text) if port_text else _DEFAULT_PORTS[scheme]
    target = quote(target.encode("utf-8", "replace"), safe=_SAFE)
    return WebAddress(scheme, _host(host), port, target if target[:1] == "/" else f"/{target}")


def check_address(address: WebAddress, allowed: AllowedHosts) -> None:
    """Refuse what can be refused without DNS. Raises ``FetchError``."""
    if allowed.allows(address.host, address.port):
        return
    if is_ip_address(address.host):
        if not is_public(address.host):
            raise FetchError("refused: private address")
    elif _LOCAL_NAMES.fullmatch(address.host):
        raise FetchError("refused: the name of a local machine")
    if address.port not in WEB_PORTS:
        ports = ", ".join(map(str, WEB_PORTS))
        raise FetchError(f"refused: port {address.port} (only {ports} are read)")


def is_ip_address(host: str) -> bool:
    """Whether a host (as in ``WebAddress``) is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: IPAddress | str) -> bool:
    """Whether an IP address is one that a public web site can have.

    Not: private, loopback, link-local, shared (CGNAT), multicast, reserved, unspecified,
    documentation; nor an IPv6 address that carries such an IPv4 address, or that is outside
    2000::/3, all that was ever given out (IANA IPv6 Global Unicast Address Assignments).
    """
    try:
        address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:  # how a machine with IPv6 alone reaches the IPv4 web (RFC 6052)
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_IPV6 or address.scope_id:
            return False
    return (
        address.is_global
        and not (address.is_multicast or address.is_reserved or address.is_unspecified)
        and not any(address.version == net.version and address in net for net in _NO_SITES)
    )


def _host_and_port(text: str) -> tuple[str, int]:
    try:
        host, port = _split_port(f"[{text}]" if text.count(":") > 1 and "[" not in text else text)
        return _host(host), _port(port) if port else 0
    except FetchError as error:
        raise FetchError(f"allow: expected HOST or HOST:PORT, got {text[:100]!r}") from error


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise FetchError("not a web address: brackets that do not end")
        return host + bracket, rest[1:]
    host, _, port = authority.partition(":")
    return host, port


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise FetchError(f"not a web address: the port {text[:20]!r}")
    return int(text)


def _host(text: str) -> str:
    """The one spelling of a host. Raises ``FetchError`` for what is none, or is spelled oddly."""
    if text.startswith("["):
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            address = None
        if address is None or address.scope_id:
            raise FetchError("not a web address: not an IPv6 address in the brackets")
        return str(address)
    host = unicodedata.normalize("NFKC", text).translate(_STOPS).lower()
    if not host.isascii():
        host = _idna(host)
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise FetchError(
            "not a web address: no host name" if host else "not a web address: no host"
        )
    if _NUMBER.fullmatch(labels[-1]):
        # Systems read 127.1, 0177.0.0.1, 0x7f000001 and 2130706433 as IP addresses; people do not.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise FetchError("refused: an IP address in an unusual spelling") from None
    return host


def _idna(host: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise FetchError("not a web address: no host name") from error
