"""Spans of OpenTelemetry over HTTP: OTLP 1.x, protobuf and JSON, at ``/v1/traces``.

An experiment is named by the header ``x-mlflow-experiment-id``. Spans that cannot be kept are told of as a partial
success, and the others are durable when the answer comes. Errors have the form of the request, as the protocol says;
only MLflow's own client, which reads no other, gets MLflow's.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.api.mlflow.spans import BadSpan, read_json, read_protobuf, stored
from trimtab.api.mlflow.tracking import experiment_number
from trimtab.api.mlflow.wire import error_of
from trimtab.api.routes import JSON, Route
from trimtab.core.errors import MissingExtra
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store import traces
from trimtab.store.store import Store
from trimtab.store.traces import Span

PATH = "/v1/traces"
PROTOBUF = "application/x-protobuf"
LIMIT = 16 * 1024 * 1024
"""The largest body in bytes, and ``UNPACKED`` what it may hold once it is unpacked."""
UNPACKED = 64 * 1024 * 1024
_CLIENT = "mlflow-python-client"
_MESSAGE = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
_RPC = {400: 3, 404: 5, 403: 7, 413: 8, 415: 3, 501: 12, 503: 14}
_RETRY_S = "1"


class Refused(Exception):
    """Why a whole request is not taken."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Post(Struct, frozen=True):
    """A request: its body, and the headers that matter, each empty where it was not sent."""

    body: bytes
    type: str
    encoding: str
    experiment: str
    agent: str = ""


def receive(store: Store, post: Post) -> tuple[int, str, bytes]:
    """Keep the spans of a request.

    Args:
        store: whose ledger they go to.
        post: the request.

    Returns:
        Status, media type and body of the answer.
    """
    media = post.type.partition(";")[0].strip().lower()
    try:
        if media not in (PROTOBUF, JSON):
            raise Refused(415, f"Invalid Content-Type: {post.type}. Expected: {PROTOBUF} or {JSON}")
        if not post.experiment:
            raise Refused(400, "The header x-mlflow-experiment-id is missing: it names the experiment of the spans")
        good, bad = _sorted(_read(media, unpacked(post.body, post.encoding)))
        if good:
            experiment = experiment_number(post.experiment.strip())
            store.ledger.write(lambda tx: traces.log_spans(tx, experiment, good), what="log spans")
        return 200, media, success(media, len(bad), "; ".join(bad[:5]))
    except Exception as error:
        status, told = _told(error)
        if status == 500:
            traceback.print_exception(error, file=sys.stderr)
        if post.agent.startswith(_CLIENT) or media != PROTOBUF:
            return status, JSON, msgspec.json.encode({"code": _RPC.get(status, 13), **told})
        return status, PROTOBUF, _message((1, _RPC.get(status, 13)), (2, told["message"]))


def _told(error: Exception) -> tuple[int, Data]:
    if isinstance(error, Refused):
        return error.status, {"error_code": "BAD_REQUEST", "message": error.message}
    if isinstance(error, MissingExtra):
        return 501, {"error_code": "NOT_IMPLEMENTED", "message": f"{error.message}: {error.fix}; or send JSON"}
    return error_of(error)


def _read(media: str, body: bytes) -> Iterator[Data | BadSpan]:
    try:
        if media == JSON:
            yield from read_json(body)
            return
        request = need(_MESSAGE).ExportTraceServiceRequest()
        request.ParseFromString(body)
    except (ValueError, TypeError, RecursionError, _broken()) as error:
        raise Refused(400, f"Invalid OpenTelemetry format: {error}") from error
    yield from read_protobuf(request)


def _broken() -> type[Exception]:
    """Return the error of protobuf's parser, or one that is told anyway where it is not installed."""
    try:
        found: type[Exception] = need("google.protobuf.message").DecodeError
    except MissingExtra:
        return UnicodeError
    return found


def _sorted(found: Iterator[Data | BadSpan]) -> tuple[list[Span], list[str]]:
    good: list[Span] = []
    bad: list[str] = []
    for span in found:
        try:
            if isinstance(span, BadSpan):
                raise span
            good.append(stored(span))
        except BadSpan as error:
            bad.append(str(error))
    return good, bad


def unpacked(body: bytes, encoding: str) -> bytes:
    """Return a body without its compression: gzip, deflate (with zlib's head, or raw) or none.

    Raises:
        Refused: it is another compression, broken, cut off, or larger than ``UNPACKED``.
    """
    named = encoding.strip().lower()
    if named in ("", "identity"):
        return body
    if named not in ("gzip", "x-gzip", "deflate"):
        raise Refused(415, f"Unsupported Content-Encoding: {encoding}")
    raw = named == "deflate" and (len(body) < 2 or body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31 != 0)
    window = 31 if named != "deflate" else -15 if raw else 15
    found = bytearray()
    try:
        while body:
            reader = zlib.decompressobj(window)
            found += reader.decompress(body, UNPACKED + 1 - len(found))
            if len(found) > UNPACKED:
                raise Refused(413, f"The body holds more than {UNPACKED} bytes once it is unpacked; send fewer spans")
            if not reader.eof:
                raise Refused(400, f"Failed to decompress {named} payload: it is cut off")
            # A file of gzip may have several members.
            body = reader.unused_data if named != "deflate" else b""
    except zlib.error as error:
        raise Refused(400, f"Failed to decompress {named} payload: {error}") from error
    return bytes(found)


def success(media: str, rejected: int, reason: str) -> bytes:
    """Return the answer's body: nothing more to say, or how many spans were rejected and why."""
    if media == JSON:
        partial = {"rejectedSpans": str(rejected), "errorMessage": reason}
        return msgspec.json.encode({"partialSuccess": partial} if rejected else {})
    return _message((1, _message((1, rejected), (2, reason)))) if rejected else b""


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """Return a message of protobuf with whole numbers, texts and messages as fields."""
    found = b""
    for place, value in fields:
        if isinstance(value, int):
            found += _varint(place << 3) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            found += _varint(place << 3 | 2) + _varint(len(content)) + content
    return found


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def traced(store: Store) -> Callable[[Route], Callable[..., Any]]:
    """Return what makes Litestar's handler of the address."""

    def wire(route: Route) -> Callable[..., Any]:
        del route
        litestar = need("litestar")

        async def handle(request: Any) -> Any:
            names = ("content-type", "content-encoding", "x-mlflow-experiment-id", "user-agent")
            post = Post(await request.body(), *(request.headers.get(name, "") for name in names))
            status, media, content = await asyncio.to_thread(receive, store, post)
            headers = {"retry-after": _RETRY_S} if status == 503 else {}
            return litestar.Response(content, status_code=status, media_type=media, headers=headers)

        handle.__annotations__ = {"request": litestar.Request, "return": Any}
        return handle

    return wire
