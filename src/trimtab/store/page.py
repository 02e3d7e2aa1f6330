"""One page of a search: the rows that a filter lets through, in an order, from where the page before ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from trimtab.core.errors import BadInput
from trimtab.store.engine import Value
from trimtab.store.ledger import Reader
from trimtab.store.search import Columns, Order, Token, after_sql, order_sql, query_digest

MOST_NAMED = 10_000
"""How many experiments one search may name: each is a parameter of the statement."""


class Asked(Struct, frozen=True, kw_only=True):
    """What is searched.

    Attributes:
        select: SELECT .. FROM .. WHERE .., with ``{sorting}`` as its last column.
        scope: the parameters that stand in ``select`` after the sorting.
        columns: what may be sorted by.
        where: the filter's condition, and its parameters.
        orders: what to sort by.
        query: what tells this search from others, for its tokens.
        first: a WITH clause and its parameters, before everything.
    """

    select: str
    scope: Sequence[Value]
    columns: Columns
    where: tuple[str, Sequence[Value]]
    orders: Sequence[Order]
    query: Sequence[object]
    first: tuple[str, Sequence[Value]] = ("", ())


def page_of(reader: Reader, asked: Asked, *, most: int, token: str = "") -> tuple[list[tuple[Any, ...]], str]:
    """Return at most ``most`` rows, each followed by what it is sorted by, and the next page's token or nothing.

    Raises:
        BadInput: the token is none of this search.
    """
    sorting = order_sql(asked.orders, asked.columns)
    digest = query_digest(reader.workspace, *asked.query)
    after, more = after_sql(sorting, Token.decode(token, digest)) if token else ("1=1", list[Value]())
    condition, params = asked.where
    start, bound = asked.first
    sql = (
        f"{start} SELECT * FROM ({asked.select.format(sorting=sorting.select)} AND {condition}) AS found"
        f" WHERE {after} ORDER BY {sorting.order} LIMIT ?"
    )
    rows = reader.query(sql, [*bound, *sorting.params, *asked.scope, *params, *more, most + 1])
    page = rows[:most]
    sorted_by = len(sorting.terms)
    following = Token(tuple(page[-1][-sorted_by:]), digest).encode() if len(rows) > most and page else ""
    return page, following


def marks(values: Sequence[Value]) -> str:
    """Return a mark for each value of a list.

    Raises:
        BadInput: there are too many.
    """
    if len(values) > MOST_NAMED:
        raise BadInput(f"{len(values)} experiments are too many for one search", fix=f"name at most {MOST_NAMED}")
    return ",".join("?" * len(values))
