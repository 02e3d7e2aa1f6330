"""One engine for every judgement; as ``from trimtab import check as ck`` it is what projects write."""

from trimtab.check.declare import (
    beats,
    between,
    columns,
    drift,
    errors,
    latency,
    matches,
    metric,
    missing,
    one_of,
    outcome,
    performance,
    row_count,
    unique,
    where,
)

__all__ = [
    "beats",
    "between",
    "columns",
    "drift",
    "errors",
    "latency",
    "matches",
    "metric",
    "missing",
    "one_of",
    "outcome",
    "performance",
    "row_count",
    "unique",
    "where",
]
