"""Requests to addresses that clients name: only to where they may go, and to the very address that was checked.

A name is resolved once and every address of it is judged; the connection is made to one of those, with the name only in
TLS and in the Host header, so that a name server which answers differently the second time changes nothing. Redirects
are not followed, proxies of the environment are not used, and time and size of the whole exchange are limited.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, cast
from urllib.parse import quote, urlsplit

from msgspec import Struct

from trimtab import __version__
from trimtab.core.clock import monotonic
from trimtab.core.errors import BadInput, Unavailable

HOSTS, HTTP = "TRIMTAB_WEBHOOK_ALLOW_HOSTS", "TRIMTAB_WEBHOOK_ALLOW_HTTP"
LONGEST = 2048
_MOST_ADDRESSES = 4
_PORTS = {"https": 443, "http": 80}
_PART = 8192
# What these say of a machine is for the machine alone, wherever its network puts them.
_METADATA = frozenset(
    ip_address(text) for text in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
_NOWHERE = tuple(
    map(ip_network, ("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"))
)
_UNICAST, _NAT64, _6TO4 = ip_network("2000::/3"), ip_network("64:ff9b::/96"), ip_network("2002::/16")

Resolve = Callable[..., Sequence[tuple[Any, Any, Any, Any, Any]]]


class Target(Struct, frozen=True):
    """Where a URL leads: ``host`` in ASCII and lower case, ``path`` with its query."""

    scheme: str
    host: str
    port: int
    path: str


class Answer(Struct, frozen=True):
    """What came back, the body as far as it was wanted; ``later`` is what Retry-After asks for, in seconds."""

    status: int
    body: bytes
    later: float


class Guard(Struct, frozen=True):
    """Says which targets are allowed.

    Attributes:
        hosts: names that may lie inside: on this machine, or in a private network.
        plain: names that may be spoken to without TLS.
        resolve: as ``socket.getaddrinfo``.
    """

    hosts: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    resolve: Resolve = socket.getaddrinfo

    @classmethod
    def of_environment(cls) -> Guard:
        """Return the guard that the server's environment asks for: names, separated by commas."""
        names = [re.split(r"[,\s]+", os.environ.get(one, "").lower()) for one in (HOSTS, HTTP)]
        hosts, plain = (frozenset(name.strip("[]").rstrip(".") for name in found if name) for found in names)
        return cls(hosts, plain)

    def target(self, url: str) -> Target:
        """Return where a URL leads, without asking for its address.

        Raises:
            BadInput: it is no URL that may be asked.
        """
        if not url.strip():
            raise _bad(f"Webhook URL cannot be empty or just whitespace: {url!r}")
        if len(url) > LONGEST or re.search(r"[\x00-\x20\x7f\\]", url):
            raise _bad(f"Invalid webhook URL {url[:LONGEST]!r}: it is too long, or has characters that no URL has")
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").rstrip(".")
            host = host if ":" in host else host.encode("idna").decode()
            port = parts.port
        except ValueError as error:
            raise _bad(f"Invalid webhook URL {url!r}: {error!r}") from error
        schemes = ["https", "http"] if host in self.plain else ["https"]
        if parts.scheme not in schemes:
            words = f"Invalid webhook URL scheme: {parts.scheme!r}. Allowed schemes are: {', '.join(schemes)}."
            raise _bad(words, f"{HTTP} names the hosts that may be told over http")
        if not host:
            raise _bad(f"Webhook URL must include a hostname: {url!r}")
        if "@" in parts.netloc or port == 0:
            raise _bad("Webhook URL must not have a user, a password or port 0", "use the webhook's secret")
        path = quote(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", safe="%/:=&?~+!$,;'@()*[]#-._")
        return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)

    def addresses(self, target: Target) -> list[tuple[int, Any]]:
        """Return the family and socket address of each address of a target; all of them may be asked.

        Raises:
            BadInput: it has none, or one that may not be asked.
        """
        try:
            found = self.resolve(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _bad(f"Cannot resolve webhook URL hostname {target.host!r}: {error}") from error
        for _, _, _, _, where in found:
            if not is_allowed(where[0], inside=target.host in self.hosts):
                raise _bad(
                    f"Webhook URL must not resolve to a non-public IP address. {target.host!r} resolves to {where[0]}.",
                    f"{HOSTS} names the hosts that may lie inside",
                )
        if not found:
            raise _bad(f"Cannot resolve webhook URL hostname {target.host!r}: it has no address")
        return [(one[0], one[4]) for one in found[:_MOST_ADDRESSES]]


def _bad(text: str, fix: str = "") -> BadInput:
    return BadInput(text, where="url", fix=fix)


def is_allowed(text: str, *, inside: bool = False) -> bool:
    """Say whether an address may be asked.

    Args:
        text: an IP address.
        inside: private addresses and this machine's own are allowed too.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return False
    if address in _METADATA or address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    if address.is_loopback:
        return inside
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_allowed(str(embedded))
    if any(address in network for network in _NOWHERE if network.version == address.version):
        return False
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return inside and address.is_private and not address.is_reserved
    if isinstance(address, IPv4Address) and address.is_reserved:
        return False
    return address.is_global or inside


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a gateway would lead to."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return address.sixtofour
    return None


def post(
    guard: Guard, url: str, content: bytes, headers: Mapping[str, str], *, timeout_s: float, most: int = 0
) -> Answer:
    """Send JSON and return the answer.

    Args:
        guard: says whether it may be sent there.
        url: where to.
        content: what.
        headers: more than the usual.
        timeout_s: for the whole exchange, without the name's resolution.
        most: how many bytes of the answer's body are wanted.

    Raises:
        BadInput: the URL may not be asked.
        Unavailable: nobody answers there, or not in time, or not HTTP.
    """
    target = guard.target(url)
    addresses = guard.addresses(target)
    until = monotonic() + timeout_s
    try:
        line = _Line(_connect(target, addresses, until), until)
        try:
            return _exchange(line, target, content, headers, most)
        finally:
            line.close()
    except TimeoutError as error:
        raise Unavailable(f"no answer within {timeout_s:g} s", where=target.host) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{type(error).__name__}: {error}", where=target.host) from error


def _connect(target: Target, addresses: Sequence[tuple[int, Any]], until: float) -> socket.socket:
    last: OSError | None = None
    for tried, (family, address) in enumerate(addresses):
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(_left(until) / (len(addresses) - tried))
            made.connect(address)
            if target.scheme == "https":
                made.settimeout(_left(until))
                return _context(os.environ.get("SSL_CERT_FILE", "")).wrap_socket(made, server_hostname=target.host)
            return made
        except OSError as error:
            made.close()
            last = error
    raise last or OSError("no address")


@lru_cache(maxsize=4)
def _context(_: str) -> ssl.SSLContext:
    return ssl.create_default_context()


def _left(until: float) -> float:
    left = until - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _exchange(line: _Line, target: Target, content: bytes, headers: Mapping[str, str], most: int) -> Answer:
    asking = http.client.HTTPConnection(target.host, target.port)
    asking.sock = cast(Any, line)
    asking.putrequest("POST", target.path, skip_host=True, skip_accept_encoding=True)
    host = f"[{target.host}]" if ":" in target.host else target.host
    usual = target.port == _PORTS[target.scheme]
    given = {
        "Host": host if usual else f"{host}:{target.port}",
        "User-Agent": f"trimtab/{__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers,
    }
    for name, value in given.items():
        asking.putheader(name, value)
    asking.endheaders(content)
    answer = http.client.HTTPResponse(cast(Any, line), method="POST")
    answer.begin()
    later = answer.getheader("Retry-After") or ""
    return Answer(answer.status, _body(answer, most), float(later) if re.fullmatch(r"\d{1,6}", later) else 0.0)


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    """Return the beginning of a body; what breaks off has been answered all the same."""
    found = b""
    try:
        while len(found) < most and (part := answer.read1(min(_PART, most - len(found)))):
            found += part
    except (OSError, http.client.HTTPException):
        return found
    return found


class _Line(io.RawIOBase):
    """A socket whose exchange as a whole ends at a moment, however slowly the other side drips."""

    def __init__(self, line: socket.socket, until: float) -> None:
        self._socket = line
        self._until = until

    def sendall(self, content: bytes) -> None:
        """Send everything."""
        for at in range(0, len(content), _PART):
            self._socket.settimeout(_left(self._until))
            self._socket.sendall(content[at : at + _PART])

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return what reads from the socket."""
        assert mode == "rb"
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there."""
        self._socket.settimeout(_left(self._until))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        """Close the socket; calling it again does nothing."""
        self._socket.close()
        super().close()
