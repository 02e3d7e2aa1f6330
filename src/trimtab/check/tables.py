"""Table checks as data: what each one measures, and the verdict on what was measured.

A row-level check measures how many rows fail it; the data room turns all of them into one query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from trimtab.core.nouns import Check, Data, Status, Verdict

ROW_KINDS = frozenset({"unique", "missing", "between", "one_of", "matches", "where"})


class Measured(Struct, frozen=True, kw_only=True):
    """What was measured for one check.

    Attributes:
        failing: rows that fail a row-level check, else 0.
        sample: keys of a few failing rows, as data.
        exact: False when ``failing`` is an estimate.
    """

    failing: int = 0
    sample: tuple[Data, ...] = ()
    exact: bool = True


def is_row_check(check: Check) -> bool:
    """Say whether a check speaks about single rows."""
    return check.kind in ROW_KINDS


def removes_rows(check: Check) -> bool:
    """Say whether rows that fail the check stay out of a published version."""
    if check.severity == "warn" or not is_row_check(check) or check.params.get("approximate"):
        return False
    return not (check.kind == "missing" and check.params.get("keep", True))


def judge_table(
    checks: Sequence[Check],
    measured: Mapping[str, Measured],
    *,
    rows: int,
    columns: Sequence[str],
    at: datetime,
    subject: str = "",
) -> list[Verdict]:
    """Return a verdict for each check, in their order.

    Args:
        checks: table checks.
        measured: check name -> what was measured; only for row-level checks.
        rows: of the whole version, failing ones included.
        columns: of the version.
        at: event time of the judgement.
        subject: id of the version, if it has one yet.
    """
    verdicts = []
    for check in checks:
        good, reason, evidence = _judge(check, measured.get(check.name, Measured()), rows, columns)
        status: Status = "pass" if good else ("warn" if check.severity == "warn" else "fail")
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


def _judge(check: Check, found: Measured, rows: int, columns: Sequence[str]) -> tuple[bool, str, Data]:
    if check.kind == "row_count":
        return _row_count(check, rows)
    if check.kind == "columns":
        return _columns(check, columns)
    limit = float(check.params["at_most"])
    share = found.failing / rows if rows else 0.0
    evidence: Data = {
        "rows": rows, "failing": found.failing, "share": share, "limit": limit, "sample": list(found.sample),
        "exact": found.exact,
    }  # fmt: skip
    good = share <= limit
    if found.failing == 0:
        return good, f"all {rows} rows hold", evidence
    text = f"{found.failing} of {rows} rows fail ({share:.3%}; at most {limit:.3%} may)"
    return good, text, evidence


def _row_count(check: Check, rows: int) -> tuple[bool, str, Data]:
    low, high = check.params["low"], check.params["high"]
    good = rows >= low and (high is None or rows <= high)
    wanted = f"at least {low}" if high is None else f"{low} to {high}"
    return good, f"{rows} rows, {wanted} wanted", {"rows": rows, "low": low, "high": high}


def _columns(check: Check, columns: Sequence[str]) -> tuple[bool, str, Data]:
    wanted = list(check.params["columns"])
    missing = [name for name in wanted if name not in columns]
    extra = [name for name in columns if name not in wanted] if check.params["exactly"] else []
    parts = [f"missing {', '.join(missing)}"] if missing else []
    parts += [f"not expected {', '.join(extra)}"] if extra else []
    evidence: Data = {"missing": missing, "extra": extra, "columns": list(columns)}
    return not parts, "; ".join(parts) or "all columns are there", evidence


def quality_score(verdicts: Sequence[Verdict], *, rows: int, failing_rows: int) -> float:
    """Return the share of rows that pass every row check times the share of checks that pass (0 to 1)."""
    if not verdicts:
        return 1.0
    passed = sum(verdict.status == "pass" for verdict in verdicts)
    clean = 1.0 - failing_rows / rows if rows else 1.0
    return clean * passed / len(verdicts)
