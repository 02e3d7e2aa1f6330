"""Verdicts of model gates: numbers in, a verdict with its evidence out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import check as ck
from trimtab.check.gates import accepts, judge_beats, judge_metric, no_champion, undecided
from trimtab.check.intervals import Interval
from trimtab.core.clock import parse_time
from trimtab.core.nouns import Check, Verdict

AT = parse_time("2026-01-01T00:00:00Z")
NUMBERS = st.floats(-10, 10)


def _interval(low: float, estimate: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, level=0.95, method="cluster bootstrap", rows=500, groups=21)


def _metric(check: Check, *ends: float) -> Verdict:
    return judge_metric(check, _interval(*ends), at=AT, subject="ver_1", facts={"from": "then"})


def _beats(check: Check, *ends: float, **facts: Any) -> Verdict:
    return judge_beats(check, _interval(*ends), at=AT, subject="ver_1", facts=facts)


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (ck.metric("auc", above=0.7), "pass"),
        (ck.metric("auc", above=0.75), "fail"),
        (ck.metric("auc", above=0.7, sure=True), "fail"),
        (ck.metric("auc", above=0.6, sure=True), "pass"),
        (ck.metric("log_loss", below=0.8), "pass"),
        (ck.metric("log_loss", below=0.8, sure=True), "fail"),
        (ck.metric("log_loss", below=0.9, sure=True), "pass"),
        (ck.metric("auc", above=0.9, severity="warn"), "warn"),
    ],
)
def test_a_metric_passes_beyond_its_limit(check: Check, status: str) -> None:
    """By its value; with sure= by the end of the interval that lies towards the limit."""
    verdict = _metric(check, 0.65, 0.75, 0.85)
    assert verdict.status == status and verdict.subject == "ver_1" and verdict.check == check.name
    assert verdict.evidence["interval"]["groups"] == 21 and verdict.evidence["from"] == "then"
    assert "0.7500 [0.6500, 0.8500] on 500 rows" in verdict.reason


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS).map(sorted), NUMBERS)
def test_a_gain_passes_when_its_lower_end_exceeds_the_margin(ends: list[float], margin: float) -> None:
    """Whichever way the metric is better, the gain's lower end decides, strictly."""
    low, middle, high = ends
    better_up = _beats(ck.beats(on="auc", margin=margin), low, middle, high)
    assert (better_up.status == "pass") == (low > margin)
    better_down = _beats(ck.beats(on="log_loss", margin=margin), low, middle, high)
    assert (better_down.status == "pass") == (-high > margin)
    assert better_down.evidence["gain"]["estimate"] == -middle


def test_the_reason_names_the_champion_and_the_interval() -> None:
    """A person reads what was compared, by how much, on how many rows, and what would have been needed."""
    verdict = _beats(ck.beats(on="auc", margin=0.01), -0.02, 0.03, 0.08, champion="delays:3")
    assert verdict.reason == (
        "gain in auc over delays:3 is +0.0300 [-0.0200, +0.0800] on 500 rows; its lower end does not exceed 0.01"
    )
    assert verdict.evidence["champion"] == "delays:3" and verdict.evidence["gain"]["level"] == 0.95


def test_inconclusive_refuses_and_warnings_do_not() -> None:
    """A gate lets through what passes or merely warns; a check that only warns never refuses."""
    strict, mild = ck.beats(on="auc"), ck.beats(on="auc", severity="warn")
    passed = no_champion(strict, at=AT, subject="ver_1")
    unknown = undecided(strict, "too few rows", at=AT, subject="ver_1", facts={"rows": 3})
    warned = undecided(mild, "too few rows", at=AT, subject="ver_1", facts={})
    assert (passed.status, unknown.status, warned.status) == ("pass", "inconclusive", "warn")
    assert unknown.evidence == {"rows": 3} and unknown.reason == "too few rows"
    assert accepts([passed, warned]) and not accepts([passed, unknown]) and accepts([])
