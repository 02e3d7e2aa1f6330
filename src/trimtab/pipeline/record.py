"""What the ledger is told about a step: one transaction when it begins and one when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from trimtab.core.declare import Declaration
from trimtab.core.digest import digest
from trimtab.core.ids import new_id
from trimtab.core.nouns import Data, Run, RunState, Verdict, Version
from trimtab.pipeline.keys import seed_of
from trimtab.pipeline.kinds import Made, StepResult
from trimtab.pipeline.manifest import Manifest
from trimtab.store import facts, leases
from trimtab.store.facts import CacheEntry
from trimtab.store.ledger import Reader, Tx
from trimtab.store.store import Store

Used = Sequence[tuple[Version, str]]


class Records:
    """Writes the runs of one execution.

    Args:
        store: where to.
        manifest: what the project declares.
        code: what identifies the project's code (see ``runtime.run_code``).
        runtime: what the steps run in (see ``runtime.run_runtime``).
        actor: who runs them.
        plan: id of the plan; runs have it as a fact.
    """

    def __init__(self, store: Store, manifest: Manifest, *, code: Data, runtime: Data, actor: str, plan: str) -> None:
        self._store = store
        self._manifest = manifest
        self._code = code
        self._runtime = runtime
        self._actor = actor
        self._plan = plan

    def new(self, node: Declaration, op: str, *, key: str = "", fields: Data | None = None, params: Data) -> Run:
        """Return the run of a step that is about to begin; nothing is written yet."""
        seed = seed_of(node)
        return Run(
            id=new_id("run"),
            kind=op,
            name=node.name,
            state="running",
            started_at=self._store.now(),
            actor=self._actor,
            key=key,
            key_fields=fields or {},
            seed=seed,
            # A step without params still says under which seed it ran, so that no record is empty.
            params=params or {"seed": seed},
            code={"digest": digest(self._manifest.code[node.name]), **self._code},
            runtime=self._runtime,
            environment=self._store.ledger.environment,
            workspace=self._store.ledger.workspace,
        )

    def assets(self, wanted: Mapping[str, tuple[str, Data]]) -> dict[str, str]:
        """Make the assets of a plan known, with the options that they have now; return name -> id.

        Args:
            wanted: name -> kind and spec.
        """
        known = {asset.name: asset for asset in facts.list_assets(self._store.ledger)}
        stale = {
            name: item
            for name, item in wanted.items()
            if name not in known or (known[name].kind, known[name].spec) != item
        }
        if not stale:
            return {name: known[name].id for name in wanted}
        at = self._store.now()

        def write(tx: Tx) -> dict[str, str]:
            return {
                name: facts.put_asset(tx, name=name, kind=kind, spec=spec, at=at).id
                for name, (kind, spec) in stale.items()
            }

        made = self._store.ledger.write(write, what="declare assets")
        return {name: made.get(name) or known[name].id for name in wanted}

    def begin(self, run: Run, used: Used, *, candidate: Version | None, always: bool) -> bool:
        """Record that a run has begun, what it uses, and that this process answers for it.

        The running run is also the claim on its asset: of several executions one begins.

        Args:
            run: the run.
            used: versions and their roles.
            candidate: the version that a gate is to judge.
            always: run it even if its key is cached.

        Returns:
            False, with nothing recorded, when another run of the asset is at work or has just done the same.
        """
        me = leases.holder()

        def write(tx: Tx) -> bool:
            if at_work(tx, run.name):
                return False
            if candidate is not None and facts.get_version(tx, candidate.id).state != candidate.state:
                return False
            if candidate is None and not always and facts.cache_get(tx, run.key) is not None:
                return False
            facts.start_run(tx, run)
            leases.claim_run(tx, run.id, me)
            facts.add_used(tx, run.id, [(version.id, role) for version, role in used])
            return True

        return self._store.ledger.write(write, what=f"begin {run.kind} {run.name}")

    def done(
        self,
        run: Run,
        result: StepResult,
        *,
        error: Data,
        log: str,
        candidate: Version | None,
        cached: bool,
    ) -> list[Version]:
        """Record all that came of a step, in one transaction, and return the versions that it made.

        Args:
            run: its run.
            result: what the step says.
            error: why it counts as failed (its gate said no), or empty.
            log: the file that holds what it printed, relative to the store, or empty.
            candidate: the version that a gate judged.
            cached: the result may be reused by its key.
        """
        at = self._store.now()

        def write(tx: Tx) -> list[Version]:
            # The asset's own version comes first: the cache and the verdicts mean that one.
            items = sorted(result.made, key=lambda item: item.asset != run.name)
            made = [self._add(tx, item, run, at) for item in items]
            facts.add_made(tx, run.id, [version.id for version in made])
            facts.add_metrics(tx, run.id, result.metrics, at)
            for verdict in result.verdicts:
                facts.add_verdict(tx, _addressed(verdict, run, made, candidate))
            for version_id, state in result.decisions:
                facts.set_version_state(tx, version_id, state)
            if cached and run.key:
                ids = [version.id for version in made]
                judged = [candidate.id] if candidate else []
                facts.cache_put(tx, _entry(run, [*judged, *ids], at))
            told = {"plan": self._plan, **result.facts}
            facts.finish_run(
                tx,
                run.id,
                state="failed" if error else "done",
                ended_at=at,
                error=error,
                facts=told,
                params=result.params,
                log=log,
            )
            return made

        return self._store.ledger.write(write, what=f"finish {run.kind} {run.name}")

    def again(self, run: Run, hit: Version, *, gated: bool) -> Version:
        """Record that the content of a cached version is taken up again, as a new version.

        Args:
            run: the run of this act.
            hit: the version with the same key.
            gated: a gate is to judge it anew.
        """
        at = self._store.now()

        def write(tx: Tx) -> Version:
            known = facts.cache_get(tx, run.key)
            if known is not None and known.version_ids[0] != hit.id:
                # Another execution took it up first.
                return facts.get_version(tx, known.version_ids[0])
            facts.start_run(tx, run)
            facts.add_used(tx, run.id, [(hit.id, "content")])
            item = Made(
                asset=hit.asset,
                kind=hit.kind,
                digest=hit.digest,
                state="candidate" if gated else "published",
                location=hit.location,
                meta=hit.meta,
            )
            version = self._add(tx, item, run, at)
            facts.add_made(tx, run.id, [version.id])
            facts.cache_put(tx, _entry(run, [version.id], at))
            told = {"plan": self._plan, "reused": hit.ref, "seconds": 0.0}
            facts.finish_run(tx, run.id, state="done", ended_at=at, facts=told)
            return version

        return self._store.ledger.write(write, what=f"reuse {hit.ref}")

    def failed(self, run: Run, error: Data, *, state: RunState, log: str, seconds: float) -> None:
        """Record that a step failed or was cancelled; a run that has ended meanwhile stays as it is."""
        at = self._store.now()

        def write(tx: Tx) -> None:
            known = facts.get_run(tx, run.id)
            if known is not None and known.state == "running":
                told = {"plan": self._plan, "seconds": round(seconds, 6)}
                facts.finish_run(tx, run.id, state=state, ended_at=at, error=error, facts=told, log=log)

        self._store.ledger.write(write, what=f"{state} {run.kind} {run.name}")

    def refused(self, run: Run, used: Used, error: Data) -> None:
        """Record a step that was not begun because a rule forbade it."""
        at = self._store.now()

        def write(tx: Tx) -> None:
            facts.start_run(tx, run)
            facts.add_used(tx, run.id, [(version.id, role) for version, role in used])
            told = {"plan": self._plan, "seconds": 0.0}
            facts.finish_run(tx, run.id, state="failed", ended_at=at, error=error, facts=told)

        self._store.ledger.write(write, what=f"refuse {run.kind} {run.name}")

    def override(self, run: Run, used: Used, reasons: Sequence[str], overrides: Data) -> None:
        """Record that somebody let a step run against a rule, and why."""
        at = self._store.now()
        told = {"plan": self._plan, "overridden": list(reasons), **overrides}

        def write(tx: Tx) -> None:
            facts.start_run(tx, run)
            facts.add_used(tx, run.id, [(version.id, role) for version, role in used])
            facts.finish_run(tx, run.id, state="done", ended_at=at, facts=told)
            tx.note(run.id, overridden=list(reasons), **overrides)

        self._store.ledger.write(write, what=f"override for {run.name}")

    def _add(self, tx: Tx, item: Made, run: Run, at: datetime) -> Version:
        asset = facts.find_asset(tx, item.asset)
        if asset is None:
            spec = {"made_with": run.name}
            asset = facts.put_asset(tx, name=item.asset, kind=item.kind, spec=spec, at=at)
        version = facts.add_version(
            tx,
            asset,
            digest=item.digest,
            run_id=run.id,
            state=item.state,
            location=item.location,
            meta=item.meta,
            at=at,
        )
        for alias in item.aliases:
            facts.set_alias(tx, item.asset, alias, version.id)
        for grant in item.grants:
            facts.add_grant(tx, grant["digest"], grant["format"], run.id, self._actor, at)
        return version


def at_work(reader: Reader, asset: str) -> list[str]:
    """Return the runs that are at work on an asset, in any environment: these share its table."""
    # The plus keeps SQLite on the index by state: few runs are running, many have the name.
    sql = (
        "SELECT id FROM run WHERE state='running' AND workspace=? AND +name=? AND holder <> ''"
        " AND kind IN ('make', 'gate')"
    )
    return [row[0] for row in reader.query(sql, (reader.workspace, asset))]


def _entry(run: Run, version_ids: Sequence[str], at: datetime) -> CacheEntry:
    return CacheEntry(
        key=run.key,
        asset=f"{run.kind}:{run.name}",
        fields=run.key_fields,
        run_id=run.id,
        version_ids=tuple(dict.fromkeys(version_ids)),
        at=at,
    )


def _addressed(verdict: Verdict, run: Run, made: Sequence[Version], candidate: Version | None) -> Verdict:
    """Return a step's verdict with the id of what it is about, and of the run that gave it."""
    subject = verdict.subject
    if subject == "candidate" or (not subject and not made):
        subject = candidate.id if candidate else run.id
    elif not subject:
        subject = made[0].id
    return msgspec.structs.replace(verdict, subject=subject, run_id=run.id)
