"""Who may come in: exact hosts, same origin, a token, and a size, all before a body is read (DESIGN rules 4 to 6, 14).

What is decided depends on the matched route and on the settings that the process was started with, never on text that
the client chose.
"""

from __future__ import annotations

import base64
import hmac
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

MAX_BODY = 16 * 1024 * 1024
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Headers(Protocol):
    """A request's headers; names are in lower case."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a header's value."""
        ...


class Refusal(Struct, frozen=True):
    """Why a request is not let in, in the shape that errors have."""

    status: int
    kind: str
    message: str
    where: str
    fix: str
    headers: tuple[tuple[str, str], ...] = ()


class Door:
    """Lets requests in or says why not.

    Args:
        host: the address that the router listens on.
        port: its port.
        token: what callers must know, or an empty string where nobody must.
        hosts: more names that clients may use for this server, as they stand in the Host header.
    """

    def __init__(self, *, host: str, port: int, token: str, hosts: tuple[str, ...] = ()) -> None:
        self._token = token.encode()
        names = [*_LOOPBACK, f"[{host}]" if ":" in host else host]
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            names += [socket.gethostname(), socket.getfqdn()]
        self._hosts = {f"{name}:{port}".lower() for name in names} | {name.lower() for name in hosts}
        if port == 80:
            self._hosts |= {name.lower() for name in names}

    def check(self, method: str, headers: Headers, *, public: bool) -> Refusal | None:
        """Return why a request is refused, or None.

        Args:
            method: its method.
            headers: its headers.
            public: the matched route needs no token.
        """
        host = headers.get("host")
        if host is None or host.lower() not in self._hosts:
            return Refusal(
                421,
                "WrongUse",
                f"this server does not go by the name {str(host)[:100]!r}",
                "Host",
                "use the address that `trimtab up` printed",
            )
        if method not in SAFE:
            refused = self._origin(host, headers)
            if refused is not None:
                return refused
        if not public and self._token and not self._known(headers.get("authorization")):
            return Refusal(
                401,
                "Refused",
                "the token is missing or wrong",
                "Authorization",
                "send `Authorization: Bearer TOKEN`; `trimtab up` printed where the token is",
                (("www-authenticate", 'Bearer, Basic realm="trimtab: the token is the password"'),),
            )
        return None

    def _origin(self, host: str, headers: Headers) -> Refusal | None:
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        same = origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
        if same and site in (None, "same-origin", "none"):
            return None
        return Refusal(
            403,
            "Refused",
            f"a page of another origin ({str(origin)[:100]}) may not send this",
            "Origin",
            "call from the same origin, or from a program that sends no Origin header",
        )

    def _known(self, given: str | None) -> bool:
        scheme, _, token = (given or "").partition(" ")
        if scheme.lower() == "basic":
            # Clients and browsers that know names and passwords send the token as the password, under any name.
            token = _password(token)
        # The whole comparison always runs, so that its time tells nothing about the token.
        right = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
        return right and scheme.lower() in ("bearer", "basic")


def _password(given: str) -> str:
    try:
        return base64.b64decode(given.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
    except ValueError:
        return ""


def check_length(headers: Headers, limit: int = MAX_BODY) -> Refusal | None:
    """Return why a body is not even read, by what its head announces; a chunked one is counted while it comes."""
    given = headers.get("content-length")
    if given is None:
        return None
    if not given.isdigit():
        return Refusal(400, "WrongUse", "the length of the body is no number", "Content-Length", "send its bytes")
    return too_large(limit) if int(given) > limit else None


def too_large(limit: int = MAX_BODY) -> Refusal:
    """Return the refusal of a body above the limit."""
    return Refusal(413, "BadInput", f"the body is larger than {limit} bytes", "body", "send fewer rows in each request")


def error_body(refused: Refusal) -> dict[str, Mapping[str, str]]:
    """Return the JSON body that tells a client about a refusal."""
    return {"error": {"type": refused.kind, "message": refused.message, "where": refused.where, "fix": refused.fix}}
