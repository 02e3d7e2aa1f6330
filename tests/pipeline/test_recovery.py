"""Death of any process at any moment: nothing is lost, nothing is there twice, the next run resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipeline.conftest import Folder
from trimtab.pipeline.kinds import override_kinds
from trimtab.pipeline.recovery import reap, to_recover
from trimtab.pipeline.spawn import environment
from trimtab.store import facts

SCRIPT = """
import sys
from pathlib import Path
from trimtab.pipeline.execute import execute
from trimtab.pipeline.kinds import override_kinds
from trimtab.pipeline.manifest import read_manifest
from trimtab.pipeline.plan import make_plan
from trimtab.pipeline.project import find_project
from trimtab.store.store import open_store
from trimtab.testing.kinds import JSON_KINDS

with override_kinds(JSON_KINDS):
    project = find_project(Path.cwd())
    store = open_store(project.store, actor="child")
    plan = make_plan(project, read_manifest(project, store), store)
    report = execute(plan, project=project, store=store)
    store.close()
    print(" ".join(f"{stage.id}={stage.state}" for stage in report.stages))
    sys.exit(report.exit_code)
"""
SLOW = """import os, time, pathlib, subprocess
    if pathlib.Path("slow").exists():
        child = subprocess.Popen(["sleep", "60"])
        pathlib.Path("pids.new").write_text(f"{os.getpid()} {child.pid} {os.getppid()}")
        pathlib.Path("pids.new").rename("pids")
        time.sleep(60)
    return "other"
"""


@contextmanager
def _child(folder: Folder) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run the project in a process of its own until its slow step is at work."""
    folder.edit("steps.py", 'return "other"\n', SLOW)
    folder.write("slow", "")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=folder.root,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    pids = folder.root / "pids"
    deadline = time.monotonic() + 30
    while not pids.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    try:
        yield process, [int(pid) for pid in pids.read_text().split()]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("victim", ["parent", "server", "worker"])
def test_kill_and_resume(folder: Folder, victim: str) -> None:
    """Whichever process is killed, no other one stays behind, and the next run resumes where it stood."""
    with _child(folder) as (process, (worker, grandchild, server)):
        os.kill({"parent": process.pid, "server": server, "worker": worker}[victim], signal.SIGKILL)
        assert _wait(lambda: (_gone(worker) and _gone(server)) or (victim != "parent" and _gone(worker)))
        assert process.wait(20) == (-signal.SIGKILL if victim == "parent" else 3)
        # A killed server cannot end its workers' children any more; the others can.
        assert victim == "server" or _wait(lambda: _gone(grandchild))
        if victim == "server":
            os.kill(grandchild, signal.SIGKILL)
    (folder.root / "slow").unlink()
    folder.root.joinpath("pids").unlink()
    states = folder.states()
    assert states["make:other"] == "done"
    assert set(states.values()) <= {"done", "reused"}
    runs = facts.list_runs(folder.store.ledger, name="other")
    assert [run.state for run in runs] == ["done", "lost" if victim == "parent" else "failed"]
    assert set(folder.states().values()) == {"reused"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_cleanly(folder: Folder, number: int) -> None:
    """Ctrl-C and SIGTERM end the steps' process groups, keep what is done and say what was cancelled."""
    with _child(folder) as (process, (worker, grandchild, server)):
        # Both steps began together; the quick one is to be done before the slow one is interrupted.
        assert _wait(lambda: [run.state for run in facts.list_runs(folder.store.ledger, name="raw")] == ["done"])
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 3
        assert "make:raw=done" in out and "make:other=cancelled" in out
        assert all(_wait(lambda pid=pid: _gone(pid)) for pid in (worker, grandchild, server))  # type: ignore[misc]
    states = {run.name: run.state for run in facts.list_runs(folder.store.ledger)}
    assert states["other"] == "cancelled" and "running" not in states.values()


CRASHING = """
import os, pathlib
from trimtab.core.optional import need
from trimtab.pipeline.kinds import Made, StepResult
from trimtab.testing.kinds import JsonStep

class TableStep(JsonStep):
    def run(self, context):
        tables, table_id = context.store.tables, context.table_id()
        staged = tables.stage(table_id, need("pyarrow").table({"x": [1, 2]}))
        location = tables.commit([staged], table_id=table_id, mode="append", run_id=context.run_id)
        if pathlib.Path("crash").exists():
            os.kill(os.getpid(), 9)
        made = Made(
            asset="other", kind="table", digest=location["digest"], state="published", location=location, meta={}
        )
        return StepResult(made=[made])
"""


def test_a_commit_that_the_ledger_never_heard_of(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a step committed just before it died are neither lost nor there twice."""
    folder.write("crashing.py", CRASHING)
    monkeypatch.syspath_prepend(str(folder.root))
    with override_kinds({"table": "crashing:TableStep"}):
        assert folder.states("other") == {"make:other": "done"}
        folder.edit("steps.py", 'return "other"', 'return "another"')
        folder.write("crash", "")
        for _ in range(2):
            assert folder.states("other") == {"make:other": "failed"}
        assert folder.store.tables.arrow(facts.resolve(folder.store.ledger, "other").location).num_rows == 2
        (folder.root / "crash").unlink()
        assert folder.states("other") == {"make:other": "done"}
    version = facts.resolve(folder.store.ledger, "other")
    assert version.number == 2 and folder.store.tables.arrow(version.location).num_rows == 4


def test_a_living_run_is_left_alone(folder: Folder) -> None:
    """A run whose process lives is not reaped by another process."""
    with _child(folder):
        assert reap(folder.store) == []
        assert facts.list_runs(folder.store.ledger, name="other")[0].state == "running"


def test_what_may_be_half_done(folder: Folder) -> None:
    """After a run that did not end well its asset's tables are looked at, down to what the ledger names."""
    folder.run("sizes")
    asset = facts.find_asset(folder.store.ledger, "sizes")
    assert asset is not None
    assets = {"sizes": asset.id}
    assert to_recover(folder.store, "sizes", assets) == {}
    folder.edit("steps.py", "return {name", 'raise ValueError("x"); return {name')
    folder.run("sizes")
    assert to_recover(folder.store, "sizes", assets) == {asset.id: None}
    version = facts.resolve(folder.store.ledger, "sizes")
    folder.store.ledger.write(
        lambda tx: tx.execute(
            "UPDATE version SET location=? WHERE id=?", (facts.pack({"delta_version": 4}), version.id)
        ),
        what="test",
    )
    assert to_recover(folder.store, "sizes", assets) == {asset.id: 4}
