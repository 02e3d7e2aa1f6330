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
    """Insert predictions and return how many were new; the first one of an id stands, for each endpoint."""
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


def find_calls(reader: Reader, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], CallRow]:
    """Return the predictions that are known of those wanted, each as ``(endpoint id, prediction id)``.

    A request id names one request of one endpoint: a caller may use one id for what it asks of several.
    """
    asked = set(wanted)
    ids = sorted({ident for _, ident in asked})
    found: dict[tuple[str, str], CallRow] = {}
    for start in range(0, len(ids), 500):
        for call in calls_of(reader, ids[start : start + 500]):
            if (call.endpoint_id, call.prediction_id) in asked:
                found[call.endpoint_id, call.prediction_id] = call
    return found


def calls_of(reader: Reader, ids: Sequence[str]) -> list[CallRow]:
    """Return the predictions with these ids, of whatever endpoint, oldest first."""
    marks = ",".join("?" * len(ids))
    sql = f"SELECT {_COLUMNS} FROM call WHERE prediction_id IN ({marks}) ORDER BY at, endpoint_id"
    return [_call(row) for row in reader.query(sql, ids)]


def record_labels(tx: Tx, rows: Iterable[LabelRow]) -> tuple[int, int]:
    """Insert labels and return how many were new or changed, and how many said the same again.

    A label that differs corrects the earlier one, which is kept (see ``corrections``); the time of arrival stays
    that of the first, so that who reads labels by arrival has read each once.
    """
    new = same = 0
    sql = "SELECT label, at, arrived_at FROM label WHERE prediction_id=? AND endpoint_id=?"
    for row in rows:
        known = tx.query(sql, (row.prediction_id, row.endpoint_id))
        label = pack(row.label)
        if known and known[0][0] == label:
            same += 1
            continue
        new += 1
        scope = (row.prediction_id, tx.workspace, tx.environment)
        if known:
            tx.execute(
                "INSERT INTO correction(prediction_id, workspace, environment, endpoint_id, label, at, arrived_at,"
                " replaced_at) VALUES (?,?,?,?,?,?,?,?)",
                (*scope, row.endpoint_id, *known[0], row.arrived_at),
            )
        tx.execute(
            "INSERT INTO label(prediction_id, workspace, environment, endpoint_id, label, at, arrived_at)"
            " VALUES (?,?,?,?,?,?,?) ON CONFLICT (prediction_id, endpoint_id) DO UPDATE SET label=excluded.label,"
            " at=excluded.at, corrections=label.corrections+1",
            (*scope, row.endpoint_id, label, row.at, row.arrived_at),
        )
    return new, same


def corrections(reader: Reader, endpoint_id: str, prediction_id: str) -> list[LabelRow]:
    """Return what a prediction's label said before it was corrected, oldest first."""
    sql = (
        "SELECT prediction_id, endpoint_id, label, at, replaced_at FROM correction"
        " WHERE prediction_id=? AND endpoint_id=? ORDER BY id"
    )
    return [
        LabelRow(prediction_id=row[0], endpoint_id=row[1], label=unpack(row[2]), at=row[3], arrived_at=row[4])
        for row in reader.query(sql, (prediction_id, endpoint_id))
    ]


def labelled(reader: Reader, endpoint_id: str, since: int, until: int) -> list[LabelledCall]:
    """Return predictions whose label arrived after ``since`` and not after ``until``, by event time and id."""
    columns = ", ".join(f"c.{name.strip()}" for name in _COLUMNS.split(","))
    sql = (
        f"SELECT {columns}, l.label, l.arrived_at FROM label l"
        " JOIN call c ON c.prediction_id = l.prediction_id AND c.endpoint_id = l.endpoint_id"
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
