"""Live loss of the champion as labels arrive, against what was accepted on its held-back rows (R63).

The evidence is ``check.harm``: bets that the mean loss has risen above the held-back risk's upper bound plus the
tolerated rise. A confidence sequence says where the live loss lies; it holds at all times at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from trimtab.check.harm import HarmProcess, MeanSequence, null_mean
from trimtab.check.scores import row_brier, row_log_loss, scaled
from trimtab.core.clock import from_micros, to_micros
from trimtab.core.errors import WrongUse
from trimtab.core.nouns import Check, Data, Verdict, Version
from trimtab.monitor.budget import budget_of, exposure, is_due
from trimtab.monitor.signals import Labelled

LARGEST_LOG_LOSS = math.log(100.0)
"""A row's log loss (nats) is cut at that of giving 1 % to what happened, so that it is bounded."""


class PerformanceWatch(Struct, frozen=True, kw_only=True):
    """The state of one performance watch, kept in the ledger.

    Attributes:
        version_id: the champion whose held-back risk is the reference.
        since: event time of the start or last restart, in microseconds.
        looked: event time of the last look, or of the start.
        carry: losses since the last look, in order.
        unknown: labels that the model cannot know, or answers without a score; they are in no loss.
    """

    version_id: str
    since: int
    looked: int
    process: HarmProcess
    band: MeanSequence
    carry: tuple[float, ...] = ()
    unknown: int = 0
    alarms: int = 0


class PerformanceMonitor:
    """Watches the labelled answers of one version; everything that changes is a ``PerformanceWatch``."""

    def __init__(self, check: Check, version: Version) -> None:
        self.check = check
        self.version = version
        self.on = str(check.params["on"])
        risks = version.meta.get("risk") or {}
        if self.on not in risks:
            raise WrongUse(
                f"{version.ref} has no held-back {self.on} to compare with",
                where=check.name,
                fix=f"watch one of {', '.join(sorted(risks)) or 'none'}, or train with held-back rows",
            )
        self.risk: Data = risks[self.on]
        # A loss that is cut is smaller on average than the whole one, so the held-back risk, measured on whole
        # losses, bounds it from above and the null stays valid.
        self.unit = LARGEST_LOG_LOSS if self.on == "log_loss" else 1.0
        variance = self.risk.get("variance")
        self._null = null_mean(
            min(1.0, float(self.risk["mean"]) / self.unit),
            int(self.risk["n"]),
            None if variance is None else float(variance) / self.unit**2,
            tolerance=min(1.0, float(check.params["material"]) / self.unit),
        )

    @property
    def accepted(self) -> float:
        """The largest mean loss that is no harm, in the unit of the loss."""
        return self._null * self.unit

    def start(self, at: datetime, alarms: int = 0) -> PerformanceWatch:
        """Return the state before the first label."""
        begun = to_micros(at)
        return PerformanceWatch(
            version_id=self.version.id,
            since=begun,
            looked=begun,
            process=HarmProcess(null=self._null, budget=budget_of(self.check.params["false_alarms"])),
            band=MeanSequence(),
            alarms=alarms,
        )

    def load(self, data: Data | None, at: datetime) -> PerformanceWatch:
        """Return the kept state, or a new one where there is none or where it is of another version."""
        if data is None or data.get("version_id") != self.version.id:
            return self.start(at)
        return msgspec.convert(data, PerformanceWatch)

    def fold(self, state: PerformanceWatch, rows: Sequence[Labelled]) -> PerformanceWatch:
        """Return the state after newly labelled answers of the champion, in the order of event time and id."""
        losses = [self.loss(row) for row in rows]
        known = tuple(loss for loss in losses if loss is not None)
        return replace(state, carry=state.carry + known, unknown=state.unknown + len(losses) - len(known))

    def loss(self, row: Labelled) -> float | None:
        """Return a row's loss in [0, 1]; None where it has none."""
        if self.on == "error_rate":
            return None if row.correct is None else float(not row.correct)
        if row.task != "binary" or row.score is None or row.truth is None or not 0.0 <= row.score <= 1.0:
            return None
        if self.on == "brier":
            return row_brier(row.score, row.truth)
        return scaled(row_log_loss(row.score, row.truth), self.unit)

    def look(self, state: PerformanceWatch, now: datetime) -> tuple[PerformanceWatch, Verdict | None]:
        """Return the state after a look, if enough labels have come together, and a verdict if it is an alarm.

        Where rows of one block are alike, a block is one observation: the mean of its losses. After an alarm
        the state starts anew.
        """
        if not is_due(self.check, len(state.carry), state.looked, now):
            return state, None
        losses = (sum(state.carry) / len(state.carry),) if self.check.params.get("block") else state.carry
        after = replace(
            state,
            process=state.process.update_many(losses, exposure(state.looked, now)),
            band=state.band.update_many(losses),
            carry=(),
            looked=to_micros(now),
        )
        if not after.process.alarmed:
            return after, None
        return self.start(now, state.alarms + 1), self.verdict(after, now)

    def verdict(self, state: PerformanceWatch, now: datetime) -> Verdict:
        """Return what the check says now: ``fail`` from the alarm on, else ``pass``; too few labels, inconclusive."""
        evidence = self.evidence(state)
        evidence["tick"] = now.isoformat()
        process = state.process
        if process.alarmed:
            low, high = evidence["interval"]
            reason = (
                f"the live {self.on} of {self.version.ref} is {evidence['mean']:.4f} ({low:.4f} to {high:.4f}), "
                f"and at most {self.accepted:.4f} was accepted"
            )
        elif process.observations:
            reason = (
                f"the live {self.on} of {self.version.ref} is {evidence['mean']:.4f}; {self.accepted:.4f} is accepted"
            )
        else:
            reason = f"{len(state.carry)} labels so far, and one look takes {self.check.params['batch']}"
        status = "fail" if process.alarmed else "pass" if process.observations else "inconclusive"
        return Verdict(
            check=self.check.name,
            kind=self.check.kind,
            status=status,  # type: ignore[arg-type]
            subject="",
            evidence=evidence,
            reason=reason,
            at=now,
        )

    def evidence(self, state: PerformanceWatch) -> Data:
        """Return the numbers behind a verdict, and what they mean."""
        process = state.process
        return {
            "signal": "performance",
            "version": self.version.ref,
            "on": self.on,
            "evidence": process.evidence,
            "peak": process.peak,
            "limit": process.budget.limit,
            "e_value": process.evidence / (process.budget.run_length or 1.0),
            "false_alarms": self.check.params["false_alarms"],
            "material": self.check.params["material"],
            "mean": None if process.mean is None else process.mean * self.unit,
            "interval": [end * self.unit for end in state.band.interval()] if state.band.n else None,
            "level": 0.95,
            "accepted": self.accepted,
            "held_back": {name: self.risk.get(name) for name in ("mean", "variance", "n")},
            "rows": process.observations,
            "alarm_at_row": process.alarm_at,
            "unknown_labels": state.unknown,
            "since": from_micros(state.since).isoformat(),
        }
