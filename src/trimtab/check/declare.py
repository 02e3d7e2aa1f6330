"""Constructors of checks: what a project writes as ``ck.unique("id")`` is data until a room judges it.

Table checks look at rows or at a whole version; ``at_most`` is the largest share of failing rows with which
the version is still published, and failing rows never enter it: they go to ``NAME.quarantine`` with the
reason. Gate checks judge a model candidate. Rollout checks judge a new deployment against the old one.
Monitor checks watch an endpoint's calls and labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from trimtab.core.clock import parse_duration
from trimtab.core.digest import canonical
from trimtab.core.errors import ProjectError, WrongUse
from trimtab.core.metric import metric as metric_named
from trimtab.core.nouns import Check
from trimtab.core.place import caller

TABLE_KINDS = frozenset({"unique", "missing", "between", "one_of", "matches", "where", "row_count", "columns"})
GATE_KINDS = frozenset({"metric", "beats"})
ROLLOUT_KINDS = frozenset({"errors", "latency", "outcome"})
MONITOR_KINDS = frozenset({"drift", "performance"})
Severity = Literal["fail", "warn"]


def _make(kind: str, label: str, severity: Severity, **params: Any) -> Check:
    if severity not in ("fail", "warn"):
        raise ProjectError(f"severity={severity!r} is unknown", where=caller(), fix="'fail' or 'warn'")
    try:
        canonical(params)
    except WrongUse as error:
        raise ProjectError(where=caller(), message=f"ck.{kind}: {error.message}", fix=error.fix) from error
    return Check(name=f"{kind}({label})", kind=kind, params=params, severity=severity)


def _share(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ProjectError(
            where=caller(),
            message=f"{name}={value!r} is not a share between 0 and 1",
            fix=f"such as {name}=0.01",
        )
    return float(value)


def _columns(columns: tuple[str, ...], kind: str) -> list[str]:
    if not columns or not all(isinstance(column, str) for column in columns):
        raise ProjectError(where=caller(), message=f"ck.{kind} takes column names", fix=f"such as ck.{kind}('id')")
    return list(columns)


def unique(*columns: str, at_most: float = 0.0, approximate: bool = False, severity: Severity = "fail") -> Check:
    """Check that no two rows agree in ``columns``; of rows that do, all but the first are failing rows.

    Args:
        columns: the columns that together name a row.
        at_most: the largest share of failing rows with which a version is still published.
        approximate: count distinct values by HyperLogLog (about 1.6 % off) and judge only the share; then
            no single row is told and none is quarantined.
        severity: ``warn`` only tells.
    """
    names = _columns(columns, "unique")
    share = _share(at_most, "at_most")
    return _make("unique", ", ".join(names), severity, columns=names, at_most=share, approximate=approximate)


def missing(column: str, *, at_most: float = 0.0, keep: bool = True, severity: Severity = "fail") -> Check:
    """Check how many values of ``column`` are missing (null, or NaN).

    Args:
        column: the column.
        at_most: the largest share of missing values with which a version is still published.
        keep: rows with a missing value stay in the version; False sends them to quarantine.
        severity: ``warn`` only tells.
    """
    share = _share(at_most, "at_most")
    return _make("missing", column, severity, column=column, at_most=share, keep=keep)


def between(
    column: str, low: Any = None, high: Any = None, *, at_most: float = 0.0, severity: Severity = "fail"
) -> Check:
    """Check that values lie between ``low`` and ``high``, both included; missing values pass."""
    if low is None and high is None:
        raise ProjectError(
            where=caller(),
            message="ck.between takes low, high or both",
            fix=f"ck.between({column!r}, 0, 100)",
        )
    share = _share(at_most, "at_most")
    return _make("between", f"{column}, {low}, {high}", severity, column=column, low=low, high=high, at_most=share)


def one_of(column: str, values: Sequence[Any], *, at_most: float = 0.0, severity: Severity = "fail") -> Check:
    """Check that values are among ``values``; missing values pass."""
    share = _share(at_most, "at_most")
    return _make("one_of", column, severity, column=column, values=list(values), at_most=share)


def matches(column: str, pattern: str, *, at_most: float = 0.0, severity: Severity = "fail") -> Check:
    """Check that texts match the regular expression ``pattern`` from start to end; missing values pass."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ProjectError(
            where=caller(), message=f"ck.matches: {pattern!r} is no regular expression: {error}"
        ) from error
    share = _share(at_most, "at_most")
    return _make("matches", f"{column}, {pattern}", severity, column=column, pattern=pattern, at_most=share)


def where(condition: str, *, name: str = "", at_most: float = 0.0, severity: Severity = "fail") -> Check:
    """Check a SQL condition over a row's columns, such as ``"arr_time is null or dep_time is not null"``.

    A row for which the condition is null passes, as in SQL's own check constraints.
    """
    share = _share(at_most, "at_most")
    return _make("where", name or condition, severity, condition=condition, at_most=share)


def row_count(low: int = 1, high: int | None = None, *, severity: Severity = "fail") -> Check:
    """Check that a version has at least ``low`` and at most ``high`` rows."""
    return _make("row_count", f"{low}, {high}", severity, low=low, high=high)


def columns(*names: str, exactly: bool = False, severity: Severity = "fail") -> Check:
    """Check that the columns are there; with ``exactly`` that there are no others."""
    wanted = _columns(names, "columns")
    return _make("columns", ", ".join(wanted), severity, columns=wanted, exactly=exactly)


def metric(
    name: str,
    *,
    above: float | None = None,
    below: float | None = None,
    sure: bool = False,
    severity: Severity = "fail",
) -> Check:
    """Check a model's metric on rows that it was not trained on.

    Args:
        name: such as ``auc`` or ``log_loss``.
        above: the value must be greater.
        below: the value must be smaller.
        sure: the whole 95 % interval must lie beyond the limit, not only the value.
        severity: ``warn`` only tells.
    """
    metric_named(name)
    if (above is None) == (below is None):
        raise ProjectError(
            where=caller(), message="ck.metric takes above or below", fix=f"ck.metric({name!r}, above=0.7)"
        )
    limit = f"above {above}" if above is not None else f"below {below}"
    return _make("metric", f"{name} {limit}", severity, metric=name, above=above, below=below, sure=sure)


def beats(
    champion: str = "",
    *,
    on: str,
    margin: float = 0.0,
    level: float = 0.95,
    minimum: int = 200,
    severity: Severity = "fail",
) -> Check:
    """Check that a candidate is better than the champion on the same rows, newer than both were trained on.

    Args:
        champion: a reference such as ``delays@champion``; by default the model's own champion.
        on: the metric; its direction is part of its definition.
        margin: the gain whose lower interval end must be exceeded.
        level: of the paired interval.
        minimum: with fewer rows than this the verdict is inconclusive, which refuses.
        severity: ``warn`` only tells.
    """
    metric_named(on)
    _share(level, "level")
    label = f"{champion or 'champion'} on {on}"
    return _make("beats", label, severity, champion=champion, on=on, margin=float(margin), level=level, minimum=minimum)


def errors() -> Check:
    """Judge a rollout by answers that failed: status 500 and above, and timeouts."""
    return _make("errors", "5xx", "fail")


def latency(limit: str = "1s") -> Check:
    """Judge a rollout by answers slower than ``limit``, a duration such as ``250ms``."""
    parse_duration(limit)
    return _make("latency", limit, "fail", limit=limit)


def outcome(label: str = "", *, threshold: float = 0.5) -> Check:
    """Judge a rollout by predictions that turn out wrong when their label arrives.

    Args:
        label: the label's name, for people.
        threshold: a binary score at or above it counts as a positive prediction.
    """
    return _make("outcome", label or "wrong", "fail", threshold=threshold)


def drift(
    calls: str,
    *,
    against: Literal["training"] = "training",
    false_alarms: str | float = "1/year",
    material: float = 0.05,
    columns: Sequence[str] | None = None,
    batch: int = 100,
    block: str = "",
) -> Check:
    """Watch the inputs and predictions of an endpoint's calls for drift from what the model was trained on.

    Args:
        calls: the calls table, such as ``delay_api.calls``.
        against: the reference; the training rows of the version that answers.
        false_alarms: the budget: ``N/year`` (or ``/month``, ``/week``, ``/day``) of event time, or the
            probability of ever raising a false alarm.
        material: how large a shift is tolerated, in AUC units (P(new > reference) - 1/2).
        columns: the inputs to watch; by default all, and the prediction.
        batch: rows that make one look.
        block: a length of event time such as ``1d`` whose rows are alike; all rows of one block then count
            as a single observation, which keeps the budget where rows of one day depend on each other.
    """
    name = calls if not columns else f"{calls}, {', '.join(columns)}"
    return _make(
        "drift",
        name,
        "fail",
        calls=calls,
        against=against,
        false_alarms=_budget(false_alarms),
        material=_share(material, "material"),
        columns=list(columns) if columns else None,
        batch=int(batch),
        block=_length(block),
    )


def performance(
    endpoint: str,
    *,
    on: Literal["brier", "error_rate", "log_loss"] = "brier",
    false_alarms: str | float = "1/year",
    material: float = 0.02,
    batch: int = 100,
    block: str = "",
) -> Check:
    """Watch the live loss of an endpoint's predictions as their labels arrive.

    Args:
        endpoint: its name.
        on: the loss of one row; ``log_loss`` is clipped and scaled to [0, 1].
        false_alarms: as in ``drift``.
        material: how much worse than on the held-back rows is tolerated, in units of the loss.
        batch: labelled rows that make one look.
        block: as in ``drift``.
    """
    if on not in ("brier", "error_rate", "log_loss"):
        raise ProjectError(
            where=caller(), message=f"ck.performance cannot watch {on!r}", fix="brier, error_rate or log_loss"
        )
    return _make(
        "performance",
        f"{endpoint} on {on}",
        "fail",
        endpoint=endpoint,
        on=on,
        false_alarms=_budget(false_alarms),
        material=_share(material, "material"),
        batch=int(batch),
        block=_length(block),
    )


def _length(text: str) -> str:
    if text:
        try:
            parse_duration(text)
        except WrongUse as error:
            raise ProjectError(where=caller(), message=f"block={error.message}", fix=error.fix) from error
    return text


PERIODS = {"day": "1d", "week": "7d", "month": "30d", "quarter": "91d", "year": "365d"}


def _budget(value: str | float) -> str | float:
    if isinstance(value, str):
        count, _, period = value.partition("/")
        try:
            good = float(count) > 0 and period in PERIODS
        except ValueError:
            good = False
        if not good:
            raise ProjectError(
                where=caller(),
                message=f"false_alarms={value!r} is no budget",
                fix="such as '1/year', '2/month' or 0.05",
            )
        return value
    return _share(value, "false_alarms")
