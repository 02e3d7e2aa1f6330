"""Making live state equal the declaration: endpoints, deployments, automations; and rolling back by hand."""

from __future__ import annotations

import fcntl
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Literal

from msgspec import Struct

from trimtab.core.clock import monotonic
from trimtab.core.declare import AutomationDeclaration, EndpointDeclaration, as_data
from trimtab.core.errors import NotFound, Refused, StepFailed, Unavailable
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Endpoint, Run, Version
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.runtime import actor as this_account
from trimtab.serve.rollout import advance, begin
from trimtab.serve.routes import publish
from trimtab.store import facts, live
from trimtab.store.ledger import Reader, Tx
from trimtab.store.store import Store

_WAIT_S = 120.0
_POLL_S = 0.05
Say = Callable[[str], None]


class LiveStage(Struct, frozen=True, kw_only=True):
    """One thing that `apply` does or leaves as it is.

    Attributes:
        id: such as ``endpoint:delay_api``, ``serve:delay_api`` or ``automation:NAME``.
        action: ``create``, ``update``, ``deploy``, ``roll_out``, ``disable``, ``hold`` or ``keep``.
        reason: why, for a person.
        version: the version that is deployed or rolled out, or empty.
    """

    id: str
    action: Literal["create", "update", "deploy", "roll_out", "disable", "hold", "keep"]
    reason: str
    version: str = ""


def plan_live(store: Store, manifest: Manifest, overrides: Data | None = None) -> list[LiveStage]:
    """Return what `apply` would do; nothing is changed."""
    reader, given = store.ledger, overrides or {}
    stages: list[LiveStage] = []
    for declared in manifest.endpoints:
        known = live.find_endpoint(reader, declared.name)
        spec = spec_of(declared, given)
        ident = f"endpoint:{declared.name}"
        if known is None:
            stages.append(LiveStage(id=ident, action="create", reason="it is declared and not there"))
        elif known.spec != {**spec, "salt": known.spec.get("salt")}:
            stages.append(LiveStage(id=ident, action="update", reason="its declaration has changed"))
        else:
            stages.append(LiveStage(id=ident, action="keep", reason="it is as declared"))
        stages.append(_serving(reader, declared, known))
    stages += _automations(reader, manifest, given)
    return stages


def spec_of(declared: EndpointDeclaration, overrides: Data) -> Data:
    """Return an endpoint's spec: as declared, with what the environment says instead."""
    own = (overrides.get("endpoints") or {}).get(declared.name) or {}
    spec = {**declared.spec, **{name: value for name, value in own.items() if name != "rollout"}}
    spec["rollout"] = {**declared.spec["rollout"], **(own.get("rollout") or {})}
    return {**spec, "serves": declared.serves}


def wanted_version(reader: Reader, asset: str) -> Version | None:
    """Return the version that should be live: the challenger, else the champion, else the current one."""
    if facts.find_asset(reader, asset) is None:
        return None
    for alias in ("challenger", "champion"):
        found = facts.alias_of(reader, asset, alias)
        if found is not None:
            return found
    return facts.current(reader, asset)


def _serving(reader: Reader, declared: EndpointDeclaration, endpoint: Endpoint | None) -> LiveStage:
    ident = f"serve:{declared.name}"
    version = wanted_version(reader, declared.serves)
    if version is None:
        text = f"{declared.serves} has no accepted version; trimtab run {declared.serves}"
        return LiveStage(id=ident, action="hold", reason=text)
    if endpoint is None:
        return LiveStage(id=ident, action="deploy", reason="the first version", version=version.ref)
    deployments = live.list_deployments(reader, endpoint.id)
    up = {one.id: one for one in deployments if one.desired == "up"}
    rollout = live.active_rollout(reader, endpoint.id)
    if rollout is not None and up.get(rollout.candidate_id) and up[rollout.candidate_id].version_id == version.id:
        return LiveStage(id=ident, action="keep", reason=f"its rollout is {rollout.state}", version=version.ref)
    serving = [up[name] for name, share in endpoint.traffic.items() if share and name in up]
    if any(one.version_id == version.id for one in serving):
        return LiveStage(id=ident, action="keep", reason="it serves", version=version.ref)
    for past in live.list_rollouts(reader, endpoint.id):
        same = live.get_deployment(reader, past.candidate_id).version_id == version.id
        if same and past.state in ("rolled_back", "failed") and past.data.get("outcome") != "superseded":
            text = f"its rollout was reversed: {past.data['history'][-1]['reason']}"
            return LiveStage(id=ident, action="hold", reason=text, version=version.ref)
    if not serving:
        return LiveStage(id=ident, action="deploy", reason="nothing serves", version=version.ref)
    return LiveStage(id=ident, action="roll_out", reason="a newer version was accepted", version=version.ref)


def _automations(reader: Reader, manifest: Manifest, overrides: Data) -> list[LiveStage]:
    known = {one.name: one for one in live.list_automations(reader)}
    stages = []
    for declared in manifest.automations:
        ident, have = f"automation:{declared.name}", known.pop(declared.name, None)
        if have is None:
            stages.append(LiveStage(id=ident, action="create", reason="it is declared and not there"))
        elif have.spec != automation_spec(declared) or have.enabled != _enabled(declared.name, overrides):
            stages.append(LiveStage(id=ident, action="update", reason="its declaration has changed"))
        else:
            stages.append(LiveStage(id=ident, action="keep", reason="it is as declared"))
    for name, left in known.items():
        if left.enabled:
            stages.append(LiveStage(id=f"automation:{name}", action="disable", reason="it is no longer declared"))
    return stages


def automation_spec(declared: AutomationDeclaration) -> Data:
    """Return an automation as the ledger keeps it."""
    return {
        "when": {"check": as_data(declared.when.check), "status": declared.when.status},
        "actions": [{"do": action.do, "target": action.target} for action in declared.actions],
        **declared.spec,
    }


def _enabled(name: str, overrides: Data) -> bool:
    own = (overrides.get("automations") or {}).get(name) or {}
    return bool(own.get("enabled", True))


def apply_live(
    store: Store,
    manifest: Manifest,
    overrides: Data | None = None,
    *,
    override: str = "",
    wait: bool = True,
    say: Say = lambda text: None,
) -> Data:
    """Make live state equal the declaration and return ``{"stages", "notes", "ready"}``.

    Args:
        store: the store.
        manifest: what is declared.
        overrides: what the environment says instead.
        override: a reason for deploying a version without a passed gate; recorded.
        wait: until new deployments are ready, when `trimtab up` runs.
        say: is told of progress.

    Raises:
        Refused: a version has no passed gate and no override was given.
        StepFailed: a new deployment does not become ready.
    """
    given, now = overrides or {}, store.now()
    stages = plan_live(store, manifest, given)
    declared = {one.name: one for one in manifest.endpoints}
    rules = {one.name: one for one in manifest.automations}
    for stage in stages:
        kind, _, name = stage.id.partition(":")
        if stage.action in ("keep", "hold"):
            continue
        say(f"{stage.action} {stage.id} {stage.version}".rstrip())
        if kind == "endpoint":
            store.ledger.write(partial(_put_endpoint, declared[name], given, now), what="apply")
        elif kind == "serve":
            roll_out(store, name, stage.version, override=override, why="apply")
        else:
            store.ledger.write(partial(_put_automation, rules.get(name), name, given, now), what="apply")
    publish(store)
    names = [one.name for one in manifest.endpoints]
    return {"stages": [_plain(stage) for stage in stages], **_settle(store, names, wait, say)}


def _plain(stage: LiveStage) -> Data:
    return {"id": stage.id, "action": stage.action, "reason": stage.reason, "version": stage.version}


def _put_endpoint(declared: EndpointDeclaration, overrides: Data, now: datetime, tx: Tx) -> None:
    known, spec = live.find_endpoint(tx, declared.name), spec_of(declared, overrides)
    # The salt is drawn once and stays: another one would move every caller.
    salt = known.spec.get("salt") if known else spec.get("salt") or secrets.token_hex(16)
    live.put_endpoint(tx, name=declared.name, spec={**spec, "salt": salt}, at=now)


def _put_automation(declared: AutomationDeclaration | None, name: str, overrides: Data, now: datetime, tx: Tx) -> None:
    if declared is None:
        spec = next(one.spec for one in live.list_automations(tx) if one.name == name)
        live.put_automation(tx, name=name, spec=spec, enabled=False, at=now)
        return
    enabled = _enabled(name, overrides)
    live.put_automation(tx, name=name, spec=automation_spec(declared), enabled=enabled, at=now)


def roll_out(store: Store, endpoint_name: str, version_ref: str, *, override: str = "", why: str = "by hand") -> str:
    """Start the rollout of a version by the endpoint's plan and return the rollout's id.

    Raises:
        NotFound: there is no such endpoint or version.
        Refused: the version has no passed gate (R16) and no override was given.
    """
    now = store.now()

    def write(tx: Tx) -> str:
        endpoint = live.need_endpoint(tx, endpoint_name)
        version = facts.resolve(tx, version_ref)
        report = validation(tx, version)
        if not report["passed"] and not override:
            raise Refused(
                f"{version.ref} may not go live: {report['reason']}",
                where=version.ref,
                fix="pass its gate, or give --override REASON, which is recorded",
            )
        runtime = {"validation": report, "override": override}
        row = begin(tx, endpoint, version.id, at=now, actor=this_account(), runtime=runtime, why=override or why)
        return row.id

    rollout_id = store.ledger.write(write, what="roll_out")
    publish(store)
    return rollout_id


def validation(reader: Reader, version: Version) -> Data:
    """Return whether a version's gate passed, and the ids of the verdicts that say so (R16).

    A refit stands on the verdicts of the candidate that it repeats.
    """
    parent = str(version.meta.get("refit_of") or "")
    verdicts = facts.verdicts_of(reader, version.id) + (facts.verdicts_of(reader, parent) if parent else [])
    ids = [verdict.id for verdict in verdicts]
    if version.state != "published":
        bad = [verdict.reason for verdict in verdicts if verdict.status in ("fail", "inconclusive")]
        reason = f"it is {version.state}" + (f": {bad[0]}" if bad else "")
        return {"passed": False, "digest": version.digest, "verdicts": ids, "reason": reason}
    return {"passed": True, "digest": version.digest, "verdicts": ids, "reason": "its gate passed"}


def roll_back(store: Store, endpoint_name: str, *, reason: str = "by hand") -> Data:
    """Return all traffic to the former deployment at once.

    Raises:
        NotFound: there is no such endpoint.
        Refused: there is nothing to return to, or it is not ready.
    """
    now = store.now()

    def write(tx: Tx) -> Data:
        endpoint = live.need_endpoint(tx, endpoint_name)
        target = _former(tx, endpoint)
        deployment = live.get_deployment(tx, target)
        if deployment.state != "ready":
            raise Refused(
                f"deployment {deployment.number}, the former one, is {deployment.state}",
                where=endpoint_name,
                fix="start `trimtab up`, or roll out that version again",
            )
        _abandon(tx, endpoint, now, reason)
        epoch = live.get_endpoint(tx, endpoint.id).epoch
        live.set_traffic(tx, endpoint.id, {target: 100.0}, expect_epoch=epoch)
        version = facts.get_version(tx, deployment.version_id)
        facts.set_alias(tx, version.asset, "champion", version.id)
        run = Run(
            id=new_id("run"), kind="rollback", name=endpoint_name, state="done", started_at=now, ended_at=now,
            actor=this_account(), facts={"to": version.ref, "reason": reason},
        )  # fmt: skip
        facts.start_run(tx, run)
        facts.add_used(tx, run.id, [(version.id, "stable")])
        return {"endpoint": endpoint_name, "version": version.ref, "deployment": deployment.number, "run": run.id}

    answer = store.ledger.write(write, what="roll_back")
    publish(store)
    text = f"{endpoint_name} answers with {answer['version']} (deployment {answer['deployment']}) again"
    return {**answer, "message": text}


def _former(reader: Reader, endpoint: Endpoint) -> str:
    active = live.active_rollout(reader, endpoint.id)
    if active is not None and active.stable_id:
        return active.stable_id
    now_live = {name for name, share in endpoint.traffic.items() if share}
    for row in reversed(live.list_rollouts(reader, endpoint.id)):
        if row.state == "promoted" and row.candidate_id in now_live and row.stable_id:
            return row.stable_id
    raise Refused(f"{endpoint.name} has no former deployment", where=endpoint.name, fix="roll out another version")


def _abandon(tx: Tx, endpoint: Endpoint, now: datetime, reason: str) -> None:
    active = live.active_rollout(tx, endpoint.id)
    if active is None:
        return
    data = {**active.data, "outcome": "by hand"}
    data["history"] = [
        *data["history"],
        {"at": now.isoformat(), "state": "rolled_back", "status": "fail", "reason": reason},
    ]
    live.set_traffic(tx, endpoint.id, {active.stable_id: 100.0}, expect_epoch=endpoint.epoch)
    live.set_desired(tx, active.candidate_id, "down")
    after = live.RolloutRow(
        id=active.id, endpoint_id=active.endpoint_id, run_id=active.run_id, state="rolled_back",
        stable_id=active.stable_id, candidate_id=active.candidate_id, data=data, updated_at=now,
    )  # fmt: skip
    live.update_rollout(tx, after, active.state)
    facts.finish_run(tx, active.run_id, state="done", ended_at=now, facts={"outcome": "rolled_back", "reason": reason})


def is_up(store: Store) -> bool:
    """Say whether `trimtab up` runs on this store."""
    path = store.home.run / "up.lock"
    if not path.exists():
        return False
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _settle(store: Store, names: list[str], wait: bool, say: Say) -> Data:
    """Wait until nothing is starting any more, if `trimtab up` runs."""
    if not is_up(store):
        pending = [name for name in names if _starting(store, name)]
        notes = [f"recorded; `trimtab up` starts {', '.join(pending)}"] if pending else []
        return {"notes": notes, "ready": not pending}
    deadline = monotonic() + (_WAIT_S if wait else 0.0)
    while True:
        advance(store, store.now())
        pending = [name for name in names if _starting(store, name)]
        if not pending:
            return {"notes": _failures(store, names), "ready": True}
        if not is_up(store):
            raise Unavailable("`trimtab up` has ended", fix="see what it printed, and its logs in .trimtab/logs")
        if monotonic() > deadline:
            if wait:
                raise Unavailable(f"{', '.join(pending)} did not become ready in {_WAIT_S:g} s", fix="see trimtab show")
            return {"notes": [], "ready": False}
        time.sleep(_POLL_S)


def _starting(store: Store, name: str) -> bool:
    endpoint = live.find_endpoint(store.ledger, name)
    rollout = live.active_rollout(store.ledger, endpoint.id) if endpoint else None
    return rollout is not None and rollout.state == "starting"


def _failures(store: Store, names: list[str]) -> list[str]:
    notes = []
    for name in names:
        endpoint = live.find_endpoint(store.ledger, name)
        if endpoint is None:
            raise NotFound(f"endpoint {name} is gone")
        rows = live.list_rollouts(store.ledger, endpoint.id)
        if rows and rows[-1].state == "failed":
            raise StepFailed(
                f"{name}: {rows[-1].data['history'][-1]['reason']}",
                where=name,
                fix="see the deployment's log in .trimtab/logs",
            )
        traffic = {live.get_deployment(store.ledger, one).number: share for one, share in endpoint.traffic.items()}
        shown = ", ".join(f"deployment {number} {share:g} %" for number, share in sorted(traffic.items()))
        notes.append(f"{name}: {shown or 'no traffic'}")
    return notes
