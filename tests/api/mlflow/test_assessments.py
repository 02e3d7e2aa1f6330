"""What is said of traces, over the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.mlflow.test_traces import V3, refused, start
from trimtab.api.mlflow.assessments import duration_from, duration_text, time_from, time_text
from trimtab.api.mlflow.wire import MlflowError

AT = f"{V3}/traces/tr-1/assessments"


def said(**fields: Any) -> dict[str, Any]:
    """Return feedback as a client sends it."""
    return {
        "assessment_name": "good", "source": {"source_type": "HUMAN", "source_id": "someone"},
        "create_time": "2026-01-01T00:00:00.001Z", "last_update_time": "2026-01-01T00:00:00.002Z",
        "feedback": {"value": True}, "rationale": "because", "metadata": {"a": "b"}, "valid": True, **fields,
    }  # fmt: skip


def create(api: Any, **fields: Any) -> dict[str, Any]:
    """Say something of the trace and return the answer."""
    answer = api.post(AT, json={"assessment": said(**fields)}).json()
    found: dict[str, Any] = answer.get("assessment", answer)
    return found


def test_saying_and_reading_back(api: Any) -> None:
    """Everything that was said comes back, with an id."""
    start(api)
    made = create(api)
    ident = made["assessment_id"]
    assert made == {**said(), "assessment_id": ident, "trace_id": "tr-1"}
    assert api.get(f"{AT}/{ident}").json() == {"assessment": made}
    for value in ({"serialized_value": {"value": '{"x": [1]}', "serialization_format": "JSON_FORMAT"}}, {"value": 0}):
        other = create(api, feedback=None, expectation=value)
        assert other["expectation"] == value


def test_changing(api: Any) -> None:
    """What the mask names changes; metadata come together."""
    start(api)
    ident = create(api)["assessment_id"]
    more = {"feedback": {"value": "no"}, "rationale": "new", "metadata": {"c": "d"}, "assessment_name": "other"}
    body = {"assessment": more, "update_mask": "assessmentName,feedback,metadata"}
    made = api.patch(f"{AT}/{ident}", json=body).json()["assessment"]
    assert (made["assessment_name"], made["feedback"], made["rationale"]) == ("other", {"value": "no"}, "because")
    assert made["metadata"] == {"a": "b", "c": "d"}
    assert made["create_time"] == said()["create_time"] and made["last_update_time"] > said()["last_update_time"]
    body = {"assessment": {"expectation": {"value": 1}}, "update_mask": "expectation"}
    assert "Cannot update expectation value" in refused(api.patch(f"{AT}/{ident}", json=body))
    body = {"assessment": {}, "update_mask": "expectation,feedback"}
    assert "Cannot specify both" in refused(api.patch(f"{AT}/{ident}", json=body))


def test_overriding_and_deleting(api: Any) -> None:
    """What is overridden is not valid until the other is deleted."""
    start(api)
    one = create(api)["assessment_id"]
    two = create(api, overrides=one)["assessment_id"]
    assert api.get(f"{AT}/{one}").json()["assessment"]["valid"] is False
    assert api.delete(f"{AT}/{two}").json() == {}
    assert api.get(f"{AT}/{one}").json()["assessment"]["valid"] is True
    refused(api.get(f"{AT}/{two}"), "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"feedback": None}, "Exactly one of"),
        ({"expectation": {"value": 1}}, "Exactly one of"),
        ({"metadata": {"a": 1}}, "assessment.metadata"),
        ({"rationale": 5}, "assessment.rationale"),
        ({"create_time": "x"}, "assessment.create_time"),
        ({"feedback": 5}, "assessment.feedback"),
    ],
)
def test_what_is_refused(api: Any, fields: dict[str, Any], words: str) -> None:
    """A field that is none is named."""
    start(api)
    assert words in create(api, **fields)["message"]


def test_an_error_stands_in_what_was_said(api: Any) -> None:
    """Older clients put the error beside the feedback."""
    start(api)
    assert create(api, feedback={}, error={"error_code": "x"})["feedback"] == {"error": {"error_code": "x"}}


@pytest.mark.parametrize("ms", [0, 1, -1, 999, 1000, 1769860800123, -62135596800000, 253402300799999])
def test_times_are_written_as_they_are_read(ms: int) -> None:
    """Every millisecond that a calendar has, and durations of any sign."""
    assert time_from(time_text(ms), "") == ms
    assert duration_from(duration_text(ms), "") == ms


@pytest.mark.parametrize("text", ["", "1", "s", "1.s", "1.0000000000s", "1e3s", None, 5])
def test_what_is_no_duration(text: Any) -> None:
    """Only seconds with up to nine places are one."""
    with pytest.raises(MlflowError):
        duration_from(text, "d")
