"""Making live state equal the declaration: endpoints, deployments, automations; and rolling back by hand."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Literal

from msgspec import Struct

from trimtab.check.declare import GATE_KINDS
from trimtab.check.gates import accepts
from trimtab.core.clock import monotonic
from trimtab.core.declare import AutomationDeclaration, EndpointDeclaration, as_data
from trimtab.core.errors import Refused, StepFailed, Unavailable, WrongUse
from trimtab.core.ids import new_hex, new_id
from trimtab.core.nouns import Data, Endpoint, Run, Version
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.runtime import actor as this_account
from trimtab.serve import rollout as rollouts
from trimtab.serve.judge import judged
from trimtab.serve.routes import publish
from trimtab.store import facts, live
from trimtab.store.ledger import Reader, Tx
from trimtab.store.store import Store

_WAIT_S = 120.0
_POLL_S = 0.05
_AGAIN = ("superseded", "removed")
_RETURN: Data = {
    "kind": "rollback", "steps": [100.0], "soak": "0s", "minimum": 0, "deadline": "3650d", "alpha": 0.05,
    "advance": "no_harm", "margin": 0.25, "on_inconclusive": "promote", "judge": [],
}  # fmt: skip
Say = Callable[[str], None]


class LiveStage(Struct, frozen=True, kw_only=True):
    """One thing that `apply` does or leaves as it is.

    Attributes:
        id: such as ``endpoint:delay_api``, ``serve:delay_api`` or ``automation:NAME``.
        action: ``create``, ``update``, ``remove``, ``deploy``, ``roll_out``, ``disable``, ``hold`` or ``keep``.
        reason: why, for a person.
        version: the version that is deployed or rolled out, or empty.
    """

    id: str
    action: Literal["create", "update", "remove", "deploy", "roll_out", "disable", "hold", "keep"]
    reason: str
    version: str = ""


def plan_live(
    store: Store, manifest: Manifest, overrides: Data | None = None, *, override: str = ""
) -> list[LiveStage]:
    """Return what `apply` would do; nothing is changed.

    Args:
        store: the store.
        manifest: what is declared.
        overrides: what the environment says instead: ``{"endpoints": {name: {...}}, "automations": {name: {...}}}``.
        override: a reason; then a version whose rollout was reversed is rolled out again.
    """
    reader, given = store.ledger, overrides or {}
    stages: list[LiveStage] = []
    for declared in manifest.endpoints:
        known = live.find_endpoint(reader, declared.name)
        stages.append(_endpoint(declared, known, given))
        stage = _serving(reader, declared, known, spec_of(declared, given))
        if stage.action == "hold" and stage.version and override:
            stage = LiveStage(id=stage.id, action="roll_out", reason=override, version=stage.version)
        stages.append(stage)
    names = {declared.name for declared in manifest.endpoints}
    for endpoint in live.list_endpoints(reader):
        up = [one for one in live.list_deployments(reader, endpoint.id) if one.desired == "up"]
        if endpoint.name not in names and (endpoint.traffic or up):
            text = "it is no longer declared; its records stay"
            stages.append(LiveStage(id=f"endpoint:{endpoint.name}", action="remove", reason=text))
    return stages + _automations(reader, manifest, given)


def spec_of(declared: EndpointDeclaration, overrides: Data) -> Data:
    """Return an endpoint's spec: as declared, with what the environment says instead."""
    own = (overrides.get("endpoints") or {}).get(declared.name) or {}
    spec = {**declared.spec, **{name: value for name, value in own.items() if name != "rollout"}}
    spec["rollout"] = {**declared.spec["rollout"], **(own.get("rollout") or {})}
    return {**spec, "serves": declared.serves}


def _endpoint(declared: EndpointDeclaration, known: Endpoint | None, overrides: Data) -> LiveStage:
    ident, spec = f"endpoint:{declared.name}", spec_of(declared, overrides)
    if known is None:
        return LiveStage(id=ident, action="create", reason="it is declared and not there")
    if known.spec != {**spec, "salt": spec.get("salt") or known.spec.get("salt")}:
        return LiveStage(id=ident, action="update", reason="its declaration has changed")
    return LiveStage(id=ident, action="keep", reason="it is as declared")


def _serving(reader: Reader, declared: EndpointDeclaration, endpoint: Endpoint | None, spec: Data) -> LiveStage:
    ident = f"serve:{declared.name}"
    version = facts.current(reader, declared.serves)
    if version is None:
        text = f"{declared.serves} has no accepted version; trimtab run {declared.serves}"
        return LiveStage(id=ident, action="hold", reason=text)
    if endpoint is None:
        return LiveStage(id=ident, action="deploy", reason="the first version", version=version.ref)
    up = {one.id: one for one in live.list_deployments(reader, endpoint.id) if one.desired == "up"}
    active = live.active_rollout(reader, endpoint.id)
    if active is not None and active.candidate_id in up and up[active.candidate_id].version_id == version.id:
        return LiveStage(id=ident, action="keep", reason=f"its rollout is {active.state}", version=version.ref)
    serving = [up[name] for name, share in endpoint.traffic.items() if share and name in up]
    same = [one for one in serving if one.version_id == version.id]
    if same:
        threads = int(same[0].runtime.get("threads") or 1)
        if threads == int(spec.get("threads") or 1):
            return LiveStage(id=ident, action="keep", reason="it serves", version=version.ref)
        return LiveStage(id=ident, action="roll_out", reason="its threads have changed", version=version.ref)
    reversal = _reversal(reader, endpoint, version)
    if reversal:
        return LiveStage(id=ident, action="hold", reason=reversal, version=version.ref)
    if not serving:
        return LiveStage(id=ident, action="deploy", reason="nothing serves", version=version.ref)
    return LiveStage(id=ident, action="roll_out", reason="a newer version was accepted", version=version.ref)


def _reversal(reader: Reader, endpoint: Endpoint, version: Version) -> str:
    """Return why a version must not be tried again unasked: it was rolled back; an empty string if it was not."""
    for past in reversed(live.list_rollouts(reader, endpoint.id)):
        reason = str(past.data["history"][-1]["reason"]) if past.data["history"] else ""
        came = live.get_deployment(reader, past.candidate_id).version_id == version.id
        left = bool(past.stable_id) and live.get_deployment(reader, past.stable_id).version_id == version.id
        if came and past.state in ("rolled_back", "failed") and past.data.get("outcome") not in _AGAIN:
            return f"its rollout was reversed: {reason}"
        if left and past.state == "promoted" and past.data["plan"]["kind"] == _RETURN["kind"]:
            return f"it was rolled back: {past.data.get('why', '')}"
        if came and past.state == "promoted":
            break
    return ""


def _automations(reader: Reader, manifest: Manifest, overrides: Data) -> list[LiveStage]:
    known = {one.name: one for one in live.list_automations(reader)}
    stages = []
    for declared in manifest.automations:
        ident, have = f"automation:{declared.name}", known.pop(declared.name, None)
        if have is None:
            stages.append(LiveStage(id=ident, action="create", reason="it is declared and not there"))
        elif {**have.spec, "manifest": ""} != automation_spec(declared) or have.enabled != _enabled(
            declared.name, overrides
        ):
            stages.append(LiveStage(id=ident, action="update", reason="its declaration has changed"))
        elif have.spec.get("manifest") != manifest.digest:
            text = "the project's code has changed; it goes on with what was applied before"
            stages.append(LiveStage(id=ident, action="update", reason=text))
        else:
            stages.append(LiveStage(id=ident, action="keep", reason="it is as declared"))
    for name, left in known.items():
        if left.enabled:
            stages.append(LiveStage(id=f"automation:{name}", action="disable", reason="it is no longer declared"))
    return stages


def automation_spec(declared: AutomationDeclaration, manifest: str = "") -> Data:
    """Return an automation as the ledger keeps it.

    Args:
        declared: the declaration.
        manifest: the digest of the code that it runs: what was applied, whatever stands in the folder later.
    """
    return {
        "manifest": manifest,
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
        override: a reason for deploying a version without a passed gate, or again after its rollout was
            reversed; recorded.
        wait: until new deployments are ready, when `trimtab up` runs.
        say: is told of progress.

    Raises:
        Refused: a version has no passed gate and no override was given.
        StepFailed: a new deployment does not become ready.
        Unavailable: it takes too long, or `trimtab up` ends meanwhile.
    """
    given, now = overrides or {}, store.now()
    stages = plan_live(store, manifest, given, override=override)
    declared = {one.name: one for one in manifest.endpoints}
    rules = {one.name: one for one in manifest.automations}
    started = []
    for stage in stages:
        kind, _, name = stage.id.partition(":")
        if stage.action in ("keep", "hold"):
            continue
        say(f"{stage.action} {stage.id} {stage.version}".rstrip())
        if stage.action == "remove":
            store.ledger.write(partial(_remove, name, now), what=f"remove {name}")
        elif kind == "endpoint":
            store.ledger.write(partial(_put_endpoint, declared[name], given, now), what=f"apply {name}")
        elif kind == "serve":
            roll_out(store, name, stage.version, override=override, why="apply")
            started.append(name)
        else:
            rule = partial(_put_automation, rules.get(name), name, manifest.digest, given, now)
            store.ledger.write(rule, what=f"apply {name}")
    publish(store)
    done = _settle(store, [one.name for one in manifest.endpoints], started, wait)
    return {"stages": [_plain(stage) for stage in stages], **done}


def _plain(stage: LiveStage) -> Data:
    return {"id": stage.id, "action": stage.action, "reason": stage.reason, "version": stage.version}


def _put_endpoint(declared: EndpointDeclaration, overrides: Data, now: datetime, tx: Tx) -> None:
    known, spec = live.find_endpoint(tx, declared.name), spec_of(declared, overrides)
    # A salt is drawn once and stays: another one would move every caller.
    salt = spec.get("salt") or (known.spec.get("salt") if known else "") or new_hex() + new_hex()
    live.put_endpoint(tx, name=declared.name, spec={**spec, "salt": salt}, at=now)


def _remove(name: str, now: datetime, tx: Tx) -> None:
    endpoint = live.need_endpoint(tx, name)
    active = live.active_rollout(tx, endpoint.id)
    if active is not None:
        rollouts.abandon(tx, active, now, "the endpoint is no longer declared")
    live.set_traffic(tx, endpoint.id, {}, expect_epoch=endpoint.epoch)
    for deployment in live.list_deployments(tx, endpoint.id):
        if deployment.desired == "up":
            live.set_desired(tx, deployment.id, "down")


def _put_automation(
    declared: AutomationDeclaration | None, name: str, manifest: str, overrides: Data, now: datetime, tx: Tx
) -> None:
    if declared is None:
        spec = next(one.spec for one in live.list_automations(tx) if one.name == name)
        live.put_automation(tx, name=name, spec=spec, enabled=False, at=now)
        return
    enabled = _enabled(name, overrides)
    live.put_automation(tx, name=name, spec=automation_spec(declared, manifest), enabled=enabled, at=now)


def roll_out(store: Store, endpoint_name: str, version_ref: str, *, override: str = "", why: str = "by hand") -> str:
    """Start the rollout of a version by the endpoint's plan and return the rollout's id.

    A paused rollout of the same version goes on; one that is under way is left alone.

    Args:
        store: the store.
        endpoint_name: where to.
        version_ref: a reference or id of a model version.
        override: a reason for letting it go live without a passed gate; recorded as a run of its own.
        why: what caused it, for the records.

    Raises:
        NotFound: there is no such endpoint or version.
        Refused: the version has no passed gate (R16) and no override was given.
        WrongUse: the version is not of what the endpoint serves, or its plan cannot judge it.
    """
    now = store.now()

    def write(tx: Tx) -> tuple[str, bool]:
        endpoint = live.need_endpoint(tx, endpoint_name)
        version = facts.resolve(tx, version_ref)
        active = live.active_rollout(tx, endpoint.id)
        if active is not None and live.get_deployment(tx, active.candidate_id).version_id == version.id:
            return active.id, active.state == "paused"
        report = validation(tx, version)
        if not report["passed"] and not override:
            raise Refused(
                f"{version.ref} may not go live: {report['reason']}",
                where=version.ref,
                fix="pass its gate, or give --override REASON, which is recorded",
            )
        _check_fits(endpoint, version)
        if not report["passed"]:
            _record(tx, "override", endpoint_name, now, version, {"reason": override, "overridden": report["reason"]})
        runtime = {"threads": int(endpoint.spec.get("threads") or 1), "validation": report, "override": override}
        row = rollouts.begin(
            tx, endpoint, version.id, at=now, actor=this_account(), runtime=runtime, why=override or why
        )
        return row.id, False

    rollout_id, paused = store.ledger.write(write, what=f"roll out {endpoint_name}")
    if paused:
        rollouts.resume(store, endpoint_name, now)
    publish(store)
    return rollout_id


def _check_fits(endpoint: Endpoint, version: Version) -> None:
    serves = endpoint.spec.get("serves")
    if version.kind != "model" or version.asset != serves:
        raise WrongUse(
            f"{endpoint.name} serves {serves}, and {version.ref} is a {version.kind}",
            where=endpoint.name,
            fix=f"give a version of {serves}, or declare another serves= and apply it",
        )
    for check in judged(endpoint.spec["rollout"]):
        if check.kind == "outcome" and version.meta.get("task") == "regression":
            raise WrongUse(
                f"{check.name} cannot judge {version.ref}: a regression is never simply wrong",
                where=endpoint.name,
                fix="judge it by ck.errors() and ck.latency(), and watch ck.performance()",
            )


def validation(reader: Reader, version: Version) -> Data:
    """Return whether a version's gate passed, and the ids of the verdicts that say so (R16).

    A refit stands on the verdicts of the candidate that it repeats. Of several verdicts of one check the newest counts.
    """
    parent = str(version.meta.get("refit_of") or "")
    found = facts.verdicts_of(reader, version.id) + (facts.verdicts_of(reader, parent) if parent else [])
    newest = {one.check: one for one in sorted(found, key=lambda one: one.id) if one.kind in GATE_KINDS}
    bad = [one.reason for one in newest.values() if one.status in ("fail", "inconclusive")]
    if version.state != "published":
        reason = f"it is {version.state}" + (f": {bad[0]}" if bad else "")
    elif not newest:
        reason = "no gate has judged it"
    else:
        reason = bad[0] if bad else "its gate passed"
    passed = version.state == "published" and bool(newest) and accepts(list(newest.values()))
    ids = [one.id for one in newest.values()]
    return {"passed": passed, "digest": version.digest, "verdicts": ids, "reason": reason}


def roll_back(store: Store, endpoint_name: str, *, reason: str = "by hand", wait: bool = True) -> Data:
    """Return all traffic to the former deployment: at once while it is warm, else when it is ready again.

    Args:
        store: the store.
        endpoint_name: the endpoint.
        reason: why, for the records.
        wait: until a former deployment that was taken down is ready, when `trimtab up` runs.

    Returns:
        ``{"endpoint", "version", "deployment", "done", "message"}``.

    Raises:
        NotFound: there is no such endpoint.
        Refused: there is nothing to return to.
        Unavailable: the former deployment does not become ready.
    """
    now = store.now()

    def write(tx: Tx) -> Data:
        endpoint = live.need_endpoint(tx, endpoint_name)
        active = live.active_rollout(tx, endpoint.id)
        target = live.get_deployment(tx, _former(tx, endpoint))
        version = facts.get_version(tx, target.version_id)
        if active is not None:
            text = f"rolled back: {reason}"
            rollouts.end_early(tx, active, now, status="fail", text=text, outcome="by hand")
        else:
            actor, runtime = this_account(), target.runtime
            rollouts.begin(
                tx, endpoint, version.id, at=now, actor=actor, runtime=runtime, why=reason, deployment_id=target.id,
                plan=_RETURN,
            )  # fmt: skip
        _record(tx, "rollback", endpoint_name, now, version, {"to": version.ref, "reason": reason})
        return {"endpoint": endpoint_name, "version": version.ref, "deployment": target.number}

    answer = store.ledger.write(write, what=f"roll back {endpoint_name}")
    rollouts.advance(store, now)
    publish(store)
    done = not _starting(store, endpoint_name)
    if not done and wait and is_up(store):
        _settle(store, [endpoint_name], [endpoint_name], wait)
        done = True
    what = f"{answer['version']} (deployment {answer['deployment']})"
    told = "answers with {} again" if done else "returns to {} as soon as it is ready"
    return {**answer, "done": done, "message": f"{endpoint_name} {told.format(what)}"}


def _record(tx: Tx, kind: str, name: str, now: datetime, version: Version, told: Data) -> None:
    run = Run(
        id=new_id("run"), kind=kind, name=name, state="done", started_at=now, ended_at=now, actor=this_account(),
        facts=told, environment=tx.environment, workspace=tx.workspace,
    )  # fmt: skip
    facts.start_run(tx, run)
    facts.add_used(tx, run.id, [(version.id, "version")])
    tx.note(run.id, **told)


def _former(reader: Reader, endpoint: Endpoint) -> str:
    active = live.active_rollout(reader, endpoint.id)
    if active is not None and active.stable_id:
        return active.stable_id
    for row in reversed(live.list_rollouts(reader, endpoint.id)):
        if row.state == "promoted" and row.candidate_id in endpoint.traffic and row.stable_id:
            return row.stable_id
    raise Refused(f"{endpoint.name} has no former deployment", where=endpoint.name, fix="roll out another version")


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


def _settle(store: Store, names: list[str], started: list[str], wait: bool) -> Data:
    """Wait until nothing is starting any more, if `trimtab up` runs."""
    if not is_up(store):
        pending = [name for name in names if _starting(store, name)]
        notes = [f"recorded; `trimtab up` starts {', '.join(pending)}"] if pending else []
        return {"notes": notes, "ready": not pending}
    deadline = monotonic() + (_WAIT_S if wait else 0.0)
    while True:
        rollouts.advance(store, store.now())
        pending = [name for name in names if _starting(store, name)]
        if not pending:
            return {"notes": _notes(store, names, started), "ready": True}
        if not is_up(store):
            raise Unavailable("`trimtab up` has ended", fix="see what it printed, and its logs in .trimtab/logs")
        if monotonic() > deadline:
            if wait:
                raise Unavailable(f"{', '.join(pending)} did not become ready in {_WAIT_S:g} s", fix="see trimtab show")
            return {"notes": [], "ready": False}
        time.sleep(_POLL_S)


def _starting(store: Store, name: str) -> bool:
    endpoint = live.find_endpoint(store.ledger, name)
    active = live.active_rollout(store.ledger, endpoint.id) if endpoint else None
    return active is not None and active.state == "starting"


def _notes(store: Store, names: list[str], started: list[str]) -> list[str]:
    """Return who has which traffic; a rollout of this very act that could not begin is an error."""
    notes = []
    for name in names:
        endpoint = live.need_endpoint(store.ledger, name)
        rows = live.list_rollouts(store.ledger, endpoint.id)
        if name in started and rows and rows[-1].data.get("outcome") == "failed":
            raise StepFailed(
                f"{name}: {rows[-1].data['history'][-1]['reason']}",
                where=name,
                fix="see the deployment's log in .trimtab/logs",
            )
        traffic = {live.get_deployment(store.ledger, one).number: share for one, share in endpoint.traffic.items()}
        shown = ", ".join(f"deployment {number} {share:g} %" for number, share in sorted(traffic.items()))
        notes.append(f"{name}: {shown or 'no traffic'}")
    return notes
