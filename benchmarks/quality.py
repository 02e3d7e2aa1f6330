"""Twenty checks of a table: ours in one pass against one query written by hand for the same checks.

Run: ``python benchmarks/quality.py --rows 5000000`` (``--threads 2`` caps Polars' threads).

Prints CPU seconds, wall seconds and the ratio to the hand-written Polars query, of the checks alone and with
the profile (missing values, ends and distinct values of every column) that a version's facts hold. Each is
measured in a process of its own, the best of ``--repeat``; the peak is that process's resident memory, table
included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CASES = ("by hand", "checks", "checks + profile")


def make(rows: int, path: Path) -> None:
    """Write a table of twelve columns in which every check below passes."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    letters = np.array(["AA", "B6", "DL", "EV", "UA", "WN"])
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "order": rng.integers(0, 1 << 40, rows),
            "carrier": letters[rng.integers(0, len(letters), rows)],
            "amount": rng.gamma(2.0, 50.0, rows),
            "discount": rng.uniform(0, 0.5, rows),
            "distance": rng.integers(50, 5000, rows),
            "delay": rng.normal(5, 30, rows),
            "seats": rng.integers(1, 400, rows),
            "rate": rng.uniform(0, 1, rows),
            "flag": rng.random(rows) < 0.3,
            "at": np.datetime64("2024-01-01", "us") + rng.integers(0, 10**13, rows).astype("timedelta64[us]"),
        }
    ).with_columns(code=pl.format("{}{}", "carrier", pl.col("seats").cast(pl.String).str.zfill(4)))
    frame.write_parquet(path)


def checks() -> list[Any]:
    """Return twenty checks."""
    from trimtab import check as ck

    return [
        ck.unique("id"),
        *[ck.missing(name, at_most=0.01) for name in ("id", "carrier", "amount", "delay", "rate", "at")],
        ck.between("amount", 0, 1e6),
        ck.between("discount", 0, 0.5),
        ck.between("distance", 50, 5000),
        ck.between("delay", -1000, 1000),
        ck.between("seats", 1, 400),
        ck.between("rate", 0, 1),
        ck.between("at", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        ck.one_of("carrier", ["AA", "B6", "DL", "EV", "UA", "WN"]),
        ck.matches("code", "[A-Z0-9]{2}[0-9]{4}"),
        ck.where("discount <= 0.5 or amount < 10"),
        ck.where("distance > 0 and seats > 0"),
        ck.row_count(1),
        ck.columns("id", "order", "carrier", "amount"),
    ]


def by_hand(frame: Any) -> None:
    """Ask for the same numbers in one query, as a person who knows Polars would write it."""
    import polars as pl

    col = pl.col

    def missing(name: str) -> Any:
        return col(name).is_null() | col(name).is_nan() if frame.schema[name].is_float() else col(name).is_null()

    def outside(name: str, low: Any, high: Any) -> Any:
        return ((col(name) < low) | (col(name) > high)).sum().alias(f"{name} outside")

    low, high = pl.datetime(2024, 1, 1), pl.datetime(2025, 1, 1)
    answer = frame.lazy().select(
        pl.len(),
        (pl.len() - col("id").n_unique()).alias("unique"),
        *[missing(n).sum().alias(f"missing {n}") for n in ("id", "carrier", "amount", "delay", "rate", "at")],
        outside("amount", 0, 1e6),
        outside("discount", 0, 0.5),
        outside("distance", 50, 5000),
        outside("delay", -1000, 1000),
        outside("seats", 1, 400),
        outside("rate", 0, 1),
        outside("at", low, high),
        (~col("carrier").is_in(["AA", "B6", "DL", "EV", "UA", "WN"])).sum().alias("one_of"),
        (~col("code").str.contains("^[A-Z0-9]{2}[0-9]{4}$")).sum().alias("matches"),
        (~((col("discount") <= 0.5) | (col("amount") < 10))).sum().alias("where"),
        (~((col("distance") > 0) & (col("seats") > 0))).sum().alias("where2"),
    )
    assert sum(answer.collect().row(0)[1:]) == 0


def measure(case: str, path: Path, repeat: int) -> dict[str, float]:
    """Return the best CPU and wall seconds of a case in this process, and its peak memory in MB."""
    import polars as pl

    from trimtab.data.checks import examine

    frame = pl.read_parquet(path)
    todo = checks()
    seen: list[tuple[float, float]] = []
    for _ in range(repeat):
        wall, used = time.perf_counter(), time.process_time()
        if case == "by hand":
            by_hand(frame)
        else:
            found = examine(frame, todo, profile=case != "checks")
            assert not any(found.measured.failing.values())
        seen.append((time.process_time() - used, time.perf_counter() - wall))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu_s": min(seen)[0], "wall_s": min(wall for _, wall in seen), "peak_mb": peak / 1024}


def main() -> None:
    """Measure each case in a process of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--path", type=Path)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given.case, given.path, given.repeat)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        make(given.rows, path)
        found = {}
        for case in CASES:
            command = [sys.executable, __file__, "--case", case, "--path", str(path), "--repeat", str(given.repeat)]
            env = {**os.environ, "POLARS_MAX_THREADS": str(given.threads)}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
            found[case] = json.loads(done.stdout)
    floor = found[CASES[0]]
    print(f"{given.rows} rows x 12 columns, 20 checks, {given.threads} threads")
    for case, one in found.items():
        print(
            f"{case:18s} cpu {one['cpu_s']:7.3f} s  wall {one['wall_s']:7.3f} s  peak {one['peak_mb']:6.0f} MB"
            f"  ratio {one['cpu_s'] / floor['cpu_s']:5.2f}"
        )


if __name__ == "__main__":
    main()
