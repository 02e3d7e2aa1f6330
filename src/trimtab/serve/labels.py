"""Labels: the truth about predictions, checked, durable before the answer, and joined by prediction id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from trimtab.core.clock import parse_time, to_micros
from trimtab.core.errors import BadInput, NotFound
from trimtab.core.nouns import Data
from trimtab.serve.collect import collect
from trimtab.serve.frames import VERSION, LabelFrame, encode, labels_folder
from trimtab.serve.judge import observe_labels
from trimtab.store import live
from trimtab.store.calls import CallRow, LabelRow, find_calls, record_labels
from trimtab.store.intake import Durable
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

MOST = 10_000


def accept_labels(store: Store, endpoint_name: str, items: Any, now: datetime) -> Data:
    """Keep labels and return ``{"accepted", "duplicates"}``; all of them or none.

    Args:
        store: the store.
        endpoint_name: whose predictions they are about.
        items: ``[{"prediction_id", "label", "at"?}]``.
        now: event time of their arrival.

    Raises:
        BadInput: an item has another form; its path is in ``where``.
        NotFound: nobody made that prediction; its id is named.
    """
    endpoint = live.need_endpoint(store.ledger, endpoint_name)
    rows = [_row(item, index, endpoint.id, now) for index, item in enumerate(_listed(items))]
    known = find_calls(store.ledger, [row.prediction_id for row in rows])
    if len(known) < len({row.prediction_id for row in rows}):
        collect(store)
        known = find_calls(store.ledger, [row.prediction_id for row in rows])
    for index, row in enumerate(rows):
        call = known.get(row.prediction_id)
        if call is None or call.endpoint_id != endpoint.id:
            raise NotFound(
                f"{endpoint_name} made no prediction {row.prediction_id!r}",
                where=f"labels[{index}].prediction_id",
                fix="send ids from prediction_ids of an answer; nothing of this batch was kept",
            )
    log = Durable(labels_folder(store.home.intake))
    try:
        log.append_all([_frame(row) for row in rows])
    finally:
        log.close()

    def write(tx: Tx) -> tuple[int, int]:
        fresh = [row for row in rows if not _has(tx, row.prediction_id)]
        counts = record_labels(tx, rows)
        observe_labels(tx, endpoint.id, _joined(fresh, known))
        tx.note(endpoint.id, labels=counts[0], duplicates=counts[1])
        return counts

    accepted, duplicates = store.ledger.write(write, what="labels")
    return {"accepted": accepted, "duplicates": duplicates}


def _listed(items: Any) -> list[Any]:
    if not isinstance(items, list) or not items:
        raise BadInput("labels is not a list with at least one label", where="labels", fix='{"labels": [{...}]}')
    if len(items) > MOST:
        raise BadInput(f"{len(items)} labels at once", where="labels", fix=f"send at most {MOST}")
    return items


def _row(item: Any, index: int, endpoint_id: str, now: datetime) -> LabelRow:
    path = f"labels[{index}]"
    if not isinstance(item, dict):
        raise BadInput("a label is not an object", where=path, fix='{"prediction_id": "...", "label": true}')
    for name in item:
        if name not in ("prediction_id", "label", "at"):
            raise BadInput(f"field {name!r} is unknown", where=f"{path}.{name}", fix="prediction_id, label, at")
    ident, label = item.get("prediction_id"), item.get("label")
    if not isinstance(ident, str) or not ident:
        raise BadInput("prediction_id is missing or no text", where=f"{path}.prediction_id", fix="as it was answered")
    if label is None or not isinstance(label, str | int | float | bool):
        raise BadInput("label is missing or no plain value", where=f"{path}.label", fix="true, 3, 1.5 or text")
    at = item.get("at")
    if at is not None and not isinstance(at, str):
        raise BadInput("at is no ISO 8601 time", where=f"{path}.at", fix="2013-04-01T06:00:00Z")
    moment = parse_time(at) if at else now
    return LabelRow(
        prediction_id=ident, endpoint_id=endpoint_id, label=label, at=to_micros(moment), arrived_at=to_micros(now)
    )


def _frame(row: LabelRow) -> bytes:
    return encode(LabelFrame(VERSION, row.endpoint_id, row.prediction_id, row.label, row.at, row.arrived_at))


def _has(tx: Tx, prediction_id: str) -> bool:
    return bool(tx.query("SELECT 1 FROM label WHERE prediction_id=?", (prediction_id,)))


def _joined(rows: Sequence[LabelRow], known: dict[str, CallRow]) -> list[tuple[CallRow, Any]]:
    return [(known[row.prediction_id], row.label) for row in rows]
