"""Answered requests from the calls log, each once, for monitors: columns, scores and who answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

from msgspec import Struct, field

from trimtab.core.clock import to_micros
from trimtab.serve.collect import STREAM as COLLECTED
from trimtab.serve.collect import first_id, whole
from trimtab.serve.frames import Answer, CallFrame, calls_folder, encode, inputs_of
from trimtab.store import live
from trimtab.store.calls import CallRow, find_calls, get_offset, put_offset
from trimtab.store.intake import Offset, read
from trimtab.store.ledger import Tx
from trimtab.store.store import Store

STREAM = "monitors"
_BATCH = 2000
_KEPT = "monitors/kept"
_REMEMBERED = 256
Frames = list[tuple[CallFrame, Answer]]


class Answered(Struct, frozen=True, kw_only=True):
    """One request that was answered well: its inputs by column and what was said for each row."""

    endpoint_id: str
    version_id: str
    at_us: int
    columns: dict[str, list[Any]]
    scores: list[Any]


class Kept(Struct, frozen=True, kw_only=True):
    """What is carried from one part of the log to the next.

    Attributes:
        ahead: frames whose event time had not come yet, or that the ledger did not hold yet.
        seen: ids of the requests counted lately.
    """

    ahead: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)


class Chunk(Struct, frozen=True, kw_only=True):
    """A part of the log.

    Attributes:
        start: the offset at which it starts.
        behind: the offset behind it.
        answers: by event time and request id; none is later than the time that was asked for.
        before: what was carried here.
        kept: what is carried on.
        more: there is more behind it.
    """

    start: Offset
    behind: Offset
    answers: list[Answered]
    before: Kept
    kept: Kept
    more: bool

    @property
    def moved(self) -> bool:
        """There was something to read."""
        return self.start != self.behind or self.before != self.kept

    def commit(self, tx: Tx) -> None:
        """Record that this part was read, in the transaction that keeps what was learnt from it."""
        if self.start != self.behind:
            put_offset(tx, STREAM, self.behind)
        if self.before != self.kept:
            live.put_state(tx, _KEPT, {"ahead": self.kept.ahead, "seen": self.kept.seen})


def read_answers(store: Store, now: datetime) -> Chunk:
    """Return the next part of what ``collect`` has taken in, up to ``now``.

    Of several frames of one request that counts which the ledger holds as the answer. Calls that named their
    deployment are tests by hand and count nowhere.
    """
    ledger = store.ledger
    start = get_offset(ledger, STREAM)
    end = get_offset(ledger, COLLECTED)
    payloads, behind = read(calls_folder(store.home.intake), start, _BATCH) if start < end else ([], start)
    state = live.get_state(ledger, _KEPT)
    before = Kept(ahead=state["ahead"], seen=state["seen"]) if state else Kept()
    if not payloads and not before.ahead:
        return Chunk(start=start, behind=start, answers=[], before=before, kept=before, more=False)
    own = {endpoint.id for endpoint in live.list_endpoints(ledger)}
    frames = [
        pair
        for pair in whole([*before.ahead, *payloads])
        if pair[0].status < 400 and not pair[0].named and pair[0].endpoint_id in own
    ]
    known = find_calls(ledger, [(frame.endpoint_id, first_id(frame)) for frame, _ in frames])
    counted, kept = _once(frames, known, before.seen, now)
    return Chunk(
        start=start,
        behind=behind,
        answers=[_answered(frame, answer) for frame, answer in counted],
        before=before,
        kept=kept,
        more=len(payloads) == _BATCH and behind < end,
    )


def _once(
    frames: Frames, known: Mapping[tuple[str, str], CallRow], seen: Sequence[bytes], now: datetime
) -> tuple[Frames, Kept]:
    """Return the frames that count, and what is carried on: those that are early, or not taken in yet."""
    marks = dict.fromkeys(seen)
    counted, ahead = [], []
    for frame, answer in frames:
        row, mark = known.get((frame.endpoint_id, first_id(frame))), _mark(frame)
        if row is None or frame.at_us > to_micros(now):
            ahead.append(encode(frame))
        elif mark not in marks and (row.at, row.latency_us, row.deployment_id) == (
            frame.at_us,
            frame.latency_us,
            frame.deployment_id,
        ):
            marks[mark] = None
            counted.append((frame, answer))
    return counted, Kept(ahead=ahead, seen=list(marks)[-_REMEMBERED:])


def _mark(frame: CallFrame) -> bytes:
    """Return what a request is remembered by: its id names it within its endpoint."""
    return blake2b(f"{frame.endpoint_id}/{frame.request_id}".encode(), digest_size=8).digest()


def _answered(frame: CallFrame, answer: Answer) -> Answered:
    scores: Sequence[Any] = answer.scores if answer.scores is not None else answer.predictions
    return Answered(
        endpoint_id=frame.endpoint_id,
        version_id=frame.version_id,
        at_us=frame.at_us,
        columns=inputs_of(frame),
        scores=list(scores),
    )
