"""A point-in-time join: ours against DuckDB's raw ASOF query and pandas' merge_asof.

Run: ``python benchmarks/point_in_time.py --labels 1000000 --features 5000000 --entities 100000``.

All three get the same frames in memory (Polars for ours, Arrow for DuckDB, pandas for pandas) and must give
the same values. Ours also looks for two feature rows of one entity and time, and gives the labels in their
order; the raw query does neither, and pandas' input is sorted within the time that is measured because it has
to be. Each is measured in a process of its own, the best of ``--repeat``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

CASES = ("duckdb asof", "trimtab", "pandas")
VALUES = [f"f{number}" for number in range(4)]


def frames(labels: int, features: int, entities: int, texts: bool) -> tuple[Any, Any]:
    """Return labels and features over thirty days; features have no two rows of one entity and time."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    start = np.datetime64("2024-01-01", "us")

    def times(rows: int) -> Any:
        return start + rng.integers(0, 30 * 86_400, rows).astype("timedelta64[s]")

    left = pl.DataFrame({"entity": rng.integers(0, entities, labels), "t": times(labels), "y": rng.random(labels)})
    right = pl.DataFrame(
        {
            "entity": rng.integers(0, entities, features),
            "at": times(features),
            **{name: rng.random(features) for name in VALUES},
        }
    ).unique(["entity", "at"], maintain_order=True)
    if texts:
        name = pl.format("customer-{}", "entity").alias("entity")
        left, right = left.with_columns(name), right.with_columns(name)
    return left, right


def case_of(name: str, left: Any, right: Any) -> Any:
    """Return a function that carries one case out and gives the sum of what it joined."""
    if name == "trimtab":
        import trimtab as tt

        def ours() -> Any:
            found = tt.point_in_time(left, right, entity="entity", label_time="t", feature_time="at")
            assert found.height == left.height
            return found

        return lambda: float(ours()["f0"].sum())
    if name == "pandas":
        import pandas as pd

        first, second = left.to_pandas(), right.to_pandas()

        def theirs() -> float:
            found = pd.merge_asof(
                first.sort_values("t"), second.sort_values("at"), left_on="t", right_on="at", by="entity"
            )
            return float(found["f0"].sum())

        return theirs
    import duckdb

    threads = os.environ.get("POLARS_MAX_THREADS", "2")
    connection = duckdb.connect(config={"threads": threads})
    connection.register("l", left.to_arrow())
    connection.register("f", right.to_arrow())
    text = f"SELECT l.*, {', '.join(VALUES)} FROM l ASOF LEFT JOIN f ON l.entity = f.entity AND l.t >= f.at"

    def raw() -> float:
        import pyarrow.compute as pc

        return float(pc.sum(connection.sql(text).to_arrow_table()["f0"]).as_py())

    return raw


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Return the best CPU and wall seconds of a case, its peak memory and what it found."""
    run = case_of(given.case, *frames(given.labels, given.features, given.entities, given.texts))
    seen = []
    total = 0.0
    for _ in range(given.repeat):
        wall, used = time.perf_counter(), time.process_time()
        total = run()
        seen.append((time.process_time() - used, time.perf_counter() - wall))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": min(seen)[0], "wall_s": min(wall for _, wall in seen), "peak_mb": peak, "sum": total}


def main() -> None:
    """Measure each case in a process of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--texts", action="store_true", help="entities are texts, not numbers")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=CASES)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given)))
        return
    found = {}
    for case in CASES:
        env = {**os.environ, "POLARS_MAX_THREADS": str(given.threads)}
        command = [sys.executable, *sys.argv, "--case", case]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        found[case] = json.loads(done.stdout)
    floor = found[CASES[0]]
    kind = "texts" if given.texts else "numbers"
    print(f"{given.labels} labels, {given.features} feature rows, {given.entities} entities ({kind})")
    for case, one in found.items():
        assert abs(one["sum"] - floor["sum"]) < 1e-6 * abs(floor["sum"]), f"{case} found other values"
        print(
            f"{case:12s} cpu {one['cpu_s']:7.3f} s  wall {one['wall_s']:7.3f} s  peak {one['peak_mb']:6.0f} MB"
            f"  ratio {one['cpu_s'] / floor['cpu_s']:5.2f}"
        )


if __name__ == "__main__":
    main()
