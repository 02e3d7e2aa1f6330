"""Labels: the truth about predictions, checked, durable before the answer, and joined by prediction id."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from trimtab.check.histogram import same_class
from trimtab.core.clock import parse_time, to_micros
from trimtab.core.errors import BadInput, NotFound, WrongUse
from trimtab.core.nouns import Data
from trimtab.serve.collect import collect
from trimtab.serve.frames import VERSION, LabelFrame, encode, labels_folder
from trimtab.serve.judge import observe_labels
from trimtab.store import facts, live
from trimtab.store.calls import CallRow, LabelRow, find_calls, record_labels
from trimtab.store.intake import Durable
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

MOST = 10_000
_INT64 = 1 << 63
_FIELDS = ("prediction_id", "label", "at")


def accept_labels(store: Store, endpoint_name: str, items: Any, now: datetime) -> Data:
    """Keep labels; all of them or none. What is returned is durable.

    Args:
        store: the store.
        endpoint_name: whose predictions they are about.
        items: ``[{"prediction_id", "label", "at"?}]``.
        now: event time of their arrival.

    Returns:
        ``{"accepted", "duplicates", "corrections"}``: new labels and corrections; those that said the same as
        before; and how many of the accepted changed an earlier one, which is kept beside it.

    Raises:
        BadInput: an item has another form, or the version that answered knows no such label; its path is in
            ``where``.
        NotFound: there is no such endpoint, or it made no such prediction; the id is named.
    """
    endpoint = live.need_endpoint(store.ledger, endpoint_name)
    rows = [_row(item, index, endpoint.id, now) for index, item in enumerate(_listed(items))]
    known = _predictions(store, endpoint.id, rows)
    metas: dict[str, Data] = {}
    for index, row in enumerate(rows):
        if row.prediction_id not in known:
            raise NotFound(
                f"{endpoint_name} made no prediction {row.prediction_id[:100]!r}",
                where=f"labels[{index}].prediction_id",
                fix="send ids from prediction_ids of an answer; nothing of this batch was kept",
            )
        version = known[row.prediction_id].version_id
        if version not in metas:
            metas[version] = facts.get_version(store.ledger, version).meta
        _check_meaning(metas[version], row.label, f"labels[{index}].label")
    log = Durable(labels_folder(store.home.intake))
    try:
        log.append_all([_frame(row) for row in rows])
    finally:
        log.close()
    return store.ledger.write(partial(_keep, endpoint.id, rows, known), what=f"labels of {endpoint_name}")


def _predictions(store: Store, endpoint_id: str, rows: Sequence[LabelRow]) -> dict[str, CallRow]:
    """Return the endpoint's predictions that labels are about; the end of the log is read where one is missing."""
    wanted = {(endpoint_id, row.prediction_id) for row in rows}
    found = find_calls(store.ledger, wanted)
    if len(found) < len(wanted):
        collect(store)
        found = find_calls(store.ledger, wanted)
    return {name: call for (_, name), call in found.items() if call.status < 400}


def _check_meaning(meta: Data, label: Any, where: str) -> None:
    """Refuse a label that could be no truth about the answer: it would be kept and count nowhere.

    A class of several that the version never saw is a truth all the same, where it is written as the others are.
    """
    task, classes = meta.get("task"), list(meta.get("classes") or ())
    number = isinstance(label, int | float) and not isinstance(label, bool)
    if task == "regression" and not number:
        raise BadInput(f"{label!r} is no number, and the model predicts numbers", where=where, fix="such as 12.5")
    if task not in ("binary", "multiclass") or any(same_class(label, one) for one in classes):
        return
    if task == "binary" or not any(isinstance(one, str) == isinstance(label, str) for one in classes):
        shown = ", ".join(msgspec.json.encode(one).decode() for one in classes[:10])
        more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
        raise BadInput(f"{label!r} is none of the model's classes", where=where, fix=f"send one of {shown}{more}")


def _keep(endpoint_id: str, rows: Sequence[LabelRow], known: Mapping[str, CallRow], tx: Tx) -> Data:
    first: dict[str, LabelRow] = {}
    for row in rows:
        if row.prediction_id not in first and not _has(tx, row):
            first[row.prediction_id] = row
    accepted, duplicates = record_labels(tx, rows)
    observe_labels(tx, endpoint_id, [(known[name], row.label) for name, row in first.items()])
    counts = {"accepted": accepted, "duplicates": duplicates, "corrections": accepted - len(first)}
    tx.note(endpoint_id, **counts)
    return counts


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
        if name not in _FIELDS:
            raise BadInput(f"field {name!r} is unknown", where=f"{path}.{name}", fix=", ".join(_FIELDS))
    ident, label = item.get("prediction_id"), item.get("label")
    if not isinstance(ident, str) or not ident:
        raise BadInput("prediction_id is missing or no text", where=f"{path}.prediction_id", fix="as it was answered")
    odd = isinstance(label, float) and not math.isfinite(label)
    if label is None or odd or not isinstance(label, str | int | float | bool):
        raise BadInput("label is missing or no plain value", where=f"{path}.label", fix="true, 3, 1.5 or text")
    if isinstance(label, int) and not -_INT64 <= label < _INT64:
        raise BadInput("label does not fit into 64 bits", where=f"{path}.label", fix="send it as text")
    return LabelRow(
        prediction_id=ident,
        endpoint_id=endpoint_id,
        label=label,
        at=to_micros(_moment(item.get("at"), path) or now),
        arrived_at=to_micros(now),
    )


def _moment(given: Any, path: str) -> datetime | None:
    if given is None:
        return None
    try:
        if not isinstance(given, str):
            raise WrongUse(f"{given!r} is not an ISO 8601 time")
        return parse_time(given)
    except WrongUse as error:
        raise BadInput(error.message, where=f"{path}.at", fix="such as 2013-04-01T06:00:00Z") from error


def _frame(row: LabelRow) -> bytes:
    return encode(LabelFrame(VERSION, row.endpoint_id, row.prediction_id, row.label, row.at, row.arrived_at))


def _has(tx: Tx, row: LabelRow) -> bool:
    sql = "SELECT 1 FROM label WHERE prediction_id=? AND endpoint_id=?"
    return bool(tx.query(sql, (row.prediction_id, row.endpoint_id)))
