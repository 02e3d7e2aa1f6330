"""Judging tables: verdicts with evidence from plain numbers, and the quality score."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab import check as ck
from trimtab.check.tables import (
    DISTINCT_ERROR,
    Measured,
    is_row_check,
    judge_table,
    plan_measures,
    quality,
    removes_rows,
)
from trimtab.core.errors import BadInput
from trimtab.core.nouns import Check, Verdict

AT = datetime(2024, 1, 1, tzinfo=UTC)


def judge(check: Check, **found: object) -> Verdict:
    """Return the verdict of one check on a table of 100 rows."""
    measured = Measured(**{"rows": 100, "columns": ("id", "x"), **found})  # type: ignore[arg-type]
    return judge_table([check], measured, at=AT, subject="ver_1")[0]


def test_measures_are_data() -> None:
    """Each row-level check counts failing rows of its columns; whole-table checks need nothing more."""
    checks = [ck.unique("id", "x"), ck.between("x", 0, 1), ck.where("x > id"), ck.row_count(), ck.columns("id")]
    found = plan_measures([*checks, ck.unique("id", approximate=True)])
    assert [(one.check, one.op, one.test, one.columns) for one in found] == [
        ("unique(id, x)", "failing", "unique", ("id", "x")),
        ("between(x, 0, 1)", "failing", "between", ("x",)),
        ("where(x > id)", "failing", "where", ()),
        ("unique(id)", "distinct", "unique", ("id",)),
    ]
    with pytest.raises(BadInput, match="two checks"):
        plan_measures([ck.unique("id"), ck.unique("id", at_most=0.5)])


@pytest.mark.parametrize(
    ("check", "row", "removes"),
    [
        (ck.unique("id"), True, True),
        (ck.unique("id", approximate=True), False, False),
        (ck.unique("id", severity="warn"), True, False),
        (ck.missing("x"), True, False),
        (ck.missing("x", keep=False), True, True),
        (ck.where("x > 1"), True, True),
        (ck.row_count(), False, False),
        (ck.columns("id"), False, False),
    ],
)
def test_which_checks_tell_and_remove_rows(check: Check, row: bool, removes: bool) -> None:
    """Warnings and kept missing values tell rows and remove none."""
    assert (is_row_check(check), removes_rows(check)) == (row, removes)


@given(failing=st.integers(0, 100), limit=st.floats(0, 1))
def test_a_row_check_fails_exactly_beyond_its_share(failing: int, limit: float) -> None:
    """The share of failing rows may be as large as `at_most`, and no larger."""
    check = ck.between("x", 0, 1, at_most=limit)
    verdict = judge(check, failing={check.name: failing}, samples={check.name: [{"id": n} for n in range(9)]})
    assert verdict.status == ("pass" if failing / 100 <= limit else "fail")
    assert verdict.evidence["share"] == failing / 100 and verdict.evidence["limit"] == limit
    assert len(verdict.evidence["sample"]) == 5 and verdict.subject == "ver_1" and verdict.at == AT
    warned = judge(ck.between("x", 0, 1, at_most=limit, severity="warn"), failing={check.name: failing})
    assert warned.status == ("pass" if verdict.status == "pass" else "warn")


def test_a_table_without_rows_has_no_failing_share() -> None:
    """Row checks pass on nothing; the number of rows is what refuses it."""
    assert judge(ck.unique("id"), rows=0, failing={"unique(id)": 0}).status == "pass"
    assert judge(ck.row_count(), rows=0).status == "fail"


@pytest.mark.parametrize(
    ("check", "rows", "status"),
    [
        (ck.row_count(), 1, "pass"),
        (ck.row_count(2), 1, "fail"),
        (ck.row_count(1, 5), 5, "pass"),
        (ck.row_count(1, 5), 6, "fail"),
        (ck.row_count(0), 0, "pass"),
        (ck.row_count(9, severity="warn"), 1, "warn"),
    ],
)
def test_number_of_rows(check: Check, rows: int, status: str) -> None:
    """Both ends are allowed."""
    verdict = judge(check, rows=rows)
    assert verdict.status == status and str(rows) in verdict.reason


def test_columns() -> None:
    """Missing columns are named; others only when the list is exact."""
    assert judge(ck.columns("id")).status == "pass"
    assert judge(ck.columns("id", "y")).reason == "y missing"
    exact = judge(ck.columns("id", exactly=True))
    assert (exact.status, exact.evidence["unexpected"]) == ("fail", ["x"])


def test_an_estimate_fails_only_beyond_its_error() -> None:
    """The estimator's error alone never refuses a table."""
    check = ck.unique("id", approximate=True)
    for distinct, status in ((103, "pass"), (100, "pass"), (96, "pass"), (90, "fail")):
        verdict = judge(check, distinct={check.name: distinct})
        assert verdict.status == status and verdict.evidence["error"] == DISTINCT_ERROR


def test_quality_is_rows_times_whole_table_checks() -> None:
    """A tenth of the rows fail and one of two whole-table checks: 0.9 times 0.5, told against the bar."""
    checks = [ck.missing("x", at_most=0.5), ck.row_count(1), ck.columns("nope", severity="warn")]
    measured = Measured(rows=100, columns=("id", "x"), failing={"missing(x)": 10}, failing_rows=10)
    verdicts = judge_table(checks, measured, at=AT)
    assert quality(checks, verdicts, measured, bar=0.8) == {
        "score": pytest.approx(0.45), "bar": 0.8, "distance": pytest.approx(-0.35),
    }  # fmt: skip
    assert quality([], [], Measured(rows=0, columns=()), bar=0.0)["score"] == 1.0
