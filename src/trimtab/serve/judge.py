"""The evidence of a rollout: e-processes over bad events, fed from the calls log and from labels.

An event is something bad that happened to one request: it failed, it was slow, or its prediction turned out wrong.
While traffic is split at random, the arm that an event came from says whether the new deployment is worse, whatever
the base rate does (``check.risk``). When all traffic goes to the new deployment there is nothing to compare at the same
time; then, after a blue-green switch, its events are held against what the old deployment's record promised
(``check.harm``). Both are valid at every look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from trimtab.check.harm import Budget, HarmProcess, null_mean
from trimtab.check.histogram import same_class
from trimtab.check.risk import RiskRatioProcess, combine, harm, non_inferiority
from trimtab.core.clock import parse_duration, parse_time, to_micros
from trimtab.core.declare import checks_from
from trimtab.core.nouns import Check, Data
from trimtab.serve.frames import CallFrame
from trimtab.store import facts, live
from trimtab.store.calls import CallRow, labelled
from trimtab.store.ledger import Reader, Tx
from trimtab.store.live import RolloutRow

Arm = Literal["candidate", "stable"]
SLACK = 0.01
"""After a blue-green switch a rise of a rate by this much, or by the plan's margin, is tolerated."""
_EVER = 1 << 62


class Arms(Struct, frozen=True):
    """Requests that each arm answered."""

    candidate: int = 0
    stable: int = 0

    def plus(self, arm: Arm) -> Arms:
        """Return the counts after one more request."""
        return Arms(self.candidate + (arm == "candidate"), self.stable + (arm == "stable"))


class Evidence(Struct, frozen=True, kw_only=True):
    """All that is remembered of a rollout's requests, kept in the ledger as plain data.

    Attributes:
        harm: check -> the process against "no worse than the stable deployment".
        proof: check -> the process against "worse by the margin"; empty unless the plan asks for proof.
        watch: check -> the process against the old deployment's record, after a blue-green switch.
        requests: judged requests since the first step.
        step_requests: judged requests since the step began.
        peak: the largest joint e-value after any event.
        named: the checks that sufficed alone when ``peak`` was reached.
        reached: the joint e-value has reached ``1/alpha`` after some event.
    """

    harm: dict[str, RiskRatioProcess]
    proof: dict[str, RiskRatioProcess]
    watch: dict[str, HarmProcess] = {}
    requests: Arms = Arms()
    step_requests: Arms = Arms()
    peak: float = 1.0
    named: tuple[str, ...] = ()
    reached: bool = False

    @property
    def harmful(self) -> bool:
        """Harm is shown, by the comparison of the arms or against the record."""
        return self.reached or any(process.alarmed for process in self.watch.values())


def judged(plan: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return the checks of a plan; without any, failed answers are judged."""
    return checks_from(plan["judge"]) or (Check(name="errors(5xx)", kind="errors", params={}),)


def no_evidence(plan: Mapping[str, Any]) -> Evidence:
    """Return the evidence of a rollout that has seen nothing."""
    names = [check.name for check in judged(plan)]
    proof = names if plan["advance"] == "proven" else []
    return Evidence(
        harm={name: harm() for name in names}, proof={name: non_inferiority(plan["margin"]) for name in proof}
    )


def after_event(state: Evidence, alpha: float, name: str, weight: float, arm: Arm) -> Evidence:
    """Return the evidence after one bad event.

    Args:
        state: before.
        alpha: of the whole rollout; the mean of the checks' e-values is held against ``1/alpha``, after each event.
        name: of the check.
        weight: the probability with which the request was routed to the candidate.
        arm: which deployment answered.
    """
    from_candidate = arm == "candidate"
    moved = {**state.harm, name: state.harm[name].update(weight, from_candidate)}
    proof = state.proof
    if name in proof:
        proof = {**proof, name: proof[name].update(weight, from_candidate)}
    joint = combine({known: process.e_value for known, process in moved.items()}, alpha)
    state = replace(state, harm=moved, proof=proof)
    if joint.e_value <= state.peak:
        return state
    return replace(state, peak=joint.e_value, named=joint.named, reached=state.reached or joint.reached)


def load(reader: Reader, rollout: RolloutRow) -> Evidence:
    """Return the evidence of a rollout so far."""
    data = live.get_state(reader, _key(rollout.id))
    return no_evidence(rollout.data["plan"]) if data is None else msgspec.convert(data, Evidence)


def save(tx: Tx, rollout_id: str, state: Evidence) -> None:
    """Keep the evidence of a rollout."""
    live.put_state(tx, _key(rollout_id), msgspec.to_builtins(state))


def forget(tx: Tx, rollout_id: str) -> None:
    """Drop what was kept only to count each session once; the evidence itself stays."""
    low, high = f"{_key(rollout_id)}/", f"{_key(rollout_id)}0"
    sql = "DELETE FROM state WHERE workspace=? AND environment=? AND key>=? AND key<?"
    tx.execute(sql, (tx.workspace, tx.environment, low, high))


def _key(rollout_id: str) -> str:
    return f"rollout/{rollout_id}"


def observe(tx: Tx, frames: Sequence[CallFrame]) -> None:
    """Feed new requests, each once and in order, to the rollouts of their endpoints; in the tx that records them."""
    groups: dict[str, list[CallFrame]] = {}
    for frame in frames:
        if not frame.named:
            groups.setdefault(frame.endpoint_id, []).append(frame)
    for endpoint_id, mine in groups.items():
        rollout = live.active_rollout(tx, endpoint_id)
        if rollout is None or not rollout.data.get("step_started"):
            continue
        before = load(tx, rollout)
        after = _watched(rollout, before, mine) if rollout.state == "watching" else _compared(tx, rollout, before, mine)
        if after != before:
            save(tx, rollout.id, after)


def _compared(tx: Tx, rollout: RolloutRow, state: Evidence, frames: Sequence[CallFrame]) -> Evidence:
    plan, checks = rollout.data["plan"], judged(rollout.data["plan"])
    keeps_keys = any(check.kind == "outcome" for check in checks)
    first, step = _micros(rollout.data["started"]), _micros(rollout.data["step_started"])
    for frame in frames:
        arm = _arm(rollout, frame.deployment_id)
        if arm is None or not 0.0 < frame.candidate_weight < 1.0 or frame.at_us < first:
            continue
        in_step = state.step_requests.plus(arm) if frame.at_us >= step else state.step_requests
        state = replace(state, requests=state.requests.plus(arm), step_requests=in_step)
        if frame.key and keeps_keys:
            live.put_state(tx, f"{_key(rollout.id)}/key/{frame.request_id}", {"key": frame.key})
        for check in checks:
            if is_bad(check, frame) and (not frame.key or _first_of_unit(tx, rollout.id, check, frame.key)):
                state = after_event(state, plan["alpha"], check.name, frame.candidate_weight, arm)
    return state


def _watched(rollout: RolloutRow, state: Evidence, frames: Sequence[CallFrame]) -> Evidence:
    since = _micros(rollout.data["step_started"])
    mine = [frame for frame in frames if frame.deployment_id == rollout.candidate_id and frame.at_us >= since]
    for check in judged(rollout.data["plan"]):
        if check.name in state.watch and check.kind != "outcome" and mine:
            losses = [float(is_bad(check, frame)) for frame in mine]
            state = replace(state, watch={**state.watch, check.name: state.watch[check.name].update_many(losses)})
    return replace(state, step_requests=Arms(state.step_requests.candidate + len(mine), state.step_requests.stable))


def observe_labels(tx: Tx, endpoint_id: str, found: Iterable[tuple[CallRow, Any]]) -> None:
    """Feed labels that arrived, each once, to the rollout of their endpoint, with the weight of their predictions."""
    rollout = live.active_rollout(tx, endpoint_id)
    if rollout is None or not rollout.data.get("step_started"):
        return
    wanted = [check for check in judged(rollout.data["plan"]) if check.kind == "outcome"]
    before = state = load(tx, rollout)
    terms: dict[str, Data] = {}
    for call, label in found if wanted else ():
        if call.version_id not in terms:
            terms[call.version_id] = facts.get_version(tx, call.version_id).meta
        for check in wanted:
            wrong = is_wrong(check, call, label, terms[call.version_id])
            if wrong is not None:
                state = _after_label(tx, rollout, state, check, call, wrong)
    if state != before:
        save(tx, rollout.id, state)


def _after_label(tx: Tx, rollout: RolloutRow, state: Evidence, check: Check, call: CallRow, wrong: bool) -> Evidence:
    arm = _arm(rollout, call.deployment_id)
    if arm is None or call.at < _micros(rollout.data["started"]):
        return state
    if 0.0 < call.candidate_weight < 1.0:
        if not wrong:
            return state
        kept = live.get_state(tx, f"{_key(rollout.id)}/key/{call.request_id}")
        unit = str(kept["key"]) if kept else call.request_id
        if not _first_of_unit(tx, rollout.id, check, unit):
            return state
        return after_event(state, rollout.data["plan"]["alpha"], check.name, call.candidate_weight, arm)
    if arm == "candidate" and check.name in state.watch and call.at >= _micros(rollout.data["step_started"]):
        return replace(state, watch={**state.watch, check.name: state.watch[check.name].update(float(wrong))})
    return state


def _first_of_unit(tx: Tx, rollout_id: str, check: Check, unit: str) -> bool:
    """Say whether this is the first event of a unit of randomisation; only that one is evidence."""
    key = f"{_key(rollout_id)}/unit/{check.name}/{unit}"
    if live.get_state(tx, key) is not None:
        return False
    live.put_state(tx, key, {})
    return True


def _arm(rollout: RolloutRow, deployment_id: str) -> Arm | None:
    if deployment_id == rollout.candidate_id:
        return "candidate"
    return "stable" if deployment_id == rollout.stable_id else None


def _micros(text: str) -> int:
    return to_micros(parse_time(text))


def is_bad(check: Check, frame: CallFrame) -> bool:
    """Say whether a request is an event of a check that needs no label."""
    if check.kind == "errors":
        return frame.status >= 500
    return check.kind == "latency" and frame.latency_us > _limit_us(check)


def _limit_us(check: Check) -> float:
    return parse_duration(check.params["limit"]).total_seconds() * 1e6


def is_wrong(check: Check, call: CallRow, label: Any, meta: Mapping[str, Any]) -> bool | None:
    """Say whether a prediction was wrong; None where that cannot be told (regression, a label of no known class).

    Args:
        check: of kind ``outcome``.
        call: the prediction.
        label: the truth.
        meta: of the model version that answered.
    """
    if not any(same_class(label, one) for one in meta.get("classes") or ()):
        return None
    if meta.get("task") == "binary" and call.score is not None:
        said = bool(call.score >= check.params["threshold"])
        return said != same_class(label, meta.get("positive"))
    return not same_class(label, call.prediction)


def start_watch(reader: Reader, rollout: RolloutRow, state: Evidence) -> Evidence:
    """Return the evidence at a blue-green switch: processes against what the old deployment's record promises.

    The null of each is an upper confidence bound of the recorded rate (``check.harm.null_mean``) plus ``SLACK`` or the
    plan's margin of the rate, whichever is larger. A check without any record is not judged.
    """
    plan, checks = rollout.data["plan"], judged(rollout.data["plan"])
    watch = {}
    for check in checks:
        bad, total = _record(reader, rollout, check)
        if total:
            rate = bad / total
            spread = rate * (1 - rate) * total / (total - 1) if total > 1 else None
            null = null_mean(rate, total, spread, tolerance=min(1.0, max(SLACK, plan["margin"] * rate)))
            watch[check.name] = HarmProcess(null=null, budget=Budget(alpha=plan["alpha"] / len(checks)))
    return replace(state, watch=watch, step_requests=Arms())


def _record(reader: Reader, rollout: RolloutRow, check: Check) -> tuple[int, int]:
    """Return how many requests (or labelled predictions) of the old deployment were bad, and how many there were."""
    if check.kind == "outcome":
        meta = facts.get_version(reader, live.get_deployment(reader, rollout.stable_id).version_id).meta
        rows = labelled(reader, rollout.endpoint_id, -_EVER, _EVER)
        mine = [row for row in rows if row.call.deployment_id == rollout.stable_id]
        known = [wrong for row in mine if (wrong := is_wrong(check, row.call, row.label, meta)) is not None]
        return sum(known), len(known)
    where = "FROM call WHERE endpoint_id=? AND deployment_id=? AND row=0"
    scope = (rollout.endpoint_id, rollout.stable_id)
    total = int(reader.query(f"SELECT count(*) {where}", scope)[0][0])
    column, limit = ("latency_us", _limit_us(check)) if check.kind == "latency" else ("status", 499.0)
    sql = f"SELECT count(*) {where} AND {column} > ?"
    return int(reader.query(sql, (*scope, limit))[0][0]), total


def told(state: Evidence, plan: Mapping[str, Any]) -> Data:
    """Return the evidence as plain data for a verdict: e-values, events, and what could have been missed.

    ``smallest_ratio_seen`` is the smallest risk ratio that this many events had 80 % power to show (None: none up to
    a thousand); ``ratio_interval`` is a confidence sequence of the risk ratio.
    """
    alpha = float(plan["alpha"])
    checks: dict[str, Data] = {}
    for name, process in state.harm.items():
        low, high = process.interval(alpha)
        checks[name] = {
            "e_value": process.e_value,
            "largest_e_value": process.max_e_value,
            "candidate_events": process.events_canary,
            "stable_events": process.events_stable,
            "smallest_ratio_seen": _finite(process.smallest_detectable_ratio(alpha)),
            "ratio_interval": [low, _finite(high)],
        }
        if name in state.proof:
            checks[name]["proof_e_value"] = state.proof[name].max_e_value
        if name in state.watch:
            seen = state.watch[name]
            checks[name] |= {"watch_e_value": seen.peak, "watch_null": seen.null, "watch_rate": seen.mean}
    return {
        "checks": checks,
        "e_value": state.peak,
        "limit": 1 / alpha,
        "alpha": alpha,
        "harm": state.harmful,
        "named": [*state.named, *(name for name, process in state.watch.items() if process.alarmed)],
        "proven": proven(state, alpha),
        "requests": msgspec.to_builtins(state.requests),
        "step_requests": msgspec.to_builtins(state.step_requests),
    }


def proven(state: Evidence, alpha: float) -> bool:
    """Say whether every check has shown at ``alpha`` that the new deployment is worse by less than the margin."""
    return bool(state.proof) and all(process.max_e_value >= 1 / alpha for process in state.proof.values())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
