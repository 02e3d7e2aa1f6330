"""Traces, their spans and their links, in both databases."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.builders import write
from trimtab.core.errors import BadInput, NotFound
from trimtab.store import artifacts, traces, tracking
from trimtab.store.ledger import Ledger
from trimtab.store.traces import COST, SESSION, TOKENS, Span, Trace

MS = 1_000_000


def experiment(ledger: Ledger, name: str = "chat") -> int:
    """Make an experiment and return its number."""
    root = "mlflow-artifacts:/{number}"
    made: int = write(ledger, tracking.create_experiment, name, root=root, tags={}, now_ms=1)
    return made


def span(ident: int, **fields: Any) -> Span:
    """Return a span of one trace, from 10 to 20 ms."""
    base: dict[str, Any] = {
        "trace_id": "tr-1", "span_id": f"{ident:016x}", "parent_id": "", "name": f"s{ident}", "type": "LLM",
        "status": "OK", "start_ns": 10 * MS, "end_ns": 20 * MS, "content": f'{{"n":{ident}}}',
    }  # fmt: skip
    return Span(**{**base, **fields})


def trace(number: int, trace_id: str = "tr-1", **fields: Any) -> Trace:
    """Return what a client says of a trace."""
    base: dict[str, Any] = {"state": "OK", "start_ms": 5, "duration_ms": 7, "final": True}
    return Trace(trace_id=trace_id, experiment=number, **{**base, **fields})


def test_a_started_trace_is_read_back_whole(ledger: Ledger) -> None:
    """Everything that a client says of a trace comes back, with where its files go."""
    number = experiment(ledger)
    said = trace(number, client_id="c", request="hi", response="\0é", metadata={"m": "1"}, tags={"t": "2"})
    made = write(ledger, traces.start_trace, said)
    found = traces.get_trace(ledger, "tr-1")
    assert found == made
    assert (found.client_id, found.request, found.response, found.duration_ms) == ("c", "hi", "\0é", 7)
    assert found.metadata == {"m": "1"}
    assert found.tags == {"t": "2", "mlflow.artifactLocation": f"mlflow-artifacts:/{number}/traces/tr-1/artifacts"}
    assert traces.get_traces(ledger, ["tr-9", "tr-1", "tr-1"]) == [found]


def test_spans_alone_begin_a_trace(ledger: Ledger) -> None:
    """Times, state, name, request and sums come from the spans; a span sent twice counts once."""
    number = experiment(ledger)
    child = span(2, parent_id="1".zfill(16), start_ns=8 * MS, metrics={"input_tokens": 5.0, "total_cost": 0.5})
    write(ledger, traces.log_spans, number, [child])
    begun = traces.get_trace(ledger, "tr-1")
    assert (begun.state, begun.start_ms, begun.duration_ms) == ("IN_PROGRESS", 8, 12)
    root = span(1, end_ns=30 * MS, about={"request": "q", "response": "a", "session": "s1", "user": "u"})
    for _ in range(2):
        write(ledger, traces.log_spans, number, [root, child, span(3, parent_id="x", metrics={"input_tokens": 2.0})])
    found = traces.get_trace(ledger, "tr-1")
    assert (found.state, found.start_ms, found.duration_ms) == ("OK", 8, 22)
    assert (found.request, found.response, found.tags["mlflow.traceName"]) == ("q", "a", "s1")
    assert found.metadata == {
        TOKENS: '{"input_tokens":7}', COST: '{"total_cost":0.5}', SESSION: "s1", "mlflow.trace.user": "u",
    }  # fmt: skip
    contents = traces.span_contents(ledger, [found.id])[found.id]
    assert contents == ['{"n":1}', '{"n":2}', '{"n":3}']


@pytest.mark.parametrize("first", ["spans", "trace"])
def test_what_the_client_says_stands_above_its_spans(ledger: Ledger, first: str) -> None:
    """Either may come first; times, state and sums of the whole are the client's."""
    number = experiment(ledger)
    spans = [span(1, status="ERROR", metrics={"input_tokens": 3.0}, about={"request": "from span"})]
    said = trace(number, metadata={TOKENS: '{"input_tokens": 100}'}, tags={"mlflow.traceName": "mine"})
    acts = [(traces.log_spans, (number, spans)), (traces.start_trace, (said,))]
    for act, args in acts if first == "spans" else acts[::-1]:
        write(ledger, act, *args)
    found = traces.get_trace(ledger, "tr-1")
    assert (found.state, found.start_ms, found.duration_ms, found.request) == ("OK", 5, 7, "from span")
    assert found.metadata == {TOKENS: '{"input_tokens": 100}'}
    assert (found.tags["mlflow.traceName"], found.tags["mlflow.trace.spansLocation"]) == ("mine", "TRACKING_STORE")
    total = "SELECT value FROM span_metric WHERE trace=? AND span_id=''"
    assert ledger.query(total, (found.id,)) == [(100.0,)]


def test_exact_content_and_borders_of_time(ledger: Ledger) -> None:
    """Content, 64-bit times and any text are kept as they came."""
    number = experiment(ledger)
    content = '{"name":"\\u0000\U0001f600","v":-9223372036854775808,"b":"AP8="}'
    odd = span(
        1, name="\0\U0001f600", start_ns=0, end_ns=(1 << 63) - 1, content=content, attributes={"a\0": "b" * 9000}
    )
    write(ledger, traces.log_spans, number, [odd])
    found = traces.get_trace(ledger, "tr-1")
    assert traces.span_contents(ledger, [found.id])[found.id] == [content]
    assert found.tags["mlflow.traceName"] == "\0\U0001f600"
    assert ledger.query("SELECT name, length(value) FROM span_attribute") == [("a\0", 4000)]


def test_the_last_of_a_span_stands(ledger: Ledger) -> None:
    """A span that comes twice, in one request or in two, is the last one, without what only the first one had."""
    number = experiment(ledger)
    first, last = span(1, attributes={"a": "1"}, metrics={"input_tokens": 9.0}), span(1, name="new", content="{}")
    for requests in ([[first, last]], [[first], [last]]):
        for spans in requests:
            write(ledger, traces.log_spans, number, spans)
        assert ledger.query("SELECT name, content FROM span") == [("new", "{}")]
        assert ledger.query("SELECT count(*) FROM span_attribute") == [(0,)]
        write(ledger, traces.delete_traces, number, trace_ids=["tr-1"])


def test_a_trace_ends(ledger: Ledger) -> None:
    """Old clients begin and end a trace in two calls."""
    number = experiment(ledger)
    write(ledger, traces.start_trace, trace(number, state="IN_PROGRESS", duration_ms=None, metadata={"a": "1"}))
    ended = write(ledger, traces.end_trace, "tr-1", "ERROR", 105, {"b": "2"})
    assert (ended.state, ended.duration_ms, ended.metadata) == ("ERROR", 100, {"a": "1", "b": "2"})
    with pytest.raises(NotFound, match="not found"):
        write(ledger, traces.end_trace, "tr-2", "OK", 1, {})


def test_what_is_refused(ledger: Ledger) -> None:
    """Ids that are none, times that no calendar has, and experiments that are not there or deleted."""
    number = experiment(ledger)
    for bad in ("", "..", "a/b", "a b", "x" * 101, "é"):
        with pytest.raises(BadInput, match="Invalid trace ID"):
            write(ledger, traces.start_trace, trace(number, bad))
    with pytest.raises(BadInput, match="not a time"):
        write(ledger, traces.start_trace, trace(number, start_ms=1 << 60))
    with pytest.raises(NotFound, match="No Experiment"):
        write(ledger, traces.log_spans, 77, [span(1)])
    write(ledger, tracking.set_experiment_stage, number, "deleted", now_ms=2)
    with pytest.raises(BadInput, match="must be in the 'active' state"):
        write(ledger, traces.start_trace, trace(number))


def test_tags_and_links(ledger: Ledger) -> None:
    """Tags are set and removed; links are made once and may come before the trace."""
    number = experiment(ledger)
    write(ledger, traces.link, "run", ["tr-1", "tr-2"], ["r1"])
    write(ledger, traces.link, "run", ["tr-1"], ["r1", "r2"])
    assert traces.linked(ledger, "tr-1", "run") == ["r1", "r2"]
    with pytest.raises(NotFound):
        write(ledger, traces.set_tag, "tr-1", "a", "b")
    write(ledger, traces.start_trace, trace(number))
    write(ledger, traces.set_tag, "tr-1", "a", "b")
    assert traces.get_trace(ledger, "tr-1").tags["a"] == "b"
    write(ledger, traces.delete_tag, "tr-1", "a")
    with pytest.raises(NotFound, match="No trace tag with key 'a'"):
        write(ledger, traces.delete_tag, "tr-1", "a")


def test_deleting_takes_everything_along(ledger: Ledger) -> None:
    """By ids or by time, oldest first and as many as asked; files, spans, links and tags go too."""
    number, other = experiment(ledger), experiment(ledger, "other")
    for place in range(4):
        write(ledger, traces.start_trace, trace(number, f"tr-{place}", start_ms=place, metadata={"m": "1"}))
    write(ledger, traces.start_trace, trace(other, "tr-o"))
    write(ledger, traces.log_spans, number, [span(1, attributes={"a": "b"}, metrics={"input_tokens": 1.0})])
    write(ledger, traces.link, "run", ["tr-1"], ["r1"])
    for path in (f"{number}/traces/tr-1/artifacts/traces.json", f"{number}/traces/tr-2/artifacts/traces.json"):
        write(ledger, artifacts.put_artifact, "", path, blob="b", size=1, at=1)
    assert write(ledger, traces.delete_traces, number, trace_ids=["tr-1", "tr-o", "nothing"]) == 1
    for table in ("span", "span_attribute", "span_metric", "trace_link"):
        assert ledger.query(f"SELECT count(*) FROM {table}") == [(0,)]
    assert ledger.query("SELECT path FROM artifact") == [(f"{number}/traces/tr-2/artifacts/traces.json",)]
    assert write(ledger, traces.delete_traces, number, until_ms=2, most=1) == 1
    assert write(ledger, traces.delete_traces, number, until_ms=2) == 1
    assert write(ledger, traces.delete_traces, number, trace_ids=[]) == 0
    left = ledger.query("SELECT trace_id FROM trace ORDER BY trace_id")
    assert left == [("tr-3",), ("tr-o",)]
    assert ledger.query("SELECT count(*) FROM trace_metadata") == [(1,)]


def test_workspaces_have_traces_of_their_own(ledger: Ledger) -> None:
    """One id in two workspaces is two traces."""
    number = experiment(ledger)
    write(ledger, traces.log_spans, number, [span(1)])
    with Ledger.open(ledger.where, workspace="second", actor="tester") as second:
        assert traces.find_trace(second, "tr-1") is None
        theirs = experiment(second)
        write(second, traces.start_trace, trace(theirs, state="ERROR"))
        assert traces.get_trace(second, "tr-1").state == "ERROR"
    assert traces.get_trace(ledger, "tr-1").state == "OK"
