"""Rollouts: a new deployment takes over traffic step by step while the judge watches; every decision is recorded.

    starting -> stepping -> watching -> promoted        any of them -> rolled_back (failed: there was nothing to
                   |  ^                                 return to)
                   v  |
                  paused

What is decided depends on the records and on event time alone: on the requests and labels that were taken in, on the
states of the deployments and on ``now``. Each decision is one transaction: traffic, alias, states, a verdict with the
evidence, and the audit leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from trimtab.core.clock import parse_duration, parse_time
from trimtab.core.errors import NotFound, Unavailable
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Deployment, Endpoint, Run, Status, Verdict
from trimtab.serve import judge
from trimtab.serve.routes import publish
from trimtab.store import facts, live
from trimtab.store.ledger import Reader, Tx
from trimtab.store.live import RolloutRow, RolloutState
from trimtab.store.store import Store


class Move(Struct, frozen=True, kw_only=True):
    """What is due for a rollout.

    Attributes:
        do: give the next share, all traffic, all traffic back, wait for a person, or end the watch.
        step: the index of the step to take.
        text: why, in words.
        outcome: of a reversal: ``harm``, ``failed``, ``inconclusive``, ``superseded`` or ``by hand``.
    """

    do: Literal["step", "promote", "reverse", "pause", "finish"]
    status: Status
    text: str
    step: int = 0
    outcome: str = ""


def begin(
    tx: Tx,
    endpoint: Endpoint,
    version_id: str,
    *,
    at: datetime,
    actor: str,
    runtime: Data,
    why: str,
    deployment_id: str = "",
    plan: Data | None = None,
) -> RolloutRow:
    """Start a rollout of a version; its deployment should come up, and ``advance`` does the rest.

    A rollout that is under way ends: one that had all traffic is done, another one is superseded and starts anew
    with this version, at no traffic.

    Args:
        tx: the transaction.
        endpoint: where to.
        version_id: of what.
        at: event time.
        actor: who acts.
        runtime: of the new deployment: ``{"threads", ...}``.
        why: what caused it, for the records.
        deployment_id: an existing deployment of that version, to be used again.
        plan: by default the endpoint's.

    Raises:
        Unavailable: a superseded candidate has traffic and the stable deployment cannot take it now.
    """
    version = facts.get_version(tx, version_id)
    active = live.active_rollout(tx, endpoint.id)
    if active is not None and active.state == "watching":
        _perform(tx, active, at, Move(do="finish", status="pass", text=f"the watch ends: {version.ref} comes next"))
    elif active is not None:
        end_early(tx, active, at, status="inconclusive", text=f"superseded by {version.ref}", outcome="superseded")
    endpoint = live.get_endpoint(tx, endpoint.id)
    stable = max(endpoint.traffic, key=lambda name: endpoint.traffic[name], default="")
    if deployment_id:
        live.set_desired(tx, deployment_id, "up")
        deployment = live.get_deployment(tx, deployment_id)
    else:
        deployment = live.add_deployment(tx, endpoint_id=endpoint.id, version_id=version_id, runtime=runtime, at=at)
    run = Run(
        id=new_id("run"), kind="rollout", name=endpoint.name, state="running", started_at=at, actor=actor,
        facts={"version": version.ref, "deployment": deployment.number, "why": why},
        environment=tx.environment, workspace=tx.workspace,
    )  # fmt: skip
    facts.start_run(tx, run)
    facts.add_used(tx, run.id, [(version_id, "candidate")])
    row = RolloutRow(
        id=new_id("rol"),
        endpoint_id=endpoint.id,
        run_id=run.id,
        state="starting",
        stable_id=stable,
        candidate_id=deployment.id,
        data={
            "plan": plan or endpoint.spec["rollout"],
            "step": -1,
            "started": at.isoformat(),
            "step_started": "",
            "history": [],
            "version": version.ref,
            "why": why,
        },
        updated_at=at,
    )
    live.add_rollout(tx, row)
    return row


def advance(store: Store, now: datetime) -> list[Data]:
    """Decide what is due for every rollout that is under way, publish the routes, and return the decisions.

    Any process may call it at any time: a decision is made once, and when nothing is due nothing is written.

    Args:
        store: the store.
        now: event time.

    Returns:
        For each decision ``{"endpoint", "rollout", "version", "state", "status", "reason", "at", "verdict"}``.
    """
    decisions: list[Data] = []
    for endpoint in live.list_endpoints(store.ledger):
        while _next(store.ledger, endpoint.id, now) is not None:
            made = store.ledger.write(partial(_advance, endpoint.id, now), what=f"rollout {endpoint.name}")
            if made is None:
                break
            decisions.append(made)
    if decisions:
        publish(store)
    return decisions


def waiting(reader: Reader) -> list[str]:
    """Return the ids of deployments that rollouts or traffic wait for: they should be up and are starting."""
    found = []
    for endpoint in live.list_endpoints(reader):
        row = live.active_rollout(reader, endpoint.id)
        wanted = set(endpoint.traffic) | ({row.candidate_id} if row and row.state == "starting" else set())
        found += [one for one in sorted(wanted) if live.get_deployment(reader, one).state == "starting"]
    return found


def end_early(tx: Tx, row: RolloutRow, now: datetime, *, status: Status, text: str, outcome: str) -> Data:
    """Give all traffic back to the stable deployment, take the candidate down, and return the decision.

    Raises:
        Unavailable: the stable deployment cannot take the traffic now.
    """
    return _perform(tx, row, now, Move(do="reverse", status=status, text=text, outcome=outcome))


def abandon(tx: Tx, row: RolloutRow, now: datetime, text: str) -> Data:
    """End a rollout where it stands and return the decision; the caller moves the traffic."""
    _close_case(tx, row)
    return _end(tx, row, now, "rolled_back", "inconclusive", text, outcome="removed")


def resume(store: Store, endpoint_name: str, now: datetime) -> Data:
    """Let a paused rollout go on: its step begins anew, with the evidence so far.

    Raises:
        NotFound: the endpoint has no paused rollout.
    """

    def write(tx: Tx) -> Data:
        endpoint = live.need_endpoint(tx, endpoint_name)
        row = live.active_rollout(tx, endpoint.id)
        if row is None or row.state != "paused":
            raise NotFound(f"{endpoint_name} has no paused rollout", fix=f"trimtab show {endpoint_name}")
        _close_case(tx, row)
        text = f"resumed at {_share(row):g} % of the traffic"
        return _change(tx, row, now, "stepping", "pass", text, step_started=now.isoformat())

    return store.ledger.write(write, what=f"resume {endpoint_name}")


def _next(reader: Reader, endpoint_id: str, now: datetime) -> Move | None:
    row = live.active_rollout(reader, endpoint_id)
    return due(reader, row, now) if row is not None else None


def _advance(endpoint_id: str, now: datetime, tx: Tx) -> Data | None:
    row = live.active_rollout(tx, endpoint_id)
    move = due(tx, row, now) if row is not None else None
    return _perform(tx, row, now, move) if row is not None and move is not None else None


def due(reader: Reader, row: RolloutRow, now: datetime) -> Move | None:
    """Return what is due for a rollout at ``now``, or None: then it waits."""
    candidate = live.get_deployment(reader, row.candidate_id)
    back = not row.stable_id or live.get_deployment(reader, row.stable_id).state == "ready"
    if candidate.state == "failed":
        text = f"the new deployment failed: {candidate.reason}"
        return Move(do="reverse", status="fail", text=text, outcome="failed") if back else None
    if row.state == "starting":
        return _possible(_first(row, candidate), back)
    state, plan = judge.load(reader, row), row.data["plan"]
    if state.harmful:
        return Move(do="reverse", status="fail", text=_harm(state, plan), outcome="harm") if back else None
    since = now - parse_time(row.data["step_started"])
    soaked = since >= parse_duration(plan["soak"])
    if row.state == "watching":
        text = f"nothing bad was seen for {plan['soak']} after the switch"
        return Move(do="finish", status="pass", text=text) if soaked else None
    if row.state == "paused" or candidate.state != "ready":
        return None
    enough = state.step_requests.candidate >= plan["minimum"]
    if soaked and enough and (plan["advance"] == "no_harm" or judge.proven(state, plan["alpha"])):
        return _possible(_onward(row, "pass", _no_harm(state, plan)), back)
    if since >= parse_duration(plan["deadline"]):
        return _possible(_inconclusive(row, state, plan), back)
    return None


def _possible(move: Move | None, back: bool) -> Move | None:
    """Return the move if it can be made now: to share traffic or give it back takes a stable deployment that is up."""
    return move if back or move is None or move.do not in ("step", "reverse") else None


def _first(row: RolloutRow, candidate: Deployment) -> Move | None:
    if candidate.state != "ready":
        return None
    if not row.stable_id:
        return Move(do="promote", status="pass", text=f"the first deployment is ready ({candidate.reason})")
    return _onward(row, "pass", f"the new deployment is ready ({candidate.reason})")


def _onward(row: RolloutRow, status: Status, text: str) -> Move:
    step, steps = row.data["step"] + 1, row.data["plan"]["steps"]
    last = step >= len(steps) or steps[step] >= 100
    return Move(do="promote" if last else "step", status=status, text=text, step=step)


def _inconclusive(row: RolloutRow, state: judge.Evidence, plan: Mapping[str, Any]) -> Move:
    asked = state.step_requests.candidate
    text = f"no decision within {plan['deadline']}: {asked} requests of at least {plan['minimum']} in this step"
    if plan["on_inconclusive"] == "promote":
        return _onward(row, "inconclusive", text)
    if plan["on_inconclusive"] == "rollback":
        return Move(do="reverse", status="inconclusive", text=text, outcome="inconclusive")
    return Move(do="pause", status="inconclusive", text=text)


def _harm(state: judge.Evidence, plan: Mapping[str, Any]) -> str:
    alarmed = [name for name, process in state.watch.items() if process.alarmed]
    if alarmed and not state.reached:
        seen = state.watch[alarmed[0]]
        mean = seen.mean or 0.0
        return f"evidence of harm by {', '.join(alarmed)}: {mean:.3g} where the record promises at most {seen.null:.3g}"
    counts = "; ".join(
        f"{name}: {process.events_canary} events of the new and {process.events_stable} of the old deployment"
        for name, process in state.harm.items()
    )
    names = ", ".join(state.named) or "all checks together"
    return f"evidence of harm by {names}: e-value {state.peak:.3g} reached {1 / plan['alpha']:g} ({counts})"


def _no_harm(state: judge.Evidence, plan: Mapping[str, Any]) -> str:
    power = []
    for name, process in state.harm.items():
        ratio = process.smallest_detectable_ratio(plan["alpha"])
        power.append(f"{ratio:.3g} for {name}" if ratio < 1000 else f"none for {name}")
    return (
        f"no evidence of harm in {state.step_requests.candidate} requests (largest e-value {state.peak:.3g} of"
        f" {1 / plan['alpha']:g}; smallest risk ratio seen with 80 % power: {', '.join(power)})"
    )


def _perform(tx: Tx, row: RolloutRow, now: datetime, move: Move) -> Data:
    """Carry out a move and return the decision."""
    if move.do == "step":
        return _step(tx, row, now, move)
    if move.do == "promote":
        return _promote(tx, row, now, move)
    if move.do == "reverse":
        return _reverse(tx, row, now, move)
    if move.do == "pause":
        said = _change(tx, row, now, "paused", move.status, f"{move.text}; paused at {_share(row):g} %")
        title = f"the rollout of {row.data['version']} is paused"
        live.open_case(tx, kind="rollout", title=title, subject=row.id, at=now, facts={"why": move.text})
        return said
    if row.stable_id and live.get_deployment(tx, row.stable_id).desired == "up":
        live.set_desired(tx, row.stable_id, "down")
    return _end(tx, row, now, "promoted", move.status, move.text)


def _step(tx: Tx, row: RolloutRow, now: datetime, move: Move) -> Data:
    share = float(row.data["plan"]["steps"][move.step])
    _traffic(tx, row.endpoint_id, {row.stable_id: 100 - share, row.candidate_id: share})
    said = _change(
        tx, row, now, "stepping", move.status, f"{move.text}; {share:g} % of the traffic goes to it",
        step=move.step, step_started=now.isoformat(),
        **({"started": now.isoformat()} if row.data["step"] < 0 else {}),
    )  # fmt: skip
    judge.save(tx, row.id, replace(judge.load(tx, row), step_requests=judge.Arms()))
    return said


def _promote(tx: Tx, row: RolloutRow, now: datetime, move: Move) -> Data:
    """Give the candidate all traffic and make it the champion; the former one is kept warm while it is watched."""
    _traffic(tx, row.endpoint_id, {row.candidate_id: 100.0})
    version = facts.get_version(tx, live.get_deployment(tx, row.candidate_id).version_id)
    facts.set_alias(tx, version.asset, "champion", version.id)
    plan = row.data["plan"]
    watch = bool(row.stable_id) and plan["kind"] != "rollback"
    for deployment in live.list_deployments(tx, row.endpoint_id):
        kept = {row.candidate_id, row.stable_id} if watch else {row.candidate_id}
        if deployment.desired == "up" and deployment.id not in kept:
            live.set_desired(tx, deployment.id, "down")
    text = f"{move.text}; {version.ref} has all traffic and is the champion"
    stamp = {"step": move.step, "step_started": now.isoformat(), "promoted_at": now.isoformat()}
    if row.data["step"] < 0:
        stamp["started"] = now.isoformat()
    if not watch:
        return _end(tx, row, now, "promoted", move.status, text, **stamp)
    state = judge.load(tx, row)
    fresh = judge.start_watch(tx, row, state) if plan["kind"] == "blue_green" else state
    judge.save(tx, row.id, replace(fresh, step_requests=judge.Arms()))
    return _change(tx, row, now, "watching", move.status, f"{text}; watched for {plan['soak']}", **stamp)


def _reverse(tx: Tx, row: RolloutRow, now: datetime, move: Move) -> Data:
    endpoint = live.get_endpoint(tx, row.endpoint_id)
    if row.stable_id:
        if endpoint.traffic != {row.stable_id: 100.0}:
            _traffic(tx, row.endpoint_id, {row.stable_id: 100.0})
        if row.state == "watching":
            version = facts.get_version(tx, live.get_deployment(tx, row.stable_id).version_id)
            facts.set_alias(tx, version.asset, "champion", version.id)
    elif row.candidate_id in endpoint.traffic:
        _traffic(tx, row.endpoint_id, {})
    if row.candidate_id != row.stable_id:
        live.set_desired(tx, row.candidate_id, "down")
    _close_case(tx, row)
    state: RolloutState = "rolled_back" if row.stable_id else "failed"
    text = f"{move.text}; all traffic is with the former deployment" if row.stable_id else move.text
    return _end(tx, row, now, state, move.status, text, outcome=move.outcome)


def _traffic(tx: Tx, endpoint_id: str, traffic: dict[str, float]) -> None:
    for name in traffic:
        deployment = live.get_deployment(tx, name)
        if deployment.state != "ready":
            raise Unavailable(
                f"deployment {deployment.number} is {deployment.state} and cannot take traffic",
                where=deployment.id,
                fix="try again when it is ready; `trimtab up` starts it",
            )
    live.set_traffic(tx, endpoint_id, traffic, expect_epoch=live.get_endpoint(tx, endpoint_id).epoch)


def _share(row: RolloutRow) -> float:
    step = row.data["step"]
    return float(row.data["plan"]["steps"][step]) if step >= 0 else 0.0


def _close_case(tx: Tx, row: RolloutRow) -> None:
    for case in live.list_cases(tx):
        if case.state == "open" and (case.kind, case.subject) == ("rollout", row.id):
            live.close_case(tx, case.id, run_id=row.run_id)


def _change(
    tx: Tx, row: RolloutRow, now: datetime, state: RolloutState, status: Status, text: str, **data: object
) -> Data:
    """Write a rollout's new state with the verdict that led to it, and return the decision."""
    endpoint, version = live.get_endpoint(tx, row.endpoint_id), row.data["version"]
    evidence = {
        **judge.told(judge.load(tx, row), row.data["plan"]), "rollout": row.id, "candidate": version, "state": state,
        "step": data.get("step", row.data["step"]), "before": row.state, "traffic": endpoint.traffic,
        "deployment": live.get_deployment(tx, row.candidate_id).number, "outcome": data.get("outcome", ""),
    }  # fmt: skip
    verdict = facts.add_verdict(
        tx,
        Verdict(
            check=f"rollout({endpoint.name})", kind="rollout", status=status, subject=endpoint.id, evidence=evidence,
            reason=f"{version}: {text}", at=now, run_id=row.run_id,
        ),
    )  # fmt: skip
    entry = {"at": now.isoformat(), "state": state, "status": status, "reason": text, "verdict": verdict.id}
    history = [*row.data["history"], entry]
    after = replace(row, state=state, data={**row.data, **data, "history": history}, updated_at=now)
    live.update_rollout(tx, after, row.state)
    return {"endpoint": endpoint.name, "rollout": row.id, "version": version, **entry}


def _end(
    tx: Tx, row: RolloutRow, now: datetime, state: RolloutState, status: Status, text: str, **data: object
) -> Data:
    """End a rollout and the run that records it."""
    said = _change(tx, row, now, state, status, text, **data)
    judge.forget(tx, row.id)
    run = facts.get_run(tx, row.run_id)
    if run is not None and run.state == "running":
        ended = next(one for one in live.list_rollouts(tx, row.endpoint_id) if one.id == row.id)
        found: Data = {
            "outcome": state, "reason": text, "decisions": ended.data["history"],
            "evidence": msgspec.to_builtins(judge.load(tx, row)),
        }  # fmt: skip
        facts.finish_run(tx, row.run_id, state="done", ended_at=max(now, run.started_at), facts=found)
    return said
