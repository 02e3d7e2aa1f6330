"""A small HTTP/1.1 client: kept-alive connections over unix sockets for the router, and one plain request for others.

Only what our own servers speak is understood: answers with a length, chunked, or ended by the end of the connection;
no redirects, no compression. Everything has a limit: time for an exchange, bytes for an answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from trimtab.core.clock import monotonic
from trimtab.core.errors import Unavailable, WrongUse

MAX_ANSWER = 64 * 1024 * 1024
MAX_HEAD = 64 * 1024
CONNECTIONS = 128


class CannotConnect(Unavailable):
    """Nobody listens on the socket."""


class Broken(Unavailable):
    """The connection ended, or said nonsense, before the answer was complete.

    Attributes:
        reused: the connection had been used before, so that it may only have been closed while it was idle.
    """

    def __init__(self, message: str, *, where: str = "", fix: str = "", reused: bool = False) -> None:
        super().__init__(message, where=where, fix=fix)
        self.reused = reused


class TooSlow(Unavailable):
    """No complete answer within the time limit."""


class Response:
    """A complete answer.

    Attributes:
        status: the HTTP status.
        head: the head as received, from the status line to the last header's line end.
        body: the body, decoded if it was chunked.
    """

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status, self.head, self.body = status, head, body

    def headers(self) -> list[tuple[str, str]]:
        """Return names, in lower case, and values of the headers, in order."""
        found = []
        for line in self.head.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b":")
            if colon:
                found.append((name.decode("latin-1").strip().lower(), value.decode("latin-1").strip()))
        return found

    def header(self, name: str) -> str:
        """Return a header's first value, or an empty string."""
        wanted = name.lower()
        return next((value for known, value in self.headers() if known == wanted), "")


class AnswerReader:
    """Puts an answer together from what arrives.

    Args:
        limit: the most bytes that a body may have.
        bodiless: the answer has no body whatever its head says (HEAD).
    """

    __slots__ = ("_at", "_bodiless", "_body", "_buffer", "_chunked", "_head", "_length", "_limit", "_status", "closes")

    def __init__(self, limit: int = MAX_ANSWER, *, bodiless: bool = False) -> None:
        self._limit = limit
        self._bodiless = bodiless
        self._buffer = bytearray()
        self._body = bytearray()
        self._head = b""
        self._status = 0
        self._at = 0
        self._length = -1
        self._chunked = False
        self.closes = False

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived and return the answer once it is complete.

        Raises:
            Broken: it is no HTTP answer, or larger than the limit.
        """
        self._buffer += data
        if not self._head and not self._read_head():
            return None
        if self._chunked:
            return self._read_chunks()
        if self._length < 0:
            if len(self._buffer) > self._limit:
                raise Broken(f"an answer of more than {self._limit} bytes")
            return None
        if len(self._buffer) < self._length:
            return None
        return self._done(bytes(self._buffer[: self._length]))

    def end(self) -> Response | None:
        """Return the answer that the end of the connection completes, if it does."""
        if self._head and not self._chunked and self._length < 0:
            return self._done(bytes(self._buffer))
        return None

    def _done(self, body: bytes) -> Response:
        return Response(self._status, self._head, body)

    def _read_head(self) -> bool:
        behind = self._buffer.find(b"\r\n\r\n")
        if behind < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Broken(f"an answer's head of more than {MAX_HEAD} bytes")
            return False
        head = bytes(self._buffer[: behind + 2])
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise Broken("what came is no HTTP answer")
        del self._buffer[: behind + 4]
        self._head, self._status = head, int(head[9:12])
        low = head.lower()
        self.closes = _value(low, b"connection") == b"close"
        length = _value(low, b"content-length")
        if self._bodiless or self._status in (204, 304):
            self._length = 0
        elif _value(low, b"transfer-encoding") == b"chunked":
            self._chunked = True
        elif length is not None:
            if not length.isdigit():
                raise Broken("an answer whose length is no number")
            self._length = int(length)
            if self._length > self._limit:
                raise Broken(f"an answer of {self._length} bytes; at most {self._limit} are taken")
        else:
            self.closes = True
        return True

    def _read_chunks(self) -> Response | None:
        while True:
            line = self._buffer.find(b"\r\n", self._at)
            if line < 0:
                return None
            try:
                size = int(bytes(self._buffer[self._at : line]).partition(b";")[0], 16)
            except ValueError as error:
                raise Broken("a chunk without a length") from error
            if len(self._body) + size > self._limit:
                raise Broken(f"an answer of more than {self._limit} bytes")
            if size == 0:
                # Trailers are not used by our servers; the empty line behind them ends the answer.
                return self._done(bytes(self._body)) if self._buffer.find(b"\r\n\r\n", line) == line else None
            if len(self._buffer) < line + 2 + size + 2:
                return None
            self._body += self._buffer[line + 2 : line + 2 + size]
            self._at = line + 2 + size + 2


def _value(head: bytes, name: bytes) -> bytes | None:
    """Return a header's first value from a head in lower case."""
    at = head.find(b"\r\n" + name + b":")
    return None if at < 0 else head[at + len(name) + 3 : head.index(b"\r\n", at + 2)].strip()


def head_of(method: str, target: str, headers: Mapping[str, str] | list[tuple[str, str]], length: int | None) -> bytes:
    """Return a request's head.

    Args:
        method: such as ``GET``.
        target: the path and query.
        headers: more headers, which neither tell a length nor an encoding of the transfer.
        length: of the body in bytes; none if it comes in chunks.

    Raises:
        WrongUse: a part contains a line end, which would begin another header.
    """
    items = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in items)]
    if length is None:
        lines.append("transfer-encoding: chunked")
    elif length or method not in ("GET", "HEAD"):
        lines.append(f"content-length: {length}")
    if any("\r" in line or "\n" in line for line in lines):
        raise WrongUse("a line end inside a request's head")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


class Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time."""

    def __init__(self) -> None:
        self.used = 0
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._answer: asyncio.Future[Response] | None = None

    @property
    def usable(self) -> bool:
        """Whether another exchange may begin."""
        return self._transport is not None and not self._transport.is_closing() and self._answer is None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer."""
        if self._reader is None:
            self.close()
            return
        try:
            found = self._reader.feed(data)
        except Broken as error:
            self._fail(error)
            return
        if found is not None:
            self._finish(found, keep=not self._reader.closes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange that is under way that there will be no more."""
        self._transport = None
        if self._reader is None:
            return
        found = self._reader.end() if exc is None else None
        if found is not None:
            self._finish(found, keep=False)
        else:
            self._fail(Broken("the connection ended before the answer did", reused=self.used > 1))

    async def exchange(self, request: bytes, body: bytes, *, timeout: float, limit: int, bodiless: bool) -> Response:
        """Send a request and return the answer.

        Raises:
            Broken: the connection ended first.
            TooSlow: no answer within ``timeout`` seconds.
        """
        assert self._transport is not None and self._answer is None
        loop = asyncio.get_running_loop()
        self.used += 1
        self._reader = AnswerReader(limit, bodiless=bodiless)
        answer = self._answer = loop.create_future()
        timer = loop.call_later(timeout, self._too_slow, timeout)
        try:
            if len(body) < 65536:
                self._transport.write(request + body)
            else:
                self._transport.writelines((request, body))
            found: Response = await answer
            return found
        finally:
            timer.cancel()
            if self._answer is answer:
                # The caller was cancelled: what still arrives must not be taken for the next answer.
                self._answer = self._reader = None
                self.close()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _too_slow(self, timeout: float) -> None:
        self._fail(TooSlow(f"no answer within {timeout:.3g} s"))

    def _finish(self, found: Response, *, keep: bool) -> None:
        answer, self._answer, self._reader = self._answer, None, None
        if not keep:
            self.close()
        if answer is not None and not answer.done():
            answer.set_result(found)

    def _fail(self, error: Unavailable) -> None:
        answer, self._answer, self._reader = self._answer, None, None
        self.close()
        if answer is not None and not answer.done():
            answer.set_exception(error)


class Pool:
    """Connections to one unix socket, used again and again; at most ``CONNECTIONS`` at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def request(
        self,
        head: bytes,
        body: bytes = b"",
        *,
        timeout: float,
        limit: int = MAX_ANSWER,
        bodiless: bool = False,
        fresh: bool = False,
    ) -> Response:
        """Send a request and return the answer.

        Args:
            head: the request's head.
            body: its body.
            timeout: seconds for everything.
            limit: the most bytes that an answer may have.
            bodiless: the answer has no body (HEAD).
            fresh: use a new connection, so that a failure is never that of one that was closed while idle.

        Raises:
            CannotConnect: nobody listens.
            Broken: the connection ended before the answer was complete.
            TooSlow: no answer within ``timeout`` seconds.
        """
        begun = monotonic()
        async with self._slots:
            connection = (None if fresh else self._take()) or await self._connect()
            left = timeout - (monotonic() - begun)
            if left <= 0:
                raise TooSlow(f"no free connection within {timeout:g} s", where=self.path)
            answer = await connection.exchange(head, body, timeout=left, limit=limit, bodiless=bodiless)
            if connection.usable and not (fresh and self._idle):
                self._idle.append(connection)
            else:
                # Kept idle, each request that asks for a fresh one would leave one more behind, until the server takes
                # no others.
                connection.close()
            return answer

    def drop_idle(self) -> None:
        """Close the connections that nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(Connection, self.path)
        except OSError as error:
            raise CannotConnect(f"nobody listens on {self.path}: {error.strerror}", where=self.path) from error
        return connection


def fetch(
    url: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    timeout: float = 5.0,
    uds: Path | None = None,
    limit: int = MAX_ANSWER,
) -> Response:
    """Make one request on a connection of its own and return the answer; blocking.

    Args:
        url: ``http://host:port/path``.
        method: the method.
        body: the body.
        headers: more headers.
        timeout: seconds for the whole exchange.
        uds: a unix socket to use in place of host and port.
        limit: the most bytes that an answer may have.

    Raises:
        WrongUse: the URL is not plain HTTP.
        Unavailable: nobody listens, the answer took too long, or it was none.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise WrongUse(f"{url!r} is not a URL of plain HTTP", fix="such as http://127.0.0.1:8571/health")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    given = {"host": parts.netloc, "connection": "close", **(headers or {})}
    request = head_of(method, target, given, len(body)) + body
    deadline = monotonic() + timeout
    reader = AnswerReader(limit, bodiless=method == "HEAD")
    try:
        with _open(parts.hostname, parts.port or 80, uds, timeout) as connection:
            connection.sendall(request)
            while True:
                connection.settimeout(max(0.001, deadline - monotonic()))
                data = connection.recv(65536)
                found = reader.feed(data) if data else reader.end()
                if found is not None:
                    return found
                if not data:
                    raise Broken("the connection ended before the answer did", where=url)
    except TimeoutError as error:
        raise TooSlow(f"no answer within {timeout:g} s", where=url) from error
    except OSError as error:
        raise CannotConnect(f"cannot connect: {error.strerror or error}", where=str(uds or url)) from error


def _open(host: str, port: int, uds: Path | None, timeout: float) -> socket.socket:
    if uds is None:
        return socket.create_connection((host, port), timeout)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(uds))
    except BaseException:
        connection.close()
        raise
    return connection
