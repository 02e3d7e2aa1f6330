"""Folding calls and labels into Delta tables, so that an endpoint's calls are a table like any other.

It brings in the engines, so the long-lived processes start it as ``python -m trimtab.serve.fold ROOT ENVIRONMENT``.
Each row is folded once: rows that a table has already are passed over, so a fold that was killed is simply repeated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from trimtab.core.clock import monotonic
from trimtab.core.errors import BadInput, TrimtabError, Unavailable
from trimtab.core.ids import new_id
from trimtab.core.nouns import Asset, Data, Endpoint, Run, Version
from trimtab.core.optional import need
from trimtab.serve.collect import STREAM as COLLECTED
from trimtab.serve.collect import collect, counts, rows_of, whole
from trimtab.serve.frames import CallFrame, calls_folder, inputs_of
from trimtab.store import facts, live
from trimtab.store.calls import get_offset, put_offset
from trimtab.store.intake import Offset, read, sweep
from trimtab.store.leases import acquire, release
from trimtab.store.ledger import Tx
from trimtab.store.packing import unpack
from trimtab.store.store import Store, open_store

STREAM = "fold"
READERS = (COLLECTED, STREAM, "monitors")
"""Everything that reads the calls log; a segment may go when all of them are behind it."""

TIME = "event_time"
_BATCH = 20_000
_WAIT_S = 60.0
_BASE = (
    "prediction_id", "request_id", "row_index", "event_time", "deployment", "version", "weight", "candidate_weight",
    "status", "latency_ms", "prediction", "score",
)  # fmt: skip


def fold(store: Store, *, wait_s: float = _WAIT_S) -> int:
    """Fold what is in the logs into ``ENDPOINT.calls`` and ``ENDPOINT.labels`` and return the new rows.

    Args:
        store: the store.
        wait_s: how long (real seconds) to wait for another fold that is at work.

    Raises:
        Unavailable: another fold is still at work then.
    """
    collect(store)
    deadline = monotonic() + wait_s
    while (lease := acquire(store.ledger, "fold")) is None:
        if monotonic() > deadline:
            raise Unavailable(f"another process folds for more than {wait_s:g} s", fix="try again in a moment")
        time.sleep(0.05)
    try:
        folded = _fold_calls(store) + _fold_labels(store)
        _sweep(store)
        return folded
    finally:
        release(store.ledger, lease)


def _fold_calls(store: Store) -> int:
    total = 0
    while True:
        offset = get_offset(store.ledger, STREAM)
        payloads, behind = read(calls_folder(store.home.intake), offset, _BATCH)
        if not payloads:
            return total
        frames = [frame for frame, _ in whole(payloads) if counts(frame)]
        for endpoint in live.list_endpoints(store.ledger):
            total += _append(store, endpoint, [frame for frame in frames if frame.endpoint_id == endpoint.id])
        store.ledger.write(lambda tx, behind=behind: put_offset(tx, STREAM, behind), what="fold")  # type: ignore[misc]


def _append(store: Store, endpoint: Endpoint, frames: Sequence[CallFrame]) -> int:
    """Append the rows of frames that the endpoint's table does not have yet."""
    name = f"{endpoint.name}.calls"
    current = facts.current(store.ledger, name) if frames else None
    known: set[str] = set()
    if current is not None:
        known = set(store.tables.scan(current.location).select("prediction_id").collect()["prediction_id"])
    versions = {one: facts.get_version(store.ledger, one) for one in {frame.version_id for frame in frames}}
    numbers = {one.id: one.number for one in live.list_deployments(store.ledger, endpoint.id)}
    rows: list[Data] = []
    for frame in frames:
        for row in _rows(frame, numbers[frame.deployment_id], versions[frame.version_id]):
            if row["prediction_id"] not in known:
                known.add(row["prediction_id"])
                rows.append(row)
    if rows:
        frame = _calls_frame(rows, versions.values())
        _publish(store, name, endpoint, frame, current, used=sorted(versions), grow=True)
    return len(rows)


def _rows(frame: CallFrame, number: int, version: Version) -> list[Data]:
    inputs = inputs_of(frame) if frame.status < 400 else {}
    return [
        {
            "prediction_id": row.prediction_id, "request_id": row.request_id, "row_index": row.row,
            TIME: row.at, "deployment": number, "version": version.ref, "weight": row.weight,
            "candidate_weight": row.candidate_weight, "status": row.status, "latency_ms": row.latency_us / 1000,
            "prediction": _text(row.prediction), "score": row.score,
            **{f"input_{name}": values[row.row] for name, values in inputs.items()},
        }
        for row in rows_of(frame)
    ]  # fmt: skip


def _calls_frame(rows: Sequence[Data], versions: Iterable[Version]) -> Any:
    """Return rows as a frame whose types follow from the signatures of the versions, not from the values."""
    pl: Any = need("polars")
    schema = dict(
        zip(
            _BASE,
            (pl.String, pl.String, pl.Int64, pl.Int64, pl.Int64, pl.String, pl.Float64, pl.Float64, pl.Int64,
             pl.Float64, pl.String, pl.Float64),
            strict=True,
        )
    )  # fmt: skip
    kinds: dict[str, str] = {}
    for version in versions:
        for spec in version.meta["signature"]["inputs"]:
            kinds[spec["name"]] = _wider(kinds.get(spec["name"]), spec["type"])
    types = {"number": pl.Float64, "integer": pl.Int64, "boolean": pl.Boolean, "string": pl.String}
    data = {name: [row[name] for row in rows] for name in _BASE}
    for name, kind in kinds.items():
        column = f"input_{name}"
        schema[column] = types[kind]
        data[column] = [_as(kind, row.get(column)) for row in rows]
    return pl.DataFrame(data, schema=schema).with_columns(_utc(pl, TIME))


def _wider(one: str | None, other: str) -> str:
    if one in (None, other):
        return other
    return "number" if {one, other} == {"integer", "number"} else "string"


def _as(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "string":
        return _text(value)
    return float(value) if kind == "number" else int(value) if kind == "integer" else bool(value)


def _utc(pl: Any, *names: str) -> Any:
    return pl.from_epoch(pl.col(*names), time_unit="us").dt.replace_time_zone("UTC")


def _text(value: Any) -> str | None:
    """Return a label or prediction as text: texts as they are, everything else as JSON says it."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _fold_labels(store: Store) -> int:
    """Write the labels of an endpoint anew when there are more, or other ones, than its table has."""
    pl: Any = need("polars")
    total = 0
    sql = (
        "SELECT prediction_id, label, at, arrived_at, corrections FROM label WHERE endpoint_id=?"
        " ORDER BY arrived_at, prediction_id"
    )
    for endpoint in live.list_endpoints(store.ledger):
        found = store.ledger.query(sql, (endpoint.id,))
        current = facts.current(store.ledger, f"{endpoint.name}.labels")
        corrections = sum(row[4] for row in found)
        mark = (current.meta["rows"], current.meta["corrections"]) if current else (0, 0)
        if (len(found), corrections) == mark:
            continue
        columns = list(zip(*found, strict=True))
        frame = pl.DataFrame(
            {
                "prediction_id": columns[0],
                "label": [_text(unpack(label)) for label in columns[1]],
                TIME: columns[2],
                "arrived_at": columns[3],
                "corrections": columns[4],
            }
        ).with_columns(_utc(pl, TIME, "arrived_at"))
        name = f"{endpoint.name}.labels"
        _publish(store, name, endpoint, frame, current, used=[], grow=False, corrections=corrections)
        total += len(found) - mark[0]
    return total


def _publish(
    store: Store, name: str, endpoint: Endpoint, frame: Any, current: Version | None, *, used: Sequence[str],
    grow: bool, **more: Any,
) -> None:  # fmt: skip
    """Add a version of a table; ``grow`` keeps the rows that it has."""
    now = store.now()
    spec = {"endpoint": endpoint.name, "layer": "bronze", "time": TIME}
    asset = store.ledger.write(
        lambda tx: facts.put_asset(tx, name=name, kind="table", spec=spec, at=now), what=f"declare {name}"
    )
    base = current.location["delta_version"] if current else None
    # A fold that was killed between its commit and its ledger row left rows that nobody counts.
    store.tables.rollback_to(asset.id, base)
    run_id = new_id("run")
    location = _commit(store, asset, frame, run_id, current if grow else None)
    meta: Data = {
        "rows": location["rows"], "columns": dict(location["schema"]), "time": TIME,
        "time_min": _edge(current, "time_min", frame[TIME].min(), min),
        "time_max": _edge(current, "time_max", frame[TIME].max(), max),
        "layer": "bronze", **more,
    }  # fmt: skip
    run = Run(
        id=run_id, kind="fold", name=name, state="done", started_at=now, ended_at=now, actor="collector",
        facts={"rows": frame.height}, environment=store.environment, workspace=store.ledger.workspace,
    )  # fmt: skip
    store.ledger.write(partial(_record, asset, run, location, meta, used, now), what=f"fold {name}")


def _edge(current: Version | None, name: str, moment: datetime, pick: Any) -> str:
    found = moment.isoformat()
    return str(pick(current.meta[name], found)) if current is not None else found


def _commit(store: Store, asset: Asset, frame: Any, run_id: str, grown: Version | None) -> Data:
    tables = store.tables
    mode: Literal["append", "overwrite"] = "append" if grown is not None else "overwrite"
    try:
        staged = tables.stage(asset.id, frame)
        base = grown.location["delta_version"] if grown is not None else None
        if mode == "append":
            return tables.commit([staged], table_id=asset.id, mode=mode, run_id=run_id, base=base)
        return tables.commit([staged], table_id=asset.id, mode=mode, run_id=run_id)
    except BadInput:
        if grown is None:
            raise
    # An input has another type since a new version: the whole table is written in the type that holds both.
    pl: Any = need("polars")
    both = pl.concat([tables.scan(grown.location).collect(), frame], how="diagonal_relaxed")
    return tables.commit([tables.stage(asset.id, both)], table_id=asset.id, mode="overwrite", run_id=run_id)


def _record(asset: Asset, run: Run, location: Data, meta: Data, used: Sequence[str], now: datetime, tx: Tx) -> None:
    facts.start_run(tx, run)
    made = facts.add_version(
        tx, asset, digest=location["digest"], run_id=run.id, state="published", location=location, meta=meta, at=now
    )
    facts.add_made(tx, run.id, [made.id])
    facts.add_used(tx, run.id, [(version_id, "answered") for version_id in used])


def _sweep(store: Store) -> int:
    """Delete the segments of the calls log that every reader of every environment is behind."""
    wanted = store.ledger.query("SELECT DISTINCT workspace, environment FROM endpoint")
    have: Mapping[tuple[str, str, str], Offset] = {
        (row[0], row[1], row[2]): Offset(row[3], row[4])
        for row in store.ledger.query("SELECT workspace, environment, stream, segment, byte FROM tail")
    }
    offsets = [have.get((*scope, reader)) for scope in wanted for reader in READERS]
    known = [offset for offset in offsets if offset is not None]
    return sweep(calls_folder(store.home.intake), min(known)) if known and len(known) == len(offsets) else 0


def main(arguments: Sequence[str]) -> int:
    """Fold once and print the new rows; return the exit code."""
    with open_store(Path(arguments[0]), environment=arguments[1], actor="collector") as store:
        try:
            print(fold(store))
        except TrimtabError as error:
            print(f"fold: {error}", file=sys.stderr, flush=True)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
