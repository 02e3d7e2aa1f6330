"""Searching traces by what is known of them, their spans and what was said of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from trimtab.core.errors import BadInput
from trimtab.store.engine import Value
from trimtab.store.ledger import Reader
from trimtab.store.page import Asked, marks, page_of
from trimtab.store.search import (
    TRACES,
    Column,
    Columns,
    Comparison,
    Order,
    Rows,
    parse_filter,
    parse_order,
    where_sql,
)
from trimtab.store.traces import NAME_TAG, RUN, TRACE_COLUMNS, Trace, traces_of

_SAID = "id, kind, name, text, valid"
# What was said of a session counts for each of its traces.
_WHOLE = (
    f"(SELECT trace AS subject, {_SAID} FROM assessment UNION ALL"
    " SELECT o.id AS subject, b.id, b.kind, b.name, b.text, b.valid FROM trace o"
    " JOIN assessment b ON b.session=o.session AND b.workspace=o.workspace WHERE o.session<>'') a"
)


def _said(condition: str) -> Rows:
    return Rows(_WHOLE, f"{condition} AND a.valid=1 AND a.subject", "a.name", "a.text")


_COLUMNS = Columns(
    "t.id",
    {
        "request_id": Column("t.trace_id", nullable=False),
        "client_request_id": Column("t.client_id"),
        "status": Column("t.state", nullable=False),
        "experiment_id": Column("t.experiment", "number", False),
        "timestamp_ms": Column("t.start_ms", "number", False),
        "execution_time_ms": Column("t.duration_ms", "number"),
        "end_time_ms": Column("(t.start_ms + coalesce(t.duration_ms, 0))", "number", False),
    },
    {
        "tag": Rows("tag g", "g.subject", "g.name", "g.value"),
        "metadata": Rows("trace_metadata m", "m.trace", "m.name", "m.value"),
        "feedback": _said("a.kind='feedback'"),
        "expectation": _said("a.kind='expectation'"),
        "assessment": _said("a.kind<>'issue'"),
        "issue": Rows("assessment a", "a.kind='issue' AND a.trace", columns={"id": "a.name"}),
        "prompt": Rows(
            "trace_link l",
            "l.workspace=t.workspace AND l.trace_id=t.trace_id AND l.kind='prompt' AND t.id",
            columns={"prompt": "l.target"},
        ),
        "run": Rows("trace_metadata m", f"m.name='{RUN}' AND m.trace", columns={"run_id": "m.value"}),
        "linked": Rows(
            "trace_link l",
            "l.workspace=t.workspace AND l.trace_id=t.trace_id AND l.kind='run' AND t.id",
            columns={"run_id": "l.target"},
        ),
    },
    (Order("attribute", "timestamp_ms", False), Order("attribute", "request_id")),
)
_SPANS = Columns(
    "s.span_id",
    {
        "name": Column("s.name"),
        "type": Column("s.type"),
        "status": Column("s.status"),
        "content": Column("s.content"),
    },
    {
        "span": Rows("span_attribute b", "b.trace=s.trace AND b.span_id", "'attributes.' || b.name", "b.value"),
    },
)


def search_traces(
    reader: Reader,
    experiments: Sequence[int],
    *,
    filter: str = "",
    order: Sequence[str] = (),
    most: int = 100,
    token: str = "",
) -> tuple[list[Trace], str]:
    """Return a page of the traces that a filter lets through, and the token of the next page or an empty text.

    Args:
        reader: the ledger.
        experiments: their numbers.
        filter: in the language of ``store.search``; conditions on spans are all met by one span.
        order: what to sort by; without it the newest come first.
        most: how many.
        token: where the page before ended.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    where, orders = filter_sql(filter), [_ordered(one) for one in parse_order(order, TRACES)]
    if not experiments:
        return [], ""
    numbers = sorted(set(experiments))
    asked = Asked(
        select=f"SELECT {TRACE_COLUMNS}, {{sorting}} FROM trace t WHERE t.workspace=?"
        f" AND t.experiment IN ({marks(numbers)})",
        scope=[reader.workspace, *numbers],
        columns=_COLUMNS,
        where=where,
        orders=orders,
        query=("traces", numbers, filter, list(order)),
    )
    rows, following = page_of(reader, asked, most=most, token=token)
    return traces_of(reader, rows), following


def count_traces(reader: Reader, experiments: Sequence[int], filters: Sequence[str]) -> int:
    """Return how many traces pass all of the filters."""
    pieces = [filter_sql(one) for one in filters]
    where = " AND ".join(["1=1", *(sql for sql, _ in pieces)])
    sql = (
        "SELECT count(*) FROM trace t WHERE t.workspace=?"
        f" AND t.experiment IN ({','.join('?' * len(experiments))}) AND {where}"
    )
    if not experiments:
        return 0
    values: list[Any] = [value for _, params in pieces for value in params]
    return int(reader.query(sql, [reader.workspace, *experiments, *values])[0][0])


def filter_sql(filter: str) -> tuple[str, list[Value]]:
    """Return a filter as a condition over ``trace t``, and its parameters; errors as for searches."""
    plain: list[Comparison] = []
    spans: list[Comparison] = []
    pieces, params = ["1=1"], list[Value]()
    for one in parse_filter(filter, TRACES):
        if one.kind == "span" or (one.kind, one.key) == ("attribute", "text"):
            key = "content" if one.key == "text" else one.key
            spans.append(replace(one, kind="attribute" if key in _SPANS.attributes else "span", key=key))
        elif (one.kind, one.key) in (("attribute", "run_id"), ("metadata", RUN)) and "NULL" not in one.operator:
            sql, more = _of_run(one)
            pieces.append(sql)
            params += more
        else:
            plain.append(_placed(one))
    sql, more = where_sql(plain, _COLUMNS)
    pieces.append(sql)
    params += more
    if spans:
        sql, more = where_sql(spans, _SPANS)
        pieces.append(f"EXISTS (SELECT 1 FROM span s WHERE s.trace=t.id AND {sql})")
        params += more
    return " AND ".join(pieces), params


def _of_run(one: Comparison) -> tuple[str, list[Value]]:
    """Return the condition of the run that a trace came from, or was linked to afterwards."""
    sql, params = where_sql([replace(one, kind="run", key="run_id")], _COLUMNS)
    if one.operator in ("!=", "NOT IN"):
        return sql, params
    linked, more = where_sql([replace(one, kind="linked", key="run_id")], _COLUMNS)
    return f"({sql} OR {linked})", [*params, *more]


def _placed(one: Comparison) -> Comparison:
    """Return a comparison with where its key is kept."""
    if one.kind != "attribute":
        return one
    if one.key == "name":
        return replace(one, kind="tag", key=NAME_TAG)
    if one.key == "prompt":
        if str(one.value).count("/") != 1:
            text = f"Invalid prompts filter value '{one.value}'. Expected format: prompt = \"name/version\""
            raise BadInput(text, where="filter")
        return replace(one, kind="prompt", key="prompt")
    return one


def _ordered(one: Order) -> Order:
    if (one.kind, one.key) == ("attribute", "name"):
        return replace(one, kind="tag", key=NAME_TAG)
    if (one.kind, one.key) == ("attribute", "run_id"):
        return replace(one, kind="metadata", key=RUN)
    return one
