"""What the records say: why a step ran or was reused, and all about one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from trimtab.core.errors import NotFound, closest
from trimtab.core.ids import PREFIXES, is_id
from trimtab.core.nouns import Automation, Data, Endpoint, Run, Version
from trimtab.core.ref import parse_ref
from trimtab.pipeline.keys import changes, in_words
from trimtab.pipeline.lineage import (
    deployment_ref,
    endpoint_of,
    find_call,
    find_run,
    is_prediction,
    lineage,
    version_of,
)
from trimtab.pipeline.plan import Plan
from trimtab.store import facts, live, tracking
from trimtab.store.ledger import Reader
from trimtab.store.store import Store

__all__ = ["lineage", "show", "why"]


def why(store: Store, ref: str, *, plan: Plan | None = None) -> Data:
    """Explain why a step ran: which fields of its key differ from the run before it.

    Args:
        store: the store.
        ref: an asset (its newest run that made something), a version, or a run.
        plan: a plan; then ``next`` says what it would do with the asset's steps, and why.

    Returns:
        ``{"subject", "run", "before", "reason", "changed", "next"}``; ``changed`` lists
        ``{"field", "how", "before", "after"}``.

    Raises:
        NotFound: there is no such thing, or it was not made by a step.
    """
    reader = store.ledger
    run = _step_run(reader, ref)
    before = _run_before(reader, run)
    found = changes(before.key_fields, run.key_fields) if before else []
    made = [version.ref for version in facts.made_by(reader, run.id)]
    return {
        "subject": {"kind": "run", "id": run.id, "version": ", ".join(made), "name": f"{run.kind}:{run.name}"},
        "run": _head(run),
        "before": _head(before) if before else None,
        "reason": _reason(run, before, in_words(found)),
        "changed": [
            {
                "field": name,
                "how": how,
                "before": _field(before.key_fields, name) if before else None,
                "after": _field(run.key_fields, name),
            }
            for name, how in found
        ],
        "next": [
            {"stage": stage.id, "action": stage.action, "reason": stage.reason, "changed": stage.changed}
            for stage in (plan.stages if plan else [])
            if stage.asset == run.name
        ],
    }


def show(store: Store, ref: str) -> Data:
    """Return all that is recorded about one thing.

    Args:
        store: the store.
        ref: the name of an asset, endpoint or automation, a version's reference, the id of any noun, or a
            prediction id.

    Raises:
        NotFound: there is no such thing; the message names the closest.
        WrongUse: ``ref`` is neither a reference nor an id.
    """
    reader = store.ledger
    if is_prediction(ref):
        return _plain({"kind": "prediction", "call": find_call(reader, ref)})
    if is_id(ref):
        return _plain(_show_id(reader, ref))
    endpoint = endpoint_of(reader, ref)
    if endpoint is not None:
        return _plain(_show_endpoint(reader, endpoint))
    for automation in live.list_automations(reader):
        if automation.name == ref:
            return _plain(_show_automation(reader, automation))
    parsed = parse_ref(ref)
    if parsed.alias or parsed.number or facts.find_asset(reader, parsed.name) is None:
        return _plain(_show_version(reader, version_of(reader, ref)))
    return _plain(_show_asset(reader, parsed.name))


def _plain(data: Data) -> Data:
    found: Data = msgspec.to_builtins(data)
    return found


def _step_run(reader: Reader, ref: str) -> Run:
    """Return the run of a step that a reference means."""
    if is_id(ref) and ref.startswith("run_"):
        found = find_run(reader, ref)
    elif not is_id(ref) and not parse_ref(ref).alias and not parse_ref(ref).number:
        runs = facts.list_runs(reader, kind="make", name=parse_ref(ref).name, limit=1)
        found = runs[0] if runs else find_run(reader, version_of(reader, ref).run_id)
    else:
        found = find_run(reader, version_of(reader, ref).run_id)
    if not found.key_fields:
        raise NotFound(f"{ref} is a {found.kind}, not a step with a key", fix="ask about an asset or a version")
    return found


def _run_before(reader: Reader, run: Run) -> Run | None:
    earlier = (
        other
        for other in facts.list_runs(reader, kind=run.kind, name=run.name)
        if other.id < run.id and other.key_fields
    )
    return next(earlier, None)


def _reason(run: Run, before: Run | None, changed: str) -> str:
    if "reused" in run.facts:
        return f"its key is that of {run.facts['reused']}, whose content was taken up again"
    if before is None:
        return "it was the first run of this step"
    if changed:
        return changed
    if before.state != "done":
        return f"the run before it, {before.id}, ended as {before.state}"
    return "nothing in its key had changed: it runs each time, or its cached result was gone"


def _head(run: Run) -> Data:
    return {
        "id": run.id,
        "kind": run.kind,
        "name": run.name,
        "state": run.state,
        "started_at": run.started_at.isoformat(),
        "key": run.key,
        "commit": run.code.get("commit", ""),
    }


def _field(fields: Data, name: str) -> Any:
    """Return the value of a field by the dotted name that ``changes`` gives it."""
    section, _, rest = name.partition(".")
    value = fields.get(section)
    if not rest or not isinstance(value, dict):
        return value
    if rest in value:
        return value[rest]
    for key, inner in value.items():
        if isinstance(inner, dict) and rest.startswith(f"{key}."):
            return inner.get(rest.removeprefix(f"{key}."))
    return None


def _show_id(reader: Reader, ref: str) -> Data:
    prefix = ref.partition("_")[0]
    if prefix == "ver":
        return _show_version(reader, facts.get_version(reader, ref))
    if prefix == "run":
        return _show_run(reader, find_run(reader, ref))
    if prefix == "end":
        return _show_endpoint(reader, live.get_endpoint(reader, ref))
    if prefix == "dep":
        deployment = live.get_deployment(reader, ref)
        version = facts.get_version(reader, deployment.version_id)
        name = deployment_ref(reader, deployment)
        return {"kind": "deployment", "name": name, "version": version.ref, "deployment": deployment}
    if prefix == "ast":
        for asset in facts.list_assets(reader):
            if asset.id == ref:
                return _show_asset(reader, asset.name)
    if prefix == "vrd":
        for (run_id,) in reader.query("SELECT run_id FROM verdict WHERE id=?", (ref,)):
            verdicts = [verdict for verdict in facts.verdicts_by(reader, run_id) if verdict.id == ref]
            return {"kind": "verdict", "verdict": verdicts[0]}
    if prefix == "aut":
        for automation in live.list_automations(reader):
            if automation.id == ref:
                return _show_automation(reader, automation)
    for item in _listed(reader, prefix):
        if item.id == ref:
            return {"kind": PREFIXES[prefix], PREFIXES[prefix]: item}
    raise NotFound(f"there is no {PREFIXES[prefix]} {ref}", fix="check the id")


def _listed(reader: Reader, prefix: str) -> Sequence[Any]:
    """Return the things that are only ever listed, of the kind that an id's prefix names."""
    if prefix == "rol":
        endpoints = live.list_endpoints(reader)
        return [row for endpoint in endpoints for row in live.list_rollouts(reader, endpoint.id)]
    if prefix == "fir":
        return live.list_firings(reader)
    if prefix == "alm":
        return live.list_alarms(reader)
    return live.list_cases(reader) if prefix == "cas" else []


def _show_automation(reader: Reader, automation: Automation) -> Data:
    return {
        "kind": "automation",
        "name": automation.name,
        "automation": automation,
        "firings": live.list_firings(reader, automation.id),
    }


def _show_version(reader: Reader, version: Version) -> Data:
    run = facts.get_run(reader, version.run_id)
    pointing = [name for name, known in facts.aliases(reader, version.asset).items() if known == version.id]
    return {
        "kind": "version",
        "ref": version.ref,
        "version": version,
        "aliases": pointing,
        "verdicts": facts.verdicts_of(reader, version.id),
        "made_by": _head(run) if run else None,
        "made_from": [
            {"role": role, "version": used.ref, "digest": used.digest}
            for used, role in facts.used_by(reader, version.run_id)
        ],
        "used_by": [_head(other) for other in facts.users_of(reader, version.id)],
        "metrics": facts.metrics_of(reader, version.run_id),
    }


def _show_run(reader: Reader, run: Run) -> Data:
    return {
        "kind": "run",
        "run": run,
        "used": [
            {"role": role, "version": version.ref, "id": version.id} for version, role in facts.used_by(reader, run.id)
        ],
        "made": [
            {"version": version.ref, "id": version.id, "state": version.state}
            for version in facts.made_by(reader, run.id)
        ],
        "client": tracking.as_data(reader, run.id),
        "metrics": facts.metrics_of(reader, run.id),
        "verdicts": facts.verdicts_by(reader, run.id),
        "children": [_head(child) for child in facts.list_runs(reader, parent=run.id)],
    }


def _show_asset(reader: Reader, name: str) -> Data:
    asset = facts.find_asset(reader, name)
    if asset is None:
        known = [item.name for item in facts.list_assets(reader)]
        raise NotFound(f"there is no asset {name!r}{closest(name, known)}", fix="trimtab list")
    current = facts.current(reader, name)
    return {
        "kind": "asset",
        "name": name,
        "asset": asset,
        "current": current.ref if current else "",
        "aliases": {
            alias: facts.get_version(reader, known).ref for alias, known in facts.aliases(reader, name).items()
        },
        "versions": [
            {
                "ref": version.ref,
                "id": version.id,
                "state": version.state,
                "digest": version.digest,
                "run_id": version.run_id,
                "created_at": version.created_at,
            }
            for version in reversed(facts.list_versions(reader, name))
        ],
        "runs": [_head(run) for run in facts.list_runs(reader, name=name, limit=20)],
    }


def _show_endpoint(reader: Reader, endpoint: Endpoint) -> Data:
    deployments = live.list_deployments(reader, endpoint.id)
    return {
        "kind": "endpoint",
        "name": endpoint.name,
        "endpoint": endpoint,
        "deployments": [
            {
                "number": deployment.number,
                "id": deployment.id,
                "version": facts.get_version(reader, deployment.version_id).ref,
                "state": deployment.state,
                "desired": deployment.desired,
                "share": endpoint.traffic.get(deployment.id, 0.0),
                "reason": deployment.reason,
            }
            for deployment in deployments
        ],
        "rollouts": live.list_rollouts(reader, endpoint.id),
        "verdicts": facts.verdicts_of(reader, endpoint.id),
        "runs": [_head(run) for run in facts.list_runs(reader, name=endpoint.name, limit=20)],
    }
