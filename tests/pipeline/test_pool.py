"""The pool of warm workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.conftest import Folder
from trimtab.core.errors import Fault
from trimtab.core.ids import new_id
from trimtab.pipeline.execute import execute, new_pool
from trimtab.pipeline.jobs import Job, Told
from trimtab.pipeline.manifest import Manifest
from trimtab.pipeline.pool import Pool
from trimtab.store.store import Store

PIDS = """
import os, time
import trimtab as tt

@tt.table
def one():
    return [os.getpid(), os.getppid()]

@tt.table
def two():
    return [os.getpid(), os.getppid()]

@tt.table
def slow():
    time.sleep(60)
"""


@pytest.fixture
def manifest(folder: Folder) -> Manifest:
    """The manifest of a project whose steps tell their process ids."""
    folder.write("steps.py", PIDS)
    return folder.manifest()


@pytest.fixture
def pool(folder: Folder, manifest: Manifest) -> Iterator[Pool]:
    """A pool for that project."""
    with new_pool(manifest, project=folder.project, store=folder.store) as made:
        yield made


def _job(folder: Folder, manifest: Manifest, name: str) -> Job:
    node = next(node for node in manifest.declarations if node.name == name)
    return Job(
        id=f"make:{name}",
        kind="trimtab.testing.kinds:JsonStep",
        op="make",
        declaration=node,
        run_id=new_id("run"),
        inputs={},
        references={},
        previous=None,
        params={},
        seed=0,
        now=folder.store.now(),
        overrides={},
        runtime={},
        fingerprint={},
        assets={},
        log=str(folder.store.home.logs / f"{name}.log"),
        recover={},
    )


def _end(pool: Pool) -> Told:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for notice in pool.wait(0.2):
            if notice.kind == "ended":
                return notice.told
    raise AssertionError("nothing ended in 20 s")


def _pids(store: Store, told: Told) -> list[int]:
    assert told.result is not None, told.error
    content = store.blobs.get(told.result.made[0].location["blob"])
    return [int(pid) for pid in content.decode().strip("[]").split(",")]


def test_workers_stay_warm(folder: Folder, manifest: Manifest, pool: Pool) -> None:
    """A second job runs in the process of the first."""
    pool.start(_job(folder, manifest, "one"))
    assert pool.running == ["make:one"] and pool.free == 1
    first = _pids(folder.store, _end(pool))
    pool.start(_job(folder, manifest, "two"))
    assert _pids(folder.store, _end(pool)) == first
    assert pool.free == 2


def test_slots_are_a_limit(folder: Folder, manifest: Manifest, pool: Pool) -> None:
    """No more jobs start than there are slots."""
    pool.start(_job(folder, manifest, "slow"))
    pool.start(_job(folder, manifest, "slow"))
    with pytest.raises(Fault, match="slot"):
        pool.start(_job(folder, manifest, "one"))
    pool.stop("was stopped", jobs=["make:slow"])
    assert [_end(pool).error["message"] for _ in range(2)] == ["make:slow was stopped"] * 2


@pytest.mark.parametrize("victim", [0, 1])
def test_idle_processes_may_die(folder: Folder, manifest: Manifest, pool: Pool, victim: int) -> None:
    """A worker or server that dies between jobs is replaced."""
    pool.start(_job(folder, manifest, "one"))
    pids = _pids(folder.store, _end(pool))
    os.kill(pids[victim], signal.SIGKILL)
    time.sleep(0.2)
    pool.wait(0.1)
    pool.wait(0.1)
    pool.start(_job(folder, manifest, "two"))
    assert _pids(folder.store, _end(pool))[0] != pids[0]


def test_closing_ends_every_process(folder: Folder, manifest: Manifest) -> None:
    """No process outlives its pool, busy or not."""
    with new_pool(manifest, project=folder.project, store=folder.store) as pool:
        pool.start(_job(folder, manifest, "one"))
        worker, server = _pids(folder.store, _end(pool))
        pool.start(_job(folder, manifest, "slow"))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in (worker, server)):
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists() and not Path(f"/proc/{server}").exists()


def test_memory_limit(folder: Folder) -> None:
    """A step that needs more memory than it may have fails with that, and alone."""
    folder.write("steps.py", "import trimtab as tt\n@tt.table\ndef one(): return len(bytearray(4 << 30))\n")
    plan = folder.plan()
    with new_pool(folder.manifest(), project=folder.project, store=folder.store, memory_bytes=1 << 30) as pool:
        report = execute(plan, project=folder.project, store=folder.store, pool=pool)
    assert "MemoryError" in report.stages[0].error["message"]


def test_workers_import_nothing_heavy_before_their_step(folder: Folder) -> None:
    """The server that is forked has no data engine in it."""
    folder.write(
        "steps.py",
        "import sys\nbefore = sorted({n.partition('.')[0] for n in sys.modules})\n"
        "import trimtab as tt\n@tt.table\ndef one(): return before\n",
    )
    manifest = folder.manifest()
    with new_pool(manifest, project=folder.project, store=folder.store) as pool:
        plan = folder.plan()
        assert execute(plan, project=folder.project, store=folder.store, pool=pool).ok
    loaded = set(folder.value("one"))
    assert not loaded & {"polars", "duckdb", "deltalake", "pyarrow", "numpy", "pandas", "sklearn", "yaml"}
