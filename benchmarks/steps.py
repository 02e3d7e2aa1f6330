"""What a step costs beyond its own work: recorded, cached and planned, beside a hand-written floor.

Run it with ``python benchmarks/steps.py``; it prints a Markdown table. The floor is a loop over a process
pool with a sha256 key, a file that is synced to disk and a row in SQLite for each step: no leases, logs,
lineage, metrics, audit leaf or recovery, only what nobody can do without.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import apsw

from trimtab.pipeline.execute import execute, new_pool
from trimtab.pipeline.kinds import override_kinds
from trimtab.pipeline.manifest import read_manifest
from trimtab.pipeline.plan import make_plan
from trimtab.pipeline.project import find_project
from trimtab.store.store import open_store
from trimtab.testing.kinds import JSON_KINDS

STEPS, WARM, RUNS = 1000, 20, 200
BUDGETS = {"recorded step": 5.0, "cached step": 1.0, "plan of 1,000 steps": 100.0}


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU milliseconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def floor_step(value: int) -> int:
    """Do nothing, as a step."""
    return value


def _key(step: int, before: str) -> str:
    fields = {"code": "c" * 64, "params": {}, "inputs": {f"t{step - 1}": before}, "python": "3.11"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _connect(folder: Path) -> apsw.Connection:
    connection = apsw.Connection(str(folder / "floor.db"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS step(key TEXT PRIMARY KEY, run TEXT, digest TEXT, at REAL)")
    return connection


def floor(folder: Path) -> dict[str, tuple[float, float]]:
    """Measure the hand-written loop."""
    connection = _connect(folder)

    def keep(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        temporary = folder / f"{digest}.new"
        with temporary.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(folder / digest)
        return digest

    def run(first: int, last: int) -> None:
        before = ""
        for step in range(first, last):
            key = _key(step, before)
            before = keep(str(pool.submit(floor_step, step).result()).encode())
            connection.execute("INSERT OR REPLACE INTO step VALUES (?,?,?,?)", (key, "run", before, time.time()))

    def look_up() -> None:
        before = ""
        for step in range(WARM, WARM + RUNS):
            rows = list(connection.execute("SELECT digest FROM step WHERE key=?", (_key(step, before),)))
            before = rows[0][0]

    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        run(0, WARM)
        recorded = _timed(lambda: run(WARM, WARM + RUNS))
    cached = _timed(look_up)
    connection.close()
    return {
        "recorded step": (recorded[0] / RUNS, recorded[1] / RUNS),
        "cached step": (cached[0] / RUNS, cached[1] / RUNS),
        "plan of 1,000 steps": (cached[0] / RUNS * STEPS, cached[1] / RUNS * STEPS),
    }


def ours(folder: Path) -> dict[str, tuple[float, float]]:
    """Measure Trimtab on a chain of a thousand steps that do nothing."""
    lines = ["import trimtab as tt", "@tt.table", "def t0(): return 0"]
    lines += [f"@tt.table\ndef t{step}(t{step - 1}): return {step}" for step in range(1, STEPS)]
    (folder / "steps.py").write_text("\n".join(lines) + "\n")
    (folder / "trimtab.yaml").write_text("project: bench\nmodules: [steps]\nworkers: 2\n")
    project = find_project(folder)
    store = open_store(project.store)
    manifest = read_manifest(project, store)
    with new_pool(manifest, project=project, store=store) as pool:

        def run(last: int) -> None:
            plan = make_plan(project, manifest, store, [f"t{last - 1}"])
            assert execute(plan, project=project, store=store, pool=pool).ok

        run(WARM)
        recorded = _timed(lambda: run(WARM + RUNS))
        run(STEPS)
        plans = [_timed(lambda: make_plan(project, manifest, store)) for _ in range(5)]
        plan = make_plan(project, manifest, store)
        cached = [_timed(lambda: execute(plan, project=project, store=store, pool=pool)) for _ in range(3)]
    store.close()
    return {
        "recorded step": (recorded[0] / RUNS, recorded[1] / RUNS),
        "cached step": (min(cached)[0] / STEPS, min(cached)[1] / STEPS),
        "plan of 1,000 steps": min(plans),
    }


def main() -> int:
    """Print the table; the exit code says whether every budget holds."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two, override_kinds(JSON_KINDS):
        low, have = floor(Path(one)), ours(Path(two))
    print("| what | Trimtab, ms (CPU) | floor, ms (CPU) | budget, ms | |")
    print("|---|---|---|---|---|")
    held = True
    for what, budget in BUDGETS.items():
        good = have[what][0] <= budget
        held = held and good
        mine, other = (f"{pair[what][0]:.2f} ({pair[what][1]:.2f})" for pair in (have, low))
        print(f"| {what} | {mine} | {other} | {budget:g} | {'holds' if good else 'MISSED'} |")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
