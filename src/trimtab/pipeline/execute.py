"""Executes a frozen plan: exactly its stages, several at once, each recorded, cached and resumable."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from trimtab.core.clock import monotonic
from trimtab.core.declare import Declaration
from trimtab.core.errors import GateFailed, StaleInput, TrimtabError, WrongUse
from trimtab.core.nouns import Data, Run, RunState, Verdict, Version
from trimtab.pipeline.files import FileDigests
from trimtab.pipeline.graph import Graph
from trimtab.pipeline.interrupts import interrupts
from trimtab.pipeline.jobs import Job, Session
from trimtab.pipeline.kinds import StepResult, assets_made, kinds
from trimtab.pipeline.manifest import Manifest, checks_data, load_manifest, snapshot_folder
from trimtab.pipeline.plan import Plan, Stage
from trimtab.pipeline.pool import Notice, Pool
from trimtab.pipeline.project import Project
from trimtab.pipeline.record import Records, at_work
from trimtab.pipeline.recovery import reap, to_recover
from trimtab.pipeline.report import Event, EventKind, Report, StageReport, StageState, exit_of, make_report
from trimtab.pipeline.runtime import actor as this_account
from trimtab.pipeline.runtime import run_code, run_runtime
from trimtab.pipeline.settle import Decision, decide
from trimtab.pipeline.steps import GATE, Steps
from trimtab.store import facts, leases
from trimtab.store.store import Store

__all__ = ["Event", "Report", "StageReport", "execute", "new_pool"]

OnEvent = Callable[[Event], None]
_TICK_S = 0.2
_BEAT_S = 15.0
_REAP_S = 2.0
_POLL_S = 0.05
_CANCELLED: Data = {
    "type": "Cancelled",
    "message": "it was cancelled",
    "where": "",
    "fix": "run again; what is done is kept",
}


def execute(
    plan: Plan,
    *,
    project: Project,
    store: Store,
    on_event: OnEvent | None = None,
    jobs: int = 0,
    actor: str = "",
    cancel: threading.Event | None = None,
    timeout_s: float = 0.0,
    threads: int = 1,
    pool: Pool | None = None,
) -> Report:
    """Run the stages of ``plan`` and record each one; nothing else is run.

    What ran before and has the same key is reused, also when that shows only now because an input came out
    as it was. A failed step blocks what depends on it and nothing else. Ctrl-C, SIGTERM and ``cancel`` end
    the running steps' process groups, mark their runs as cancelled and keep what is finished.

    Args:
        plan: from ``make_plan``.
        project: the project.
        store: the store that the plan was made over.
        on_event: is told what happens, in this thread.
        jobs: steps at once; by default what the project file says.
        actor: who runs it; by default the store's actor, else this account.
        cancel: set it from another thread to end early.
        timeout_s: kills a step that takes longer; 0 means never.
        threads: compute threads of one step.
        pool: a warm pool for the plan's snapshot (see ``new_pool``), left open; by default one is made and
            closed.

    Raises:
        WrongUse: the plan was made for another environment, or ``pool`` for another snapshot.
        NotFound: the store does not have the manifest that the plan was made from.
    """
    if plan.environment != store.ledger.environment:
        raise WrongUse(
            f"the plan is for {plan.environment!r} and the store is open for {store.ledger.environment!r}",
            fix="make the plan again",
        )
    manifest = load_manifest(store, plan.manifest)
    who = actor or store.ledger.actor or this_account()
    own = pool is None
    pool = pool or new_pool(manifest, project=project, store=store, jobs=jobs, threads=threads, actor=who)
    if Path(pool.session.snapshot).name != manifest.snapshot_digest.removeprefix("sha256:"):
        raise WrongUse("the pool was made for other code than the plan", fix="make a new pool")
    executor = _Executor(plan, manifest, project, store, pool, who)
    executor.on_event = on_event or executor.on_event
    executor.cancel = cancel or executor.cancel
    executor.timeout_s = timeout_s
    try:
        return executor.run()
    finally:
        if own:
            pool.close()


def new_pool(
    manifest: Manifest,
    *,
    project: Project,
    store: Store,
    jobs: int = 0,
    threads: int = 1,
    memory_bytes: int = 0,
    actor: str = "",
) -> Pool:
    """Return a pool for a manifest's snapshot that executions may share, one after the other.

    Args:
        manifest: what the project declares.
        project: the project.
        store: the store.
        jobs: steps at once; by default what the project file says.
        threads: compute threads of one step.
        memory_bytes: the most data memory of one worker (0: no limit); a step that needs more gets a
            ``MemoryError``.
        actor: who acts in the workers' stores.
    """
    session = Session(
        project_root=str(project.root),
        snapshot=str(snapshot_folder(store, manifest)),
        store=str(store.home.root),
        environment=store.ledger.environment,
        workspace=store.ledger.workspace,
        actor=actor or store.ledger.actor,
        threads=threads,
        memory_bytes=memory_bytes,
    )
    return Pool(session, slots=jobs or project.workers)


@dataclass(kw_only=True)
class _Running:
    stage: Stage
    node: Declaration
    run: Run
    log: Path
    started: float
    candidate: Version | None


class _Executor:
    """One execution of one plan, in one thread."""

    def __init__(self, plan: Plan, manifest: Manifest, project: Project, store: Store, pool: Pool, actor: str) -> None:
        self.on_event: OnEvent = lambda event: None
        self.cancel = threading.Event()
        self.timeout_s = 0.0
        self._plan = plan
        self._project = project
        self._store = store
        self._pool = pool
        self._graph = Graph.build(manifest)
        self._steps = Steps(project, manifest, self._graph, store, plan.runtime)
        self._digests = FileDigests(store.home.cache / "files.msgpack")
        self._beat_at = monotonic() + _BEAT_S
        self._reap_at = 0.0
        self._runtime = run_runtime(project, threads=pool.session.threads)
        code = run_code(project, manifest, store)
        self._records = Records(store, manifest, code=code, runtime=self._runtime, actor=actor, plan=plan.id)
        self._assets: dict[str, str] = {}
        self._waits = {stage.id: len(stage.after) for stage in plan.stages}
        self._followers: dict[str, list[Stage]] = {stage.id: [] for stage in plan.stages}
        for stage in plan.stages:
            for name in stage.after:
                self._followers[name].append(stage)
        self._ready = deque(stage for stage in plan.stages if not stage.after)
        self._reports: dict[str, StageReport] = {}
        self._versions: dict[str, Version] = {}
        self._running: dict[str, _Running] = {}
        self._queued: set[str] = set()
        self._passed_over: dict[str, list[str]] = {}

    def run(self) -> Report:
        """Run to the end, or until cancelled."""
        reap(self._store)
        self._declare()
        try:
            with interrupts(self.cancel):
                while (self._ready or self._running) and not self.cancel.is_set():
                    moved = self._advance()
                    if self._running or not moved:
                        self._hear()
                if self.cancel.is_set():
                    self._stop()
        except BaseException:
            # Whatever broke, no step may run on without somebody who records it.
            self._stop()
            raise
        finally:
            self._digests.save()
        reports = [self._reports[stage.id] for stage in self._plan.stages]
        return make_report(self._plan.id, reports)

    def _declare(self) -> None:
        """Make the assets of the plan known to the ledger, with the options that they have now."""
        wanted: dict[str, tuple[str, Data]] = {}
        for stage in self._plan.stages:
            node = self._graph.nodes[stage.asset]
            for name, kind in assets_made(self._steps.kind(node), node).items():
                wanted[name] = (kind, {"made_with": node.name})
            spec = {**node.spec, "inputs": list(node.inputs), "checks": checks_data(node), "doc": node.doc}
            wanted[node.name] = (node.kind, spec)
        self._assets = self._records.assets(wanted)

    def _advance(self) -> bool:
        """Settle or start every stage whose turn has come; say whether anything moved."""
        moved = False
        waiting: list[Stage] = []
        while self._ready and not self.cancel.is_set():
            stage = self._ready.popleft()
            before = [self._reports[name] for name in stage.after]
            broken = [report for report in before if report.state not in ("done", "reused")]
            if broken and not self._overridden(stage, broken):
                self._settle(stage, "blocked", reason=f"{broken[0].id} did not succeed")
            elif not self._turn(stage):
                waiting.append(stage)
                continue
            moved = True
        self._ready.extend(waiting)
        return moved

    def _overridden(self, stage: Stage, broken: list[StageReport]) -> bool:
        """Say whether a model goes on with what was published before, though a gate refused newer data.

        Only an override allows that, and only where gates said no: a fault is never passed over.
        """
        node = self._graph.nodes[stage.asset]
        refused = all(exit_of(report.error) == 1 or report.state == "blocked" for report in broken)
        if not self._plan.overrides or node.kind != "model" or stage.op == GATE or not refused:
            return False
        for name in node.inputs:
            current = self._versions.get(name) or facts.current(self._store.ledger, name)
            if current is None:
                return False
            self._versions[name] = current
        self._passed_over[stage.id] = [f"{report.id} did not succeed" for report in broken]
        return True

    def _turn(self, stage: Stage) -> bool:
        """Settle or start one stage; False when it has to wait for a slot or for another process."""
        node = self._graph.nodes[stage.asset]
        decision = decide(self._steps, stage, node, self._versions, self._plan.overrides)
        if decision.action == "reuse":
            self._reuse(stage, decision)
            return True
        if decision.action == "run" and self._pool.free <= 0:
            return False
        if decision.action == "again":
            self._again(stage, node, decision)
        elif decision.action == "refuse":
            self._refuse(stage, node, decision)
        elif not self._start(stage, node, decision):
            if stage.id not in self._queued:
                self._queued.add(stage.id)
                self._tell("progress", stage, f"waits for another run of {node.name}")
            return False
        self._queued.discard(stage.id)
        return True

    def _reuse(self, stage: Stage, decision: Decision) -> None:
        hit = decision.hit
        assert hit is not None
        if stage.op != GATE:
            self._versions[stage.asset] = hit
            self._settle(stage, "reused", version=hit)
        elif hit.state == "refused":
            error = GateFailed(
                f"{hit.ref} was refused by its gate, and nothing has changed since",
                where=self._graph.nodes[stage.asset].where,
                fix=f"`trimtab show {hit.ref}` tells why; change the data, the params or the code",
            )
            self._settle(stage, "failed", version=hit, error=error.as_data())
        else:
            self._versions[stage.asset] = self._steps.standing(hit) or hit
            self._settle(stage, "reused", version=self._versions[stage.asset])

    def _new_run(self, stage: Stage, node: Declaration, decision: Decision) -> Run:
        fields = self._steps.fields(
            node, stage.op, decision.inputs, decision.references, stage.params, stage.fingerprint
        )
        return self._records.new(node, stage.op, key=decision.key, fields=fields, params=stage.params)

    def _again(self, stage: Stage, node: Declaration, decision: Decision) -> None:
        assert decision.hit is not None
        run = self._new_run(stage, node, decision)
        gated = GATE in self._steps.ops(node)
        version = self._records.again(run, decision.hit, gated=gated)
        self._versions[stage.asset] = version
        self._settle(stage, "reused", version=version, run=run, reason=f"{decision.hit.ref} again")

    def _refuse(self, stage: Stage, node: Declaration, decision: Decision) -> None:
        error = StaleInput(
            f"{node.name} was not trained: {'; '.join(decision.stale)}",
            where=node.where,
            fix="mend or refresh the input, or run with --override REASON, which is recorded",
        )
        run = self._new_run(stage, node, decision)
        self._records.refused(run, decision.used, error.as_data())
        self._settle(stage, "failed", error=error.as_data(), run=run)

    def _start(self, stage: Stage, node: Declaration, decision: Decision) -> bool:
        """Begin a step; False when another execution is at work on its asset, or has just done the same."""
        if at_work(self._store.ledger, node.name):
            if monotonic() >= self._reap_at:
                # Whoever it is may have died meanwhile.
                self._reap_at = monotonic() + _REAP_S
                reap(self._store)
            return False
        candidate = decision.inputs.get("candidate")
        run = self._new_run(stage, node, decision)
        always = bool(stage.fingerprint.get("always")) or decision.lost
        if not self._records.begin(run, decision.used, candidate=candidate, always=always):
            return False
        stale = [*self._passed_over.get(stage.id, []), *decision.stale]
        if stale:
            act = self._records.new(node, "override", params=self._plan.overrides)
            self._records.override(act, decision.used, stale, self._plan.overrides)
        assets = self._own_assets(node)
        log = self._store.home.logs / f"{run.id}.log"
        job = Job(
            id=stage.id,
            kind=kinds()[node.kind],
            op=stage.op,
            declaration=node,
            run_id=run.id,
            inputs=decision.inputs,
            references=decision.references,
            previous=facts.current(self._store.ledger, node.name),
            params=stage.params,
            seed=run.seed,
            now=self._store.now(),
            overrides=self._plan.overrides,
            runtime=self._runtime,
            fingerprint=stage.fingerprint,
            assets=assets,
            log=str(log),
            recover=to_recover(self._store, node.name, assets, run_id=run.id),
        )
        self._running[stage.id] = _Running(
            stage=stage,
            node=node,
            run=run,
            log=log,
            started=monotonic(),
            candidate=candidate,
        )
        self._tell("started", stage, f"run {run.id}")
        self._pool.start(job, timeout_s=self.timeout_s)
        return True

    def _own_assets(self, node: Declaration) -> dict[str, str]:
        return {name: self._assets[name] for name in assets_made(self._steps.kind(node), node)}

    def _hear(self) -> None:
        """Wait a little for the workers, record what ended, and say that our runs are alive."""
        timeout = _POLL_S if self._queued else _TICK_S
        if self._running:
            for notice in self._pool.wait(timeout):
                self._take(notice)
        else:
            sleep(timeout)
        if monotonic() >= self._beat_at:
            self._beat_at = monotonic() + _BEAT_S
            leases.beat(self._store.ledger, [running.run.id for running in self._running.values()])

    def _take(self, notice: Notice) -> None:
        running = self._running.get(notice.job)
        if running is None:
            return
        if notice.kind == "log":
            self._tell("log", running.stage, notice.text)
        elif notice.kind == "progress":
            data = {"name": notice.told.name, "step": notice.told.step, "value": notice.told.value}
            self._tell("progress", running.stage, f"{data['name']} {data['value']:.6g}", data)
        else:
            self._end(running, notice)

    def _end(self, running: _Running, notice: Notice) -> None:
        stage, told = running.stage, notice.told
        del self._running[stage.id]
        log = self._keep_log(running)
        if self.cancel.is_set() and told.kind != "done":
            self._fail(running, _CANCELLED, log, "cancelled")
        elif told.kind == "done" and told.result is not None:
            self._done(running, told.result, log)
        else:
            self._fail(running, told.error, log, "failed")

    def _done(self, running: _Running, result: StepResult, log: str) -> None:
        stage, node = running.stage, running.node
        error = _gate_error(node, result)
        gated = stage.op == GATE
        # A standing refusal is worth remembering; a refused table is made anew next time.
        cached = (gated or not error) and self._as_planned(stage, node)
        seconds = monotonic() - running.started
        try:
            made = self._records.done(
                running.run, result, error=error, log=log, candidate=running.candidate, cached=cached
            )
        except TrimtabError as wrong:
            self._fail(running, wrong.as_data(), log, "failed")
            return
        own = next((version for version in made if version.asset == node.name), running.candidate)
        if gated and not error:
            own = facts.current(self._store.ledger, node.name) or own
        if own is not None and not error:
            self._versions[node.name] = own
        verdicts = facts.verdicts_by(self._store.ledger, running.run.id)
        self._settle(
            stage,
            "failed" if error else "done",
            version=own,
            run=running.run,
            error=error,
            seconds=seconds,
            verdicts=verdicts,
        )

    def _as_planned(self, stage: Stage, node: Declaration) -> bool:
        """Say whether what the step read outside is still what its key says."""
        if not stage.fingerprint:
            return True
        try:
            now = self._steps.kind(node).fingerprint(node, self._project.root, self._digests)
        except TrimtabError:
            return False
        return now == stage.fingerprint

    def _fail(self, running: _Running, error: Data, log: str, state: RunState) -> None:
        seconds = monotonic() - running.started
        self._records.failed(running.run, error, state=state, log=log, seconds=seconds)
        settled: StageState = "cancelled" if state == "cancelled" else "failed"
        told = {name: value for name, value in error.items() if name != "traceback"}
        self._settle(running.stage, settled, run=running.run, error=told, seconds=seconds)

    def _keep_log(self, running: _Running) -> str:
        """Return the log's path relative to the store; an empty one is removed."""
        if running.log.exists() and running.log.stat().st_size == 0:
            running.log.unlink()
        return str(running.log.relative_to(self._store.home.root)) if running.log.exists() else ""

    def _stop(self) -> None:
        """End what runs, and record it and what did not run as cancelled."""
        self.cancel.set()
        self._pool.stop("was cancelled")
        while self._running:
            for notice in self._pool.wait(_TICK_S):
                self._take(notice)
        for stage in self._plan.stages:
            if stage.id not in self._reports:
                self._settle(stage, "cancelled")
        self._ready.clear()

    def _settle(
        self,
        stage: Stage,
        state: StageState,
        *,
        version: Version | None = None,
        run: Run | None = None,
        error: Data | None = None,
        seconds: float = 0.0,
        verdicts: list[Verdict] | None = None,
        reason: str = "",
    ) -> None:
        report = StageReport(
            id=stage.id,
            op=stage.op,
            asset=stage.asset,
            state=state,
            version=version.ref if version else "",
            seconds=round(seconds, 6),
            verdicts=verdicts or [],
            error=error or {},
            run_id=run.id if run else "",
            reason=reason or stage.reason,
        )
        self._reports[stage.id] = report
        for follower in self._followers[stage.id]:
            self._waits[follower.id] -= 1
            if not self._waits[follower.id]:
                self._ready.append(follower)
        text = " ".join(part for part in (state, report.version) if part)
        self._tell("finished", stage, f"{text} in {seconds:.2f} s", {"state": state, "seconds": seconds})

    def _tell(self, kind: EventKind, stage: Stage, text: str, data: Data | None = None) -> None:
        self.on_event(Event(kind=kind, stage=stage.id, text=text, data=data or {}))


def _gate_error(node: Declaration, result: StepResult) -> Data:
    """Return the error of a step whose gate said no, or nothing."""
    refused = [item.asset for item in result.made if item.state == "refused" and item.asset == node.name]
    decided = [state for _, state in result.decisions if state == "refused"]
    if not refused and not decided:
        return {}
    broken = [verdict for verdict in result.verdicts if verdict.status in ("fail", "inconclusive")]
    told = "; ".join(f"{verdict.check}: {verdict.reason}" for verdict in broken) or "its gate said no"
    return GateFailed(
        f"{node.name} failed its gate: {told}",
        where=node.where,
        fix="mend the data or the step; what was published before stays current",
    ).as_data()
