"""Verdicts of model gates from measured values: numbers in, a verdict out."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import asdict

from trimtab.check.intervals import Interval
from trimtab.core.metric import metric as metric_named
from trimtab.core.nouns import Check, Data, Status, Verdict


def judge_metric(check: Check, found: Interval, *, at: datetime, subject: str, facts: Data) -> Verdict:
    """Return whether a metric is beyond its limit; with ``sure`` the whole interval must be.

    Args:
        check: of kind ``metric``.
        found: the metric on rows that the model was not trained on.
        at: event time.
        subject: the version's id.
        facts: more evidence: which rows.
    """
    above, below = check.params["above"], check.params["below"]
    value = found.estimate
    if check.params["sure"]:
        value = found.low if above is not None else found.high
    good = value > above if above is not None else value < below
    limit = f"above {above}" if above is not None else f"below {below}"
    name = check.params["metric"]
    reason = f"{name} is {found.estimate:.4f} [{found.low:.4f}, {found.high:.4f}] on {found.rows} rows, wanted {limit}"
    evidence = {"metric": name, "limit": limit, "interval": _plain(found), **facts}
    return _verdict(check, "pass" if good else "fail", reason, evidence, at, subject)


def judge_beats(check: Check, found: Interval, *, at: datetime, subject: str, facts: Data) -> Verdict:
    """Return whether a candidate's gain over the champion exceeds the margin, surely.

    Args:
        check: of kind ``beats``.
        found: metric(candidate) - metric(champion) on rows newer than both were trained on.
        at: event time.
        subject: the candidate's id.
        facts: more evidence: which rows, which champion, both values.
    """
    definition = metric_named(check.params["on"])
    gain = found if definition.better == "higher" else found.negated()
    good = gain.low > check.params["margin"]
    what = f"gain in {definition.name} over {facts.get('champion', 'the champion')}"
    reason = (
        f"{what} is {gain.estimate:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] on {gain.rows} rows; "
        f"its lower end {'exceeds' if good else 'does not exceed'} {check.params['margin']:g}"
    )
    evidence = {"metric": definition.name, "gain": _plain(gain), "margin": check.params["margin"], **facts}
    return _verdict(check, "pass" if good else "fail", reason, evidence, at, subject)


def no_champion(check: Check, *, at: datetime, subject: str) -> Verdict:
    """Return the verdict where there is no champion to beat."""
    return _verdict(check, "pass", "there is no champion yet", {"champion": None}, at, subject)


def is_champion(check: Check, champion: str, *, at: datetime, subject: str) -> Verdict:
    """Return the verdict where the candidate is the champion, taken up again: there is nobody else to beat."""
    return _verdict(check, "pass", f"it is the champion, {champion}", {"champion": champion}, at, subject)


def undecided(check: Check, reason: str, *, at: datetime, subject: str, facts: Data) -> Verdict:
    """Return the verdict where the rows do not suffice; a gate takes it as a no."""
    return _verdict(check, "inconclusive", reason, dict(facts), at, subject)


def accepts(verdicts: list[Verdict]) -> bool:
    """Say whether a gate lets a candidate through: every verdict is a pass or a mere warning."""
    return all(verdict.status in ("pass", "warn") for verdict in verdicts)


def _plain(found: Interval) -> Data:
    return asdict(found)


def _verdict(check: Check, status: Status, reason: str, evidence: Data, at: datetime, subject: str) -> Verdict:
    if status in ("fail", "inconclusive") and check.severity == "warn":
        status = "warn"
    return Verdict(
        check=check.name, kind=check.kind, status=status, subject=subject, evidence=evidence, reason=reason, at=at
    )
