"""Predictions and their labels, one row each, and how far the logs have been read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from trimtab.store.intake import Offset
from trimtab.store.ledger import Reader, Tx
from trimtab.store.packing import pack, unpack


class CallRow(Struct, frozen=True, kw_only=True):
    """One prediction: who made it, when (microseconds of event time), with which probabilities, and what it said."""

    prediction_id: str
    request_id: str
    row: int
    endpoint_id: str
    deployment_id: str
    version_id: str
    at: int
    candidate: bool
    weight: float
    candidate_weight: float
    status: int
    latency_us: int
    prediction: Any = None
    score: float | None = None


class LabelRow(Struct, frozen=True, kw_only=True):
    """The truth about one prediction, when it was true and when it arrived (microseconds of event time)."""

    prediction_id: str
    endpoint_id: str
    label: Any
    at: int
    arrived_at: int


class LabelledCall(Struct, frozen=True, kw_only=True):
    """A prediction together with its label."""

    call: CallRow
    label: Any
    arrived_at: int


_COLUMNS = (
    "prediction_id, request_id, row, endpoint_id, deployment_id, version_id, at, candidate, weight,"
    " candidate_weight, status, latency_us, prediction, score"
)


def _call(row: Sequence[Any]) -> CallRow:
    return CallRow(
        prediction_id=row[0], request_id=row[1], row=row[2], endpoint_id=row[3], deployment_id=row[4],
        version_id=row[5], at=row[6], candidate=bool(row[7]), weight=row[8], candidate_weight=row[9], status=row[10],
        latency_us=row[11], prediction=None if row[12] is None else unpack(row[12]), score=row[13],
    )  # fmt: skip


def record_calls(tx: Tx, rows: Iterable[CallRow]) -> int:
    """Insert predictions and return how many were new; the first one of an id stands."""
    new = 0
    for row in rows:
        known = tx.execute(
            f"INSERT OR IGNORE INTO call(workspace, environment, {_COLUMNS})"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) RETURNING 1",
            (tx.workspace, tx.environment, row.prediction_id, row.request_id, row.row, row.endpoint_id,
             row.deployment_id, row.version_id, row.at, int(row.candidate), row.weight, row.candidate_weight,
             row.status, row.latency_us, None if row.prediction is None else pack(row.prediction), row.score),
        )  # fmt: skip
        new += len(known)
    return new


def find_calls(reader: Reader, ids: Iterable[str]) -> dict[str, CallRow]:
    """Return the predictions with these ids, as far as they are known."""
    wanted = list(ids)
    found: dict[str, CallRow] = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        marks = ",".join("?" * len(part))
        for row in reader.query(f"SELECT {_COLUMNS} FROM call WHERE prediction_id IN ({marks})", part):
            found[row[0]] = _call(row)
    return found


def record_labels(tx: Tx, rows: Iterable[LabelRow]) -> tuple[int, int]:
    """Insert labels and return how many were new or changed, and how many said the same again.

    A label that differs corrects the earlier one, which is kept (see ``corrections``); the time of arrival stays
    that of the first, so that who reads labels by arrival has read each once.
    """
    new = same = 0
    sql = "SELECT label, at, arrived_at FROM label WHERE prediction_id=?"
    for row in rows:
        known = tx.query(sql, (row.prediction_id,))
        label = pack(row.label)
        if known and known[0][0] == label:
            same += 1
            continue
        new += 1
        scope = (row.prediction_id, tx.workspace, tx.environment)
        if known:
            tx.execute(
                "INSERT INTO correction(prediction_id, workspace, environment, label, at, arrived_at, replaced_at)"
                " VALUES (?,?,?,?,?,?,?)",
                (*scope, *known[0], row.arrived_at),
            )
        tx.execute(
            "INSERT INTO label(prediction_id, workspace, environment, endpoint_id, label, at, arrived_at)"
            " VALUES (?,?,?,?,?,?,?) ON CONFLICT (prediction_id) DO UPDATE SET label=excluded.label,"
            " at=excluded.at, corrections=label.corrections+1",
            (*scope, row.endpoint_id, label, row.at, row.arrived_at),
        )
    return new, same


def corrections(reader: Reader, prediction_id: str) -> list[LabelRow]:
    """Return what a prediction's label said before it was corrected, oldest first."""
    sql = (
        "SELECT c.prediction_id, l.endpoint_id, c.label, c.at, c.replaced_at FROM correction c"
        " JOIN label l ON l.prediction_id = c.prediction_id WHERE c.prediction_id=? ORDER BY c.id"
    )
    return [
        LabelRow(prediction_id=row[0], endpoint_id=row[1], label=unpack(row[2]), at=row[3], arrived_at=row[4])
        for row in reader.query(sql, (prediction_id,))
    ]


def labelled(reader: Reader, endpoint_id: str, since: int, until: int) -> list[LabelledCall]:
    """Return predictions whose label arrived after ``since`` and not after ``until``, by event time and id."""
    columns = ", ".join(f"c.{name.strip()}" for name in _COLUMNS.split(","))
    sql = (
        f"SELECT {columns}, l.label, l.arrived_at FROM label l JOIN call c ON c.prediction_id = l.prediction_id"
        " WHERE l.endpoint_id=? AND l.arrived_at>? AND l.arrived_at<=? ORDER BY c.at, c.prediction_id"
    )
    return [
        LabelledCall(call=_call(row), label=unpack(row[14]), arrived_at=row[15])
        for row in reader.query(sql, (endpoint_id, since, until))
    ]


def get_offset(reader: Reader, stream: str) -> Offset:
    """Return how far a reader has come in a log."""
    sql = "SELECT segment, byte FROM tail WHERE workspace=? AND environment=? AND stream=?"
    rows = reader.query(sql, (reader.workspace, reader.environment, stream))
    return Offset(*rows[0]) if rows else Offset(0, 0)


def put_offset(tx: Tx, stream: str, offset: Offset) -> None:
    """Record how far a reader has come in a log, in the transaction that holds what it read."""
    tx.execute(
        "INSERT OR REPLACE INTO tail(workspace, environment, stream, segment, byte) VALUES (?,?,?,?,?)",
        (tx.workspace, tx.environment, stream, offset.segment, offset.byte),
    )
