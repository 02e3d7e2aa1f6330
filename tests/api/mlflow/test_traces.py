"""Traces as MLflow's clients write and read them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.api.mlflow.test_otlp import TRACE, post, span
from trimtab.api.mlflow.traces import mutual

V3, V2 = "/api/3.0/mlflow", "/api/2.0/mlflow"
HOME = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}


def info(trace_id: str = "tr-1", **fields: Any) -> dict[str, Any]:
    """Return what a client says of a trace."""
    return {
        "trace_id": trace_id, "trace_location": HOME, "request_time": "2026-01-31T12:00:00.123Z",
        "execution_duration": "1.500s", "state": "OK", "trace_metadata": {"m": "1"}, "tags": {"t": "2"}, **fields,
    }  # fmt: skip


def start(api: Any, trace_id: str = "tr-1", **fields: Any) -> dict[str, Any]:
    """Start a trace and return what is answered."""
    answer = api.post(f"{V3}/traces", json={"trace": {"trace_info": info(trace_id, **fields)}})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["trace"]["trace_info"]
    return found


def search(api: Any, **fields: Any) -> dict[str, Any]:
    """Return a page of the traces of the default experiment."""
    answer = api.post(f"{V3}/traces/search", json={"locations": [HOME], **fields})
    found: dict[str, Any] = answer.json()
    return found


def ids(page: dict[str, Any]) -> list[str]:
    """Return the ids of a page."""
    return [trace["trace_id"] for trace in page["traces"]]


def refused(answer: Any, code: str = "INVALID_PARAMETER_VALUE") -> str:
    """Return the message of an error."""
    found = answer.json()
    assert found["error_code"] == code, found
    message: str = found["message"]
    return message


def test_starting_and_reading_back(api: Any) -> None:
    """What a client says comes back as it was, with where the trace's files go."""
    said = start(api, client_request_id="c", request_preview="q", response_preview="a")
    tags = {"t": "2", "mlflow.artifactLocation": "mlflow-artifacts:/0/traces/tr-1/artifacts"}
    assert said == {**info(client_request_id="c", request_preview="q", response_preview="a"), "tags": tags}
    assert api.get(f"{V3}/traces/tr-1").json() == {"trace": {"trace_info": said}}
    assert api.post(f"{V3}/traces/batchGetInfos", json={"trace_ids": ["x", "tr-1"]}).json() == {"trace_infos": [said]}
    old = api.get(f"{V2}/traces/tr-1/info").json()["trace_info"]
    assert (old["request_id"], old["timestamp_ms"], old["execution_time_ms"]) == ("tr-1", 1769860800123, 1500)
    assert old["request_metadata"] == [{"key": "m", "value": "1"}]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"request_time": "1969-12-31T23:59:59.999Z", "execution_duration": "-0.001s"}, None),
        ({"request_time": "2026-01-01T00:00:00Z", "execution_duration": "2s"}, None),
        (
            {"request_time": "2026-01-01T00:00:00.123456789Z", "execution_duration": "0.0019s"},
            {"request_time": "2026-01-01T00:00:00.123Z", "execution_duration": "0.001s"},
        ),
        ({"state": 3}, {"state": "IN_PROGRESS"}),
    ],
)
def test_times_and_states(api: Any, given: dict[str, Any], shown: dict[str, Any] | None) -> None:
    """Times and durations are kept to the millisecond."""
    said = start(api, **given)
    for name, value in (shown or given).items():
        assert said[name] == value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"request_time": "yesterday"}, "Invalid value \"yesterday\" for parameter 'request_time'"),
        ({"request_time": "2026-01-01T00:00:00"}, "for parameter 'request_time'"),
        ({"execution_duration": "1 s"}, "for parameter 'execution_duration'"),
        ({"state": "FINE"}, "Invalid value \"FINE\" for parameter 'state'"),
        ({"trace_id": "../x"}, "Invalid trace ID"),
        ({"trace_metadata": {"a": 1}}, "for parameter 'trace_metadata'"),
        ({"client_request_id": 5}, "for parameter 'client_request_id'"),
        ({"assessments": [{"assessment_name": "x"}]}, "Exactly one of"),
    ],
)
def test_what_is_refused(api: Any, fields: dict[str, Any], words: str) -> None:
    """A field that is none is named."""
    answer = api.post(f"{V3}/traces", json={"trace": {"trace_info": info(**fields)}})
    assert answer.status_code == 400
    assert words in refused(answer)


def test_what_is_not_there(api: Any) -> None:
    """Traces, experiments and tags that are not there are not found."""
    for answer in (
        api.get(f"{V3}/traces/tr-9"),
        api.get(f"{V3}/traces/get", params={"trace_id": "tr-9"}),
        api.patch(f"{V2}/traces/tr-9/tags", json={"key": "a", "value": "b"}),
        api.request("DELETE", f"{V3}/traces/tr-9/tags", json={"key": "a"}),
        api.post(f"{V3}/traces", json={"trace": {"trace_info": info(trace_location={})}}),
        api.get("/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": "tr-9"}),
        api.post(f"{V2}/traces/link-to-run", json={"trace_ids": ["tr-1"], "run_id": "r"}),
    ):
        assert answer.status_code == 404
        refused(answer, "RESOURCE_DOES_NOT_EXIST")
    missing = api.post(f"{V3}/traces", json={})
    assert refused(missing).startswith("Missing value for required parameter 'trace'")


def test_spans_with_their_trace(api: Any) -> None:
    """A trace is read with its spans; those that are announced and on the way are waited for, or left out."""
    post(api, [span()])
    whole = api.get(f"{V3}/traces/get", params={"trace_id": TRACE}).json()["trace"]
    assert [one["name"] for one in whole["spans"]] == ["root"]
    start(api, TRACE, trace_metadata={"mlflow.trace.sizeStats": '{"num_spans": 2}'})
    assert api.get(f"{V3}/traces/batchGet", params={"trace_ids": [TRACE]}).json() == {"traces": []}
    part = api.get(f"{V3}/traces/get", params={"trace_id": TRACE, "allow_partial": "true"}).json()["trace"]
    assert len(part["spans"]) == 1
    post(api, [span(spanId="00000000000000ff", parentSpanId=span()["spanId"], name="child")])
    both = api.get(f"{V3}/traces/batchGet", params={"trace_ids": [TRACE, "tr-9"]}).json()["traces"]
    assert [one["name"] for one in both[0]["spans"]] == ["root", "child"]


def test_spans_that_do_not_come(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a whole trace is told in the end that it is not whole."""
    monkeypatch.setattr("trimtab.api.mlflow.traces._PATIENCE_S", 0.15)
    start(api, trace_metadata={"mlflow.trace.sizeStats": '{"num_spans": 2}'})
    answer = api.get(f"{V3}/traces/get", params={"trace_id": "tr-1"})
    assert "not fully exported yet" in refused(answer, "RESOURCE_DOES_NOT_EXIST")


def test_files_of_traces(api: Any) -> None:
    """Spans come from the ledger, or from the file that the client put; attachments lie beside it."""
    start(api)
    content = b'{"spans": [{"name": "from the file"}]}'
    root = "/api/2.0/mlflow-artifacts/artifacts/0/traces/tr-1/artifacts"
    assert api.put(f"{root}/traces.json", content=content).status_code == 200
    assert api.put(f"{root}/attachments/a.png", content=b"\x89PNG").status_code == 200
    at = "/ajax-api/2.0/mlflow/get-trace-artifact"
    assert api.get(at, params={"request_id": "tr-1"}).content == content
    assert api.get(at, params={"request_id": "tr-1", "path": "a.png"}).content == b"\x89PNG"
    assert "Invalid path" in refused(api.get(at, params={"request_id": "tr-1", "path": "../traces.json"}))
    # A tag may say anything, and does not lead to other files.
    tag = {"key": "mlflow.artifactLocation", "value": "mlflow-artifacts:/elsewhere"}
    api.patch(f"{V3}/traces/tr-1/tags", json=tag)
    assert api.get(at, params={"request_id": "tr-1"}).content == content
    post(api, [span()])
    found = api.get(at, params={"request_id": TRACE}).json()["spans"][0]
    assert (found["name"], found["attributes"]["mlflow.traceRequestId"]) == ("root", f'"{TRACE}"')


def test_searching(api: Any) -> None:
    """Filter, order and pages, in both versions."""
    for place in range(3):
        start(api, f"tr-{place}", request_time=f"2026-01-01T00:00:0{place}Z", state=("OK", "ERROR", "OK")[place])
    assert ids(search(api)) == ["tr-2", "tr-1", "tr-0"]
    assert ids(search(api, filter="trace.status = 'OK'", order_by=["timestamp ASC"])) == ["tr-0", "tr-2"]
    page = search(api, max_results=2)
    rest = search(api, max_results=2, page_token=page["next_page_token"])
    assert ids(page) + ids(rest) == ["tr-2", "tr-1", "tr-0"]
    assert "next_page_token" not in rest
    old = api.get(f"{V2}/traces", params={"experiment_ids": ["0"], "max_results": 1}).json()
    assert [trace["request_id"] for trace in old["traces"]] == ["tr-2"]
    for fields in ({"filter": "nonsense ="}, {"max_results": 501}, {"max_results": 0}, {"page_token": "x"}):
        assert search(api, **fields)["error_code"] == "INVALID_PARAMETER_VALUE"


def test_correlation(api: Any) -> None:
    """Two filters that always go together have 1, two that never do -1."""
    for place in range(4):
        start(api, f"tr-{place}", state=("OK", "ERROR")[place % 2], tags={"slow": str(place % 2)})
    both = {"experiment_ids": ["0"], "filter_string1": "trace.status = 'ERROR'"}
    at = f"{V3}/traces/calculate-filter-correlation"
    found = api.post(at, json={**both, "filter_string2": "tags.slow = '1'"}).json()
    assert (found["npmi"], found["joint_count"], found["total_count"]) == (1.0, 2, 4)
    assert api.post(at, json={**both, "filter_string2": "tags.slow = '0'"}).json()["npmi"] == -1.0
    assert api.post(at, json={**both, "filter_string2": "tags.slow = '7'"}).json()["npmi"] == "NaN"
    assert mutual(100, 50, 20, 10, 0.0) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(mutual(0, 0, 0, 0, 0.5))


def test_tags(api: Any) -> None:
    """Tags are set and removed in both versions."""
    start(api)
    api.patch(f"{V3}/traces/tr-1/tags", json={"key": "a", "value": "b"})
    api.patch(f"{V2}/traces/tr-1/tags", json={"key": "c", "value": ""})
    tags = api.get(f"{V3}/traces/tr-1").json()["trace"]["trace_info"]["tags"]
    assert (tags["a"], tags["c"]) == ("b", "")
    assert api.request("DELETE", f"{V2}/traces/tr-1/tags", json={"key": "a"}).json() == {}
    answer = api.request("DELETE", f"{V3}/traces/tr-1/tags", json={"key": "a"})
    assert "No trace tag with key 'a'" in refused(answer, "RESOURCE_DOES_NOT_EXIST")
    assert "characters" in refused(api.patch(f"{V3}/traces/tr-1/tags", json={"key": "a", "value": "x" * 8001}))


def test_links(api: Any) -> None:
    """Traces are found from the run and the prompt that they are linked to."""
    start(api)
    run = api.post(f"{V2}/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
    for _ in range(2):
        assert api.post(f"{V2}/traces/link-to-run", json={"trace_ids": ["tr-1"], "run_id": run}).json() == {}
    prompt = {"trace_id": "tr-1", "prompt_versions": [{"name": "ask", "version": "2"}]}
    assert api.post(f"{V2}/traces/link-prompts", json=prompt).json() == {}
    assert ids(search(api, filter=f"attribute.run_id = '{run}' AND prompt = 'ask/2'")) == ["tr-1"]
    many = {"trace_ids": [f"tr-{place}" for place in range(101)], "run_id": run}
    assert "Cannot link more than 100 traces" in refused(api.post(f"{V2}/traces/link-to-run", json=many))


def test_deleting(api: Any) -> None:
    """By ids or by time, and not by both or neither."""
    for place in range(3):
        start(api, f"tr-{place}")
    at = f"{V3}/traces/delete-traces"
    for fields, words in (
        ({}, "must be specified"),
        ({"request_ids": ["tr-1"], "max_timestamp_millis": 1}, "Only one of"),
        ({"request_ids": ["tr-1"], "max_traces": 1}, "can't be specified"),
        ({"max_timestamp_millis": 1, "max_traces": 0}, "positive integer"),
    ):
        assert words in refused(api.post(at, json={"experiment_id": "0", **fields}))
    assert api.post(at, json={"experiment_id": "0", "request_ids": ["tr-1"]}).json() == {"traces_deleted": 1}
    far = {"experiment_id": "0", "max_timestamp_millis": "4102444800000"}
    assert api.post(f"{V2}/traces/delete-traces", json=far).json() == {"traces_deleted": 2}


def test_the_second_version(api: Any) -> None:
    """Old clients begin a trace, and end it with more metadata and tags."""
    begun = api.post(
        f"{V2}/traces",
        json={"experiment_id": "0", "timestamp_ms": 1000, "request_metadata": [{"key": "a", "value": "1"}]},
    ).json()["trace_info"]
    assert begun["status"] == "IN_PROGRESS"
    ident = begun["request_id"]
    done = {"timestamp_ms": "1500", "status": "ERROR", "tags": [{"key": "t", "value": "x"}]}
    ended = api.patch(f"{V2}/traces/{ident}", json=done).json()["trace_info"]
    assert (ended["status"], ended["execution_time_ms"]) == ("ERROR", 500)
    assert {"key": "t", "value": "x"} in ended["tags"]
    assert api.get(f"{V3}/traces/{ident}").json()["trace"]["trace_info"]["state"] == "ERROR"


def test_assessments_come_with_their_trace(api: Any) -> None:
    """What is said when a trace is started, and later, is told with it."""
    first = {"assessment_name": "a", "source": {"source_type": "CODE"}, "feedback": {"value": 1}}
    said = start(api, assessments=[first])
    assert said["assessments"][0]["feedback"] == {"value": 1}
    found = search(api)["traces"][0]["assessments"]
    assert [one["assessment_name"] for one in found] == ["a"]


def test_measuring(api: Any) -> None:
    """Metrics come in points with what they have in common; times are those of a calendar."""
    start(api, request_time="2026-01-01T00:00:05Z")
    body = {
        "experiment_ids": ["0"], "view_type": "TRACES", "metric_name": "latency", "time_interval_seconds": 60,
        "start_time_ms": 0, "end_time_ms": "4102444800000", "dimensions": [],
        "aggregations": [{"aggregation_type": "AVG"}, {"aggregation_type": "PERCENTILE", "percentile_value": 95}],
    }  # fmt: skip
    found = api.post(f"{V3}/traces/metrics", json=body).json()
    assert found["data_points"] == [
        {
            "metric_name": "latency",
            "dimensions": {"time_bucket": "2026-01-01T00:00:00+00:00"},
            "values": {"AVG": 1500.0, "P95.0": 1500.0},
        }
    ]
    for fields in (
        {"start_time_ms": None}, {"view_type": "RUNS"}, {"aggregations": [{"aggregation_type": "PERCENTILE"}]},
        {"aggregations": [{"aggregation_type": "AVG", "percentile_value": 5}]}, {"time_interval_seconds": -1},
        {"max_results": 1 << 60}, {"aggregations": ["AVG"]},
    ):  # fmt: skip
        refused(api.post(f"{V3}/traces/metrics", json={**body, **fields}))
