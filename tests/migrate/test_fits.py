"""What does not fit is named and left out."""

from __future__ import annotations

import pytest

from trimtab.migrate.fits import Measured, fitting, why_not
from trimtab.migrate.report import Report
from trimtab.store.points import Point


def test_names_and_values_are_left_out_and_never_cut() -> None:
    """A value that is too long or a name of other characters is told of; the others stay."""
    report = Report()
    items = {"ok": "x" * 10, "long": "x" * 11, "odd$": "1", "../up": "1", "zero": "a\0b", "n" * 251: "1"}
    assert fitting(report, "run r", "param", items, 10) == {"ok": "x" * 10}
    assert [(one.why, one.what) for one in report.problems] == [("refused", "param")] * 5 and not report.ok
    assert report.problems[0].ident == "run r long" and "10" in report.problems[0].reason


def test_a_metric_is_told_of_once() -> None:
    """Points of a name that does not fit are left out, and told of once for all of them."""
    report = Report()
    measured = Measured(report, "run r")
    points = [Point(name, 1.0, step, 0) for step in range(3) for name in ("ok", "odd$")]
    assert [point.name for point in measured.fitting(points)] == ["ok"] * 3
    assert measured.fitting(points[1:2]) == [] and len(report.problems) == 1


@pytest.mark.parametrize(
    ("ident", "kind", "at", "word"),
    [("a" * 32, "run", 5, ""), ("A" * 32, "run", 5, "id"), (f"m-{'a' * 32}", "model", 5, ""), ("m-1", "model", 5, "id"),
     ("a" * 32, "run", -1, "time"), ("a" * 32, "run", 1 << 60, "time")],
)  # fmt: skip
def test_ids_and_times(ident: str, kind: str, at: int, word: str) -> None:
    """Ids and times that the store cannot keep are refused in words."""
    found = why_not(ident, kind, at, None)
    assert word in found and bool(found) == bool(word)
