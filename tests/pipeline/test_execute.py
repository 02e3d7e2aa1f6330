"""Executing a plan end to end, in real worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.errors import WrongUse
from trimtab.core.nouns import Run
from trimtab.pipeline.execute import execute
from trimtab.pipeline.plan import Plan, make_plan
from trimtab.pipeline.report import Event, StageReport
from trimtab.store import facts
from trimtab.store.store import Store, open_store


def _runs(folder: Folder, **wanted: Any) -> list[Run]:
    return facts.list_runs(folder.store.ledger, **wanted)


def _stage(folder: Folder, name: str, *targets: str, **more: Any) -> StageReport:
    return next(stage for stage in folder.run(*targets, **more).stages if stage.id == name)


def _alias(folder: Folder, ref: str, alias: str = "champion") -> None:
    version = facts.resolve(folder.store.ledger, ref)
    folder.store.ledger.write(lambda tx: facts.set_alias(tx, version.asset, alias, version.id), what="alias")


def test_runs_and_reuses(folder: Folder) -> None:
    """A plan makes versions; the next one reuses them all and starts no process."""
    report = folder.run()
    assert report.ok and report.exit_code == 0
    assert {stage.state for stage in report.stages} == {"done"}
    assert folder.value("total") == 6
    again = folder.run()
    assert {stage.state for stage in again.stages} == {"reused"}
    assert facts.newest(folder.store.ledger, "total") == facts.current(folder.store.ledger, "total")
    assert len(_runs(folder)) == 6


def test_early_cutoff(folder: Folder) -> None:
    """A step whose input came out as it was is reused, though it was planned to run."""
    folder.run()
    folder.edit("helpers.py", "2 * x", "x + x")
    assert folder.actions()["make:total"] == "run"
    states = folder.states()
    assert states["make:sizes"] == "done"
    assert states["make:total"] == states["make:best"] == states["gate:best"] == "reused"


def test_going_back_takes_old_content_up_again(folder: Folder) -> None:
    """With the old code back, the old content becomes a new version and is current, without computing."""
    folder.run()
    folder.edit("helpers.py", "2 * x", "4 * x")
    folder.run()
    assert folder.value("total") == 12
    folder.edit("helpers.py", "4 * x", "2 * x")
    plan = folder.plan()
    assert {stage.action for stage in plan.stages if stage.op == "make"} == {"reuse"}
    assert next(stage for stage in plan.stages if stage.id == "make:sizes").again
    assert folder.execute(plan).ok
    assert folder.value("total") == 6
    versions = facts.list_versions(folder.store.ledger, "sizes")
    assert len(versions) == 3 and versions[2].digest == versions[0].digest
    assert set(folder.actions().values()) == {"reuse"}


def test_the_plan_is_frozen(folder: Folder) -> None:
    """What was planned is what runs, even if the files change in between."""
    plan = folder.plan()
    folder.edit("helpers.py", "2 * x", "100 * x")
    assert folder.execute(plan).ok
    assert folder.value("total") == 6
    assert folder.actions()["make:sizes"] == "run"


def test_every_run_is_recorded_in_full(folder: Folder) -> None:
    """Code, runtime, params, results and lineage of every run are there and not empty."""
    folder.edit("steps.py", 'return "other"', "raise ValueError('no')")
    folder.run()
    runs = _runs(folder)
    assert {run.state for run in runs} == {"done", "failed"}
    for run in runs:
        assert run.code["digest"].startswith("sha256:") and run.code["snapshot"].startswith("sha256:")
        assert run.runtime["lock"].startswith("sha256:")
        assert all(run.runtime[name] for name in ("lock_of", "python", "platform", "threads"))
        assert run.params and run.key and run.key_fields and run.actor == "tester"
        assert run.ended_at is not None and run.ended_at >= run.started_at
        assert run.facts["plan"].startswith("pln_") and "seconds" in run.facts
        assert (
            run.error
            if run.state == "failed"
            else facts.made_by(folder.store.ledger, run.id)
            or (run.kind == "gate" and facts.verdicts_by(folder.store.ledger, run.id))
        )
    gate = next(run for run in runs if run.kind == "gate")
    roles = {role: version.ref for version, role in facts.used_by(folder.store.ledger, gate.id)}
    assert roles == {"total": "total:1", "candidate": "best:1"}
    assert facts.metrics_of(folder.store.ledger, gate.id) == {"score": 6.0}


def test_failing_step(folder: Folder) -> None:
    """A step that raises is told with the user's line; what is done stays, and the next run resumes."""
    folder.edit("steps.py", "return sum(sizes.values())", 'print("so far"); raise KeyError("nope")')
    report = folder.run()
    states: dict[str, str] = {stage.id: stage.state for stage in report.stages}
    assert states == {
        "make:raw": "done",
        "make:sizes": "done",
        "make:total": "failed",
        "make:other": "done",
        "make:best": "blocked",
        "gate:best": "blocked",
    }
    assert report.exit_code == 3
    failed = next(stage for stage in report.stages if stage.id == "make:total")
    assert failed.error["type"] == "StepFailed"
    assert "KeyError: 'nope'" in failed.error["message"]
    assert failed.error["where"] == "steps.py:14"
    run = _runs(folder, name="total")[0]
    log = (folder.store.home.root / run.log).read_text()
    assert log.startswith("so far\n") and 'File "steps.py", line 14, in total' in log
    folder.edit("steps.py", 'print("so far"); raise KeyError("nope")', "return sum(sizes.values())")
    states = folder.states()
    assert states["make:sizes"] == "reused" and states["make:total"] == "done"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed by signal SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "killed by signal SIGSEGV"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import sys; sys.exit(7)", "SystemExit: 7"),
        ("return object()", "object"),
    ],
)
def test_dying_step(folder: Folder, body: str, says: str) -> None:
    """A step whose process dies fails alone, with the way it died and the log to look at."""
    folder.edit("steps.py", 'return "other"', f'print("last words"); {body}')
    report = folder.run()
    failed = next(stage for stage in report.stages if stage.id == "make:other")
    assert failed.state == "failed" and says in failed.error["message"]
    assert failed.error["type"] == "StepFailed"
    assert {stage.state for stage in report.stages if stage.id != "make:other"} == {"done"}
    assert (folder.store.home.root / _runs(folder, name="other")[0].log).read_text().startswith("last words")


def test_step_that_takes_too_long(folder: Folder) -> None:
    """A step over its time limit is killed and says so."""
    folder.edit("steps.py", 'return "other"', "import time; time.sleep(60)")
    report = folder.execute(folder.plan("other"), timeout_s=0.5)
    assert "longer than its limit of 0.5 s" in report.stages[0].error["message"]
    assert report.stages[0].seconds < 10


def test_events(folder: Folder) -> None:
    """What is printed and logged arrives while the step runs."""
    folder.edit(
        "steps.py",
        'return "other"',
        'print("hello"); tt.log(loss=0.5, step=3); tt.log(note="x"); import time; time.sleep(0.5); return 1',
    )
    folder.run("other")
    kinds = [event.kind for event in folder.events]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    assert any(event.kind == "log" and event.text == "hello\n" for event in folder.events)
    progress = next(event for event in folder.events if event.kind == "progress")
    assert progress.data == {"name": "loss", "step": 3, "value": 0.5}
    run = _runs(folder, name="other")[0]
    assert run.params == {"seed": 0, "note": "x"}
    assert facts.metrics_of(folder.store.ledger, run.id) == {"loss": 0.5}


def test_seeded_generators(folder: Folder) -> None:
    """Python's and numpy's global generators start from the seed in every step."""
    folder.edit(
        "steps.py",
        'return "other"',
        "import random; import numpy; return [random.random(), float(numpy.random.random())]",
    )
    folder.run("other")
    first = folder.value("other")
    folder.edit("steps.py", "import random; import numpy;", "import random; import numpy; x = 1;")
    folder.run("other")
    assert folder.value("other") == first


def test_thread_caps_and_working_directory(folder: Folder) -> None:
    """A step sees its thread cap before anything is imported, and the project folder as its own."""
    folder.edit(
        "steps.py",
        'return "other"',
        "import os, sys; return [os.environ['OMP_NUM_THREADS'], os.getcwd(), sys.path[0]]",
    )
    folder.run("other")
    threads, cwd, path = folder.value("other")
    assert threads == "1" and cwd == str(folder.root.resolve())
    assert path.startswith(str(folder.store.home.snapshots))


def test_gate_compares_with_the_champion(folder: Folder) -> None:
    """A better candidate is published; a worse one is refused, and stays refused while nothing changes."""
    folder.run()
    _alias(folder, "best:1")
    assert folder.run("best", params={"best": {"plus": 1}}).ok
    assert folder.value("best") == {"score": 7}
    report = folder.run("best", params={"best": {"plus": -1}})
    gate = report.stages[-1]
    assert (report.exit_code, gate.state, gate.error["type"]) == (1, "failed", "GateFailed")
    assert "5 against 6" in gate.error["message"] and gate.verdicts[0].status == "fail"
    assert facts.resolve(folder.store.ledger, "best:3").state == "refused"
    assert facts.resolve(folder.store.ledger, "best").ref == "best:2"
    assert folder.actions("best", params={"best": {"plus": -1}})["gate:best"] == "reuse"
    again = folder.run("best", params={"best": {"plus": -1}})
    assert again.exit_code == 1 and "nothing has changed" in again.stages[-1].error["message"]
    roles = facts.used_by(folder.store.ledger, gate.run_id)
    assert ("best:1", "champion") in [(version.ref, role) for version, role in roles]


def test_refusal_is_reconsidered_when_the_champion_changes(folder: Folder) -> None:
    """Against another champion the same content becomes a new candidate, without training again."""
    folder.run("best", params={"best": {"plus": 5}})
    _alias(folder, "best:1")
    assert folder.run("best").exit_code == 1
    folder.run("best", params={"best": {"plus": -9}})
    made = facts.list_versions(folder.store.ledger, "best")
    folder.store.ledger.write(lambda tx: tx.execute("UPDATE alias SET version_id=?", (made[2].id,)), what="test")
    plan = folder.plan("best")
    assert [(stage.id, stage.action) for stage in plan.stages[-2:]] == [
        ("make:best", "reuse"),
        ("gate:best", "run"),
    ]
    assert folder.execute(plan).ok
    assert facts.resolve(folder.store.ledger, "best").ref == "best:4"
    assert folder.value("best") == {"score": 6}


def test_a_published_candidate_is_judged_anew_when_its_checks_change(folder: Folder) -> None:
    """Other checks judge the same content again, without training; a refused one leaves the old one current."""
    folder.run()
    _alias(folder, "best:1")
    folder.edit("steps.py", '@tt.model(label="y")', '@tt.model(label="y", gate=[tt.check.metric("auc", above=0.9)])')
    stage = folder.plan("best").stages[-1]
    assert stage.action == "run" and "checks.metric(auc above 0.9)" in stage.changed
    report = folder.run("best")
    assert [(stage.id, stage.state) for stage in report.stages[-2:]] == [("make:best", "reused"), ("gate:best", "done")]
    assert facts.resolve(folder.store.ledger, "best").ref == "best:2"
    assert folder.actions("best")["gate:best"] == "reuse"


def test_checks_put_back_judge_a_refused_candidate_anew(folder: Folder) -> None:
    """What other checks refused is not refused for good: with the old checks it passes as it did before."""
    folder.run("best", params={"best": {"plus": 5}})
    _alias(folder, "best:1")
    folder.run("best")
    folder.edit("steps.py", '@tt.model(label="y")', '@tt.model(label="y", gate=[tt.check.metric("auc", above=0.9)])')
    assert folder.actions("best")["gate:best"] == "run" and folder.run("best").exit_code == 1
    folder.edit("steps.py", ', gate=[tt.check.metric("auc", above=0.9)]', "")
    folder.store.ledger.write(lambda tx: tx.execute("DELETE FROM alias"), what="test")
    assert folder.actions("best")["gate:best"] == "run" and folder.run("best").ok


def test_refit_is_what_counts(folder: Folder) -> None:
    """After a refit the refitted version is current, and the next run reuses both."""
    folder.edit("steps.py", '@tt.model(label="y")', '@tt.model(label="y", refit=True)')
    folder.run("best")
    assert folder.value("best") == {"refit": True, "score": 6}
    plan = folder.plan("best")
    assert {stage.action for stage in plan.stages} == {"reuse"}
    assert plan.stages[-1].version == "best:2"
    assert folder.execute(plan).stages[-1].version == "best:2"


def test_refused_table_keeps_the_old_one(folder: Folder) -> None:
    """A table that fails its own gate is not published, and what depends on it does not run."""
    folder.run()
    folder.edit("steps.py", "return sum(sizes.values())", 'return {"refuse": "too small"}')
    report = folder.run()
    states = {stage.id: stage.state for stage in report.stages}
    assert states["make:total"] == "failed" and states["make:best"] == "blocked"
    assert report.exit_code == 1
    assert facts.resolve(folder.store.ledger, "total").ref == "total:1"
    newest = facts.newest(folder.store.ledger, "total")
    assert newest is not None and newest.state == "refused"
    assert facts.verdicts_of(folder.store.ledger, newest.id)[0].reason == "too small"
    assert folder.states()["make:total"] == "failed"


def test_stale_input_is_refused_unless_overridden(folder: Folder) -> None:
    """A model refuses an input older than its limit; an override is recorded as a run of its own."""
    start = datetime(2013, 1, 1, tzinfo=UTC)
    folder.store.set_clock("simulated", start)
    folder.edit("steps.py", "@tt.table\ndef total", '@tt.table(fresh="1d")\ndef total')
    folder.run()
    folder.store.set_clock("simulated", start + timedelta(days=2))
    params = {"best": {"plus": 1}}
    stage = next(stage for stage in folder.plan("best", params=params).stages if stage.id == "make:best")
    assert stage.action == "blocked" and "2 days" in stage.reason
    report = folder.run("best", params=params)
    assert report.exit_code == 1 and report.stages[-2].error["type"] == "StaleInput"
    assert _runs(folder, kind="make", name="best", state="failed")[0].error["type"] == "StaleInput"
    assert folder.run("best", params=params, overrides={"reason": "holiday"}).ok
    act = _runs(folder, kind="override")[0]
    assert act.facts["reason"] == "holiday" and "2 days" in act.facts["overridden"][0]


def test_override_goes_on_with_what_was_published(folder: Folder) -> None:
    """With an override a model trains on the last good version though a newer one failed its gate."""
    folder.run()
    folder.edit("steps.py", "return sum(sizes.values())", 'return {"refuse": "too small"}')
    report = folder.run("best", params={"best": {"plus": 3}}, overrides={"reason": "demo"})
    states = {stage.id: stage.state for stage in report.stages}
    assert states["make:total"] == "failed" and states["gate:best"] == "done"
    assert folder.value("best") == {"score": 9}
    assert report.exit_code == 1
    assert "did not succeed" in _runs(folder, kind="override")[0].facts["overridden"][0]


def test_cancel_keeps_what_is_done(folder: Folder) -> None:
    """Cancelling ends the running step, marks it, and keeps what is finished."""
    folder.edit("steps.py", "return sum(sizes.values())", "import time; time.sleep(60)")
    cancel = threading.Event()

    def watch(event: Event) -> None:
        if event.kind == "started" and event.stage == "make:total":
            cancel.set()

    plan = folder.plan("best")
    folder.events = type("Watch", (list,), {"append": staticmethod(watch)})()
    report = folder.execute(plan, cancel=cancel)
    states = {stage.id: stage.state for stage in report.stages}
    assert states["make:sizes"] == "done" and states["make:total"] == states["gate:best"] == "cancelled"
    assert not report.ok and report.exit_code == 3
    assert _runs(folder, name="total")[0].state == "cancelled"
    assert not _runs(folder, state="running")


def test_two_executions_at_once_run_a_step_once(folder: Folder, open_folder: Callable[[], Folder]) -> None:
    """Of two executions of one plan one runs each step; the other waits and reuses."""
    folder.edit("steps.py", 'return "other"', "import time; time.sleep(1); return 1")
    plan = folder.plan()
    reports: list[dict[str, str]] = []

    def work() -> None:
        store = open_store(folder.root / ".trimtab", actor="second")
        try:
            reports.append(_execute(folder, make_plan(folder.project, folder.manifest(), store), store))
        finally:
            store.close()

    thread = threading.Thread(target=work)
    thread.start()
    reports.append({stage.id: stage.state for stage in folder.execute(plan).stages})
    thread.join(60)
    for name in ("make:raw", "make:sizes", "make:total", "make:other", "make:best"):
        assert sorted(report[name] for report in reports) == ["done", "reused"], name
    assert len(_runs(folder, kind="make")) == 5
    assert {len(facts.list_versions(folder.store.ledger, name)) for name in ("raw", "total", "other")} == {1}


def _execute(folder: Folder, plan: Plan, store: Store) -> dict[str, str]:
    report = execute(plan, project=folder.project, store=store)
    return {stage.id: stage.state for stage in report.stages}


def test_wrong_environment(folder: Folder) -> None:
    """A plan is executed where it was made."""
    plan = folder.plan()
    store = open_store(folder.root / ".trimtab", environment="prod")
    with pytest.raises(WrongUse, match="'dev'"):
        _execute(folder, plan, store)
    store.close()
