"""Constructors of checks: what a project writes as ``ck.unique("id")`` is data until a room judges it.

Table checks look at rows or at a whole version; ``at_most`` is the largest share of failing rows with which
the version is still published, and failing rows never enter it: they go to ``NAME.quarantine`` with the
reason. Gate checks judge a model candidate. Rollout checks judge a new deployment against the old one.
Monitor checks watch an endpoint's calls and labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from trimtab.core import options
from trimtab.core.clock import parse_time
from trimtab.core.digest import canonical
from trimtab.core.errors import ProjectError, WrongUse
from trimtab.core.metric import METRICS
from trimtab.core.nouns import Check
from trimtab.core.options import MONITOR_KINDS as MONITOR_KINDS
from trimtab.core.options import ROLLOUT_KINDS as ROLLOUT_KINDS
from trimtab.core.place import caller

TABLE_KINDS = frozenset({"unique", "missing", "between", "one_of", "matches", "where", "row_count", "columns"})
GATE_KINDS = frozenset({"metric", "beats"})
Severity = Literal["fail", "warn"]


def _make(kind: str, label: str, severity: Severity, **params: Any) -> Check:
    options.option(severity, f"ck.{kind}: severity", ("fail", "warn"))
    try:
        canonical(params)
    except WrongUse as error:
        raise ProjectError(where=caller(), message=f"ck.{kind}: {error.message}", fix=error.fix) from error
    return Check(name=f"{kind}({label})", kind=kind, params=params, severity=severity)


def _columns(columns: tuple[Any, ...], kind: str) -> list[str]:
    if not columns:
        raise ProjectError(where=caller(), message=f"ck.{kind}: no columns are named", fix=f"such as ck.{kind}('id')")
    for column in columns:
        if isinstance(column, list | tuple):
            raise options.wrong(f"ck.{kind}: columns", column, "is a list", fix=f"one by one: ck.{kind}('a', 'b')")
    return [_column(column, kind, "columns") for column in columns]


def _column(value: Any, kind: str, name: str = "column") -> str:
    return options.text(value, f"ck.{kind}: {name}", empty=False)


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
    share = options.share(at_most, "ck.unique: at_most")
    options.flag(approximate, "ck.unique: approximate")
    return _make("unique", ", ".join(names), severity, columns=names, at_most=share, approximate=approximate)


def missing(column: str, *, at_most: float = 0.0, keep: bool = True, severity: Severity = "fail") -> Check:
    """Check how many values of ``column`` are missing (null, or NaN).

    Args:
        column: the column.
        at_most: the largest share of missing values with which a version is still published.
        keep: rows with a missing value stay in the version; False sends them to quarantine.
        severity: ``warn`` only tells.
    """
    _column(column, "missing")
    share = options.share(at_most, "ck.missing: at_most")
    options.flag(keep, "ck.missing: keep")
    return _make("missing", column, severity, column=column, at_most=share, keep=keep)


def between(
    column: str, low: Any = None, high: Any = None, *, at_most: float = 0.0, severity: Severity = "fail"
) -> Check:
    """Check that values lie between ``low`` and ``high``, both included; missing values pass."""
    _column(column, "between")
    if low is None and high is None:
        raise ProjectError(
            where=caller(),
            message="ck.between takes low, high or both",
            fix=f"ck.between({options.show(column)}, 0, 100)",
        )
    _check_bounds(low, high)
    share = options.share(at_most, "ck.between: at_most")
    return _make("between", f"{column}, {low}, {high}", severity, column=column, low=low, high=high, at_most=share)


def one_of(column: str, values: Sequence[Any], *, at_most: float = 0.0, severity: Severity = "fail") -> Check:
    """Check that values are among ``values``; missing values pass."""
    _column(column, "one_of")
    wanted = options.listed(values, "ck.one_of: values", such_as="['a', 'b']")
    if not wanted:
        raise options.wrong("ck.one_of: values", values, "has no value in it", fix="such as ['a', 'b']")
    for value in wanted:
        if isinstance(value, int | float) and not isinstance(value, bool):
            options.number(value, "ck.one_of: values: an item")
        elif value is not None and not isinstance(value, bool | str | datetime):
            why = f"has {options.show(value)} in it"
            raise options.wrong("ck.one_of: values", values, why, fix="give numbers, texts, truths or times")
    share = options.share(at_most, "ck.one_of: at_most")
    return _make("one_of", column, severity, column=column, values=wanted, at_most=share)


def matches(column: str, pattern: str, *, at_most: float = 0.0, severity: Severity = "fail") -> Check:
    """Check that texts match the regular expression ``pattern`` from start to end; missing values pass."""
    _column(column, "matches")
    options.text(pattern, "ck.matches: pattern")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        why = f"is no regular expression: {error}"
        raise options.wrong("ck.matches: pattern", pattern, why, fix=r"such as '[A-Z]{3}\d+'") from error
    share = options.share(at_most, "ck.matches: at_most")
    return _make("matches", f"{column}, {pattern}", severity, column=column, pattern=pattern, at_most=share)


def where(condition: str, *, name: str = "", at_most: float = 0.0, severity: Severity = "fail") -> Check:
    """Check a SQL condition over a row's columns, such as ``"arr_time is null or dep_time is not null"``.

    A row for which the condition is null passes, as in SQL's own check constraints.
    """
    options.text(condition, "ck.where: condition", empty=False)
    options.text(name, "ck.where: name")
    share = options.share(at_most, "ck.where: at_most")
    return _make("where", name or condition, severity, condition=condition, at_most=share)


def row_count(low: int = 1, high: int | None = None, *, severity: Severity = "fail") -> Check:
    """Check that a version has at least ``low`` and at most ``high`` rows."""
    options.whole(low, "ck.row_count: low", low=0)
    if high is not None and options.whole(high, "ck.row_count: high", low=0) < low:
        raise options.wrong(
            "ck.row_count: high", high, f"is below low={low}", fix=f"such as ck.row_count({high}, {low})"
        )
    return _make("row_count", f"{low}, {high}", severity, low=low, high=high)


def columns(*names: str, exactly: bool = False, severity: Severity = "fail") -> Check:
    """Check that the columns are there; with ``exactly`` that there are no others."""
    wanted = _columns(names, "columns")
    options.flag(exactly, "ck.columns: exactly")
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
    options.option(name, "ck.metric: name", sorted(METRICS))
    if (above is None) == (below is None):
        raise ProjectError(
            where=caller(), message="ck.metric takes above or below", fix=f"ck.metric({name!r}, above=0.7)"
        )
    for side, value in (("above", above), ("below", below)):
        if value is not None:
            options.number(value, f"ck.metric: {side}")
    options.flag(sure, "ck.metric: sure")
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
    options.text(champion, "ck.beats: champion")
    options.option(on, "ck.beats: on", sorted(METRICS))
    return _make(
        "beats",
        f"{champion or 'champion'} on {on}",
        severity,
        champion=champion,
        on=on,
        margin=options.number(margin, "ck.beats: margin"),
        level=options.number(level, "ck.beats: level", low=0, high=1, inside=True),
        minimum=options.whole(minimum, "ck.beats: minimum", low=0),
    )


def errors() -> Check:
    """Judge a rollout by answers that failed: status 500 and above, and timeouts."""
    return _make("errors", "5xx", "fail")


def latency(limit: str = "1s") -> Check:
    """Judge a rollout by answers slower than ``limit``, a duration such as ``250ms``."""
    wanted = options.duration(limit, "ck.latency: limit", positive=True)
    return _make("latency", wanted, "fail", limit=wanted)


def outcome(label: str = "", *, threshold: float = 0.5) -> Check:
    """Judge a rollout by predictions that turn out wrong when their label arrives.

    Args:
        label: the label's name, for people.
        threshold: a binary score at or above it counts as a positive prediction.
    """
    options.text(label, "ck.outcome: label")
    return _make("outcome", label or "wrong", "fail", threshold=options.share(threshold, "ck.outcome: threshold"))


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
    options.text(calls, "ck.drift: calls", empty=False)
    options.option(against, "ck.drift: against", ("training",))
    watched = None if columns is None else options.texts(columns, "ck.drift: columns")
    if watched == []:
        raise options.wrong("ck.drift: columns", columns, "names no column", fix="leave it out to watch all")
    return _make(
        "drift",
        ", ".join([calls, *(watched or ())]),
        "fail",
        calls=calls,
        against=against,
        false_alarms=_budget(false_alarms, "drift"),
        material=_material(material, "drift"),
        columns=watched,
        batch=options.whole(batch, "ck.drift: batch", low=1),
        block=_length(block, "drift"),
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
    options.text(endpoint, "ck.performance: endpoint", empty=False)
    options.option(on, "ck.performance: on", ("brier", "error_rate", "log_loss"))
    return _make(
        "performance",
        f"{endpoint} on {on}",
        "fail",
        endpoint=endpoint,
        on=on,
        false_alarms=_budget(false_alarms, "performance"),
        material=options.share(material, "ck.performance: material"),
        batch=options.whole(batch, "ck.performance: batch", low=1),
        block=_length(block, "performance"),
    )


def _check_bounds(low: Any, high: Any) -> None:
    groups = {name: _group(value, name) for name, value in (("low", low), ("high", high)) if value is not None}
    if len(groups) < 2:
        return
    if len(set(groups.values())) > 1:
        raise options.wrong(
            "ck.between: high",
            high,
            f"is of another type than low={options.show(low)}",
            fix="both as the column's type",
        )
    if _crossed(low, high):
        what = "(texts are compared letter by letter)" if isinstance(low, str) else ""
        raise options.wrong(
            "ck.between: high", high, f"is below low={options.show(low)} {what}".rstrip(), fix="low first, then high"
        )


def _crossed(low: Any, high: Any) -> bool:
    try:
        # A column of texts compares letter by letter, a column of times the times: both must find low above high.
        return bool(low > high) and (not isinstance(low, str) or parse_time(low) > parse_time(high))
    except TypeError:  # a time and a text, or a time with and one without zone: only the column can tell
        return False
    except WrongUse:
        return True


def _group(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        options.number(value, f"ck.between: {name}")
        return "number"
    if not isinstance(value, str | datetime):
        why = f"is a {type(value).__name__}"
        raise options.wrong(f"ck.between: {name}", value, why, fix="a number, a text or a time such as '2024-01-31'")
    return "text or time"


def _length(text: str, kind: str) -> str:
    return "" if text == "" else options.duration(text, f"ck.{kind}: block", positive=True)


PERIODS = {"day": "1d", "week": "7d", "month": "30d", "quarter": "91d", "year": "365d"}


def _material(value: float, kind: str) -> float:
    found = options.share(value, f"ck.{kind}: material")
    if found == 1:
        raise options.wrong(f"ck.{kind}: material", value, "tolerates every shift", fix="such as material=0.05")
    return found


def _budget(value: str | float, kind: str) -> str | float:
    if isinstance(value, str):
        count, _, period = value.partition("/")
        try:
            good = 1e-9 < float(count) < 1e9 and period in PERIODS
        except ValueError:
            good = False
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    if not good:
        raise options.wrong(
            f"ck.{kind}: false_alarms", value, "is no budget", fix="such as '1/year', '2/month' or 0.05"
        )
    return value if isinstance(value, str) else float(value)
