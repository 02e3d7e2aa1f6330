"""Checks of a table as data: what each one needs to have measured, and the verdict on what was measured.

Pure: the data room measures (all checks of a table in one query), this module plans and judges. A row-level
check asks how many rows fail its test; a table-level check looks at the number of rows, the columns, or an
estimate of distinct values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from trimtab.core.errors import BadInput
from trimtab.core.nouns import Check, Data, Status, Verdict

ROW_KINDS = frozenset({"unique", "missing", "between", "one_of", "matches", "where"})
SAMPLE = 5
# Three standard errors of the estimator of distinct values (HyperLogLog, 1.6 %; Flajolet et al. 2007).
DISTINCT_ERROR = 0.048


class Measure(Struct, frozen=True, kw_only=True):
    """One number that a check needs, as data.

    Attributes:
        check: the check's name.
        op: ``failing`` counts the rows that fail ``test``; ``distinct`` estimates the distinct values of
            ``columns``.
        test: the row predicate: the check's kind.
        columns: the columns that it looks at; empty when the condition itself names them.
        params: the check's arguments.
    """

    check: str
    op: Literal["failing", "distinct"]
    test: str
    columns: tuple[str, ...]
    params: Data


class Measured(Struct, frozen=True, kw_only=True):
    """What was measured over all rows of a version that was not published yet.

    Attributes:
        rows: how many rows were judged.
        columns: their columns, in order.
        failing: row-level check -> how many rows fail it.
        distinct: approximate check -> estimate of the distinct values.
        samples: row-level check -> what tells a few of the failing rows (at most ``SAMPLE``).
        failing_rows: how many rows fail at least one row-level check.
    """

    rows: int
    columns: tuple[str, ...]
    failing: dict[str, int] = field(default_factory=dict)
    distinct: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Data]] = field(default_factory=dict)
    failing_rows: int = 0


def is_row_check(check: Check) -> bool:
    """Say whether a check tells single rows that fail it."""
    return check.kind in ROW_KINDS and not check.params.get("approximate")


def removes_rows(check: Check) -> bool:
    """Say whether rows that fail the check stay out of a published version."""
    keeps = check.kind == "missing" and check.params.get("keep", True)
    return is_row_check(check) and check.severity == "fail" and not keeps


def plan_measures(checks: Sequence[Check]) -> list[Measure]:
    """Return what has to be measured for ``checks``, besides the number of rows and the columns.

    Raises:
        BadInput: two different checks have one name.
    """
    known: dict[str, Check] = {}
    found: list[Measure] = []
    for check in checks:
        if known.setdefault(check.name, check) is not check:
            if known[check.name] != check:
                raise BadInput(f"two checks are called {check.name!r}", where=check.name, fix="give one a name=")
            continue
        if check.kind not in ROW_KINDS:
            continue
        params = check.params
        columns = tuple(params.get("columns") or ([params["column"]] if "column" in params else ()))
        op: Literal["failing", "distinct"] = "failing" if is_row_check(check) else "distinct"
        found.append(Measure(check=check.name, op=op, test=check.kind, columns=columns, params=params))
    return found


def judge_table(checks: Sequence[Check], measured: Measured, *, at: datetime, subject: str = "") -> list[Verdict]:
    """Return a verdict for each check, in their order.

    A row-level check fails when the share of failing rows is greater than its ``at_most``; a table without
    rows has none. An approximate check fails only when the share lies beyond ``at_most`` by more than the
    estimator's error.

    Args:
        checks: table checks.
        measured: what was measured for them (see ``plan_measures``).
        at: event time of the judgement.
        subject: id of the version, if it has one yet.
    """
    verdicts = []
    for check in checks:
        good, reason, evidence = _judge(check, measured)
        status: Status = "pass" if good else "warn" if check.severity == "warn" else "fail"
        verdicts.append(
            Verdict(
                check=check.name,
                kind=check.kind,
                status=status,
                subject=subject,
                evidence=evidence,
                reason=reason,
                at=at,
            )
        )
    return verdicts


def quality(checks: Sequence[Check], verdicts: Sequence[Verdict], measured: Measured, *, bar: float) -> Data:
    """Return a version's quality: ``score``, the declared ``bar``, and ``distance`` = score - bar.

    The score is the share of rows that pass every row-level check (warnings and kept rows included) times
    the share of table-level checks that pass; without checks it is 1.

    Args:
        checks: the table's checks.
        verdicts: on them, in the same order.
        measured: what was measured.
        bar: what is aimed at, 0 to 1.
    """
    rows = 1.0 - measured.failing_rows / measured.rows if measured.rows else 1.0
    whole = [v.status == "pass" for c, v in zip(checks, verdicts, strict=True) if not is_row_check(c)]
    score = rows * (sum(whole) / len(whole) if whole else 1.0)
    return {"score": score, "bar": bar, "distance": score - bar}


def _judge(check: Check, found: Measured) -> tuple[bool, str, Data]:
    if check.kind == "row_count":
        return _row_count(check, found.rows)
    if check.kind == "columns":
        return _columns(check, found.columns)
    if check.name in found.distinct:
        return _approximate(check, found)
    rows, failing, limit = found.rows, found.failing[check.name], float(check.params["at_most"])
    share = failing / rows if rows else 0.0
    evidence: Data = {
        "rows": rows,
        "failing": failing,
        "share": share,
        "limit": limit,
        "sample": found.samples.get(check.name, [])[:SAMPLE],
        "quarantined": removes_rows(check),
    }
    if not failing:
        return True, f"none of {rows} rows fails", evidence
    return share <= limit, f"{failing} of {rows} rows fail ({share:.3%}); at most {limit:.3%} may", evidence


def _approximate(check: Check, found: Measured) -> tuple[bool, str, Data]:
    rows, limit = found.rows, float(check.params["at_most"])
    share = max(0.0, 1.0 - found.distinct[check.name] / rows) if rows else 0.0
    evidence: Data = {
        "rows": rows,
        "distinct": found.distinct[check.name],
        "share": share,
        "limit": limit,
        "error": DISTINCT_ERROR,
    }
    text = f"about {share:.1%} of {rows} rows repeat (give or take {DISTINCT_ERROR:.1%}); {limit:.3%} may"
    return share <= limit + DISTINCT_ERROR, text, evidence


def _row_count(check: Check, rows: int) -> tuple[bool, str, Data]:
    low, high = check.params["low"], check.params["high"]
    good = rows >= low and (high is None or rows <= high)
    wanted = f"at least {low}" if high is None else f"{low} to {high}"
    return good, f"{rows} rows; {wanted} wanted", {"rows": rows, "low": low, "high": high}


def _columns(check: Check, columns: Sequence[str]) -> tuple[bool, str, Data]:
    wanted: list[str] = list(check.params["columns"])
    absent = [name for name in wanted if name not in columns]
    extra = [name for name in columns if name not in wanted] if check.params["exactly"] else []
    parts = [f"{', '.join(absent)} missing"] if absent else []
    parts += [f"{', '.join(extra)} not expected"] if extra else []
    evidence: Data = {"missing": absent, "unexpected": extra, "columns": list(columns)}
    return not parts, "; ".join(parts) or "all columns are there", evidence


def told(rules: Mapping[str, int]) -> str:
    """Return counts by rule as text for a person, such as ``3 by unique(id)``."""
    return ", ".join(f"{count} by {name}" for name, count in rules.items() if count)
