"""Searching traces, in both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.store.builders import write
from trimtab.core.errors import BadInput
from trimtab.store import assessments, traces, tracking
from trimtab.store.assessments import Assessment
from trimtab.store.ledger import Ledger
from trimtab.store.traces import Span, Trace
from trimtab.store.tracesearch import count_traces, search_traces

MS = 1_000_000


@pytest.fixture
def number(ledger: Ledger) -> int:
    """Make an experiment with four traces, begun at 1 to 4 ms, of which 0 and 1 are of one session."""
    made: int = write(ledger, tracking.create_experiment, "chat", root="r/{number}", tags={}, now_ms=1)
    for place in range(4):
        trace = Trace(
            trace_id=f"tr-{place}", experiment=made, state=["OK", "ERROR", "OK", "IN_PROGRESS"][place],
            start_ms=place + 1, duration_ms=[10, 20, 30, None][place], client_id=f"c{place}" if place else None,
            tags={"mlflow.traceName": f"n{place % 2}", **({"team": "red"} if place > 1 else {})},
            metadata={"mlflow.sourceRun": f"r{place}", **({"mlflow.trace.session": "s"} if place < 2 else {})},
            final=True,
        )  # fmt: skip
        write(ledger, traces.start_trace, trace)
    first = [span(1, name="find", status="OK"), span(2, name="call", status="ERROR", attributes={"http.code": "500"})]
    write(ledger, traces.log_spans, made, first)
    write(ledger, traces.log_spans, made, [span(3, trace_id="tr-1", name="find", status="ERROR", type="TOOL")])
    write(ledger, traces.link, "run", ["tr-3"], ["r0"])
    write(ledger, traces.link, "prompt", ["tr-2"], ["ask/3"])
    for trace_id, value, fields in (
        ("tr-0", "yes", {"metadata": {"mlflow.trace.session": "s"}}),
        ("tr-2", False, {"kind": "expectation"}),
        ("tr-2", None, {"kind": "issue", "name": "iss-1"}),
        ("tr-3", "yes", {"valid": False}),
    ):
        more: dict[str, Any] = {"kind": "feedback", "name": "good", **fields}
        one = Assessment(trace_id=trace_id, value={"value": value}, **more)
        write(ledger, assessments.create_assessment, one)
    return made


def span(ident: int, **fields: Any) -> Span:
    """Return a span."""
    base: dict[str, Any] = {
        "trace_id": "tr-0", "span_id": f"{ident:016x}", "parent_id": "root", "type": "LLM", "start_ns": 10 * MS,
        "end_ns": 20 * MS, "content": f'{{"n":{ident}}}',
    }  # fmt: skip
    return Span(**{**base, **fields})


def places(ledger: Ledger, number: int, filter: str, order: Sequence[str] = ()) -> str:
    """Return the numbers of the traces that are found."""
    found, token = search_traces(ledger, [number], filter=filter, order=order)
    assert not token
    return "".join(trace.trace_id[-1] for trace in found)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("", "3210"),
        ("trace.status = 'OK'", "20"),
        ("status IN ('ERROR', 'IN_PROGRESS')", "31"),
        ("name = 'n1'", "31"),
        ("timestamp_ms >= 2 AND execution_time_ms < 25", "1"),
        ("end_time_ms = 4", "3"),
        ("client_request_id = 'c2'", "2"),
        ("request_id != 'tr-0'", "321"),
        ("tags.team IS NULL", "10"),
        ("tags.team != 'blue'", "32"),
        ("metadata.`mlflow.trace.session` = 's'", "10"),
        ("run_id = 'r0'", "30"),
        ("run_id IN ('r0', 'r1')", "310"),
        ("run_id != 'r0'", "321"),
        ("request_metadata.`mlflow.sourceRun` = 'r0'", "30"),
        ("metadata.`mlflow.sourceRun` IS NOT NULL", "3210"),
        ("prompt = 'ask/3'", "2"),
        ("span.name = 'find'", "10"),
        ("span.name = 'find' AND span.status = 'ERROR'", "1"),
        ("span.name IN ('call') AND span.attributes.http.code = '500'", "0"),
        ("span.name = 'find' AND span.attributes.http.code = '500'", ""),
        ("span.type = 'TOOL' AND status = 'ERROR'", "1"),
        ("feedback.good = 'yes'", "10"),
        ("feedback.good IS NULL", "32"),
        ("expectation.good = 'false'", "2"),
        ("issue.id = 'iss-1'", "2"),
        ("feedback.good = 'yes' AND tags.team IS NULL AND span.status = 'OK'", "0"),
    ],
)
def test_filters(ledger: Ledger, number: int, filter: str, expected: str) -> None:
    """Each filter finds what it says, newest first."""
    assert places(ledger, number, filter) == expected
    assert count_traces(ledger, [number], [filter]) == len(expected)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("timestamp_ms ASC", "0123"),
        ("execution_time_ms DESC", "2103"),
        ("name", "2031"),
        ("tags.team DESC", "3210"),
        ("run_id ASC", "0123"),
        ("status", "1320"),
    ],
)
def test_orders(ledger: Ledger, number: int, order: str, expected: str) -> None:
    """What is missing comes last; ties are newest first."""
    assert places(ledger, number, "", [order]) == expected


def test_pages(ledger: Ledger, number: int) -> None:
    """Pages go on where the last one ended, though new traces come; a token fits its query only."""
    seen, token = [], ""
    for place in range(5):
        found, token = search_traces(ledger, [number], order=["execution_time_ms"], most=1, token=token)
        seen += [trace.trace_id for trace in found]
        if not token:
            break
        new = Trace(trace_id=f"tr-new{place}", experiment=number, state="OK", start_ms=9, duration_ms=1)
        write(ledger, traces.start_trace, new)
    assert seen == ["tr-0", "tr-1", "tr-2", "tr-3"]
    _, token = search_traces(ledger, [number], most=1)
    with pytest.raises(BadInput, match="another query"):
        search_traces(ledger, [number], filter="status = 'OK'", token=token)


def test_what_cannot_be_searched(ledger: Ledger, number: int) -> None:
    """A prompt is named with its version; nothing is found in no experiment, nor in another workspace."""
    with pytest.raises(BadInput, match="name/version"):
        places(ledger, number, "prompt = 'ask'")
    assert search_traces(ledger, []) == ([], "")
    assert count_traces(ledger, [], []) == 0
    assert places(ledger, 99, "") == ""


def test_a_page_reads_the_index(ledger: Ledger, number: int) -> None:
    """The newest traces of an experiment are read by the index and not sorted."""
    if "://" in ledger.where:
        return  # PostgreSQL plans by what it knows of the rows, and a few rows it sorts
    plans: list[str] = []
    reader = ledger

    class Explained:
        workspace, environment = reader.workspace, reader.environment

        def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            plans.extend(row[3] for row in reader.query(f"EXPLAIN QUERY PLAN {sql}", params))
            return reader.query(sql, params)

    search_traces(Explained(), [number])
    assert "USING INDEX trace_list" in plans[0]
    assert not any("TEMP B-TREE" in plan for plan in plans)
