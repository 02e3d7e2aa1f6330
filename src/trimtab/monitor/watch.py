"""One tick of all watches: rows and labels up to now are folded in, looks are taken, alarms are recorded.

Everything that a tick read and concluded is one transaction with the offset of the log, so a kill at any moment
loses and doubles nothing. One process ticks at a time (see ``automate.settle``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from trimtab.core.clock import to_micros
from trimtab.core.errors import Conflict, TrimtabError
from trimtab.core.nouns import Check, Data, Verdict, Version
from trimtab.monitor.answers import STREAM, Answered, Chunk, read_answers
from trimtab.monitor.drift import DriftMonitor, DriftWatch, references_of
from trimtab.monitor.performance import PerformanceMonitor, PerformanceWatch
from trimtab.monitor.signals import EVER, Labelled, Watch, champion, judge_row, watches
from trimtab.store import calls, facts, live
from trimtab.store.ledger import Tx
from trimtab.store.live import Alarm
from trimtab.store.store import Store

SLACK_US = 5_000_000
"""Labels that arrived at nearly the same time may be recorded in another order; this long is looked back."""

_COUNT = "SELECT count(*) FROM label WHERE endpoint_id=? AND arrived_at>? AND arrived_at<=?"
AnyMonitor = DriftMonitor | PerformanceMonitor
AnyState = DriftWatch | PerformanceWatch


class LabelCursor(Struct, frozen=True, kw_only=True):
    """How far an endpoint's labels have been folded in.

    Attributes:
        high: the latest arrival folded in, in microseconds.
        seen: marks of the labels that arrived within ``SLACK_US`` before that.
    """

    high: int = -EVER
    seen: tuple[bytes, ...] = ()


class Active(Struct, frozen=True, kw_only=True):
    """A watch together with the champion that it watches."""

    watch: Watch
    version: Version
    monitor: Any


class Ticked(Struct, frozen=True, kw_only=True):
    """What a tick did.

    Attributes:
        rows: answered rows read.
        labels: newly labelled answers read.
        alarms: those that were raised, and open ones that were found to stand still.
    """

    rows: int = 0
    labels: int = 0
    alarms: list[Alarm] = []

    @property
    def moved(self) -> bool:
        """Something was read or raised."""
        return bool(self.rows or self.labels or self.alarms)


class Monitors:
    """The watches of one store; holds tables that are worth keeping between ticks, and no state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._built: dict[tuple[str, str], AnyMonitor] = {}
        self._told: set[tuple[str, str]] = set()

    def tick(self, now: datetime) -> Ticked:
        """Fold in calls and labels up to ``now``, look, and record alarms.

        Raises:
            Conflict: another process ticks on this store.
        """
        total = Ticked()
        active = self.active(now)
        while True:
            chunk = read_answers(self._store, now)
            done = self._step(active, chunk, now)
            total = Ticked(
                rows=total.rows + done.rows, labels=total.labels + done.labels, alarms=total.alarms + done.alarms
            )
            if not chunk.more:
                return total

    def active(self, now: datetime) -> list[Active]:
        """Return the watches that can work; one that cannot is told as an open case, once."""
        found = []
        for watch in watches(self._store.ledger):
            version = champion(self._store.ledger, watch.endpoint)
            if version is None:
                continue
            try:
                monitor = self._monitor(watch, version)
            except TrimtabError as error:
                self._cannot(watch, version, error, now)
                continue
            found.append(Active(watch=watch, version=version, monitor=monitor))
        return found

    def of_endpoint(self, name: str, now: datetime) -> list[Active]:
        """Return the watches of one endpoint that can work."""
        return [one for one in self.active(now) if one.watch.endpoint.name == name]

    def verdicts(self, now: datetime, endpoint: str = "") -> list[Data]:
        """Return what each watch says now, without a look: for people, pages and the API."""
        told = []
        for one in self.of_endpoint(endpoint, now) if endpoint else self.active(now):
            state = one.monitor.load(live.get_state(self._store.ledger, one.watch.key), now)
            verdict = one.monitor.verdict(state, now)
            told.append(
                {
                    "endpoint": one.watch.endpoint.name,
                    "check": verdict.check,
                    "signal": one.watch.check.kind,
                    "status": verdict.status,
                    "reason": verdict.reason,
                    "by_default": one.watch.by_default,
                    "alarms": state.alarms,
                    "evidence": verdict.evidence,
                }
            )
        return told

    def _monitor(self, watch: Watch, version: Version) -> AnyMonitor:
        key = (watch.key, version.id)
        if key not in self._built:
            self._built[key] = build(self._store, watch.check, version)
        return self._built[key]

    def _cannot(self, watch: Watch, version: Version, error: TrimtabError, now: datetime) -> None:
        if (watch.key, version.id) in self._told:
            return
        title = f"{watch.check.name} cannot watch {watch.endpoint.name}: {error.message}"

        def write(tx: Tx) -> None:
            live.open_case(tx, kind="monitor", title=title, subject=watch.key, at=now, facts=error.as_data())

        self._store.ledger.write(write, what=f"monitor {watch.check.name}")
        self._told.add((watch.key, version.id))

    def _step(self, active: Sequence[Active], chunk: Chunk, now: datetime) -> Ticked:
        """Fold in one chunk; with the last one also labels, and look."""
        ledger = self._store.ledger
        last = not chunk.more
        labels = {id_: self._labels(id_, now) for id_ in _endpoints(active)} if last else {}
        changed: list[tuple[Active, AnyState]] = []
        raised: list[tuple[Active, Verdict]] = []
        fresh: list[Active] = []
        for one in active:
            kept = live.get_state(ledger, one.watch.key)
            before = one.monitor.load(kept, now)
            rows = [row for row in labels.get(one.watch.endpoint.id, ([], None))[0] if row.version_id == one.version.id]
            after, verdict = _advance(one, before, chunk.answers, rows, now if last else None)
            if verdict is not None:
                raised.append((one, verdict))
            if kept is None or kept.get("version_id") != one.version.id:
                fresh.append(one)
                changed.append((one, after))
            elif after != before:
                changed.append((one, after))
        cursors = {id_: cursor for id_, (rows, cursor) in labels.items() if rows}
        if not (changed or raised or cursors or chunk.moved):
            return Ticked()

        def write(tx: Tx) -> list[str]:
            if calls.get_offset(tx, STREAM) != chunk.start:
                raise Conflict("another process ticks the monitors of this store", fix="run one `trimtab up` on it")
            chunk.commit(tx)
            for one in fresh:
                _resolve(tx, one, now)
            for one, state in changed:
                live.put_state(tx, one.watch.key, _plain(state))
            for id_, cursor in cursors.items():
                live.put_state(tx, _cursor_key(id_), msgspec.to_builtins(cursor, builtin_types=(bytes,)))
            return [_record(tx, one, verdict, now).id for one, verdict in raised]

        ids = set(ledger.write(write, what="monitor tick"))
        alarms = [alarm for alarm in live.list_alarms(ledger) if alarm.id in ids] if ids else []
        rows_read = sum(len(answer.scores) for answer in chunk.answers)
        return Ticked(rows=rows_read, labels=sum(len(rows) for rows, _ in labels.values()), alarms=alarms)

    def _labels(self, endpoint_id: str, now: datetime) -> tuple[list[Labelled], LabelCursor]:
        """Return labelled answers that were not folded in yet, by event time and id, and the cursor behind them."""
        ledger = self._store.ledger
        kept = live.get_state(ledger, _cursor_key(endpoint_id))
        cursor = msgspec.convert(kept, LabelCursor) if kept else LabelCursor()
        low = max(cursor.high - SLACK_US - 1, -EVER)
        # Counting is done on an index; most ticks find that there is nothing to read.
        if ledger.query(_COUNT, (endpoint_id, low, to_micros(now)))[0][0] == len(cursor.seen):
            return [], cursor
        known = set(cursor.seen)
        found = calls.labelled(ledger, endpoint_id, low, to_micros(now))
        fresh = [row for row in found if _mark(row.call.prediction_id) not in known]
        if not fresh:
            return [], cursor
        high = max(cursor.high, *(row.arrived_at for row in fresh))
        seen = sorted(_mark(row.call.prediction_id) for row in found if row.arrived_at >= high - SLACK_US)
        return [judge_row(ledger, row) for row in fresh], LabelCursor(high=high, seen=tuple(seen))


def restart(tx: Tx, watched: Iterable[Active], at: datetime) -> None:
    """Let watches start anew, as the one whose alarm a retraining has answered.

    Args:
        tx: the transaction that holds the decision.
        watched: from ``Monitors.of_endpoint``, read before the transaction.
        at: event time.
    """
    for one in watched:
        state = one.monitor.load(live.get_state(tx, one.watch.key), at)
        live.put_state(tx, one.watch.key, _plain(one.monitor.start(at, state.alarms)))


def build(store: Store, check: Check, version: Version) -> AnyMonitor:
    """Return the monitor of a check for a champion.

    Raises:
        WrongUse: the version brings no reference for this check.
    """
    if check.kind == "drift":
        return DriftMonitor(check, version, references_of(store.blobs, version))
    return PerformanceMonitor(check, version)


def _advance(
    one: Active, state: AnyState, answers: Iterable[Answered], rows: Sequence[Labelled], look: datetime | None
) -> tuple[AnyState, Verdict | None]:
    monitor: AnyMonitor = one.monitor
    if isinstance(monitor, DriftMonitor) and isinstance(state, DriftWatch):
        for answer in answers:
            if (answer.endpoint_id, answer.version_id) == (one.watch.endpoint.id, one.version.id):
                state = monitor.fold(state, answer.columns, answer.scores)
        return monitor.look(state, look) if look else (state, None)
    assert isinstance(monitor, PerformanceMonitor) and isinstance(state, PerformanceWatch)
    if rows:
        state = monitor.fold(state, rows)
    return monitor.look(state, look) if look else (state, None)


def _record(tx: Tx, one: Active, verdict: Verdict, now: datetime) -> Alarm:
    """Raise an alarm, or say of the one that this watch has open about this champion that it stands still."""
    kept = facts.add_verdict(tx, msgspec.structs.replace(verdict, subject=one.watch.endpoint.id))
    for alarm in live.list_alarms(tx, one.watch.endpoint.id):
        same = (alarm.data.get("watch"), alarm.data.get("version_id")) == (one.watch.key, one.version.id)
        if same and alarm.resolved_at is None:
            repeats = int(alarm.data.get("repeats", 0)) + 1
            latest = {
                "at": now.isoformat(),
                "verdict": kept.id,
                "reason": verdict.reason,
                "evidence": verdict.evidence,
            }
            known = {**alarm.data, "repeats": repeats, "latest": latest}
            return live.update_alarm(tx, msgspec.structs.replace(alarm, data=known))
    data = {
        "signal": one.watch.check.kind,
        "endpoint": one.watch.endpoint.name,
        "version": one.version.ref,
        "version_id": one.version.id,
        "by_default": one.watch.by_default,
        "watch": one.watch.key,
        "verdict": kept.id,
        "reason": verdict.reason,
        "evidence": verdict.evidence,
    }
    return live.add_alarm(tx, check=one.watch.check.name, endpoint_id=one.watch.endpoint.id, at=now, data=data)


def _resolve(tx: Tx, one: Active, now: datetime) -> None:
    """Resolve this watch's alarms about an earlier champion: another version answers now."""
    for alarm in live.list_alarms(tx, one.watch.endpoint.id):
        if alarm.resolved_at is None and alarm.data.get("watch") == one.watch.key:
            live.resolve_alarm(tx, alarm.id, now)


def _endpoints(active: Iterable[Active]) -> list[str]:
    return sorted({one.watch.endpoint.id for one in active if one.watch.check.kind == "performance"})


def _cursor_key(endpoint_id: str) -> str:
    return f"monitor/{endpoint_id}/labels"


def _mark(prediction_id: str) -> bytes:
    return blake2b(prediction_id.encode(), digest_size=8).digest()


def _plain(state: AnyState) -> Data:
    plain: Data = msgspec.to_builtins(state)
    return plain
