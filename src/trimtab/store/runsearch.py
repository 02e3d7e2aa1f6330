"""Searches of what tracking clients record: experiments, runs and logged models."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from trimtab.core.errors import BadInput
from trimtab.store import models
from trimtab.store.engine import Value
from trimtab.store.ledger import Reader
from trimtab.store.models import LoggedModel
from trimtab.store.page import Asked, marks, page_of
from trimtab.store.search import (
    EXPERIMENTS,
    LOGGED_MODELS,
    RUNS,
    Column,
    Columns,
    Comparison,
    Order,
    Rows,
    parse_filter,
    parse_order,
    where_sql,
)
from trimtab.store.tracking import EXPERIMENT_COLUMNS, RUN_COLUMNS, Experiment, TrackedRun, experiments_of, runs_of

_TAGS = Rows("tag g", "g.subject", "g.name", "g.value")
_PARAMS = Rows("param p", "p.subject", "p.name", "p.value")
_EXPERIMENTS = Columns(
    "e.id",
    {
        "name": Column("e.name", nullable=False),
        "creation_time": Column("e.created_ms", "number", nullable=False),
        "last_update_time": Column("e.updated_ms", "number", nullable=False),
        "experiment_id": Column("e.number", "number", nullable=False),
    },
    {"tag": _TAGS},
    (Order("attribute", "experiment_id", False),),
)
_NEWEST_EXPERIMENTS = (Order("attribute", "creation_time", False), Order("attribute", "experiment_id"))
_RUNS = Columns(
    "t.run_id",
    {
        "run_id": Column("substr(t.run_id, 5)", nullable=False),
        "run_name": Column("t.name", nullable=False),
        "status": Column("t.status", nullable=False),
        "artifact_uri": Column("t.root", nullable=False),
        "user_id": Column("t.user_id", nullable=False),
        "start_time": Column("t.start_ms", "number", nullable=False),
        "end_time": Column("t.end_ms", "number"),
    },
    {
        "metric": Rows("latest m", "m.subject", "m.name", "m.value", "m.kind"),
        "param": _PARAMS,
        "tag": _TAGS,
        "dataset": Rows(
            "run_dataset i JOIN dataset d ON d.version_id=i.version_id",
            "i.run_id",
            columns={"name": "d.name", "digest": "d.digest", "context": "i.context"},
        ),
    },
    (Order("attribute", "start_time", False), Order("attribute", "run_id")),
)
_STATUS = "LOGGED_MODEL_"
_MEASURED = Rows(
    "model_metric m",
    "m.model_id=l.model_id AND l.version_id",
    "m.name",
    "m.value",
    "m.kind",
    newest="ORDER BY m.at DESC, m.step DESC, m.run_id, m.dataset_name, m.dataset_digest, m.value, m.kind LIMIT 1",
)
_MODELS = Columns(
    "l.version_id",
    {
        "name": Column("l.name", nullable=False),
        "model_id": Column("l.model_id", nullable=False),
        "model_type": Column("nullif(l.type, '')"),
        "status": Column(f"replace(l.status, '{_STATUS}', '')", nullable=False),
        "source_run_id": Column("nullif(l.run_id, '')"),
        "experiment_id": Column("CAST(l.experiment AS TEXT)", nullable=False),
        "creation_timestamp": Column("l.created_ms", "number", nullable=False),
        "last_updated_timestamp": Column("l.updated_ms", "number", nullable=False),
    },
    {"metric": _MEASURED, "param": _PARAMS, "tag": _TAGS},
    (Order("attribute", "creation_timestamp", False), Order("attribute", "model_id")),
)


class OnData(Struct, frozen=True):
    """Data that a model was measured on; without a digest any of that name."""

    name: str
    digest: str = ""


class ModelOrder(Struct, frozen=True):
    """What to sort logged models by: an attribute, or ``metrics.NAME`` as it was measured on some data."""

    field: str
    ascending: bool = True
    data: OnData | None = None


def search_experiments(
    reader: Reader,
    *,
    stages: Sequence[str] = ("active",),
    filter: str = "",
    order: Sequence[str] = (),
    most: int = 1000,
    token: str = "",
) -> tuple[list[Experiment], str]:
    """Return a page of experiments, and the next page's token or an empty text.

    Args:
        reader: the ledger.
        stages: those that are wanted.
        filter: in the language of ``store.search``.
        order: what to sort by; without it the newest come first.
        most: how many.
        token: where the page before ended.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    asked = Asked(
        select=f"SELECT {EXPERIMENT_COLUMNS}, {{sorting}} FROM experiment e"
        f" WHERE e.workspace=? AND e.stage IN ({marks(stages)})",
        scope=[reader.workspace, *stages],
        columns=_EXPERIMENTS,
        where=where_sql(parse_filter(filter, EXPERIMENTS), _EXPERIMENTS),
        orders=parse_order(order, EXPERIMENTS) or _NEWEST_EXPERIMENTS,
        query=("experiments", list(stages), filter, list(order)),
    )
    rows, following = page_of(reader, asked, most=most, token=token)
    return experiments_of(reader, rows), following


def search_runs(
    reader: Reader,
    experiments: Sequence[int],
    *,
    stages: Sequence[str] = ("active",),
    filter: str = "",
    order: Sequence[str] = (),
    most: int = 1000,
    token: str = "",
) -> tuple[list[TrackedRun], str]:
    """Return a page of the runs of some experiments; see ``search_experiments``.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    wanted, orders = parse_filter(filter, RUNS), parse_order(order, RUNS)
    if not experiments:
        return [], ""
    numbers = sorted(set(experiments))
    asked = Asked(
        select=f"SELECT {RUN_COLUMNS}, {{sorting}} FROM tracked t WHERE t.workspace=?"
        f" AND t.experiment IN ({marks(numbers)}) AND t.stage IN ({marks(stages)})",
        scope=[reader.workspace, *numbers, *stages],
        columns=_RUNS,
        where=where_sql(wanted, _RUNS),
        orders=orders,
        query=("runs", numbers, list(stages), filter, list(order)),
    )
    rows, following = page_of(reader, asked, most=most, token=token)
    return runs_of(reader, rows), following


def search_models(
    reader: Reader,
    experiments: Sequence[int],
    *,
    filter: str = "",
    data: Sequence[OnData] = (),
    order: Sequence[ModelOrder] = (),
    most: int = 100,
    token: str = "",
) -> tuple[list[LoggedModel], str]:
    """Return a page of the logged models of some experiments; see ``search_experiments``.

    Args:
        reader: the ledger.
        experiments: their numbers.
        filter: in the language of ``store.search``; a condition on a metric holds for any value that was recorded.
        data: only values that were measured on one of these count, and only models that have such a value.
        order: what to sort by; without it the newest come first.
        most: how many.
        token: where the page before ended.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    wanted = [_plain_status(one) for one in parse_filter(filter, LOGGED_MODELS)]
    orders, sorted_on = _model_orders(order)
    if not experiments:
        return [], ""
    numbers = sorted(set(experiments))
    tables = [("wanted", data), *((f"sorted_{at}", [one]) for at, one in sorted_on.items())]
    first = _with([(name, chosen) for name, chosen in tables if chosen])
    rows = dict(_MODELS.rows) | {f"sorted_{at}": _measured_on(f"sorted_{at}") for at in sorted_on}
    if data:
        rows["metric"] = _measured_on("wanted")
    columns = replace(_MODELS, rows=rows)
    where, params = where_sql(wanted, columns)
    if data and not any(one.kind == "metric" for one in wanted):
        where += f" AND EXISTS (SELECT 1 FROM {rows['metric'].source} WHERE m.model_id=l.model_id)"
    asked = Asked(
        select=f"SELECT {models.COLUMNS}, {{sorting}} FROM logged_model l WHERE l.workspace=?"
        f" AND l.experiment IN ({marks(numbers)}) AND l.stage='active'",
        scope=[reader.workspace, *numbers],
        columns=columns,
        where=(where, params),
        orders=orders,
        query=("models", numbers, filter, [[one.name, one.digest] for one in data], _told(order)),
        first=first,
    )
    found, following = page_of(reader, asked, most=most, token=token)
    return models.models_of(reader, found), following


def _plain_status(one: Comparison) -> Comparison:
    """Return a comparison of a status as it is searched, with or without what all of them begin with."""
    if (one.kind, one.key) != ("attribute", "status") or one.value is None:
        return one
    if isinstance(one.value, tuple):
        return replace(one, value=tuple(value.removeprefix(_STATUS) for value in one.value))
    return replace(one, value=str(one.value).removeprefix(_STATUS))


def _measured_on(table: str) -> Rows:
    joined = f"model_metric m JOIN {table} w ON w.name=m.dataset_name AND w.digest IN ('', m.dataset_digest)"
    return replace(_MEASURED, source=joined)


def _with(tables: Sequence[tuple[str, Sequence[OnData]]]) -> tuple[str, list[Value]]:
    """Return tables of data that a statement begins with."""
    pieces, params = [], list[Value]()
    for name, chosen in tables:
        rows = " UNION ALL ".join("SELECT CAST(? AS TEXT) AS name, CAST(? AS TEXT) AS digest" for _ in chosen)
        pieces.append(f"{name} AS ({rows})")
        params += [value for one in chosen for value in (one.name, one.digest)]
    return (f"WITH {', '.join(pieces)}" if pieces else ""), params


def _model_orders(order: Sequence[ModelOrder]) -> tuple[list[Order], dict[int, OnData]]:
    attributes = next(kind for kind in LOGGED_MODELS.kinds if kind.name == "attribute")
    found, chosen = list[Order](), dict[int, OnData]()
    for at, one in enumerate(order):
        kind, dot, key = one.field.partition(".")
        if not dot:
            name = LOGGED_MODELS.aliases.get(one.field, one.field.removesuffix("_ms"))
            if attributes.field(name) is None:
                raise BadInput(f"Invalid order by field name: {one.field}", where="order_by")
            found.append(Order("attribute", name, one.ascending))
        elif kind not in ("metrics", "metric"):
            raise BadInput(f"Invalid order by field name: {one.field}. Only metrics are supported.", where="order_by")
        elif one.data is not None and one.data.name:
            chosen[at] = one.data
            found.append(Order(f"sorted_{at}", key, one.ascending))
        else:
            found.append(Order("metric", key, one.ascending))
    if len({(one.kind, one.key) for one in found}) < len(found) or len(found) > 20:
        raise BadInput("`order_by` contains duplicate fields or more than 20", where="order_by", fix="name each once")
    return found, chosen


def _told(order: Sequence[ModelOrder]) -> list[object]:
    return [[one.field, one.ascending, one.data and [one.data.name, one.data.digest]] for one in order]
