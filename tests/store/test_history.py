"""Histories of metrics, whole and down to what a plot can show, on both databases."""

from __future__ import annotations

import itertools
import math
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import NotFound
from trimtab.store import tracking
from trimtab.store.history import Bucket, buckets, histories, history, sampled
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.points import Point


def _run(ledger: Ledger, points: list[Point]) -> str:
    def make(tx: Tx) -> str:
        if not tx.query("SELECT 1 FROM experiment"):
            tracking.create_experiment(tx, "e", root="r", tags={}, now_ms=0, number=0)
        run = tracking.create_run(tx, experiment=0, name="r", user_id="", start_ms=0, tags={})
        tracking.log(tx, run.id, points=points)
        return run.id

    return ledger.write(make, what="test")


def test_pages(ledger: Ledger) -> None:
    """A history goes on after the place of any of its points, also one that is no plain number."""
    values = [math.nan, -0.0, 0.0, math.inf, -math.inf, 1.0]
    ident = _run(ledger, [Point("m", value, 0, 5) for value in values] + [Point("m", 2.0, 1, 4)])
    whole = history(ledger, ident, "m")
    assert len(whole) == 7 and whole[0].value == 2.0
    assert [history(ledger, ident, "m", most=2)] == [whole[:2]]
    with pytest.raises(NotFound):
        history(ledger, "f" * 32, "m")
    assert history(ledger, ident, "other") == []


def test_several_runs(ledger: Ledger) -> None:
    """Histories of several runs come by run, and steps that all of them share are chosen for a plot."""
    one = _run(ledger, [Point("m", float(step), step, step) for step in range(1000)])
    two = _run(ledger, [Point("m", -1.0, 3, 0)])
    found = histories(ledger, [two, one, "f" * 32], "m", most=2000)
    assert len(found) == 1001 and {ident for ident, _ in found} == {one, two}
    assert len(histories(ledger, [one, two], "m", most=10)) == 10
    chosen = sampled(ledger, [one, two], "m", most=10)
    steps = [point.step for ident, point in chosen if ident == one]
    assert steps[0] == 0 and steps[-1] == 999 and len(steps) <= 13 and (two, Point("m", -1.0, 3, 0)) in chosen
    assert [point.step for _, point in sampled(ledger, [one], "m", most=10, steps=(5, 8))] == [5, 6, 7, 8]
    assert sampled(ledger, [two], "none", most=3) == []


def _expected(points: list[Point]) -> tuple[float | None, float | None, int]:
    numbers = [point.value for point in points if point.value == point.value]
    return min(numbers, default=None), max(numbers, default=None), len(points)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 50), st.sampled_from([-(1 << 63), (1 << 63) - 1])),
            st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, -0.0]),
        ),
        min_size=1,
        max_size=60,
        unique_by=lambda item: item[0],
    ),
    st.integers(1, 12),
)
def test_no_peak_is_lost(given_points: list[tuple[int, float]], most: int) -> None:
    """However few the ranges, they hold every point, the extremes among them, and the last one as it was."""
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"{folder}/ledger.db", actor="tester") as ledger:
        points = [Point("m", value, step, 0) for step, value in given_points]
        found = buckets(ledger, f"run_{_run(ledger, points)}", "m", most=most)
    assert len(found) <= most
    low, high, count = _expected(points)
    assert sum(one.count for one in found) == count
    assert min((one.low for one in found if one.low is not None), default=None) == low
    assert max((one.high for one in found if one.high is not None), default=None) == high
    last = max(points, key=lambda point: point.step).value
    assert found[-1].last == last or (last != last and found[-1].last != found[-1].last)
    assert all(one.last_step < two.first for one, two in itertools.pairwise(found))


def test_ranges_of_steps(ledger: Ledger) -> None:
    """Each range tells its steps, count, least, greatest and last value."""
    ident = _run(ledger, [Point("m", float(step % 10), step, step) for step in range(100)])
    found = buckets(ledger, f"run_{ident}", "m", most=10)
    assert len(found) == 10 and {(one.low, one.high) for one in found} == {(0.0, 9.0)}
    assert buckets(ledger, f"run_{ident}", "m", most=2, steps=(10, 11)) == [
        Bucket(first=10, last_step=10, count=1, low=0.0, high=0.0, last=0.0),
        Bucket(first=11, last_step=11, count=1, low=1.0, high=1.0, last=1.0),
    ]
    assert buckets(ledger, f"run_{ident}", "none", most=2) == []
    with pytest.raises(NotFound):
        buckets(ledger, ident, "m", most=2)
