"""OTLP over HTTP: what is kept, what is refused, and in which form that is told."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from trimtab.api.mlflow import otlp
from trimtab.core.errors import MissingExtra
from trimtab.core.optional import need

TRACE = "tr-5b8efff798038103d269b633813fc60c"
HEADERS = {"x-mlflow-experiment-id": "0"}
PROTOBUF = {**HEADERS, "content-type": "application/x-protobuf"}
MESSAGE = "opentelemetry.proto.collector.trace.v1.trace_service_pb2"


def span(**fields: Any) -> dict[str, Any]:
    """Return a span as OTLP's JSON has it."""
    return {
        "traceId": TRACE[3:], "spanId": "eee19b7ec3c1b174", "name": "root", "kind": 2,
        "startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": "1700000000500000001", **fields,
    }  # fmt: skip


def body(spans: list[Any]) -> dict[str, Any]:
    """Return a request in OTLP's JSON."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "lib"}, "spans": spans}]}]}


def post(api: Any, spans: list[Any], **headers: str) -> Any:
    """Send spans in JSON and return the answer's body."""
    answer = api.post(otlp.PATH, json=body(spans), headers={**HEADERS, **headers})
    assert answer.status_code == 200, answer.text
    return answer.json()


def kept(api: Any, trace_id: str = TRACE) -> dict[str, Any]:
    """Return a trace with its spans."""
    found: dict[str, Any] = api.get("/api/3.0/mlflow/traces/get", params={"trace_id": trace_id}).json()["trace"]
    return found


def message(content: bytes, kind: str) -> Any:
    """Return a message of protobuf."""
    return getattr(need(MESSAGE), kind).FromString(content)


def request(**fields: Any) -> Any:
    """Return a request in protobuf with one span."""
    made = need(MESSAGE).ExportTraceServiceRequest()
    one = (
        made.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=bytes.fromhex(TRACE[3:]), span_id=b"\1" * 8, name="root", start_time_unix_nano=1 << 60)
    )
    for name, value in fields.items():
        setattr(one, name, value)
    return made


def test_both_encodings_keep_the_same(api: Any) -> None:
    """One span sent in protobuf and in JSON is one content."""
    assert post(api, [span(attributes=[{"key": "n", "value": {"intValue": "-9223372036854775808"}}])]) == {}
    first = kept(api)["spans"]
    made = need(MESSAGE).ExportTraceServiceRequest()
    part = made.resource_spans.add()
    part.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = part.scope_spans.add()
    scope.scope.name = "lib"
    one = scope.spans.add(
        trace_id=bytes.fromhex(TRACE[3:]), span_id=bytes.fromhex("eee19b7ec3c1b174"), name="root", kind=2,
        start_time_unix_nano=1700000000000000001, end_time_unix_nano=1700000000500000001,
    )  # fmt: skip
    one.attributes.add(key="n").value.int_value = -(1 << 63)
    answer = api.post(otlp.PATH, content=made.SerializeToString(), headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "application/x-protobuf", b"")
    assert kept(api)["spans"] == first
    assert (kept(api)["trace_info"]["execution_duration"], kept(api)["trace_info"]["state"]) == ("0.500s", "OK")


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:])),
        ("deflate", zlib.compress),
        ("deflate", lambda content: zlib.compress(content)[2:-4]),
        ("identity", bytes),
    ],
)
def test_compression(api: Any, encoding: str, pack: Any) -> None:
    """Bodies come in gzip of any number of members, in deflate with its head or raw, or plain."""
    content = pack(json.dumps(body([span()])).encode())
    headers = {**HEADERS, "content-type": "application/json; charset=utf-8", "content-encoding": encoding}
    assert api.post(otlp.PATH, content=content, headers=headers).json() == {}
    assert len(kept(api)["spans"]) == 1


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"content-encoding": "br"}, 415),
        (b"{}", {"x-mlflow-experiment-id": ""}, 400),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"resourceSpans": 5}', {}, 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": 5}]}]}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"{}", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-3], {"content-encoding": "gzip"}, 400),
        (gzip.compress(b" " * (otlp.UNPACKED + 1), mtime=0), {"content-encoding": "gzip"}, 413),
        (json.dumps(body([span()])).encode(), {"x-mlflow-experiment-id": "77"}, 404),
        (json.dumps(body([span()])).encode(), {"x-mlflow-experiment-id": "x"}, 404),
    ],
)
def test_requests_that_are_not_taken(api: Any, content: bytes, headers: dict[str, str], status: int) -> None:
    """Nothing is kept, and the answer says what is wrong, with the status that tells whether to try again."""
    answer = api.post(otlp.PATH, content=content, headers={**HEADERS, "content-type": "application/json", **headers})
    assert answer.status_code == status
    told = answer.json()
    assert told["message"] and told["code"] and told["error_code"]
    assert api.get(f"/api/3.0/mlflow/traces/{TRACE}").status_code == 404


def test_errors_have_the_form_of_the_request(api: Any) -> None:
    """Protobuf is answered with a status of protobuf, and MLflow's own client as it reads it."""
    answer = api.post(otlp.PATH, content=b"\xff\xff", headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/x-protobuf")
    # google.rpc.Status has its code in field 1 and its message in field 2.
    assert answer.content[:3] == b"\x08\x03\x12"
    assert b"Invalid OpenTelemetry format" in answer.content
    own = {**PROTOBUF, "user-agent": "mlflow-python-client/3.12.0"}
    assert api.post(otlp.PATH, content=b"\xff\xff", headers=own).json()["error_code"] == "BAD_REQUEST"


def test_an_empty_request_is_fine(api: Any) -> None:
    """There is nothing to keep, and nothing wrong."""
    assert api.post(otlp.PATH, json={}, headers=HEADERS).json() == {}
    assert api.post(otlp.PATH, content=b"", headers=PROTOBUF).status_code == 200


def test_partial_success(api: Any) -> None:
    """Spans that cannot be kept are counted and the others kept, in both encodings."""
    deep: dict[str, Any] = {"intValue": 1}
    for _ in range(40):
        deep = {"arrayValue": {"values": [deep]}}
    bad = [
        span(traceId=""), span(spanId="00"), span(spanId="0" * 16), span(traceId="xyz"), span(startTimeUnixNano=-1),
        span(endTimeUnixNano=str((1 << 64) - 1)), span(attributes=[{"key": "a", "value": deep}]), 5,
        span(attributes=[{"key": "mlflow.traceRequestId", "value": {"stringValue": "a/b"}}]),
        span(attributes=[{"key": "n", "value": {"intValue": str(1 << 63)}}]), span(events=5), span(name=5),
    ]  # fmt: skip
    told = post(api, [*bad, span()])["partialSuccess"]
    assert told["rejectedSpans"] == str(len(bad))
    assert "trace_id is not 16 bytes" in told["errorMessage"]
    assert len(kept(api)["spans"]) == 1
    answer = api.post(otlp.PATH, content=request(span_id=b"").SerializeToString(), headers=PROTOBUF)
    partial = message(answer.content, "ExportTraceServiceResponse").partial_success
    assert (partial.rejected_spans, "span_id" in partial.error_message) == (1, True)


def test_without_the_extra_json_still_works(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf without its package is answered with 501 and the extra that brings it."""

    def missing(name: str) -> Any:
        if name.startswith(("opentelemetry", "google")):
            raise MissingExtra("opentelemetry is needed here", fix="pip install 'trimtab[traces]'")
        return need(name)

    monkeypatch.setattr(otlp, "need", missing)
    answer = api.post(otlp.PATH, content=request().SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 501
    assert b"trimtab[traces]" in answer.content
    assert post(api, [span()]) == {}
    assert api.post(otlp.PATH, content=b"{", headers={**HEADERS, "content-type": "application/json"}).status_code == 400


def test_a_trace_may_have_an_id_of_its_own(api: Any) -> None:
    """Clients of MLflow name the trace in an attribute, plain or as a text of JSON."""
    for text in ("tr-own", '"tr-own"'):
        post(api, [span(attributes=[{"key": "mlflow.traceRequestId", "value": {"stringValue": text}}])])
    assert len(kept(api, "tr-own")["spans"]) == 1
