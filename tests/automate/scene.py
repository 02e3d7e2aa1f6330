"""Automations without processes: a project whose run is a function, and deployments that become ready by themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.monitor.scene import Scene
from trimtab.automate.jobs import Jobs, Outcome
from trimtab.automate.loop import Loop
from trimtab.automate.settle import settle
from trimtab.core.nouns import Data, DeploymentState, Verdict, Version
from trimtab.monitor.watch import Monitors
from trimtab.store import facts, live
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.store import Store, open_store

GAIN = {"estimate": 0.03, "low": 0.01, "high": 0.05, "level": 0.95, "rows": 1400}
Run = Callable[[Scene], Outcome]
_OTHERS = ("make", "alias", "gate")
"""Acts of the retraining run, which is a process of its own."""


class Project(Jobs):
    """Stands for a project: its run is a function that looks at the store and adds to it.

    Args:
        scene: where it runs.
        run: what `trimtab run` does there.
        slow: how many polls without waiting it takes.
    """

    def __init__(self, scene: Scene, run: Run, slow: int = 0) -> None:
        super().__init__(project=Path(), store=Path(), environment="dev", logs=Path())
        self._scene, self._run, self._slow = scene, run, slow
        self.started: list[tuple[str, str, str]] = []
        self.manifests: list[str] = []

    def run(self, key: str, asset: str, *, actor: str, manifest: str = "") -> None:
        """Note the start of a run."""
        if key not in [known for known, _, _ in self.started]:
            self.started.append((key, asset, actor))
            self.manifests.append(manifest)

    def poll(self, key: str, *, wait: bool, patience_s: float = 1.0) -> Outcome | None:
        """Run to the end, unless it is slow and nobody waits."""
        self._slow -= 1
        return self._run(self._scene) if wait or self._slow < 0 else None

    def forget(self, key: str) -> None:
        """Nothing to let go of."""


def stage(version: Version, state: str, verdicts: list[Verdict], error: Data | None = None) -> Data:
    """Return the gate's stage of a report as `trimtab run --json` prints it."""
    return {
        "id": "gate:line", "op": "gate", "asset": "line", "state": state, "version": version.ref,
        "verdicts": msgspec.to_builtins(verdicts), "error": error or {},
    }  # fmt: skip


def accepted(scene: Scene) -> Outcome:
    """Make a challenger that beats the champion; a second run reuses it, as the step cache does."""
    newest = facts.newest(scene.store.ledger, "line")
    assert newest is not None
    if newest.number == 1:
        newest = scene.make(2)
        return Outcome(exit_code=0, report={"stages": [stage(newest, "done", [_beats(scene, newest, "pass")])]})
    return Outcome(exit_code=0, report={"stages": [stage(newest, "reused", [])]})


def refused(scene: Scene) -> Outcome:
    """Make a challenger that does not beat the champion; a second run says the same."""
    newest = facts.newest(scene.store.ledger, "line")
    assert newest is not None
    error = {"type": "GateFailed", "message": "its gate said no", "where": "", "fix": ""}
    told = []
    if newest.number == 1:
        newest = scene.make(2, gate="fail")
        told = [_beats(scene, newest, "fail")]
    return Outcome(exit_code=1, report={"stages": [stage(newest, "failed", told, error)]})


def broken(scene: Scene) -> Outcome:
    """Fail as a step does whose code raises."""
    error = {"type": "StepFailed", "message": "model.py: ValueError", "where": "model.py:3", "fix": "mend it"}
    stages = [{"id": "make:line", "op": "make", "asset": "line", "state": "failed", "verdicts": [], "error": error}]
    return Outcome(exit_code=3, report={"stages": stages})


def _beats(scene: Scene, version: Version, status: Any) -> Verdict:
    verdict = Verdict(
        check="beats(champion on auc)", kind="beats", status=status, subject=version.id, at=scene.store.now(),
        reason="gain in auc over line:1 is +0.0300 [+0.0100, +0.0500] on 1400 rows",
        evidence={
            "metric": "auc", "gain": GAIN, "candidate": version.ref, "champion": "line:1", "candidate_value": 0.71,
            "champion_value": 0.68,
        },
    )  # fmt: skip
    return scene.store.ledger.write(lambda tx: facts.add_verdict(tx, verdict), what="gate")


class Control:
    """Settles a scene as the control process does; made anew it knows only what is in the store."""

    def __init__(self, scene: Scene, run: Run = accepted, slow: int = 0) -> None:
        self.scene = scene
        self.project = Project(scene, run, slow)
        self.monitors = Monitors(scene.store)
        self.loop = Loop(scene.store, self.project, self.monitors)

    def settle(self, now: datetime, *, wait: bool = True, patience_s: float = 20.0) -> Data:
        """Settle what is due."""
        return settle(self.scene.store, self.loop, self.monitors, now, wait=wait, patience_s=patience_s)


def _say(deployment_id: str, state: DeploymentState, tx: Tx) -> None:
    live.set_deployment_state(tx, deployment_id, state)


@contextmanager
def ready(root: Path, state: DeploymentState = "ready") -> Iterator[None]:
    """Bring deployments that should be up into a state, as the supervisor does."""
    stop = threading.Event()

    def keep() -> None:
        with open_store(root, actor="supervisor") as store:
            while not stop.wait(0.01):
                for one in live.list_deployments(store.ledger):
                    if one.desired == "up" and one.state == "starting":
                        store.ledger.write(partial(_say, one.id, state), what="ready")

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Killed(BaseException):
    """Stands for a kill."""


@contextmanager
def killed_at(number: int, *, after: bool) -> Iterator[None]:
    """Die at the write with this number (0, 1, ...) of this block: just before it, or just after it is durable."""
    write, count = Ledger.write, iter(range(1_000_000))

    def dying(self: Ledger, fn: Callable[..., Any], *, what: str, **more: Any) -> Any:
        mine = self.actor == "tests" and what not in _OTHERS and next(count) == number
        if mine and not after:
            raise Killed
        answer = write(self, fn, what=what, **more)
        if mine:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "write", dying)
        yield


def summary(store: Store) -> Data:
    """Return what happened, without ids and real times: what must not depend on kills."""
    ledger = store.ledger
    endpoint = live.need_endpoint(ledger, "api")
    told = ("at", "verdict", "rolled_out", "interval", "values", "candidate", "champion", "version", "outcome")
    return {
        "alarms": [(alarm.at, alarm.check, alarm.resolved_at) for alarm in live.list_alarms(ledger)],
        "firings": [
            (firing.state, {name: firing.data.get(name) for name in told}) for firing in live.list_firings(ledger)
        ],
        "runs": sorted((run.kind, run.name, run.state) for run in facts.list_runs(ledger) if run.kind != "make"),
        "versions": [(one.ref, one.state) for one in facts.list_versions(ledger, "line")],
        "rollouts": [(row.state, row.updated_at) for row in live.list_rollouts(ledger, endpoint.id)],
        "traffic": sorted(endpoint.traffic.values()),
        "cases": [(case.kind, case.state) for case in live.list_cases(ledger)],
        "calls": ledger.query("SELECT count(*) FROM call")[0][0],
        "watches": [
            (one["signal"], one["status"], one["evidence"]["rows"], one["evidence"]["since"])
            for one in Monitors(store).verdicts(store.now())
        ],
    }
