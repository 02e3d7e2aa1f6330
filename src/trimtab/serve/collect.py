"""Reading the calls log into the ledger, exactly once: rows, judge and offset change in one transaction."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from trimtab.serve.frames import Answer, CallFrame, answer_of, calls_folder, decode_call
from trimtab.serve.judge import observe
from trimtab.store import live
from trimtab.store.calls import CallRow, find_calls, get_offset, put_offset, record_calls
from trimtab.store.intake import Offset, read
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

STREAM = "calls"
_BATCH = 2000


def collect(store: Store) -> int:
    """Take everything that is in the log and return how many requests were new.

    Any process may call it; of several at once one takes each part. Requests of other environments, and those that
    were the caller's own mistake (4xx), are passed over.
    """
    new = 0
    while True:
        offset = get_offset(store.ledger, STREAM)
        payloads, behind = read(calls_folder(store.home.intake), offset, _BATCH)
        if not payloads:
            return new
        frames = [frame for frame, _ in whole(payloads)]
        new += store.ledger.write(partial(_take, frames, offset, behind), what="collect")


def whole(payloads: Iterable[bytes]) -> list[tuple[CallFrame, Answer]]:
    """Return the frames that can be read, by event time and request id, each with its answer.

    A frame that cannot be read must not stop those behind it: it is told on standard error and passed over.
    """
    found = []
    for payload in payloads:
        try:
            frame = decode_call(payload)
            found.append((frame, answer_of(frame) if frame.status < 400 else Answer()))
        except msgspec.DecodeError as error:
            print(f"a frame of {len(payload)} bytes in the calls log cannot be read: {error}", file=sys.stderr)
    return sorted(found, key=lambda item: (item[0].at_us, item[0].request_id))


def _take(frames: Sequence[CallFrame], offset: Offset, behind: Offset, tx: Tx) -> int:
    if get_offset(tx, STREAM) != offset:  # somebody else took this part meanwhile
        return 0
    own = {endpoint.id for endpoint in live.list_endpoints(tx)}
    counted = [frame for frame in frames if frame.endpoint_id in own and counts(frame)]
    fresh = _new(tx, counted)
    # Also of a request whose id was used before: rows that it had more than the first one were answered too.
    record_calls(tx, [row for frame in counted for row in rows_of(frame)])
    observe(tx, fresh)
    put_offset(tx, STREAM, behind)
    tx.note("calls", requests=len(fresh))
    return len(fresh)


def counts(frame: CallFrame) -> bool:
    """Say whether a request is recorded: answered, or failed by our fault."""
    return frame.status < 400 or frame.status >= 500


def _new(tx: Tx, frames: Sequence[CallFrame]) -> list[CallFrame]:
    """Return the first frame of each request that is not on record yet."""
    known = set(find_calls(tx, [(frame.endpoint_id, first_id(frame)) for frame in frames]))
    fresh = []
    for frame in frames:
        ident = frame.endpoint_id, first_id(frame)
        if ident not in known:
            known.add(ident)
            fresh.append(frame)
    return fresh


def first_id(frame: CallFrame) -> str:
    """Return the id of a frame's first row; a failed answer has an id of its own, so that a repeat can succeed."""
    return f"{frame.request_id}.0" if frame.status < 400 else f"{frame.request_id}.failed"


def rows_of(frame: CallFrame) -> list[CallRow]:
    """Return a row for each prediction of a frame; one without a prediction for a failed answer."""
    failed = frame.status >= 400
    body = Answer(predictions=[None]) if failed else answer_of(frame)
    scores = body.scores if body.scores is not None else [None] * len(body.predictions)
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
            score=float(score) if isinstance(score, float | int) else None,
        )
        for row, (prediction, score) in enumerate(zip(body.predictions, scores, strict=True))
    ]
