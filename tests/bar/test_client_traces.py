"""Traces of real clients, against a real server and through its router."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bar.clients import OTEL, project, run_client
from tests.stories.conftest import Server

pytestmark = pytest.mark.story


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server without a token."""
    started = Server(project(tmp_path_factory.mktemp("traced")), "--auth", "none")
    started.start()
    yield started
    started.stop()


def test_the_client_of_mlflow(server: Server, tmp_path: Path) -> None:
    """Nested spans are recorded exactly, found, judged, tagged, linked and deleted."""
    assert run_client("mlflow_traces.py", server.url, tmp_path).endswith("done\n")


def test_the_sdk_of_opentelemetry(server: Server, tmp_path: Path) -> None:
    """Its exporter's spans arrive with every compression, and their traces tell what they used."""
    idents = run_client("otel_traces.py", server.url, tmp_path, packages=OTEL).split()
    assert len(idents) == 3
    with server.client() as client:
        for ident in idents:
            answer = client.get("/api/3.0/mlflow/traces/get", params={"trace_id": ident}).json()["trace"]
            assert answer["trace_info"]["state"] == "OK"
            assert answer["trace_info"]["trace_metadata"]["mlflow.trace.tokenUsage"] == '{"input_tokens":5}'
            root, inner = answer["spans"]
            assert {"key": "number", "value": {"int_value": 1 << 62}} in root["attributes"]
            assert inner["status"] == {"message": "bad", "code": "STATUS_CODE_ERROR"}
            assert inner["scope"] == {"name": "library", "version": "1.0"}


def test_a_large_trace_passes_the_router(server: Server) -> None:
    """Ten thousand spans in requests of two thousand, read back in one answer; a body above the limit is refused."""
    trace_id = "77" * 16
    headers = {"x-mlflow-experiment-id": "0"}
    text = [{"key": "text", "value": {"stringValue": "x" * 500}}]
    with server.client() as client:
        for batch in range(5):
            spans = [
                {
                    "traceId": trace_id, "spanId": f"{batch * 2000 + place + 1:016x}", "name": "s",
                    "parentSpanId": "" if batch + place == 0 else f"{1:016x}", "attributes": text,
                    "startTimeUnixNano": str(10**18 + batch * 2000 + place), "endTimeUnixNano": str(10**18 + 10**9),
                }
                for place in range(2000)
            ]  # fmt: skip
            body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
            assert client.post("/v1/traces", json=body, headers=headers).json() == {}
        found = client.get("/api/3.0/mlflow/traces/get", params={"trace_id": f"tr-{trace_id}"}).json()["trace"]
        assert [one["start_time_unix_nano"] - 10**18 for one in found["spans"]] == list(range(10_000))
        large = client.post("/v1/traces", content=b" " * (17 << 20), headers=headers)
        assert large.status_code == 413
