"""Spans as MLflow writes them down, read into the one form in which the store keeps spans."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from trimtab.api.mlflow.spans import BadSpan, stored
from trimtab.core.nouns import Data
from trimtab.store.traces import Span

_CODES = {"OK": "STATUS_CODE_OK", "ERROR": "STATUS_CODE_ERROR"}
_WHOLE = 1 << 63


def span_from(data: Data, trace_id: str) -> Span:
    """Return a span of a trace from its JSON in a database or in ``traces.json``.

    Raises:
        BadSpan: it has another shape.
    """
    try:
        form = _form(_newer(data))
        return replace(stored(form), trace_id=trace_id)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadSpan):
            raise
        raise BadSpan(f"a span cannot be read: {type(error).__name__} {error}") from error


def _newer(data: Data) -> Data:
    """Return a span of the oldest shape in the newer one."""
    if "context" not in data:
        return data
    return {
        "trace_id": data["context"]["trace_id"],
        "span_id": data["context"]["span_id"],
        "parent_span_id": data.get("parent_id"),
        "name": data["name"],
        "start_time_unix_nano": data["start_time"],
        "end_time_unix_nano": data["end_time"],
        "attributes": data.get("attributes") or {},
        "status": {"code": data.get("status_code") or "", "message": data.get("status_message") or ""},
        "events": [{**one, "time_unix_nano": one["timestamp"]} for one in data.get("events") or []],
    }


def _form(data: Data) -> Data:
    status = data.get("status") or {}
    code = str(status.get("code") or "")
    fields = {
        "trace_id": _ident(data["trace_id"], 16),
        "span_id": _ident(data["span_id"], 8),
        "parent_span_id": _ident(data["parent_span_id"], 8) if data.get("parent_span_id") else "",
        "name": data.get("name") or "",
        "start_time_unix_nano": int(data["start_time_unix_nano"]),
        "end_time_unix_nano": int(data.get("end_time_unix_nano") or 0),
        "attributes": [
            {"key": name, **_held(_loaded(value))} for name, value in (data.get("attributes") or {}).items()
        ],
        "events": [_event(one) for one in data.get("events") or []],
        "status": _set({"message": status.get("message") or "", "code": _CODES.get(code, _named(code))}),
    }
    return _set(fields)


def _named(code: str) -> str:
    return code if code in _CODES.values() else ""


def _event(data: Data) -> Data:
    return _set(
        {
            "time_unix_nano": int(data.get("time_unix_nano") or 0),
            "name": data.get("name") or "",
            "attributes": [{"key": name, **_held(value)} for name, value in (data.get("attributes") or {}).items()],
        }
    )


def _set(fields: Data) -> Data:
    return {name: value for name, value in fields.items() if value not in ("", 0, [], {}, None)}


def _ident(text: str, size: int) -> str:
    """Return an id in base64 from base64, hex digits, or hex digits after ``0x`` or ``tr-``."""
    plain = text.removeprefix("0x").removeprefix("tr-")
    if len(plain) == 2 * size:
        return base64.b64encode(bytes.fromhex(plain)).decode()
    found = base64.b64decode(text, validate=True)
    if len(found) != size or not any(found):
        raise BadSpan(f"{text!r} is no id of {size} bytes")
    return text


def _loaded(value: Any) -> Any:
    """Return what an attribute holds: each is a text of JSON there."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _held(value: Any) -> Data:
    return {} if value is None else {"value": _value(value)}


def _value(value: Any, depth: int = 0) -> Data:
    if depth > 32:
        raise BadSpan("a value is nested more than 32 deep")
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, int) and -_WHOLE <= value < _WHOLE:
        return {"int_value": value}
    if isinstance(value, float):
        return {"double_value": value if math.isfinite(value) else _word(value)}
    if isinstance(value, Mapping):
        pairs = [
            {"key": str(name), **({} if item is None else {"value": _value(item, depth + 1)})}
            for name, item in value.items()
        ]
        return {"kvlist_value": {"values": pairs} if pairs else {}}
    if isinstance(value, list | tuple):
        items = [_value(item, depth + 1) for item in value]
        return {"array_value": {"values": items} if items else {}}
    return {"string_value": str(value)}


def _word(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
