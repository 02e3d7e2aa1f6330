"""Evaluation datasets of tracking clients: assets whose records are exact JSON, one for each different input."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.core.errors import BadInput, NotFound
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.store.ledger import Reader, Tx
from trimtab.store.page import Asked, page_of
from trimtab.store.search import Column, Columns, Grammar, Order, Rows, kinds, parse_filter, parse_order, where_sql
from trimtab.store.spaces import put_asset
from trimtab.store.tracking import drop_tag, get_experiment, parts, put_tags, tags_of

SPACE, USER = "evalset", "mlflow.user"
_COLUMNS = "dataset_id, name, digest, schema, profile, created_ms, updated_ms, created_by, updated_by, id"
_RECORD = (
    "record_id, inputs, outputs, expectations, tags, source, created_ms, updated_ms, created_by, updated_by, place"
)
GRAMMAR = Grammar(
    kinds("""
    attribute attributes: name created_by last_updated_by text; created_time last_update_time number
    tag tags: * text unsorted""")
)
_SEARCHED = Columns(
    "s.id",
    {
        "name": Column("s.name", nullable=False),
        "created_time": Column("s.created_ms", "number", nullable=False),
        "last_update_time": Column("s.updated_ms", "number", nullable=False),
        "created_by": Column("s.created_by"),
        "last_updated_by": Column("s.updated_by"),
        "dataset_id": Column("s.dataset_id", nullable=False),
    },
    {"tag": Rows("tag g", "g.subject", "g.name", "g.value")},
    (Order("attribute", "dataset_id"),),
)


class EvalSet(Struct, frozen=True, kw_only=True):
    """A dataset as its client knows it; ``id`` is ``d-`` and 32 hex digits, ``schema`` and ``profile`` are JSON."""

    id: str
    name: str
    digest: str
    schema: str | None
    profile: str | None
    created_ms: int
    updated_ms: int
    created_by: str | None
    updated_by: str | None
    tags: dict[str, str]
    experiments: list[int]


class Record(Struct, frozen=True, kw_only=True):
    """One example; ``outputs`` is msgspec.UNSET where none was given."""

    id: str
    inputs: Data
    outputs: Any
    expectations: Data | None
    tags: dict[str, str]
    source: Data | None
    created_ms: int
    updated_ms: int
    created_by: str | None
    updated_by: str | None
    place: int


def create_evalset(tx: Tx, name: str, *, tags: Mapping[str, str], experiments: Sequence[int], now_ms: int) -> EvalSet:
    """Make an empty dataset; several may share a name.

    Raises:
        NotFound: there is no such experiment.
    """
    ident = new_hex()
    dataset_id, asset_id, scope = f"d-{ident}", f"ast_{ident}", (tx.workspace, tx.environment)
    put_asset(tx, asset_id, SPACE, f"{name}/{ident}", kind="evalset", at=now_ms * 1000)
    by = tags.get(USER)
    tx.execute(
        "INSERT INTO evalset(id, workspace, environment, dataset_id, name, digest, schema, profile, created_ms,"
        " updated_ms, created_by, updated_by) VALUES (?,?,?,?,?,?,NULL,NULL,?,?,?,?)",
        (asset_id, *scope, dataset_id, name, _digest(name, now_ms), now_ms, now_ms, by, by),
    )
    put_tags(tx, asset_id, tags)
    link(tx, dataset_id, experiments)
    tx.note(asset_id, evalset=name)
    return get_evalset(tx, dataset_id)


def _digest(name: str, now_ms: int) -> str:
    return hashlib.sha256(f"{name}:{now_ms}".encode()).hexdigest()[:8]


def get_evalset(reader: Reader, dataset_id: str) -> EvalSet:
    """Return a dataset.

    Raises:
        NotFound: there is none.
    """
    sql = f"SELECT {_COLUMNS} FROM evalset WHERE dataset_id=? AND workspace=?"
    rows = reader.query(sql, (dataset_id, reader.workspace))
    if not rows:
        raise NotFound(f"Evaluation dataset with id '{dataset_id}' not found", where="dataset_id")
    return evalsets_of(reader, rows)[0]


def evalsets_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[EvalSet]:
    """Return datasets from rows that begin with the table's columns."""
    tags = tags_of(reader, [row[9] for row in rows])
    homes: dict[str, list[int]] = {}
    for part in parts([row[0] for row in rows]):
        marks = ",".join("?" * len(part))
        sql = f"SELECT dataset_id, experiment FROM evalset_experiment WHERE dataset_id IN ({marks}) ORDER BY 1, 2"
        for dataset_id, experiment in reader.query(sql, part):
            homes.setdefault(dataset_id, []).append(experiment)
    return [
        EvalSet(
            id=row[0], name=row[1], digest=row[2], schema=row[3], profile=row[4], created_ms=row[5], updated_ms=row[6],
            created_by=row[7], updated_by=row[8], tags=tags.get(row[9], {}), experiments=homes.get(row[0], []),
        )
        for row in rows
    ]  # fmt: skip


def asset_of(dataset_id: str) -> str:
    """Return the id of the asset that a dataset is."""
    return f"ast_{dataset_id.removeprefix('d-')}"


def link(tx: Tx, dataset_id: str, experiments: Sequence[int]) -> None:
    """Let experiments have a dataset.

    Raises:
        NotFound: there is no such dataset or experiment.
    """
    get_evalset(tx, dataset_id)
    for number in experiments:
        get_experiment(tx, number)
        tx.execute(
            "INSERT OR IGNORE INTO evalset_experiment(dataset_id, workspace, environment, experiment) VALUES (?,?,?,?)",
            (dataset_id, tx.workspace, tx.environment, number),
        )


def unlink(tx: Tx, dataset_id: str, experiments: Sequence[int]) -> None:
    """Let experiments no longer have a dataset; one that has it not stays as it is.

    Raises:
        NotFound: there is no such dataset.
    """
    get_evalset(tx, dataset_id)
    for number in experiments:
        tx.execute("DELETE FROM evalset_experiment WHERE dataset_id=? AND experiment=?", (dataset_id, number))


def drop_evalset(tx: Tx, dataset_id: str) -> None:
    """Remove a dataset with its records; one that is not there is gone already."""
    rows = tx.query("SELECT id FROM evalset WHERE dataset_id=? AND workspace=?", (dataset_id, tx.workspace))
    for (asset_id,) in rows:
        for table in ("evalset_record", "evalset_experiment", "evalset"):
            tx.execute(f"DELETE FROM {table} WHERE dataset_id=?", (dataset_id,))
        tx.execute("DELETE FROM tag WHERE subject=?", (asset_id,))
        tx.execute("DELETE FROM asset WHERE id=?", (asset_id,))
        tx.note(asset_id, dropped=dataset_id)


def tag_evalset(tx: Tx, dataset_id: str, tags: Mapping[str, str | None], *, now_ms: int) -> None:
    """Set tags; a value of None removes one.

    Raises:
        NotFound: there is no such dataset.
    """
    get_evalset(tx, dataset_id)
    put_tags(tx, asset_of(dataset_id), {name: value for name, value in tags.items() if value is not None})
    for name, value in tags.items():
        if value is None:
            drop_tag(tx, asset_of(dataset_id), name)
    by = tags.get(USER)
    sql = "UPDATE evalset SET updated_ms=?, updated_by=coalesce(?, updated_by) WHERE dataset_id=?"
    tx.execute(sql, (now_ms, by, dataset_id))


def merge_records(tx: Tx, dataset_id: str, given: Sequence[Data], *, now_ms: int) -> tuple[int, int]:
    """Add records, or merge them into those with the same inputs, all of them or none.

    Args:
        tx: the transaction.
        dataset_id: whose they are.
        given: ``inputs``, and perhaps ``outputs``, ``expectations``, ``tags`` and ``source``.
        now_ms: when.

    Returns:
        How many were added and how many merged.

    Raises:
        NotFound: there is no such dataset.
    """
    known = get_evalset(tx, dataset_id)
    place = int(tx.query("SELECT coalesce(max(place), 0) FROM evalset_record WHERE dataset_id=?", (dataset_id,))[0][0])
    added, merged, by = 0, 0, known.updated_by
    for record in given:
        by = (record.get("tags") or {}).get(USER) or by
        digest = hashlib.sha256(_json(record.get("inputs") or {}, sort=True).encode()).hexdigest()
        sql = "SELECT expectations, tags FROM evalset_record WHERE dataset_id=? AND hash=?"
        rows = tx.query(sql, (dataset_id, digest))
        if rows:
            _merge(tx, dataset_id, digest, record, rows[0], now_ms)
            merged += 1
        else:
            place += 1
            _add(tx, dataset_id, digest, record, place, now_ms)
            added += 1
    schema = _schema(known.schema, given)
    tx.execute(
        "UPDATE evalset SET schema=?, digest=?, updated_ms=?, updated_by=? WHERE dataset_id=?",
        (schema, _digest(known.name, now_ms), now_ms, by, dataset_id),
    )
    _count(tx, dataset_id)
    tx.note(asset_of(dataset_id), added=added, merged=merged)
    return added, merged


def _add(tx: Tx, dataset_id: str, digest: str, record: Data, place: int, now_ms: int) -> None:
    tags = record.get("tags") or {}
    outputs = _json(record["outputs"]) if record.get("outputs") is not None else None
    expectations, source = (_json(record[name]) if record.get(name) else None for name in ("expectations", "source"))
    tx.execute(
        "INSERT INTO evalset_record(dataset_id, workspace, environment, hash, record_id, inputs, outputs, expectations,"
        " tags, source, created_ms, updated_ms, created_by, updated_by, place) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (dataset_id, tx.workspace, tx.environment, digest, f"dr-{new_hex()}", _json(record.get("inputs") or {}),
         outputs, expectations, _json(tags), source, now_ms, now_ms, tags.get(USER), tags.get(USER), place),
    )  # fmt: skip


def _merge(tx: Tx, dataset_id: str, digest: str, record: Data, have: tuple[Any, ...], now_ms: int) -> None:
    expectations = {**(msgspec.json.decode(have[0]) if have[0] else {}), **(record.get("expectations") or {})}
    tags = {**msgspec.json.decode(have[1]), **(record.get("tags") or {})}
    sql, values = "UPDATE evalset_record SET expectations=?, tags=?, updated_ms=?", list[Any]()
    values += [_json(expectations) if expectations else None, _json(tags), now_ms]
    if "outputs" in record:
        sql += ", outputs=?"
        values.append(None if record["outputs"] is None else _json(record["outputs"]))
    if (record.get("tags") or {}).get(USER):
        sql += ", updated_by=?"
        values.append(record["tags"][USER])
    tx.execute(f"{sql} WHERE dataset_id=? AND hash=?", [*values, dataset_id, digest])


def _json(value: Any, *, sort: bool = False) -> str:
    return msgspec.json.encode(value, order="sorted" if sort else None).decode()


def _schema(have: str | None, given: Sequence[Data]) -> str | None:
    """Return the kinds of all fields that were ever seen, the first kind of each."""
    if not given:
        return have
    empty: Data = {"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"}
    found: Data = msgspec.json.decode(have) if have else empty
    for record in given:
        for part in ("inputs", "outputs", "expectations"):
            value = record.get(part)
            if isinstance(value, dict) and isinstance(found[part], dict):
                found[part] = {**{name: _kind(one) for name, one in value.items()}, **found[part]}
            elif value is not None and not found[part]:
                found[part] = _kind(value)
    return _json(found)


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object"}
    return "null" if value is None else kinds.get(type(value), "unknown")


def _count(tx: Tx, dataset_id: str) -> None:
    count = int(tx.query("SELECT count(*) FROM evalset_record WHERE dataset_id=?", (dataset_id,))[0][0])
    profile = _json({"num_records": count}) if count else None
    tx.execute("UPDATE evalset SET profile=? WHERE dataset_id=?", (profile, dataset_id))


def drop_records(tx: Tx, dataset_id: str, record_ids: Sequence[str]) -> int:
    """Remove records and return how many there were.

    Raises:
        NotFound: there is no such dataset.
    """
    get_evalset(tx, dataset_id)
    count = 0
    for part in parts(record_ids):
        marks = ",".join("?" * len(part))
        sql = f"DELETE FROM evalset_record WHERE dataset_id=? AND record_id IN ({marks}) RETURNING 1"
        count += len(tx.execute(sql, [dataset_id, *part]))
    _count(tx, dataset_id)
    return count


def records_of(reader: Reader, dataset_id: str, *, after: int = 0, most: int = 1000) -> list[Record]:
    """Return records in the order in which they came, those whose place comes after ``after``.

    Raises:
        NotFound: there is no such dataset.
    """
    get_evalset(reader, dataset_id)
    sql = f"SELECT {_RECORD} FROM evalset_record WHERE dataset_id=? AND place>? ORDER BY place LIMIT ?"
    return [
        Record(
            id=row[0], inputs=_decoded(row[1]), outputs=msgspec.UNSET if row[2] is None else _decoded(row[2]),
            expectations=_decoded(row[3]), tags=_decoded(row[4]), source=_decoded(row[5]), created_ms=row[6],
            updated_ms=row[7], created_by=row[8], updated_by=row[9], place=row[10],
        )
        for row in reader.query(sql, (dataset_id, after, most))
    ]  # fmt: skip


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def search_evalsets(
    reader: Reader,
    *,
    experiments: Sequence[int] = (),
    filter: str = "",
    order: Sequence[str] = (),
    most: int = 1000,
    token: str = "",
) -> tuple[list[EvalSet], str]:
    """Return a page of datasets, and the next page's token or an empty text; without an order the newest come first.

    Raises:
        BadInput: filter, order or token cannot be read.
    """
    if len(experiments) > 1000:
        raise BadInput("more than 1000 experiments", where="experiment_ids", fix="name fewer")
    numbers = sorted(set(experiments))
    select = f"SELECT {_COLUMNS}, {{sorting}} FROM evalset s WHERE s.workspace=?"
    if numbers:
        marks = ",".join("?" * len(numbers))
        select += (
            " AND EXISTS (SELECT 1 FROM evalset_experiment e WHERE e.dataset_id=s.dataset_id"
            f" AND e.experiment IN ({marks}))"
        )
    asked = Asked(
        select=select,
        scope=[reader.workspace, *numbers],
        columns=_SEARCHED,
        where=where_sql(parse_filter(filter, GRAMMAR), _SEARCHED),
        orders=parse_order(order, GRAMMAR) or (Order("attribute", "created_time", False),),
        query=("evalsets", numbers, filter, list(order)),
    )
    rows, following = page_of(reader, asked, most=most, token=token)
    return evalsets_of(reader, rows), following
