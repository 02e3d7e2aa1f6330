"""Spans of OpenTelemetry: read from protobuf or JSON into one exact form, and what traces are told and found by.

The one form is JSON as protobuf writes it with names as in its schema: ids and bytes in base64, whole numbers as
numbers, NaN and the infinities as texts. It is kept as it is, answers hold it as it is, and clients read it back to
the same message. ``resource`` and ``scope`` stand beside the span's own fields.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from trimtab.core.nouns import Data
from trimtab.store.traces import COST_KEYS, TOKEN_KEYS, Span, is_trace_id, numbers_in

REQUEST_ID = "mlflow.traceRequestId"
KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_KINDS = [f"SPAN_KIND_{name}" for name in KINDS]
_CODES = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"]
_DEEPEST = 32
_PREVIEW = 1000


class BadSpan(ValueError):
    """A span that cannot be kept; the others of its request can."""


def read_protobuf(request: Any) -> Iterator[Data | BadSpan]:
    """Yield the spans of an ``ExportTraceServiceRequest`` in the one form, or why one is none."""
    for resource_spans in request.resource_spans:
        resource = {"attributes": _pairs(resource_spans.resource.attributes)}
        for scope_spans in resource_spans.scope_spans:
            scope = _scope(scope_spans.scope)
            for span in scope_spans.spans:
                try:
                    yield _whole(_span(span), resource, scope)
                except BadSpan as error:
                    yield error


def _scope(scope: Any) -> Data:
    return _set({"name": scope.name, "version": scope.version, "attributes": _pairs(scope.attributes)})


def _span(span: Any) -> Data:
    return _set(
        {
            "trace_id": _base64(span.trace_id),
            "span_id": _base64(span.span_id),
            "trace_state": span.trace_state,
            "parent_span_id": _base64(span.parent_span_id),
            "flags": span.flags,
            "name": span.name,
            "kind": _name(_KINDS, span.kind),
            "start_time_unix_nano": span.start_time_unix_nano,
            "end_time_unix_nano": span.end_time_unix_nano,
            "attributes": _pairs(span.attributes),
            "dropped_attributes_count": span.dropped_attributes_count,
            "events": [_event(event) for event in span.events],
            "dropped_events_count": span.dropped_events_count,
            "links": [_link(link) for link in span.links],
            "dropped_links_count": span.dropped_links_count,
            "status": _set({"message": span.status.message, "code": _name(_CODES, span.status.code)}),
        }
    )


def _event(event: Any) -> Data:
    return _set(
        {
            "time_unix_nano": event.time_unix_nano,
            "name": event.name,
            "attributes": _pairs(event.attributes),
            "dropped_attributes_count": event.dropped_attributes_count,
        }
    )


def _link(link: Any) -> Data:
    return _set(
        {
            "trace_id": _base64(link.trace_id),
            "span_id": _base64(link.span_id),
            "trace_state": link.trace_state,
            "attributes": _pairs(link.attributes),
            "dropped_attributes_count": link.dropped_attributes_count,
            "flags": link.flags,
        }
    )


def _set(fields: Data) -> Data:
    """Return what is not its type's zero, as protobuf's JSON has it."""
    return {name: value for name, value in fields.items() if value not in ("", 0, [], {}, None)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _name(names: list[str], place: int) -> str | int:
    """Return an enum's name, nothing for its zero, and the number where a later schema has more."""
    return "" if place == 0 else names[place] if 0 < place < len(names) else place


def _pairs(pairs: Any, depth: int = 0) -> list[Data]:
    return [
        {"key": pair.key, **({"value": _value(pair.value, depth)} if pair.HasField("value") else {})} for pair in pairs
    ]


def _value(value: Any, depth: int) -> Data:
    if depth > _DEEPEST:
        raise BadSpan(f"a value is nested more than {_DEEPEST} deep")
    kind = value.WhichOneof("value")
    if kind is None:
        return {}
    found = getattr(value, kind)
    if kind == "array_value":
        return {kind: _set({"values": [_value(item, depth + 1) for item in found.values]})}
    if kind == "kvlist_value":
        return {kind: _set({"values": _pairs(found.values, depth + 1)})}
    if kind == "bytes_value":
        return {kind: _base64(found)}
    return {kind: _double(found) if kind == "double_value" else found}


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def read_json(body: bytes) -> Iterator[Data | BadSpan]:
    """Yield the spans of OTLP's JSON in the one form, or why one is none.

    Raises:
        ValueError: the body is no JSON of this shape; nothing was yielded then.
    """
    request = msgspec.json.decode(body)
    found: list[tuple[Any, Any, Any]] = []
    for resource_spans in _objects(request, "resourceSpans"):
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            for span in _field(scope_spans, "spans") or []:
                found.append((span, _field(resource_spans, "resource"), _field(scope_spans, "scope")))
    for span, resource, scope in found:
        try:
            yield _whole(_read(span, _SPAN), _read(resource or {}, _RESOURCE), _read(scope or {}, _SCOPE))
        except (ValueError, TypeError, RecursionError) as error:
            yield BadSpan(str(error) or "it has another shape")


def _objects(parent: Any, name: str) -> list[Any]:
    if not isinstance(parent, dict):
        raise ValueError("an object was expected")
    found = _field(parent, name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError(f"{name} is not a list")
    return found


def _field(data: Any, name: str) -> Any:
    """Return a field by its name in JSON or in the schema; readers of protobuf's JSON take both."""
    if not isinstance(data, dict):
        raise ValueError("an object was expected")
    return data[name] if name in data else data.get(_snake(name))


def _snake(name: str) -> str:
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in name)


Reader = Callable[[Any], Any]


def _read(data: Any, table: Mapping[str, Reader]) -> Data:
    found: Data = {}
    for name, read in table.items():
        value = _field(data, name)
        if value is not None:
            found[_snake(name)] = read(value)
    return _set(found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadSpan("a text was expected")
    return value


def _hex(value: Any) -> str:
    try:
        return _base64(bytes.fromhex(_text(value)))
    except ValueError as error:
        raise BadSpan(f"{value!r} is no id in hex digits") from error


def _number(value: Any, low: int = 0, high: int = (1 << 64) - 1) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadSpan("a whole number was expected")
    found = int(value)
    if not low <= found <= high:
        raise BadSpan(f"{found} does not fit its field")
    return found


def _enum(names: list[str]) -> Reader:
    return lambda value: value if isinstance(value, str) and value in names else _name(names, _number(value))


def _json_pairs(value: Any, depth: int = 0) -> list[Data]:
    if not isinstance(value, list):
        raise BadSpan("a list was expected")
    return [_json_pair(pair, depth) for pair in value]


def _json_pair(pair: Any, depth: int) -> Data:
    key, value = _text(_field(pair, "key") or ""), _field(pair, "value")
    return {"key": key} if value is None else {"key": key, "value": _json_value(value, depth)}


def _json_value(value: Any, depth: int = 0) -> Data:
    if depth > _DEEPEST:
        raise BadSpan(f"a value is nested more than {_DEEPEST} deep")
    for name, read in _VALUES.items():
        found = _field(value, name)
        if found is not None:
            return {_snake(name): read(found)}
    for name, read_list in (("arrayValue", _json_values), ("kvlistValue", _json_pairs)):
        found = _field(value, name)
        if found is not None:
            return {_snake(name): _set({"values": read_list(_field(found, "values") or [], depth + 1)})}
    return {}


def _json_values(values: Any, depth: int) -> list[Data]:
    if not isinstance(values, list):
        raise BadSpan("a list was expected")
    return [_json_value(item, depth) for item in values]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadSpan("true or false was expected")
    return value


def _json_double(value: Any) -> float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadSpan("a number was expected")
    return _double(float(value))


def _json_bytes(value: Any) -> str:
    text = _text(value)
    try:
        return _base64(
            base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
        )
    except binascii.Error as error:
        raise BadSpan("bytes are not in base64") from error


_VALUES: dict[str, Reader] = {
    "stringValue": _text,
    "boolValue": _flag,
    "intValue": lambda value: _number(value, -(1 << 63), (1 << 63) - 1),
    "doubleValue": _json_double,
    "bytesValue": _json_bytes,
}
_RESOURCE: dict[str, Reader] = {"attributes": _json_pairs}
_SCOPE: dict[str, Reader] = {"name": _text, "version": _text, "attributes": _json_pairs}
_EVENT: dict[str, Reader] = {
    "timeUnixNano": _number, "name": _text, "attributes": _json_pairs, "droppedAttributesCount": _number,
}  # fmt: skip
_LINK: dict[str, Reader] = {
    "traceId": _hex, "spanId": _hex, "traceState": _text, "attributes": _json_pairs,
    "droppedAttributesCount": _number, "flags": _number,
}  # fmt: skip
_STATUS: dict[str, Reader] = {"message": _text, "code": _enum(_CODES)}
_SPAN: dict[str, Reader] = {
    "traceId": _hex, "spanId": _hex, "traceState": _text, "parentSpanId": _hex, "flags": _number, "name": _text,
    "kind": _enum(_KINDS), "startTimeUnixNano": _number, "endTimeUnixNano": _number, "attributes": _json_pairs,
    "droppedAttributesCount": _number, "events": lambda items: [_read(item, _EVENT) for item in items],
    "droppedEventsCount": _number, "links": lambda items: [_read(item, _LINK) for item in items],
    "droppedLinksCount": _number, "status": lambda item: _read(item, _STATUS),
}  # fmt: skip


def _whole(span: Data, resource: Data, scope: Data) -> Data:
    """Return a span with where it comes from, checked by what the protocol wants of every span."""
    for name, size in (("trace_id", 16), ("span_id", 8), ("parent_span_id", 8)):
        ident = base64.b64decode(span.get(name, ""))
        if name == "parent_span_id" and not any(ident):
            span.pop(name, None)
        elif len(ident) != size or not any(ident):
            raise BadSpan(f"{name} is not {size} bytes, or all zero")
    return {**span, **({"resource": resource} if any(resource.values()) else {}), **({"scope": scope} if scope else {})}


def native(value: Data) -> Any:
    """Return what a value in the one form stands for, with bytes as base64."""
    for kind, found in value.items():
        if kind == "array_value":
            return [native(item) for item in found.get("values", [])]
        if kind == "kvlist_value":
            return {item["key"]: native(item.get("value", {})) for item in found.get("values", [])}
        return float(found) if kind == "double_value" else found
    return None


def natives(data: Data) -> Data:
    """Return the attributes of a span, event or resource in the one form, as plain data."""
    return {item["key"]: native(item.get("value", {})) for item in data.get("attributes", [])}


def dump(value: Any) -> str:
    """Return plain data as the text that clients of MLflow keep in attributes."""
    return json.dumps(value, ensure_ascii=False)


def _loaded(value: Any) -> Any:
    """Return what a text of JSON holds; clients that export by themselves write every attribute so."""
    if isinstance(value, str) and value[:1] in ('"', "{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value


def stored(span: Data) -> Span:
    """Return a span as the ledger keeps it.

    Raises:
        BadSpan: a time or the id of its trace cannot be kept.
    """
    attributes = natives(span)
    trace_id = _loaded(attributes.get(REQUEST_ID)) or f"tr-{base64.b64decode(span['trace_id']).hex()}"
    start, end = span.get("start_time_unix_nano", 0), span.get("end_time_unix_nano")
    if not isinstance(trace_id, str) or not is_trace_id(trace_id):
        raise BadSpan(f"{REQUEST_ID} is no id of a trace")
    if max(start, end or 0) >= 1 << 63:
        raise BadSpan("a time lies beyond the year 2262")
    code = span.get("status", {}).get("code", "")
    return Span(
        trace_id=trace_id,
        span_id=base64.b64decode(span["span_id"]).hex(),
        parent_id=base64.b64decode(span.get("parent_span_id", "")).hex(),
        name=span.get("name", ""),
        type=span_type(attributes),
        status=str(code).removeprefix("STATUS_CODE_") or "UNSET",
        start_ns=start,
        end_ns=end,
        content=msgspec.json.encode(span).decode(),
        model=_first_text(attributes, _MODEL),
        provider=_first_text(attributes, _PROVIDER),
        attributes={name: value if isinstance(value, str) else dump(value) for name, value in attributes.items()},
        metrics=_metrics(attributes),
        about=_about(attributes),
    )


_MODEL = ("mlflow.llm.model", "gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
_PROVIDER = ("mlflow.llm.provider", "gen_ai.provider.name", "gen_ai.system", "llm.provider")
_SESSION, _USER = ("session.id", "gen_ai.conversation.id"), ("user.id",)
_INPUT = ("mlflow.spanInputs", "gen_ai.input.messages", "input.value", "traceloop.entity.input", "gen_ai.prompt")
_OUTPUT = (
    "mlflow.spanOutputs", "gen_ai.output.messages", "output.value", "traceloop.entity.output", "gen_ai.completion",
)  # fmt: skip
_TOKENS: dict[str, tuple[str, ...]] = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "total_tokens": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    "cache_read_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read",
    ),
    "cache_creation_input_tokens": (
        "gen_ai.usage.cache_creation.input_tokens", "llm.token_count.prompt_details.cache_write",
    ),
}  # fmt: skip
_OPERATIONS = {
    "chat": "CHAT_MODEL", "text_completion": "LLM", "generate_content": "LLM", "embeddings": "EMBEDDING",
    "execute_tool": "TOOL", "create_agent": "AGENT", "invoke_agent": "AGENT",
}  # fmt: skip


def _first(attributes: Data, names: tuple[str, ...]) -> Any:
    return next((_loaded(attributes[name]) for name in names if attributes.get(name) not in (None, "")), None)


def _first_text(attributes: Data, names: tuple[str, ...]) -> str:
    found = _first(attributes, names)
    return found[:500] if isinstance(found, str) else ""


def span_type(attributes: Data) -> str:
    """Return what sort of work a span is, by the conventions of MLflow, OpenInference, Traceloop or OpenTelemetry."""
    found = _first(attributes, ("mlflow.spanType", "openinference.span.kind", "traceloop.span.kind"))
    if isinstance(found, str):
        return found[:500] if "mlflow.spanType" in attributes else found.upper()[:500]
    return _OPERATIONS.get(str(attributes.get("gen_ai.operation.name", "")), "UNKNOWN")


def _metrics(attributes: Data) -> dict[str, float]:
    """Return tokens and cost of a span."""
    usage, cost = (_first(attributes, (name,)) for name in ("mlflow.chat.tokenUsage", "mlflow.llm.cost"))
    tokens = numbers_in(usage, TOKEN_KEYS) if isinstance(usage, dict) else {}
    if not tokens:
        tokens = numbers_in({name: _first(attributes, names) for name, names in _TOKENS.items()}, TOKEN_KEYS)
        if "total_tokens" not in tokens and {"input_tokens", "output_tokens"} <= set(tokens):
            tokens["total_tokens"] = tokens["input_tokens"] + tokens["output_tokens"]
    return {**tokens, **(numbers_in(cost, COST_KEYS) if isinstance(cost, dict) else {})}


def _about(attributes: Data) -> dict[str, str]:
    found = {"session": _first_text(attributes, _SESSION), "user": _first_text(attributes, _USER)}
    for name, names, role in (("request", _INPUT, "user"), ("response", _OUTPUT, "assistant")):
        value = _first(attributes, names)
        if value is not None:
            found[name] = preview(value, role)
    return {name: text for name, text in found.items() if text}


def preview(value: Any, role: str) -> str:
    """Return the start of what went in or out: of a chat its last message of a role, else all of it as JSON."""
    messages = _messages(value)
    chosen = next((one for one in reversed(messages) if one.get("role") == role), messages[-1] if messages else {})
    text = _words(chosen.get("content"))
    text = text or (value if isinstance(value, str) else dump(value))
    return text if len(text) <= _PREVIEW else f"{text[: _PREVIEW - 3]}..."


def _messages(value: Any) -> list[Data]:
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        value = [one.get("message") for one in value["choices"][:1] if isinstance(one, dict)]
    found = value.get("messages") if isinstance(value, dict) else value
    return [one for one in found if isinstance(one, dict) and "role" in one] if isinstance(found, list) else []


def _words(content: Any) -> str:
    if isinstance(content, list):
        parts = [one.get("text") for one in content if isinstance(one, dict)]
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def shown(content: str, trace_id: str) -> Data:
    """Return a kept span as files of traces have it: attributes by name, each as a text of JSON."""
    span = msgspec.json.decode(content)
    status = span.get("status", {})
    return {
        "trace_id": span["trace_id"],
        "span_id": span["span_id"],
        "parent_span_id": span.get("parent_span_id"),
        "name": span.get("name", ""),
        "start_time_unix_nano": span.get("start_time_unix_nano", 0),
        "end_time_unix_nano": span.get("end_time_unix_nano"),
        "events": [
            {
                "name": event.get("name", ""),
                "time_unix_nano": event.get("time_unix_nano", 0),
                "attributes": json.loads(dump(natives(event)), parse_constant=str),
            }
            for event in span.get("events", [])
        ],
        "status": {"code": status.get("code", _CODES[0]), "message": status.get("message", "")},
        "attributes": {REQUEST_ID: dump(trace_id), **{name: dump(value) for name, value in natives(span).items()}},
    }
