"""Spans in their one form, and what they tell of their traces."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.api.mlflow.spans import BadSpan, natives, preview, read_json, read_protobuf, shown, stored
from trimtab.core.optional import need

MESSAGE = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = (
    st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.just(math.nan)
    | TEXT
    | st.binary(max_size=20)
    | st.none()
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=12
)


def fill(field: Any, value: Any) -> None:
    """Set a value of protobuf."""
    if isinstance(value, bool):
        field.bool_value = value
    elif isinstance(value, int):
        field.int_value = value
    elif isinstance(value, float):
        field.double_value = value
    elif isinstance(value, str):
        field.string_value = value
    elif isinstance(value, bytes):
        field.bytes_value = value
    elif isinstance(value, list):
        field.array_value.SetInParent()
        for item in value:
            fill(field.array_value.values.add(), item)
    elif isinstance(value, dict):
        field.kvlist_value.SetInParent()
        for key, item in value.items():
            fill(field.kvlist_value.values.add(key=key).value, item)


def request(**attributes: Any) -> Any:
    """Return a request of one span."""
    made = need(MESSAGE).ExportTraceServiceRequest()
    one = (
        made.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, name="s", start_time_unix_nano=(1 << 63) - 1, kind=3)
    )
    for key, value in attributes.items():
        fill(one.attributes.add(key=key).value, value)
    event = one.events.add(time_unix_nano=5, name="e")
    fill(event.attributes.add(key="k").value, 1)
    one.links.add(trace_id=b"\3" * 16, span_id=b"\4" * 8, flags=1)
    one.status.code = 2
    one.status.message = "m"
    return made


def only(found: Any) -> Any:
    """Return the only span."""
    (one,) = found
    assert not isinstance(one, BadSpan), one
    return one


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_a_span_is_read_back_to_the_same_message(value: Any) -> None:
    """What is kept is, for protobuf's own reader, the message that was sent: to the bit, with NaN and bytes."""
    made = request(a=value)
    sent = made.resource_spans[0].scope_spans[0].spans[0]
    content = stored(only(read_protobuf(made))).content
    again = need("google.protobuf.json_format").ParseDict(json.loads(content), type(sent)(), ignore_unknown_fields=True)
    assert again.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_protobuf_and_json_are_one_form(value: Any) -> None:
    """The JSON of a message, as protobuf writes it with ids in hex, is read as the message is."""
    made = request(a=value)
    data = need("google.protobuf.json_format").MessageToDict(made)
    one = data["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    one |= {"traceId": "01" * 16, "spanId": "02" * 8, "kind": 3, "status": {"code": 2, "message": "m"}}
    one["links"][0] |= {"traceId": "03" * 16, "spanId": "04" * 8}
    assert only(read_json(json.dumps(data).encode())) == only(read_protobuf(made))


def test_what_a_span_tells_of_its_trace() -> None:
    """Tokens, cost, session, user, model, type and what went in and out, by the conventions that there are."""
    own = stored(only(read_protobuf(request(**{
        "mlflow.spanType": "CHAT_MODEL", "mlflow.chat.tokenUsage": {"input_tokens": 3, "x": 1},
        "mlflow.llm.cost": {"total_cost": 0.5}, "mlflow.llm.model": "m1", "session.id": "s", "user.id": "u",
        "mlflow.spanInputs": {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]},
        "mlflow.spanOutputs": {"choices": [{"message": {"role": "assistant", "content": [{"text": "yo"}]}}]},
    }))))  # fmt: skip
    assert (own.type, own.model, own.status) == ("CHAT_MODEL", "m1", "ERROR")
    assert own.metrics == {"input_tokens": 3.0, "total_cost": 0.5}
    assert own.about == {"session": "s", "user": "u", "request": "hi", "response": "yo"}
    semantic = stored(only(read_protobuf(request(**{
        "gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4,
        "gen_ai.request.model": "m2", "gen_ai.provider.name": "p",
    }))))  # fmt: skip
    assert (semantic.type, semantic.model, semantic.provider) == ("CHAT_MODEL", "m2", "p")
    assert semantic.metrics == {"input_tokens": 3.0, "output_tokens": 4.0, "total_tokens": 7.0}
    inference = stored(only(read_protobuf(request(**{
        "openinference.span.kind": "Retriever", "llm.token_count.prompt": 5, "input.value": "q",
    }))))  # fmt: skip
    assert (inference.type, inference.metrics, inference.about) == (
        "RETRIEVER", {"input_tokens": 5.0}, {"request": "q"},
    )  # fmt: skip


def test_attributes_that_clients_wrote_as_json() -> None:
    """Who exports without the client's own way has every attribute as a text of JSON."""
    one = stored(only(read_protobuf(request(**{"mlflow.spanType": '"LLM"', "mlflow.spanInputs": '{"q": 1}'}))))
    assert (one.type, one.about["request"]) == ("LLM", '{"q": 1}')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ({"q": "é"}, '{"q": "é"}'),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ({"messages": []}, '{"messages": []}'),
        ({"messages": [{"role": "tool", "content": None}]}, '{"messages": [{"role": "tool", "content": null}]}'),
        ("x" * 1001, "x" * 997 + "..."),
        (7, "7"),
    ],
)
def test_previews(value: Any, text: str) -> None:
    """Of a chat the last message of the role, of anything else its start."""
    assert preview(value, "user") == text


def test_files_of_traces_show_attributes_as_texts() -> None:
    """A file's attributes are texts of JSON, its ids in base64."""
    content = stored(only(read_protobuf(request(n=1 << 62, f=float("nan"), b=b"\0")))).content
    found = shown(content, "tr-1")
    assert found["attributes"] == {
        "mlflow.traceRequestId": '"tr-1"', "n": "4611686018427387904", "f": "NaN", "b": '"AA=="',
    }  # fmt: skip
    assert found["status"] == {"code": "STATUS_CODE_ERROR", "message": "m"}
    assert found["events"] == [{"name": "e", "time_unix_nano": 5, "attributes": {"k": 1}}]


def test_names_of_the_schema_are_read_too() -> None:
    """JSON with the schema's own names is read as well, and what is not known is passed over."""
    pair = {"key": "a", "value": {"bytes_value": "_-8"}, "more": 1}
    one = {"trace_id": "01" * 16, "span_id": "02" * 8, "name": "s", "kind": "SPAN_KIND_SERVER", "attributes": [pair]}
    data = {"resource_spans": [{"scope_spans": [{"spans": [{**one, "unknown": {"x": 1}}]}]}]}
    found = only(read_json(msgspec.json.encode(data)))
    assert (found["kind"], natives(found)) == ("SPAN_KIND_SERVER", {"a": "/+8="})
