"""What a move did."""

from __future__ import annotations

from trimtab.migrate.report import MOST, Report


def test_what_is_left_where_it_is_is_no_fault() -> None:
    """A report is well until something is refused, differs or is in the way; problems are named up to a number."""
    report = Report()
    report.tell("left", "files", "s3://bucket", "not copied")
    report.seen["runs"] += 1
    report.renumbered = {1: 1, 2: 5}
    assert report.ok and report.as_data()["renumbered"] == {"2": 5}
    assert report.as_data()["counts"] == {"runs": {"there": 1, "copied": 0, "already": 0}}
    for number in range(MOST):
        report.tell("conflict", "run", str(number), "other")
    assert len(report.problems) == MOST
    told = report.as_data()
    assert (told["ok"], told["problems_not_named"]) == (False, 1)
