"""Drift of inputs and predictions from what the champion was trained on: histograms in, one alarm a model out.

A row is counted into cells when it is read and is then forgotten; a look happens once at least ``batch`` rows
have come together. The evidence is ``check.shift``; distances are shown beside it and raise nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from trimtab.check.histogram import Counts, Reference, distances, merge
from trimtab.check.shift import DriftProcess, DriftState
from trimtab.core.clock import from_micros, to_micros
from trimtab.core.errors import Corrupt, WrongUse
from trimtab.core.nouns import Check, Data, Verdict, Version
from trimtab.monitor.budget import budget_of, exposure, is_due
from trimtab.store.blobs import Blobs

PREDICTION = "prediction"
WINDOW = 100
"""Distances are shown over the newest looks that have so many rows together: fewer would be all noise."""


class Window(Struct, frozen=True, kw_only=True):
    """Counts of some rows, for each feature against its reference."""

    rows: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)

    def plus(self, other: Window) -> Window:
        """Return both together."""
        names = self.counts.keys() | other.counts.keys()
        counts = {
            name: merge(self.counts[name], other.counts[name])
            if name in self.counts and name in other.counts
            else self.counts.get(name) or other.counts[name]
            for name in names
        }
        return Window(rows=self.rows + other.rows, counts=counts)


class DriftWatch(Struct, frozen=True, kw_only=True):
    """The state of one drift watch, kept in the ledger.

    Attributes:
        version_id: the champion whose training rows are the reference.
        since: event time of the start or last restart, in microseconds.
        looked: event time of the last look, or of the start.
        carry: rows counted since the last look.
        recent: rows of the looks before the newest ones, and of the newest ones; distances are told from them.
        alarms: how often this watch raised an alarm against this reference.
    """

    version_id: str
    since: int
    looked: int
    process: DriftState
    carry: Window = Window()
    recent: tuple[Window, Window] = (Window(), Window())
    alarms: int = 0


class DriftMonitor:
    """Watches one endpoint against one version's references; everything that changes is a ``DriftWatch``."""

    def __init__(self, check: Check, version: Version, references: Sequence[Reference]) -> None:
        wanted = check.params.get("columns")
        chosen = [one for one in references if not wanted or one.name in wanted]
        if not chosen:
            known = ", ".join(one.name for one in references)
            raise WrongUse(
                f"{check.name} watches columns that {version.ref} was not trained on",
                where=check.name,
                fix=f"its columns are {known}",
            )
        self.check = check
        self.version = version
        self.references = {one.name: one for one in chosen}
        self._process = DriftProcess(
            chosen, budget=budget_of(check.params["false_alarms"]), material=float(check.params["material"])
        )

    def start(self, at: datetime, alarms: int = 0) -> DriftWatch:
        """Return the state before the first row."""
        begun = to_micros(at)
        return DriftWatch(
            version_id=self.version.id,
            since=begun,
            looked=begun,
            process=self._process.start(),
            alarms=alarms,
        )

    def load(self, data: Data | None, at: datetime) -> DriftWatch:
        """Return the kept state, or a new one where there is none or where it is of another version."""
        if data is None or data.get("version_id") != self.version.id:
            return self.start(at)
        return msgspec.convert(data, DriftWatch)

    def fold(self, state: DriftWatch, columns: Mapping[str, Sequence[Any]], scores: Sequence[Any]) -> DriftWatch:
        """Return the state after some answered rows of the champion.

        Args:
            state: before.
            columns: input name -> values; a column that a request left out counts as missing.
            scores: the predictions' scores (or the predictions of a model without scores).
        """
        rows = len(scores)
        counts = {
            name: reference.count(_countable(reference, scores if name == PREDICTION else columns.get(name), rows))
            for name, reference in self.references.items()
        }
        return replace(state, carry=state.carry.plus(Window(rows=rows, counts=counts)))

    def look(self, state: DriftWatch, now: datetime) -> tuple[DriftWatch, Verdict | None]:
        """Return the state after a look, if enough rows have come together, and a verdict if it is an alarm.

        After an alarm the state starts anew.
        """
        if not is_due(self.check, state.carry.rows, state.looked, now):
            return state, None
        block = bool(self.check.params.get("block"))
        process = self._process.update(state.process, state.carry.counts, exposure(state.looked, now), block=block)
        older, newer = state.recent
        recent = (newer, state.carry) if newer.rows >= WINDOW else (older, newer.plus(state.carry))
        after = replace(state, process=process, carry=Window(), recent=recent, looked=to_micros(now))
        if not process.alarm_at:
            return after, None
        return self.start(now, state.alarms + 1), self.verdict(after, now)

    def verdict(self, state: DriftWatch, now: datetime) -> Verdict:
        """Return what the check says now: ``fail`` from the alarm on, else ``pass``; too few rows, inconclusive."""
        evidence = self.evidence(state, now)
        features = [item["feature"] for item in evidence["features"] if item["named"]]
        strongest = evidence["features"][0] if evidence["features"] else {}
        if state.process.alarm_at:
            named = ", ".join(features) or str(strongest.get("feature", ""))
            first = f"{strongest.get('feature')} has {strongest.get('change')}"
            reason = f"calls have drifted from the training rows of {self.version.ref}: {named} ({first})"
        elif state.process.batches:
            reason = f"no drift from the training rows of {self.version.ref} beyond the tolerance"
        else:
            reason = f"{state.carry.rows} rows so far, and one look takes {self.check.params['batch']}"
        status = "fail" if state.process.alarm_at else "pass" if state.process.batches else "inconclusive"
        return Verdict(
            check=self.check.name,
            kind=self.check.kind,
            status=status,  # type: ignore[arg-type]
            subject="",
            evidence=evidence,
            reason=reason,
            at=now,
        )

    def evidence(self, state: DriftWatch, now: datetime) -> Data:
        """Return the numbers behind a verdict, and what they mean."""
        older, newer = state.recent
        seen = newer if newer.rows >= WINDOW else older.plus(newer)
        findings = self._process.findings(state.process) if state.process.batches else []
        return {
            "signal": "drift",
            "version": self.version.ref,
            "evidence": self._process.evidence(state.process),
            "limit": self._process.budget.limit,
            "e_value": self._process.evidence(state.process) / (self._process.budget.run_length or 1.0),
            "false_alarms": self.check.params["false_alarms"],
            "material": self.check.params["material"],
            "looks": state.process.batches,
            "rows": state.process.rows,
            "since": from_micros(state.since).isoformat(),
            "tick": now.isoformat(),
            "features": [
                {
                    "feature": finding.feature,
                    "e_value": finding.e_value,
                    "share": finding.share,
                    "change": finding.change,
                    "named": finding.named,
                    **self._shown(finding.feature, seen),
                }
                for finding in findings
            ],
            "window_rows": seen.rows,
        }

    def _shown(self, feature: str, seen: Window) -> Data:
        if not seen.rows:
            return {}
        shown = distances(self.references[feature], seen.counts[feature])
        return {
            "psi": shown.psi,
            "js": shown.js,
            "ks": shown.ks,
            "wasserstein": shown.wasserstein,
            "missing": shown.missing,
            "missing_reference": shown.missing_reference,
        }


def _countable(reference: Reference, values: Sequence[Any] | None, rows: int) -> Iterable[Any]:
    """Return a batch's values in a form that can be counted; what is no number counts as missing."""
    if values is None:
        return [None] * rows
    if reference.kind == "categorical":
        return values
    return [value if isinstance(value, int | float) else None for value in values]


def references_of(blobs: Blobs, version: Version) -> tuple[Reference, ...]:
    """Return a version's references: its inputs, and its predictions under the name ``prediction``.

    A version without a reference (another kind than a model) has none.

    Raises:
        Corrupt: the blob is not what a model version's reference should be.
    """
    mark = str(version.meta.get("reference") or "")
    if not mark:
        return ()
    try:
        return tuple(msgspec.json.decode(blobs.get(mark), type=list[Reference]))
    except msgspec.DecodeError as error:
        raise Corrupt(f"the reference of {version.ref} cannot be read: {error}", where=mark) from error
