"""Numbers over traces: counts, latency, tokens, cost and what was said, by time and by what they have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from trimtab.core.errors import BadInput, closest
from trimtab.store.engine import Value
from trimtab.store.ledger import Reader
from trimtab.store.traces import COST_KEYS, NAME_TAG, TOKEN_KEYS

BUCKET = "time_bucket"
_SQL = {"COUNT": "count(value)", "SUM": "sum(value)", "AVG": "avg(value)"}
_SPREAD = ("AVG", "PERCENTILE")
_SUMS = ("SUM", "AVG", "PERCENTILE")


class Metric(Struct, frozen=True):
    """What is measured in SQL, how it may be aggregated, and by which dimensions grouped."""

    sql: str
    aggregates: tuple[str, ...]
    dimensions: tuple[str, ...]


class View(Struct, frozen=True):
    """What is counted: the rows beside ``trace t``, their time, metrics, dimensions, and what filters compare."""

    source: str
    at_ms: str
    metrics: Mapping[str, Metric]
    dimensions: Mapping[str, str]
    filters: Mapping[str, str]


class Aggregate(Struct, frozen=True):
    """COUNT, SUM, AVG or PERCENTILE with a percentage from 0 to 100."""

    type: str
    percent: float = 0.0

    @property
    def label(self) -> str:
        """What the value is called in an answer."""
        return f"P{self.percent}" if self.type == "PERCENTILE" else self.type


class Point(Struct, frozen=True):
    """One group: what its rows have in common, and its aggregates by label."""

    dimensions: dict[str, str]
    values: dict[str, float]


def _sum(table: str, names: Sequence[str], dimensions: tuple[str, ...]) -> dict[str, Metric]:
    sql = f"(SELECT k.value FROM span_metric k WHERE k.trace=t.id AND k.span_id={table} AND k.name='{{}}')"
    return {name: Metric(sql.format(name), _SUMS, dimensions) for name in names}


_MODEL = ("span_model_name", "span_model_provider")
VIEWS: Mapping[str, View] = {
    "TRACES": View(
        "",
        "t.start_ms",
        {
            "trace_count": Metric("1", ("COUNT",), ("trace_name", "trace_status")),
            "latency": Metric("t.duration_ms", _SPREAD, ("trace_name",)),
            **_sum("''", TOKEN_KEYS, ("trace_name",)),
        },
        {
            "trace_name": f"(SELECT g.value FROM tag g WHERE g.subject=t.id AND g.name='{NAME_TAG}')",
            "trace_status": "t.state",
        },
        {},
    ),
    "SPANS": View(
        "JOIN span s ON s.trace=t.id",
        "(s.start_ns / 1000000)",
        {
            "span_count": Metric("1", ("COUNT",), ("span_name", "span_type", "span_status", *_MODEL)),
            "latency": Metric("((s.end_ns - s.start_ns) / 1000000)", _SPREAD, ("span_name", "span_status")),
            **_sum("s.span_id", COST_KEYS, _MODEL),
        },
        {
            "span_name": "s.name",
            "span_type": "s.type",
            "span_status": "s.status",
            "span_model_name": "nullif(s.model, '')",
            "span_model_provider": "nullif(s.provider, '')",
        },
        {"span.name": "s.name", "span.status": "s.status", "span.type": "s.type"},
    ),
    "ASSESSMENTS": View(
        "JOIN assessment a ON a.trace=t.id",
        "a.created_ms",
        {
            "assessment_count": Metric("1", ("COUNT",), ("assessment_name", "assessment_value")),
            "assessment_value": Metric("a.number", _SPREAD, ("assessment_name",)),
        },
        {"assessment_name": "a.name", "assessment_value": "a.text"},
        {"assessment.name": "a.name", "assessment.type": "a.kind"},
    ),
}
_KEYED = {
    "trace.tag": "EXISTS (SELECT 1 FROM tag f WHERE f.subject=t.id AND f.name=? AND f.value=?)",
    "trace.metadata": "EXISTS (SELECT 1 FROM trace_metadata f WHERE f.trace=t.id AND f.name=? AND f.value=?)",
}
_FILTER = re.compile(r"\s*(\w+\.\w+)(?:\.(`[^`]+`|\"[^\"]+\"|[\w.\-]+))?\s*=\s*(?:'((?:[^']|'')*)'|\"([^\"]*)\")\s*")


def trace_metrics(
    reader: Reader,
    experiments: Sequence[int],
    view: str,
    metric: str,
    aggregates: Sequence[Aggregate],
    *,
    dimensions: Sequence[str] = (),
    filters: Sequence[str] = (),
    bucket_s: int = 0,
    span_ms: tuple[int | None, int | None] = (None, None),
    most: int = 1000,
) -> list[Point]:
    """Return a metric of each group of rows; groups without a value are left out.

    Args:
        reader: the ledger.
        experiments: their numbers; none means all.
        view: one of ``VIEWS``.
        metric: one of the view's.
        aggregates: what to make of the values; a percentile lies between two values by their distance to its rank.
        dimensions: what to group by.
        filters: such as ``trace.tag.team = 'red'``, all of which must hold.
        bucket_s: seconds of time to group by, 0 for none.
        span_ms: only traces that began not before, and not after.
        most: how many groups.

    Raises:
        BadInput: a name is unknown, or does not go with the metric.
    """
    seen = _known(view, VIEWS, "view_type")
    wanted = _known(metric, seen.metrics, "metric_name")
    for one in aggregates:
        _known(one.type, dict.fromkeys(wanted.aggregates), "aggregation_type")
    for name in dimensions:
        _known(name, dict.fromkeys(wanted.dimensions), "dimension")
    groups = [*([f"{seen.at_ms} / ? * ?"] if bucket_s else []), *(seen.dimensions[name] for name in dimensions)]
    params: list[Value] = [bucket_s * 1000] * (2 if bucket_s else 0)
    where, more = _where(reader, experiments, filters, span_ms, seen)
    names = [f"d{place}" for place in range(len(groups))]
    listed = "".join(f"{name}, " for name in names)
    base = (
        f"SELECT {''.join(f'{sql} AS {name}, ' for sql, name in zip(groups, names, strict=True))}{wanted.sql} AS value"
        f" FROM trace t {seen.source} WHERE {where}"
    )
    by = f"PARTITION BY {', '.join(names)} " if names else ""
    sql = (
        f"SELECT {listed}{', '.join(_aggregated(one) for one in aggregates)} FROM (SELECT {listed}value,"
        f" row_number() OVER ({by}ORDER BY value) - 1 AS place, count(*) OVER ({by.strip()}) AS total"
        f" FROM ({base}) AS b WHERE value IS NOT NULL) AS v"
        + (f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}" if names else "")
        + " LIMIT ?"
    )
    percents: list[Value] = [one.percent / 100 for one in aggregates if one.type == "PERCENTILE" for _ in range(2)]
    rows = reader.query(sql, [*percents, *params, *more, most])
    return _points(rows, [*([BUCKET] if bucket_s else []), *dimensions], aggregates)


def _known(name: str, among: Mapping[str, Any], what: str) -> Any:
    if name not in among:
        text = f"{what} must be one of {list(among)}, got '{name}'"
        raise BadInput(text, where=what, fix=f"one of {', '.join(among)}{closest(name, among)}")
    return among[name]


def _aggregated(one: Aggregate) -> str:
    if one.type != "PERCENTILE":
        return _SQL[one.type]
    # The two values around the rank p(n-1) count by their nearness to it (Hyndman and Fan 1996, definition 7).
    near = "1.0 - abs(place - ? * (total - 1))"
    return f"sum(CASE WHEN {near} > 0 THEN value * ({near}) ELSE 0.0 END)"


def _where(
    reader: Reader,
    experiments: Sequence[int],
    filters: Sequence[str],
    span_ms: tuple[int | None, int | None],
    view: View,
) -> tuple[str, list[Value]]:
    pieces, values = ["t.workspace=?"], list[Value]([reader.workspace, *experiments])
    if experiments:
        pieces.append(f"t.experiment IN ({','.join('?' * len(experiments))})")
    for sign, edge in zip((">=", "<="), span_ms, strict=True):
        if edge is not None:
            pieces.append(f"t.start_ms{sign}?")
            values.append(edge)
    for text in filters:
        sql, more = _filter(text, view)
        pieces.append(sql)
        values += more
    return " AND ".join(pieces), values


def _filter(text: str, view: View) -> tuple[str, list[Value]]:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise BadInput(f"Invalid filter: '{text[:200]}'", where="filters", fix="write such as trace.tag.team = 'red'")
    name, key = match[1], (match[2] or "").strip('`"')
    value = match[3].replace("''", "'") if match[3] is not None else match[4]
    plain = {"trace.status": "t.state", **view.filters}
    known = _known(name, {**plain, **_KEYED}, "filter")
    if (name in _KEYED) != bool(key):
        how = "requires" if name in _KEYED else "does not require"
        raise BadInput(f"Filtering by {name} {how} a key", where="filters", fix="write such as trace.tag.team = 'red'")
    return (known, [key, value]) if key else (f"{known}=?", [value])


def _points(rows: Sequence[tuple[Any, ...]], names: Sequence[str], aggregates: Sequence[Aggregate]) -> list[Point]:
    points = []
    for row in rows:
        held = dict(zip(names, row, strict=False))
        values = zip((one.label for one in aggregates), row[len(names) :], strict=True)
        found = {label: float(value) for label, value in values if value is not None}
        if found:
            points.append(Point({name: str(value) for name, value in held.items() if value is not None}, found))
    return points
