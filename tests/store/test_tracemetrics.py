"""Numbers over traces, in both databases, beside what numpy makes of the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.store.builders import write
from trimtab.core.errors import BadInput
from trimtab.store import assessments, traces, tracking
from trimtab.store.assessments import Assessment
from trimtab.store.ledger import Ledger
from trimtab.store.tracemetrics import Aggregate, Point, trace_metrics
from trimtab.store.traces import TOKENS, Span, Trace

MS = 1_000_000
LATENCY = [10, 20, 40, 80, 35]
COUNT = [Aggregate("COUNT")]


@pytest.fixture
def number(ledger: Ledger) -> int:
    """Make an experiment with five traces that take 10 to 80 ms, begun a second apart, and one without an end."""
    made: int = write(ledger, tracking.create_experiment, "chat", root="r/{number}", tags={}, now_ms=1)
    for place, took in enumerate([*LATENCY, None]):
        trace = Trace(
            trace_id=f"tr-{place}", experiment=made, state="OK" if place % 2 else "ERROR", start_ms=place * 1000,
            duration_ms=took, tags={"mlflow.traceName": f"n{place % 2}"}, final=True,
            metadata={TOKENS: f'{{"input_tokens": {place}}}', "k": str(place)},
        )  # fmt: skip
        write(ledger, traces.start_trace, trace)
    spans = [
        Span(
            trace_id="tr-0", span_id=f"{place:016x}", parent_id="p", name="s", type="LLM", status="OK", start_ns=0,
            end_ns=(place + 1) * MS, content="{}", model="m" if place else "", metrics={"total_cost": 0.5 * place},
        )
        for place in range(3)
    ]  # fmt: skip
    write(ledger, traces.log_spans, made, spans)
    for value in (True, False, "yes", 0.25, "fine", [1]):
        one = Assessment(trace_id="tr-1", kind="feedback", name="good", value={"value": value})
        write(ledger, assessments.create_assessment, one)
    return made


def ask(ledger: Ledger, number: int, view: str, metric: str, *aggregates: Aggregate, **more: Any) -> list[Point]:
    """Return the points of a metric."""
    return trace_metrics(ledger, [number], view, metric, aggregates or COUNT, **more)


@pytest.mark.parametrize("percent", [0.0, 10.0, 50.0, 95.0, 99.9, 100.0])
def test_percentiles(ledger: Ledger, number: int, percent: float) -> None:
    """A percentile is numpy's."""
    (point,) = ask(ledger, number, "TRACES", "latency", Aggregate("PERCENTILE", percent), Aggregate("AVG"))
    assert point.values == {
        f"P{percent}": pytest.approx(float(np.percentile(LATENCY, percent))), "AVG": pytest.approx(np.mean(LATENCY)),
    }  # fmt: skip


def test_groups(ledger: Ledger, number: int) -> None:
    """By what rows have in common, and by time."""
    by = ask(ledger, number, "TRACES", "trace_count", dimensions=["trace_name", "trace_status"])
    assert by == [
        Point({"trace_name": "n0", "trace_status": "ERROR"}, {"COUNT": 3.0}),
        Point({"trace_name": "n1", "trace_status": "OK"}, {"COUNT": 3.0}),
    ]
    over = ask(ledger, number, "TRACES", "trace_count", bucket_s=2, span_ms=(1000, 4000))
    assert over == [
        Point({"time_bucket": "0"}, {"COUNT": 1.0}),
        Point({"time_bucket": "2000"}, {"COUNT": 2.0}),
        Point({"time_bucket": "4000"}, {"COUNT": 1.0}),
    ]
    assert len(ask(ledger, number, "TRACES", "trace_count", bucket_s=1, most=2)) == 2


def test_tokens_cost_and_what_was_said(ledger: Ledger, number: int) -> None:
    """Tokens are of traces, cost of spans; what was said counts where it is a number."""
    tokens = ask(ledger, number, "TRACES", "input_tokens", Aggregate("SUM"), dimensions=["trace_name"])
    assert [point.values for point in tokens] == [{"SUM": 6.0}, {"SUM": 9.0}]
    cost = ask(ledger, number, "SPANS", "total_cost", Aggregate("SUM"), dimensions=["span_model_name"])
    assert sorted(cost, key=str) == [Point({"span_model_name": "m"}, {"SUM": 1.5}), Point({}, {"SUM": 0.0})]
    latency = ask(ledger, number, "SPANS", "latency", Aggregate("AVG"), Aggregate("PERCENTILE", 50.0))
    assert latency == [Point({}, {"AVG": 2.0, "P50.0": 2.0})]
    (said,) = ask(ledger, number, "ASSESSMENTS", "assessment_value", Aggregate("AVG"))
    assert said.values == {"AVG": pytest.approx((1 + 0 + 1 + 0.25) / 4)}
    (count,) = ask(ledger, number, "ASSESSMENTS", "assessment_count", filters=["assessment.name = 'good'"])
    assert count.values == {"COUNT": 6.0}


@pytest.mark.parametrize(
    ("filter", "count"),
    [
        ("trace.status = 'OK'", 3),
        ("trace.metadata.k = '4'", 1),
        ('trace.tag.`mlflow.traceName` = "n1"', 3),
        ("trace.tag.mlflow.traceName = 'n''1'", 0),
    ],
)
def test_filters(ledger: Ledger, number: int, filter: str, count: int) -> None:
    """Traces are chosen by state, tag and metadata."""
    (point,) = ask(ledger, number, "TRACES", "trace_count", filters=[filter]) or [Point({}, {"COUNT": 0.0})]
    assert point.values == {"COUNT": float(count)}


@pytest.mark.parametrize(
    ("view", "metric", "aggregate", "more", "words"),
    [
        ("RUNS", "x", "COUNT", {}, "view_type must be one of"),
        ("TRACES", "span_count", "COUNT", {}, "metric_name must be one of"),
        ("TRACES", "trace_count", "SUM", {}, "aggregation_type must be one of"),
        ("TRACES", "latency", "AVG", {"dimensions": ["trace_status"]}, "dimension must be one of"),
        ("TRACES", "trace_count", "COUNT", {"filters": ["span.name = 'a'"]}, "filter must be one of"),
        ("TRACES", "trace_count", "COUNT", {"filters": ["trace.tag = 'a'"]}, "requires a key"),
        ("TRACES", "trace_count", "COUNT", {"filters": ["trace.status.x = 'a'"]}, "does not require a key"),
        ("TRACES", "trace_count", "COUNT", {"filters": ["trace.status != 'a'"]}, "Invalid filter"),
        ("TRACES", "trace_count", "COUNT", {"filters": ["trace.status = 'a' OR 1=1"]}, "Invalid filter"),
    ],
)
def test_what_is_refused(
    ledger: Ledger, view: str, metric: str, aggregate: str, more: dict[str, Any], words: str
) -> None:
    """What is unknown, or does not go together, is named with what there is."""
    with pytest.raises(BadInput, match=words):
        trace_metrics(ledger, [1], view, metric, [Aggregate(aggregate)], **more)
