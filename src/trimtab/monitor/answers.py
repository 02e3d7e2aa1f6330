"""Answered requests from the calls log, each once, for monitors: columns, scores and who answered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from trimtab.serve.frames import CallFrame, answer_of, calls_folder, decode_call, inputs_of
from trimtab.store import live
from trimtab.store.calls import get_offset, put_offset
from trimtab.store.intake import Offset, read
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

STREAM = "monitors"
_BATCH = 2000
_SEEN = "monitors/seen"
_REMEMBERED = 4096
"""A request that is sent again is sent again soon: so many are remembered, so that it counts once."""


class Answered(Struct, frozen=True, kw_only=True):
    """One request that was answered well: its inputs by column and what was said for each row."""

    endpoint_id: str
    version_id: str
    at_us: int
    columns: dict[str, list[Any]]
    scores: list[Any]


class Chunk(Struct, frozen=True, kw_only=True):
    """A part of the log.

    Attributes:
        start: the offset at which it starts.
        behind: the offset behind it.
        answers: by event time and request id.
        seen: marks of the requests read lately, these included.
        more: there is more behind it.
    """

    start: Offset
    behind: Offset
    answers: list[Answered]
    seen: list[bytes]
    more: bool

    @property
    def moved(self) -> bool:
        """There was something to read."""
        return self.start != self.behind

    def commit(self, tx: Tx) -> None:
        """Record that this part was read, in the transaction that keeps what was learnt from it."""
        if self.moved:
            put_offset(tx, STREAM, self.behind)
            live.put_state(tx, _SEEN, {"marks": self.seen})


def read_answers(store: Store, now: datetime) -> Chunk:
    """Return the next part of the calls log; of several frames of one request the first counts."""
    start = get_offset(store.ledger, STREAM)
    payloads, behind = read(calls_folder(store.home.intake), start, _BATCH)
    kept = live.get_state(store.ledger, _SEEN) if payloads else None
    marks: dict[bytes, None] = dict.fromkeys(kept["marks"] if kept else ())
    frames: list[CallFrame] = []
    for payload in payloads:
        frame = decode_call(payload)
        mark = bytes.fromhex(frame.request_id)
        if frame.status == 200 and mark not in marks:
            marks[mark] = None
            frames.append(frame)
    frames.sort(key=lambda frame: (frame.at_us, frame.request_id))
    return Chunk(
        start=start,
        behind=behind,
        answers=[_answered(frame) for frame in frames],
        seen=list(marks)[-_REMEMBERED:],
        more=len(payloads) == _BATCH,
    )


def _answered(frame: CallFrame) -> Answered:
    answer = answer_of(frame)
    scores: Sequence[Any] = answer.scores if answer.scores is not None else answer.predictions
    return Answered(
        endpoint_id=frame.endpoint_id,
        version_id=frame.version_id,
        at_us=frame.at_us,
        columns=inputs_of(frame),
        scores=list(scores),
    )
