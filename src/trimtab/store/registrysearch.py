"""Searches of registered models and of their versions; prompts are found only by filters that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trimtab.store.engine import Value
from trimtab.store.ledger import Reader
from trimtab.store.page import Asked, page_of
from trimtab.store.registry import (
    MODEL_COLUMNS,
    MODELS,
    PROMPT,
    VERSION_COLUMNS,
    VERSIONS_FROM,
    ModelVersion,
    RegisteredModel,
    models_of,
    versions_of,
)
from trimtab.store.search import MODEL_VERSIONS as VERSION_GRAMMAR
from trimtab.store.search import MODELS as MODEL_GRAMMAR
from trimtab.store.search import (
    Column,
    Columns,
    Comparison,
    Grammar,
    Order,
    Rows,
    parse_filter,
    parse_order,
    where_sql,
)

_TAGS = {"tag": Rows("tag t", "t.subject", "t.name", "t.value")}
_MODELS = Columns(
    "r.asset_id",
    {
        "name": Column("a.name", nullable=False),
        "last_updated_timestamp": Column("r.updated_ms", "number", nullable=False),
    },
    _TAGS,
    (Order("attribute", "name"),),
)
_VERSIONS = Columns(
    "n.version_id",
    {
        "name": Column("a.name", nullable=False),
        "version_number": Column("n.number", "number", nullable=False),
        "creation_timestamp": Column("n.created_ms", "number", nullable=False),
        "last_updated_timestamp": Column("n.updated_ms", "number", nullable=False),
        "run_id": Column("n.run_id", nullable=False),
        "source_path": Column("n.source", nullable=False),
    },
    _TAGS,
    (Order("attribute", "name"), Order("attribute", "version_number", False)),
)
_IS_PROMPT = f"EXISTS (SELECT 1 FROM tag p WHERE p.subject={{id}} AND p.name='{PROMPT}' AND p.value='true')"
_NEWEST = ("last_updated_timestamp DESC", "name", "version_number DESC")


def search_models(
    reader: Reader, *, filter: str = "", order: Sequence[str] = (), most: int = 100, token: str = ""
) -> tuple[list[RegisteredModel], str]:
    """Return a page of the registered models that a filter lets through, and the next page's token or an empty text.

    Args:
        reader: the ledger.
        filter: in the language of ``store.search``; prompts are among them only where it asks for them.
        order: what to sort by; by name without it.
        most: how many.
        token: where the page before ended.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    select = f"SELECT {MODEL_COLUMNS}, {{sorting}} FROM {MODELS} WHERE a.workspace=? AND a.space=''"
    rows, following = _page(reader, select, MODEL_GRAMMAR, _MODELS, filter, order, most, token)
    return models_of(reader, rows), following


def search_versions(
    reader: Reader, *, filter: str = "", order: Sequence[str] = (), most: int = 10_000, token: str = ""
) -> tuple[list[ModelVersion], str]:
    """Return a page of versions as for models; without an order those that changed last come first.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    select = f"SELECT {VERSION_COLUMNS}, {{sorting}} FROM {VERSIONS_FROM} WHERE a.workspace=? AND n.deleted=0"
    rows, following = _page(reader, select, VERSION_GRAMMAR, _VERSIONS, filter, order or _NEWEST, most, token)
    return versions_of(reader, rows), following


def _page(
    reader: Reader,
    select: str,
    grammar: Grammar,
    columns: Columns,
    filter: str,
    order: Sequence[str],
    most: int,
    token: str,
) -> tuple[list[tuple[Any, ...]], str]:
    asked = Asked(
        select=select,
        scope=[reader.workspace],
        columns=columns,
        where=_where(parse_filter(filter, grammar), columns),
        orders=parse_order(order, grammar),
        query=(columns.id, filter, list(order)),
    )
    return page_of(reader, asked, most=most, token=token)


def _where(comparisons: Sequence[Comparison], columns: Columns) -> tuple[str, list[Value]]:
    """Return the condition of a filter; one that does not ask for prompts hides them, whatever else it says of them."""
    about = [one for one in comparisons if (one.kind, one.key) == ("tag", PROMPT)]
    if about and (about[0].operator, str(about[0].value).lower()) in (("=", "true"), ("!=", "false")):
        return where_sql(comparisons, columns)
    where, params = where_sql([one for one in comparisons if one not in about], columns)
    hidden = " AND ".join(f"NOT {_IS_PROMPT.format(id=ident)}" for ident in ("a.id", columns.id))
    return f"{where} AND {hidden}", params
