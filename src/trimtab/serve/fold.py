"""Folding calls and labels into Delta tables; in a process of its own, because it brings in the engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Endpoint, Run
from trimtab.core.optional import need
from trimtab.serve.collect import collect, rows_of
from trimtab.serve.frames import CallFrame, calls_folder, decode_call, inputs_of
from trimtab.store import facts, live
from trimtab.store.calls import get_offset, put_offset
from trimtab.store.intake import read
from trimtab.store.leases import acquire, release
from trimtab.store.ledger import Tx
from trimtab.store.store import Store, open_store

STREAM = "fold"
_BATCH = 50_000


def fold(store: Store) -> int:
    """Fold what is in the logs into ``ENDPOINT.calls`` and ``ENDPOINT.labels`` and return the new rows."""
    collect(store)
    lease = acquire(store.ledger, "fold")
    if lease is None:
        return 0
    try:
        return _fold_calls(store) + _fold_labels(store)
    finally:
        release(store.ledger, lease)


def _fold_calls(store: Store) -> int:
    offset = get_offset(store.ledger, STREAM)
    payloads, behind = read(calls_folder(store.home.intake), offset, _BATCH)
    frames = [decode_call(payload) for payload in payloads]
    total = 0
    for endpoint in live.list_endpoints(store.ledger):
        mine = [frame for frame in frames if frame.endpoint_id == endpoint.id and _counts(frame)]
        total += _append(store, endpoint, mine)
    if payloads:
        store.ledger.write(lambda tx: put_offset(tx, STREAM, behind), what="fold")
    return total


def _counts(frame: CallFrame) -> bool:
    return frame.status < 400 or frame.status >= 500


def _append(store: Store, endpoint: Endpoint, frames: list[CallFrame]) -> int:
    """Append the rows of frames that the table does not have yet."""
    if not frames:
        return 0
    pl: Any = need("polars")
    name = f"{endpoint.name}.calls"
    current = facts.current(store.ledger, name)
    known: set[str] = set()
    if current is not None:
        known = set(store.tables.scan(current.location).select("prediction_id").collect()["prediction_id"].to_list())
    numbers = {one.id: one.number for one in live.list_deployments(store.ledger, endpoint.id)}
    versions = {frame.version_id for frame in frames}
    refs = {version_id: facts.get_version(store.ledger, version_id).ref for version_id in versions}
    rows: list[Data] = []
    for frame in sorted(frames, key=lambda one: (one.at_us, one.request_id)):
        for row in _rows(frame, numbers, refs):
            if row["prediction_id"] not in known:
                known.add(row["prediction_id"])
                rows.append(row)
    if not rows:
        return 0
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.from_epoch("at", time_unit="us").dt.replace_time_zone("UTC")
    )
    _publish(store, name, frame, mode="append", of=endpoint, used=[*versions])
    return len(rows)


def _rows(frame: CallFrame, numbers: dict[str, int], refs: dict[str, str]) -> list[Data]:
    columns = inputs_of(frame) if frame.status < 400 else {}
    return [
        {
            "prediction_id": row.prediction_id, "request_id": row.request_id, "row": row.row, "at": row.at,
            "deployment": numbers.get(row.deployment_id, 0), "version": refs[row.version_id], "weight": row.weight,
            "candidate_weight": row.candidate_weight, "status": row.status, "latency_ms": row.latency_us / 1000,
            "prediction": None if row.prediction is None else str(row.prediction), "score": row.score,
            **{f"input_{name}": values[row.row] for name, values in columns.items()},
        }
        for row in rows_of(frame)
    ]  # fmt: skip


def _fold_labels(store: Store) -> int:
    """Write all labels of an endpoint anew when there are more than its table has."""
    pl: Any = need("polars")
    total = 0
    for endpoint in live.list_endpoints(store.ledger):
        sql = (
            "SELECT prediction_id, label, at, arrived_at, corrections FROM label WHERE endpoint_id=?"
            " ORDER BY arrived_at, prediction_id"
        )
        found = store.ledger.query(sql, (endpoint.id,))
        name = f"{endpoint.name}.labels"
        current = facts.current(store.ledger, name)
        mark = sum(row[4] for row in found)
        if not found or (
            current is not None and (current.meta["rows"], current.meta["corrections"]) == (len(found), mark)
        ):
            continue
        frame = pl.DataFrame(
            {
                "prediction_id": [row[0] for row in found],
                "label": [str(facts.unpack(row[1])) for row in found],
                "at": [row[2] for row in found],
                "arrived_at": [row[3] for row in found],
                "corrections": [row[4] for row in found],
            }
        ).with_columns(pl.from_epoch(pl.col("at", "arrived_at"), time_unit="us").dt.replace_time_zone("UTC"))
        _publish(store, name, frame, mode="overwrite", of=endpoint, used=[], corrections=mark)
        total += len(found)
    return total


def _publish(
    store: Store, name: str, frame: Any, *, mode: Any, of: Endpoint, used: list[str], **more: Any
) -> None:  # fmt: skip
    now = store.now()
    asset = store.ledger.write(
        lambda tx: facts.put_asset(tx, name=name, kind="table", spec={"endpoint": of.name, "layer": "bronze"}, at=now),
        what="fold",
    )
    current = facts.current(store.ledger, name)
    # A fold that was killed between its commit and its ledger row left rows that nobody counts: drop them first.
    store.tables.rollback_to(asset.id, current.location["delta_version"] if current else None)
    run_id = new_id("run")
    staged = store.tables.stage(asset.id, frame)
    location = store.tables.commit([staged], table_id=asset.id, mode=mode, run_id=run_id)
    low, high = frame["at"].min(), frame["at"].max()
    meta = {
        "rows": location["rows"], "columns": dict(location["schema"]), "time": "at", "time_min": low.isoformat(),
        "time_max": high.isoformat(), "layer": "bronze", **more,
    }  # fmt: skip

    def write(tx: Tx) -> None:
        run = Run(
            id=run_id, kind="fold", name=name, state="done", started_at=now, ended_at=now, actor="collector",
            facts={"rows": frame.height},
        )  # fmt: skip
        facts.start_run(tx, run)
        made = facts.add_version(
            tx, asset, digest=location["digest"], run_id=run_id, state="published", location=location, meta=meta, at=now
        )
        facts.add_made(tx, run_id, [made.id])
        facts.add_used(tx, run_id, [(version_id, "answered") for version_id in used])

    store.ledger.write(write, what="fold")


def main(root: str, environment: str) -> None:
    """Fold once; for a child process."""
    store = open_store(Path(root), environment=environment, actor="collector")
    try:
        print(fold(store))
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
