"""Reading the calls log into the ledger, exactly once: rows, judge and offset change in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.serve.frames import Answer, CallFrame, answer_of, calls_folder, decode_call
from trimtab.serve.judge import observe
from trimtab.store.calls import CallRow, find_calls, get_offset, put_offset, record_calls
from trimtab.store.intake import read
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

STREAM = "calls"
_BATCH = 2000


def collect(store: Store) -> int:
    """Take everything that is in the log and return how many requests were new."""
    new = 0
    while True:
        taken = _take(store)
        if taken is None:
            return new
        new += taken


def _take(store: Store) -> int | None:
    """Take one batch; None when there was nothing."""
    offset = get_offset(store.ledger, STREAM)
    payloads, behind = read(calls_folder(store.home.intake), offset, _BATCH)
    if not payloads:
        return None
    frames = sorted((decode_call(payload) for payload in payloads), key=lambda frame: (frame.at_us, frame.request_id))

    def write(tx: Tx) -> int:
        if get_offset(tx, STREAM) != offset:  # somebody else took this batch meanwhile
            return 0
        fresh = _new(tx, frames)
        record_calls(tx, [row for frame in fresh for row in rows_of(frame)])
        observe(tx, fresh)
        put_offset(tx, STREAM, behind)
        tx.note("calls", requests=len(fresh))
        return len(fresh)

    return store.ledger.write(write, what="collect")


def _new(tx: Tx, frames: Sequence[CallFrame]) -> list[CallFrame]:
    """Return the frames of requests that count: the first of each id; what the caller got wrong does not."""
    counted = [frame for frame in frames if frame.status < 400 or frame.status >= 500]
    known = set(find_calls(tx, [first_id(frame) for frame in counted]))
    fresh = []
    for frame in counted:
        ident = first_id(frame)
        if ident not in known:
            known.add(ident)
            fresh.append(frame)
    return fresh


def first_id(frame: CallFrame) -> str:
    """Return the id of a frame's first row; a failed answer has an id of its own, so that a repeat can succeed."""
    return f"{frame.request_id}.0" if frame.status < 400 else f"{frame.request_id}.failed"


def rows_of(frame: CallFrame) -> list[CallRow]:
    """Return a row for each prediction of a frame; one without a prediction for a failed answer."""
    body = answer_of(frame) if frame.status < 400 else Answer()
    predictions = body.predictions or [None]
    scores = body.scores or [None] * len(predictions)
    failed = frame.status >= 400
    return [
        CallRow(
            prediction_id=first_id(frame) if failed else f"{frame.request_id}.{row}",
            request_id=frame.request_id,
            row=row,
            endpoint_id=frame.endpoint_id,
            deployment_id=frame.deployment_id,
            version_id=frame.version_id,
            at=frame.at_us,
            candidate=frame.candidate,
            weight=frame.weight,
            candidate_weight=frame.candidate_weight,
            status=frame.status,
            latency_us=frame.latency_us,
            prediction=prediction,
            score=score if isinstance(score, float) else None,
        )
        for row, (prediction, score) in enumerate(zip(predictions, scores, strict=True))
    ]
