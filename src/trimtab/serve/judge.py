"""The evidence of a rollout: e-processes over bad events, fed from the calls log and from labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from trimtab.check.risk import RiskRatioProcess, combine, harm, non_inferiority
from trimtab.core.clock import parse_duration, parse_time, to_micros
from trimtab.core.declare import checks_from
from trimtab.core.nouns import Check, Data
from trimtab.serve.frames import CallFrame
from trimtab.store import live
from trimtab.store.calls import CallRow
from trimtab.store.ledger import Reader, Tx
from trimtab.store.live import RolloutRow


def state_key(rollout_id: str) -> str:
    """Return where a rollout's evidence is kept."""
    return f"rollout/{rollout_id}"


def fresh_state(plan: Data) -> Data:
    """Return the evidence of a rollout that has seen nothing."""
    names = [check.name for check in judged(plan)]
    zero = msgspec.to_builtins(harm())
    return {
        "harm": {name: zero for name in names},
        "proof": {name: msgspec.to_builtins(non_inferiority(plan["margin"])) for name in names},
        "requests": {"candidate": 0, "stable": 0},
        "step_requests": {"candidate": 0, "stable": 0},
    }


def judged(plan: Data) -> tuple[Check, ...]:
    """Return the checks of a plan; without any, failed answers are judged."""
    given = checks_from(plan["judge"])
    return given or (Check(name="errors(5xx)", kind="errors", params={}),)


def process(data: Data) -> RiskRatioProcess:
    """Return an e-process from its plain form."""
    return msgspec.convert(data, RiskRatioProcess, strict=False)


def observe(tx: Tx, frames: Sequence[CallFrame]) -> None:
    """Feed new requests to the rollouts of their endpoints; in the transaction that records them."""
    by_endpoint: dict[str, list[CallFrame]] = {}
    for frame in frames:
        if frame.candidate_weight > 0:
            by_endpoint.setdefault(frame.endpoint_id, []).append(frame)
    for endpoint_id, mine in by_endpoint.items():
        rollout = live.active_rollout(tx, endpoint_id)
        if rollout is None or not rollout.data.get("step_started"):
            continue
        since = to_micros(parse_time(rollout.data["started"]))
        state = live.get_state(tx, state_key(rollout.id)) or fresh_state(rollout.data["plan"])
        for frame in mine:
            if frame.at_us < since:
                continue
            arm = _arm(rollout, frame.deployment_id)
            if not arm:
                continue
            state["requests"][arm] += 1
            state["step_requests"][arm] += 1
            for check in judged(rollout.data["plan"]):
                if _bad(check, frame):
                    _event(state, check.name, frame.candidate_weight, arm == "candidate")
        live.put_state(tx, state_key(rollout.id), state)


def observe_labels(tx: Tx, endpoint_id: str, labelled: Iterable[tuple[CallRow, Any]]) -> None:
    """Feed labels that arrived to the rollout of their endpoint, with the weight of the prediction's time."""
    rollout = live.active_rollout(tx, endpoint_id)
    if rollout is None or not rollout.data.get("step_started"):
        return
    wanted = [check for check in judged(rollout.data["plan"]) if check.kind == "outcome"]
    if not wanted:
        return
    since = to_micros(parse_time(rollout.data["started"]))
    state = live.get_state(tx, state_key(rollout.id)) or fresh_state(rollout.data["plan"])
    for call, label in labelled:
        arm = _arm(rollout, call.deployment_id)
        if arm and call.at >= since and call.candidate_weight > 0:
            for check in wanted:
                if _wrong(check, call, label):
                    _event(state, check.name, call.candidate_weight, arm == "candidate")
    live.put_state(tx, state_key(rollout.id), state)


def _arm(rollout: RolloutRow, deployment_id: str) -> str:
    return {rollout.candidate_id: "candidate", rollout.stable_id: "stable"}.get(deployment_id, "")


def _bad(check: Check, frame: CallFrame) -> bool:
    if check.kind == "errors":
        return frame.status >= 500
    if check.kind == "latency":
        return frame.latency_us > parse_duration(check.params["limit"]).total_seconds() * 1e6
    return False


def _wrong(check: Check, call: CallRow, label: Any) -> bool:
    if isinstance(label, bool) and call.score is not None:
        return bool((call.score >= check.params["threshold"]) != label)
    return bool(call.prediction != label)


def _event(state: Data, name: str, weight: float, from_candidate: bool) -> None:
    if not 0 < weight < 1 or name not in state["harm"]:
        return
    for kind in ("harm", "proof"):
        state[kind][name] = msgspec.to_builtins(process(state[kind][name]).update(weight, from_candidate))


def evidence(reader: Reader, rollout: RolloutRow) -> Data:
    """Return what the evidence says now: e-values, whether harm is shown, and what could have been missed."""
    plan = rollout.data["plan"]
    state = live.get_state(reader, state_key(rollout.id)) or fresh_state(plan)
    found = {name: process(data) for name, data in state["harm"].items()}
    proof = {name: process(data) for name, data in state["proof"].items()}
    joint = combine({name: one.max_e_value for name, one in found.items()}, plan["alpha"])
    checks = {
        name: {
            "e_value": one.e_value,
            "largest_e_value": one.max_e_value,
            "candidate_events": one.events_canary,
            "stable_events": one.events_stable,
            "smallest_ratio_seen": _finite(one.smallest_detectable_ratio(plan["alpha"])),
            "proof_e_value": proof[name].max_e_value,
        }
        for name, one in found.items()
    }
    return {
        "checks": checks,
        "e_value": joint.e_value,
        "harm": joint.reached,
        "named": list(joint.named),
        "proven": all(one.max_e_value >= 1 / plan["alpha"] for one in proof.values()),
        "alpha": plan["alpha"],
        "requests": state["requests"],
        "step_requests": state["step_requests"],
    }


def _finite(value: float) -> float | None:
    return value if value < 1e6 else None


def begin_step(tx: Tx, rollout_id: str) -> None:
    """Count requests from zero; the evidence goes on over all steps."""
    state = live.get_state(tx, state_key(rollout_id))
    if state is not None:
        live.put_state(tx, state_key(rollout_id), {**state, "step_requests": {"candidate": 0, "stable": 0}})
