"""Doing a step again from what its run recorded: the same code, inputs, params, seed and event time (R06).

Nothing is published: tables are made under ids of their own and removed, blobs are kept by what they contain, and
the ledger gets one run of the kind ``reproduce`` that says what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from trimtab.core.clock import monotonic
from trimtab.core.declare import Declaration
from trimtab.core.errors import NotFound, StepFailed, Unavailable, WrongUse
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run, Version
from trimtab.pipeline.compare import run_of
from trimtab.pipeline.execute import new_pool
from trimtab.pipeline.jobs import Job
from trimtab.pipeline.kinds import StepResult, assets_made, kind_named, kinds
from trimtab.pipeline.manifest import Manifest, load_manifest
from trimtab.pipeline.project import Project
from trimtab.pipeline.runtime import run_runtime
from trimtab.pipeline.steps import GATE
from trimtab.store import facts
from trimtab.store.store import Store

KIND = "reproduce"


def reproduce(store: Store, project: Project, ref: str, *, timeout_s: float = 0.0) -> Data:
    """Do a recorded step again and say what differs.

    Args:
        store: the store.
        project: where steps find files that belong to no version; the code comes from the run's snapshot.
        ref: a run, or a version, which means the run that made it.
        timeout_s: kills the step after this many seconds; 0 means never.

    Returns:
        ``{"run", "by", "asset", "op", "identical", "versions", "metrics", "verdicts", "runtime_differences",
        "seconds"}``: ``versions`` has for each version that was made ``{"ref", "original", "again",
        "identical"}``, ``metrics`` those that differ as ``{"original", "again", "delta"}``, and ``by`` is the
        run that recorded this.

    Raises:
        NotFound: there is no such run, or its code is not in the store any more.
        WrongUse: it is no step, or one that read files from outside, which no version pins.
        Corrupt: an input is damaged.
        StepFailed: the step failed this time.
    """
    run = _original(store, run_of(store.ledger, ref))
    manifest = _manifest(store, run)
    node = next((item for item in manifest.declarations if item.name == run.name), None)
    if node is None:
        raise NotFound(f"the code of {run.id} declares no {run.name}", fix="reproduce another run")
    inputs = _inputs(store, run, node)
    started = monotonic()
    if run.key_fields.get("extra"):
        # It took in files from outside; what it made is all that is kept of them.
        result, made = None, _verified(store, run)
    else:
        result = _again(store, project, run, manifest, node, inputs, timeout_s)
        made = {item.asset: item.digest for item in result.made}
    told = _told(store, project, run, result, made)
    told["seconds"] = round(monotonic() - started, 3)
    told["by"] = _record(store, run, inputs, told)
    return told


def _original(store: Store, run: Run) -> Run:
    """Return the run that made the content, where a run only took it up again."""
    while "reused" in run.facts:
        content = next(version for version, role in facts.used_by(store.ledger, run.id) if role == "content")
        found = facts.get_run(store.ledger, content.run_id)
        assert found is not None
        run = found
    if not run.key_fields or run.state == "running":
        raise WrongUse(f"{run.id} is a {run.state} {run.kind} run, no finished step", fix="trimtab runs lists them")
    return run


def _manifest(store: Store, run: Run) -> Manifest:
    digest = str(run.code.get("manifest", ""))
    if not digest or not store.blobs.has(digest):
        raise NotFound(
            f"the code that {run.id} ran is not in this store",
            where=digest or run.id,
            fix="restore the blob, or run anew",
        )
    manifest = load_manifest(store, digest)
    gone = [path for path, blob in manifest.snapshot.items() if not store.blobs.has(blob)]
    if gone:
        raise NotFound(f"{gone[0]} as {run.id} ran it is not in this store", where=gone[0], fix="restore the blob")
    return manifest


def _inputs(store: Store, run: Run, node: Declaration) -> dict[str, Version]:
    used = {role: version for version, role in facts.used_by(store.ledger, run.id)}
    wanted = [*node.inputs, *(["candidate"] if run.kind == GATE else [])]
    missing = [name for name in wanted if name not in used]
    if missing:
        raise NotFound(f"{run.id} has no record of its input {missing[0]!r}", where=run.id)
    return {name: used[name] for name in wanted}


def _verified(store: Store, run: Run) -> dict[str, str]:
    """Return the digests of what a source's run made, after every byte of it was read.

    Raises:
        Corrupt: a file is missing or has other content.
    """
    made = facts.made_by(store.ledger, run.id)
    for version in made:
        if "delta_version" in version.location:
            store.tables.verify(version.location)
        elif "blob" in version.location:
            store.blobs.get(version.location["blob"])
    return {version.asset: version.digest for version in made}


def _again(
    store: Store,
    project: Project,
    run: Run,
    manifest: Manifest,
    node: Declaration,
    inputs: Mapping[str, Version],
    timeout_s: float,
) -> StepResult:
    kind = kind_named(node.kind)
    used = {role: version for version, role in facts.used_by(store.ledger, run.id)}
    assets = {name: new_id("ast") for name in assets_made(kind, node)}
    ident = new_id("run")
    job = Job(
        id=f"{run.kind}:{node.name}",
        kind=kinds()[node.kind],
        op=run.kind,
        declaration=node,
        run_id=ident,
        inputs=dict(inputs),
        references={ref: used.get(ref.partition("@")[2] or "reference") for ref in kind.references(node, run.kind)},
        previous=None,
        params=run.key_fields["params"],
        seed=run.seed,
        now=run.started_at,
        overrides={},
        runtime=run.runtime,
        fingerprint=run.key_fields["extra"],
        assets=assets,
        log=str(store.home.logs / f"{ident}.log"),
        recover={},
    )
    try:
        with new_pool(manifest, project=project, store=store, jobs=1) as pool:
            pool.start(job, timeout_s=timeout_s)
            while True:
                for notice in pool.wait(1.0):
                    if notice.kind == "ended":
                        return _result(notice.told, node)
    finally:
        for table_id in assets.values():
            with suppress(Unavailable):  # nobody names it, and what came of the step matters more
                store.tables.remove(table_id)


def _result(told: Any, node: Declaration) -> StepResult:
    if told.result is not None:
        found: StepResult = told.result
        return found
    error = told.error
    raise StepFailed(
        f"{node.name} failed this time: {error.get('message', '')}",
        where=error.get("where", ""),
        fix=error.get("fix", ""),
    )


def _told(store: Store, project: Project, run: Run, result: StepResult | None, made: Mapping[str, str]) -> Data:
    before = facts.made_by(store.ledger, run.id)
    versions = [
        {
            "ref": version.ref,
            "original": version.digest,
            "again": made.get(version.asset, ""),
            "identical": made.get(version.asset) == version.digest,
        }
        for version in before
    ]
    metrics: Data = {}
    verdicts: list[Data] = []
    if result is not None:
        metrics = _deltas(_metrics(store, run, before), _metrics_again(result))
        statuses = {one.check: one.status for one in facts.verdicts_by(store.ledger, run.id)}
        verdicts = [
            {"check": one.check, "original": statuses.get(one.check, ""), "again": one.status}
            for one in result.verdicts
            if one.status != statuses.get(one.check)
        ]
    now = run_runtime(project, threads=int(run.runtime.get("threads", 1)))
    return {
        "run": run.id,
        "asset": run.name,
        "op": run.kind,
        "identical": all(one["identical"] for one in versions) and not verdicts,
        "verified": result is None,
        "versions": versions,
        "metrics": metrics,
        "verdicts": verdicts,
        "runtime_differences": {
            name: {"original": run.runtime.get(name), "again": value}
            for name, value in now.items()
            if run.runtime.get(name) != value
        },
    }


def _metrics(store: Store, run: Run, made: list[Version]) -> dict[str, float]:
    found = dict(facts.metrics_of(store.ledger, run.id))
    for version in made:
        found |= {f"{version.asset}.{name}": value for name, value in version.meta.get("metrics", {}).items()}
    return found


def _metrics_again(result: StepResult) -> dict[str, float]:
    found = {name: value for name, _, value in result.metrics}
    for item in result.made:
        found |= {f"{item.asset}.{name}": value for name, value in item.meta.get("metrics", {}).items()}
    return found


def _deltas(before: Mapping[str, float], after: Mapping[str, float]) -> Data:
    told: Data = {}
    for name in sorted({*before, *after}):
        one, two = before.get(name), after.get(name)
        if one != two and not (one is not None and two is not None and one != one and two != two):
            told[name] = {
                "original": one,
                "again": two,
                "delta": None if one is None or two is None else two - one,
            }
    return told


def _record(store: Store, run: Run, inputs: Mapping[str, Version], told: Data) -> str:
    at = store.now()
    kept = msgspec.to_builtins(told)
    act = Run(
        id=new_id("run"),
        kind=KIND,
        name=run.name,
        state="done",
        started_at=at,
        ended_at=at,
        actor=store.ledger.actor,
        params={"run": run.id},
        facts=kept,
        environment=store.ledger.environment,
        workspace=store.ledger.workspace,
    )
    used = [(version.id, name) for name, version in inputs.items()]
    used += [(version.id, "original") for version in facts.made_by(store.ledger, run.id)]

    def write(tx: Any) -> None:
        facts.start_run(tx, act)
        facts.add_used(tx, act.id, used)

    store.ledger.write(write, what=f"reproduce {run.name}")
    return act.id
