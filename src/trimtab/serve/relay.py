"""Large requests and answers between a client and the control process, passed on part by part.

Only what is named in ``STREAMED`` goes this way: artifacts may be larger than memory. Everything else is small, is
checked against a limit first, and is sent on a connection that is used again.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from trimtab.core.errors import Unavailable
from trimtab.serve.wire import head_of

STREAMED = re.compile(
    r"/(?:api|ajax-api)/2\.0/mlflow-artifacts/(?:artifacts|mpu)/.*"
    r"|/(?:model-versions/)?get-artifact|/ajax-api/2\.0/mlflow/logged-models/[^/]+/artifacts/files|/static-files/.*"
)
_PART = 1 << 18
_HEAD_LIMIT = 1 << 16
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_DROPPED = frozenset({"connection", "keep-alive", "transfer-encoding"})


async def relay(path: str, scope: Any, target: str, headers: list[tuple[str, str]], protocol: Any) -> None:
    """Pass a request on and its answer back.

    Args:
        path: the control process's unix socket.
        scope: of the request.
        target: its path and query.
        headers: those that are passed on.
        protocol: the caller's side.

    A body whose length is not told (clients send an empty file so) is passed on in chunks.

    Raises:
        Unavailable: the control process does not answer, or its answer broke off before it began.
    """
    length = int(scope.headers.get("content-length") or 0)
    chunked = not length and scope.headers.get("transfer-encoding") is not None
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_HEAD_LIMIT)
    except OSError as error:
        raise Unavailable("the control process does not answer", where=scope.path, fix="try again") from error
    try:
        writer.write(head_of(scope.method, target, [*headers, ("connection", "close")], None if chunked else length))
        if length or chunked:
            await _send(writer, protocol, chunked)
        await writer.drain()
        raw = await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        writer.close()
        raise Unavailable("the control process ended the connection", where=scope.path, fix="try again") from error
    try:
        # From here on the answer has begun: where it breaks off, so does the caller's.
        await _answer(raw, reader, scope, protocol)
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, protocol: Any, chunked: bool) -> None:
    async for part in protocol:
        if part:
            writer.write(b"%x\r\n%b\r\n" % (len(part), bytes(part)) if chunked else bytes(part))
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


async def _answer(raw: bytes, reader: asyncio.StreamReader, scope: Any, protocol: Any) -> None:
    lines = raw.decode("latin-1").split("\r\n")[1:-2]
    status = _STATUS.match(raw)
    if status is None:
        raise Unavailable("the control process gave no answer", where=scope.path)
    told = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    sizes = [int(value) for name, value in told if name == "content-length"]
    chunked = any(name == "transfer-encoding" and "chunked" in value.lower() for name, value in told)
    headers = [(name, value) for name, value in told if name not in _DROPPED]
    if scope.method == "HEAD" or (sizes and sizes[0] == 0):
        protocol.response_empty(int(status[1]), headers)
        return
    out = protocol.response_stream(int(status[1]), headers)
    if chunked:
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            await out.send_bytes(await reader.readexactly(size))
            await reader.readexactly(2)
        return
    left = sizes[0] if sizes else 1 << 62
    while left and (part := await reader.read(min(_PART, left))):
        await out.send_bytes(part)
        left -= len(part)
