"""Spans as MLflow writes them down."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from trimtab.api.mlflow.spans import BadSpan, shown
from trimtab.migrate.spans import span_from

TRACE, SPAN, PARENT = (base64.b64encode(bytes([one] * size)).decode() for one, size in ((1, 16), (2, 8), (3, 8)))


def _span(**fields: Any) -> dict[str, Any]:
    return {
        "trace_id": TRACE, "span_id": SPAN, "parent_span_id": PARENT, "name": "n", "start_time_unix_nano": 5,
        "end_time_unix_nano": 9, "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
        "events": [{"name": "e", "time_unix_nano": 7, "attributes": {"count": 2, "nothing": None}}],
        "attributes": {
            "mlflow.traceRequestId": '"tr-x"', "text": '"1"', "whole": "3", "part": "0.5", "list": "[1, null, {}]",
            "not json": "abc", "nan": "NaN", "big": str(1 << 70),
        },
        **fields,
    }  # fmt: skip


def test_what_was_written_is_shown_again() -> None:
    """Each attribute is the same text of JSON again, except of what no span can hold."""
    span = span_from(_span(), "tr-x")
    assert (span.trace_id, span.span_id, span.parent_id, span.status) == ("tr-x", "02" * 8, "03" * 8, "ERROR")
    found, wanted = shown(span.content, "tr-x"), _span()
    for name in ("text", "whole", "part", "list"):
        assert json.loads(found["attributes"][name]) == json.loads(wanted["attributes"][name])
    assert found["attributes"]["not json"] == '"abc"' and found["attributes"]["big"] == f'"{1 << 70}"'
    assert found["status"] == wanted["status"] and found["events"] == wanted["events"]
    assert found["parent_span_id"] == PARENT and found["end_time_unix_nano"] == 9


def test_older_shapes_are_read() -> None:
    """Ids in hex digits, and the shape of the first releases."""
    ids = {"trace_id": f"tr-{'01' * 16}", "span_id": "02" * 8, "parent_span_id": None}
    hexed = span_from(_span(**ids, status={"code": "OK"}), "t")
    assert (hexed.span_id, hexed.parent_id, hexed.status) == ("02" * 8, "", "OK")
    first = {
        "name": "n", "context": {"trace_id": f"0x{'01' * 16}", "span_id": f"0x{'02' * 8}"}, "parent_id": None,
        "start_time": 5, "end_time": 9, "status_code": "OK", "status_message": "", "attributes": {"a": "1"},
        "events": [{"name": "e", "timestamp": 7, "attributes": {}}],
    }  # fmt: skip
    found = span_from(first, "t")
    assert (found.start_ns, found.end_ns, found.status, found.attributes) == (5, 9, "OK", {"a": "1"})


@pytest.mark.parametrize("change", [{"span_id": "x"}, {"trace_id": None}, {"start_time_unix_nano": "soon"}])
def test_other_shapes_are_refused(change: dict[str, Any]) -> None:
    """A span without an id or a begin is none."""
    with pytest.raises(BadSpan):
        span_from(_span(**change), "t")
