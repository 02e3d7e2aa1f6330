"""What is said of traces, in both databases."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.builders import write
from trimtab.core.errors import NotFound
from trimtab.store import assessments, traces, tracking
from trimtab.store.assessments import Assessment, text_of
from trimtab.store.ledger import Ledger
from trimtab.store.traces import Trace


def trace(ledger: Ledger, trace_id: str = "tr-1") -> Trace:
    """Make a trace in an experiment of its own."""
    number = write(ledger, tracking.create_experiment, trace_id, root="r/{number}", tags={}, now_ms=1)
    made: Trace = write(ledger, traces.start_trace, Trace(trace_id=trace_id, experiment=number, state="OK", start_ms=1))
    return made


def said(value: Any = True, **fields: Any) -> Assessment:
    """Return an assessment."""
    base: dict[str, Any] = {"trace_id": "tr-1", "kind": "feedback", "name": "good"}
    return Assessment(**{**base, **fields}, value={"value": value})


def test_what_is_said_is_read_back(ledger: Ledger) -> None:
    """Every field comes back, the value exactly; the oldest comes first."""
    made = trace(ledger)
    full = said(
        {"a": [1, 2.5, None, "é\0", 1e308]}, source_type="HUMAN", source_id="someone", run_id="r", span_id="s",
        rationale="", metadata={"k": "v"}, created_ms=5, updated_ms=6,
    )  # fmt: skip
    one = write(ledger, assessments.create_assessment, full)
    assert one.id.startswith("a-")
    assert assessments.get_assessment(ledger, "tr-1", one.id) == one
    first = write(ledger, assessments.create_assessment, said(created_ms=1, id="mine"))
    assert assessments.assessments_of(ledger, {made.id: "tr-1"}) == {made.id: [first, one]}


def test_overriding_and_back(ledger: Ledger) -> None:
    """What is overridden is not valid until the other one is deleted; deleting twice is harmless."""
    trace(ledger)
    one = write(ledger, assessments.create_assessment, said())
    two = write(ledger, assessments.create_assessment, said(False, overrides=one.id))
    assert not assessments.get_assessment(ledger, "tr-1", one.id).valid
    for _ in range(2):
        write(ledger, assessments.delete_assessment, "tr-1", two.id)
    assert assessments.get_assessment(ledger, "tr-1", one.id).valid
    with pytest.raises(NotFound, match="not found for trace 'tr-1'"):
        assessments.get_assessment(ledger, "tr-1", two.id)
    with pytest.raises(NotFound, match="Assessment with ID 'nothing'"):
        write(ledger, assessments.create_assessment, said(overrides="nothing"))


def test_without_its_trace(ledger: Ledger) -> None:
    """Nothing is said of a trace that is not there."""
    for act, words in (
        (assessments.create_assessment, (said(),)),
        (assessments.update_assessment, (said(id="a"),)),
        (assessments.delete_assessment, ("tr-1", "a")),
    ):
        with pytest.raises(NotFound, match="tr-1"):
            write(ledger, act, *words)


def test_changing(ledger: Ledger) -> None:
    """One that is there says something else."""
    trace(ledger)
    one = write(ledger, assessments.create_assessment, said())
    write(ledger, assessments.update_assessment, said("no", id=one.id))
    assert assessments.get_assessment(ledger, "tr-1", one.id).value == {"value": "no"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"value": "yes"}, "yes"),
        ({"value": True}, "true"),
        ({"value": 5.0}, "5"),
        ({"value": 0.25}, "0.25"),
        ({"value": [1]}, "[1]"),
        ({"serialized_value": {"value": '{"a": 1}'}}, '{"a": 1}'),
        ({"error": {"error_code": "x"}}, "null"),
    ],
)
def test_the_text_that_filters_compare(value: Any, text: str) -> None:
    """A text is itself, everything else is JSON."""
    assert text_of(value) == text
