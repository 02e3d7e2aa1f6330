"""Rollouts: a new deployment takes over step by step while the judge watches; every decision is recorded."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from trimtab.core.clock import parse_duration, parse_time
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Deployment, Endpoint, Run, Status, Verdict
from trimtab.serve.judge import begin_step, evidence, fresh_state, state_key
from trimtab.serve.routes import publish
from trimtab.store import facts, live
from trimtab.store.ledger import Tx
from trimtab.store.live import RolloutRow, RolloutState
from trimtab.store.store import Store


def begin(
    tx: Tx, endpoint: Endpoint, version_id: str, *, at: datetime, actor: str, runtime: Data, why: str
) -> RolloutRow:
    """Start a rollout of a version: its deployment should come up; one that is under way is superseded."""
    active = live.active_rollout(tx, endpoint.id)
    if active is not None:
        _reverse(tx, active, at, "superseded", f"superseded by {facts.get_version(tx, version_id).ref}")
        endpoint = live.get_endpoint(tx, endpoint.id)
    version = facts.get_version(tx, version_id)
    stable = max(endpoint.traffic, key=lambda name: endpoint.traffic[name], default="")
    deployment = live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version_id, runtime=runtime, at=at)
    run = Run(
        id=new_id("run"), kind="rollout", name=endpoint.name, state="running", started_at=at, actor=actor,
        facts={"version": version.ref, "deployment": deployment.number, "why": why},
    )  # fmt: skip
    facts.start_run(tx, run)
    facts.add_used(tx, run.id, [(version_id, "candidate")])
    plan = endpoint.spec["rollout"]
    row = RolloutRow(
        id=new_id("rol"),
        endpoint_id=endpoint.id,
        run_id=run.id,
        state="starting",
        stable_id=stable,
        candidate_id=deployment.id,
        data={
            "plan": plan,
            "step": -1,
            "started": at.isoformat(),
            "step_started": "",
            "history": [],
            "version": version.ref,
        },
        updated_at=at,
    )
    live.add_rollout(tx, row)
    live.put_state(tx, state_key(row.id), fresh_state(plan))
    return row


def advance(store: Store, now: datetime) -> list[Data]:
    """Decide what is due for every rollout that is under way and return the decisions."""
    decisions: list[Data] = []
    for endpoint in live.list_endpoints(store.ledger):
        while (made := store.ledger.write(partial(_advance, endpoint.id, now), what="rollout")) is not None:
            decisions.append(made)
    if decisions:
        publish(store)
    return decisions


def _advance(endpoint_id: str, now: datetime, tx: Tx) -> Data | None:
    row = live.active_rollout(tx, endpoint_id)
    if row is None or row.state == "paused":
        return None
    candidate = live.get_deployment(tx, row.candidate_id)
    if candidate.state == "failed":
        return _reverse(tx, row, now, "rolled_back", f"the new deployment failed: {candidate.reason}", status="fail")
    if row.state == "starting":
        return _first_step(tx, row, candidate, now)
    found = evidence(tx, row)
    if found["harm"]:
        names = ", ".join(found["named"]) or "all checks together"
        text = f"evidence of harm by {names}: e-value {found['e_value']:.3g} reached {1 / found['alpha']:.3g}"
        return _reverse(tx, row, now, "rolled_back", text, status="fail", found=found)
    return _step(tx, row, now, found)


def _first_step(tx: Tx, row: RolloutRow, candidate: Deployment, now: datetime) -> Data | None:
    if candidate.state != "ready":
        return None
    if not row.stable_id:
        return _promote(tx, row, now, "the first deployment takes all traffic", None)
    return _set_step(tx, row, 0, now, None)


def _step(tx: Tx, row: RolloutRow, now: datetime, found: Data) -> Data | None:
    plan = row.data["plan"]
    since = now - parse_time(row.data["step_started"])
    if row.state == "watching":
        if since >= parse_duration(plan["soak"]):
            return _finish_watch(tx, row, now, found)
        return None
    soaked = since >= parse_duration(plan["soak"])
    enough = found["step_requests"]["candidate"] >= plan["minimum"]
    if soaked and enough and (plan["advance"] == "no_harm" or found["proven"]):
        return _set_step(tx, row, row.data["step"] + 1, now, found)
    if since >= parse_duration(plan["deadline"]):
        return _inconclusive(tx, row, now, found)
    return None


def _inconclusive(tx: Tx, row: RolloutRow, now: datetime, found: Data) -> Data:
    policy = row.data["plan"]["on_inconclusive"]
    text = f"no decision within {row.data['plan']['deadline']} of event time"
    if policy == "rollback":
        return _reverse(tx, row, now, "rolled_back", text, status="inconclusive", found=found)
    if policy == "promote":
        return _set_step(tx, row, row.data["step"] + 1, now, found)
    paused = msgspec.structs.replace(row, state="paused", updated_at=now)
    live.update_rollout(tx, paused, row.state)
    live.open_case(
        tx,
        kind="rollout",
        title=f"rollout of {row.data['version']} is paused",
        subject=row.id,
        at=now,
        facts={"why": text},
    )
    return _say(tx, paused, now, "inconclusive", f"{text}; paused", found)


def _set_step(tx: Tx, row: RolloutRow, step: int, now: datetime, found: Data | None) -> Data:
    """Give the candidate the share of a step; at 100 % it is the champion from the same transaction on."""
    steps = row.data["plan"]["steps"]
    if step >= len(steps) or steps[step] >= 100:
        return _promote(tx, row, now, _passed(found), found)
    share = float(steps[step])
    _traffic(tx, row.endpoint_id, {row.stable_id: 100 - share, row.candidate_id: share})
    begin_step(tx, row.id)
    data = {**row.data, "step": step, "step_started": now.isoformat()}
    if step == 0:
        data["started"] = now.isoformat()
    after = msgspec.structs.replace(row, state="stepping", data=data, updated_at=now)
    live.update_rollout(tx, after, row.state)
    text = (
        f"{_passed(found)}; {share:g} % of the traffic goes to it"
        if found
        else f"{share:g} % of the traffic goes to it"
    )
    return _say(tx, after, now, "pass", text, found)


def _passed(found: Data | None) -> str:
    if found is None:
        return "the new deployment is ready"
    seen = [one["smallest_ratio_seen"] for one in found["checks"].values() if one["smallest_ratio_seen"]]
    power = f"; a risk ratio of {max(seen):.3g} would have been seen with 80 % power" if seen else ""
    return (
        f"no evidence of harm in {found['step_requests']['candidate']} requests (e-value {found['e_value']:.3g}){power}"
    )


def _promote(tx: Tx, row: RolloutRow, now: datetime, text: str, found: Data | None) -> Data:
    _traffic(tx, row.endpoint_id, {row.candidate_id: 100.0})
    version = facts.get_version(tx, live.get_deployment(tx, row.candidate_id).version_id)
    facts.set_alias(tx, version.asset, "champion", version.id)
    watch = row.data["plan"]["kind"] == "blue_green" and bool(row.stable_id)
    state: RolloutState = "watching" if watch else "promoted"
    data = {**row.data, "step_started": now.isoformat(), "promoted_at": now.isoformat()}
    after = msgspec.structs.replace(row, state=state, data=data, updated_at=now)
    live.update_rollout(tx, after, row.state)
    _retire(tx, row.endpoint_id, keep={row.candidate_id, row.stable_id})
    said = _say(tx, after, now, "pass", f"{text}; {version.ref} has all traffic and is the champion", found)
    if not watch:
        _end_run(tx, after, now, said)
    return said


def _finish_watch(tx: Tx, row: RolloutRow, now: datetime, found: Data) -> Data:
    after = msgspec.structs.replace(row, state="promoted", updated_at=now)
    live.update_rollout(tx, after, row.state)
    said = _say(tx, after, now, "pass", "nothing bad was seen after the switch", found)
    _end_run(tx, after, now, said)
    return said


def _retire(tx: Tx, endpoint_id: str, keep: set[str]) -> None:
    """Take down deployments that are neither live nor the one to return to."""
    for deployment in live.list_deployments(tx, endpoint_id):
        if deployment.desired == "up" and deployment.id not in keep:
            live.set_desired(tx, deployment.id, "down")


def _reverse(
    tx: Tx, row: RolloutRow, now: datetime, outcome: str, text: str, *, status: Status = "inconclusive",
    found: Data | None = None,
) -> Data:  # fmt: skip
    """Give all traffic back to the stable deployment and take the candidate down."""
    endpoint = live.get_endpoint(tx, row.endpoint_id)
    if row.stable_id and endpoint.traffic.get(row.stable_id) != 100.0:
        _traffic(tx, row.endpoint_id, {row.stable_id: 100.0})
        version = facts.get_version(tx, live.get_deployment(tx, row.stable_id).version_id)
        facts.set_alias(tx, version.asset, "champion", version.id)
    live.set_desired(tx, row.candidate_id, "down")
    state: RolloutState = "rolled_back" if row.stable_id else "failed"
    after = msgspec.structs.replace(row, state=state, data={**row.data, "outcome": outcome}, updated_at=now)
    live.update_rollout(tx, after, row.state)
    said = _say(tx, after, now, status, f"{text}; rolled back", found)
    _end_run(tx, after, now, said)
    return said


def _traffic(tx: Tx, endpoint_id: str, traffic: dict[str, float]) -> None:
    epoch = live.get_endpoint(tx, endpoint_id).epoch
    live.set_traffic(tx, endpoint_id, traffic, expect_epoch=epoch)


def _say(tx: Tx, row: RolloutRow, now: datetime, status: Status, text: str, found: Data | None) -> Data:
    """Record a decision as a verdict and in the rollout's history, and return it."""
    endpoint = live.get_endpoint(tx, row.endpoint_id)
    proof: Data = {**(found or {}), "traffic": endpoint.traffic, "step": row.data["step"], "state": row.state}
    verdict = facts.add_verdict(
        tx,
        Verdict(
            check=f"rollout({endpoint.name})", kind="rollout", status=status, subject=row.id, evidence=proof,
            reason=text, at=now, run_id=row.run_id,
        ),
    )  # fmt: skip
    decision = {
        "endpoint": endpoint.name, "rollout": row.id, "version": row.data["version"], "state": row.state,
        "status": status, "reason": text, "at": now.isoformat(), "verdict": verdict.id,
    }  # fmt: skip
    history = [*row.data["history"], {name: decision[name] for name in ("at", "state", "status", "reason")}]
    kept = msgspec.structs.replace(row, data={**row.data, "history": history})
    live.update_rollout(tx, kept, row.state)
    return decision


def _end_run(tx: Tx, row: RolloutRow, now: datetime, said: Data) -> None:
    run = facts.get_run(tx, row.run_id)
    if run is not None and run.state == "running":
        found: Any = {"outcome": row.state, "reason": said["reason"]}
        facts.finish_run(tx, row.run_id, state="done", ended_at=max(now, run.started_at), facts=found)
