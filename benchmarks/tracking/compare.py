"""The real MLflow client against MLflow's server and against ours, in one run on one machine.

``python benchmarks/tracking/compare.py --mlflow VENV/bin/python [--postgres URL]`` prints a Markdown table. The client
is the same in all columns. MLflow's server runs as it comes (four workers, job runners), where only single calls are
measured, and as it is fastest: SQLite with WAL, one worker, job runners off. Ours runs with full durability: an answer
means that the disk has it. Sides take turns; medians count, and what a case needs (10,000 runs) is written by the
client too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = Path(__file__).with_name("client.py")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
BEST = "MLflow 3.12.0 at its best"


class Side:
    """One server.

    Args:
        name: the column's head.
        argv: starts it; ``{port}`` and ``{dir}`` are filled in.
        folder: where it runs.
        env: settings of it alone.
        whole: long cases are measured too.
    """

    def __init__(
        self, name: str, argv: list[str], folder: Path, env: dict[str, str] | None = None, *, whole: bool = True
    ) -> None:
        self.name, self.folder, self.env, self.whole = name, folder, env or {}, whole
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.argv = [word.format(port=self.port, dir=folder) for word in argv]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.cold_s = 0.0

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run the server; ``cold_s`` is the time until it answers."""
        with (self.folder / "server.log").open("ab") as log:
            begun = time.perf_counter()
            process = subprocess.Popen(
                self.argv, stdout=log, stderr=log, env={**os.environ, **QUIET, **self.env}, start_new_session=True,
                cwd=self.folder,
            )  # fmt: skip
        try:
            self._wait(process)
            self.cold_s = time.perf_counter() - begun
            self._process = process
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(2400):
            if process.poll() is not None:
                raise SystemExit(f"{self.name} ended: {(self.folder / 'server.log').read_text()[-2000:]}")
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self.name} does not answer")

    def memory_mb(self) -> float:
        """Return the proportional set size of all its processes."""
        total = 0
        for pid in _family(self._process.pid):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024


def _family(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, todo = [], [root]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def ask(python: str, side: Side, case: str, count: int, *, many: int = 1) -> list[float]:
    """Run a case with ``many`` clients at once and return what all of them measured."""
    argv = [python, str(CLIENT), side.uri, case, str(count)]
    env = {**os.environ, **QUIET}
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, env=env) for _ in range(many)]
    found: list[float] = []
    for one in running:
        told, _ = one.communicate()
        if one.returncode:
            raise SystemExit(f"{side.name}: {case} failed")
        found += json.loads(told.decode().splitlines()[-1])
    return found


def _sides(options: argparse.Namespace, root: Path) -> list[Side]:
    ours = [sys.executable, "-m", "trimtab", "up", "--port", "{port}", "--dir", "{dir}/store", "--auth", "none"]
    peer = [
        options.mlflow, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///{dir}/mlflow.db",
        "--artifacts-destination", "{dir}/artifacts", "--host", "127.0.0.1", "--port", "{port}",
    ]  # fmt: skip
    folders = [root / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    sides = [
        Side("MLflow 3.12.0 as it comes", peer, folders[0], whole=False),
        Side(BEST, [*peer, "--workers", "1"], folders[1], NO_JOBS),
        Side("Trimtab, SQLite", ours, folders[2]),
    ]
    if options.postgres:
        sides.append(Side("Trimtab, PostgreSQL", [*ours, "--ledger", options.postgres], folders[3]))
    return sides


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser()
    parse.add_argument("--mlflow", required=True, help="a Python that has mlflow 3.12.0")
    parse.add_argument("--postgres", default="", help="a URL of an empty database")
    parse.add_argument("--runs", type=int, default=10_000)
    parse.add_argument("--points", type=int, default=100_000)
    parse.add_argument("--repeat", type=int, default=100)
    options = parse.parse_args()
    rows: list[tuple[str, str, list[float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        sides = _sides(options, Path(temporary))
        for side in sides:  # the schema is made, and WAL is on, before anything is measured
            with side.up():
                first = side.cold_s
            database = side.folder / "mlflow.db"
            if database.exists() and side.name == BEST:
                with sqlite3.connect(database) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            print(f"{side.name}: first start {first:.1f} s", file=sys.stderr, flush=True)
        _measure(options, sides, rows)
    _print(sides, rows)


def _measure(options: argparse.Namespace, sides: list[Side], rows: list[tuple[str, str, list[float]]]) -> None:
    python = options.mlflow

    def each(title: str, unit: str, act: object, *, long: bool = False) -> None:
        found = []
        for side in sides:
            found.append(act(side) if side.whole or not long else float("nan"))  # type: ignore[operator]
            print(f"  {title}: {side.name} {found[-1]:.4g} {unit}", file=sys.stderr, flush=True)
        rows.append((title, unit, found))

    def median_ms(case: str, count: int) -> object:
        return lambda side: statistics.median(ask(python, side, case, count)) * 1000

    def cold(side: Side) -> float:
        found = []
        for _ in range(3):
            with side.up():
                found.append(side.cold_s)
        return statistics.median(found)

    each("cold start to /health", "s", cold)
    ups = [side.up() for side in sides]
    for one in ups:
        one.__enter__()
    try:
        each("memory when idle", "MB", Side.memory_mb)
        each("create_run", "ms", median_ms("create_run", options.repeat))
        each("log_metric", "ms", median_ms("log_metric", options.repeat))
        each("log_batch of 1,000 metrics", "ms", median_ms("log_batch", 10))

        def writers(side: Side) -> float:
            return 4 / statistics.mean(ask(python, side, "log_metric", options.repeat, many=4))

        each("4 writers, log_metric", "calls/s", writers)
        each(f"{options.runs:,} runs made (create_run and log_batch)", "s",
             lambda side: ask(python, side, "fill", options.runs)[0], long=True)  # fmt: skip
        title = f"search {options.runs:,} runs: metric filter, ordered by another metric, 100 rows"
        each(title, "ms", median_ms("search", 10), long=True)
        each(f"history of {options.points:,} points", "ms", median_ms("history", options.points), long=True)
        each("memory after all that", "MB", Side.memory_mb)
    finally:
        for one in ups:
            one.__exit__(None, None, None)


def _print(sides: list[Side], rows: list[tuple[str, str, list[float]]]) -> None:
    """Print a table; the ratio is of MLflow at its best and ours on SQLite, and then of MLflow as it comes."""
    print("| what | " + " | ".join(side.name for side in sides) + " | best / ours | as it comes / ours |")
    print("|---|" + "---|" * (len(sides) + 2))
    for title, unit, found in rows:
        cells = " | ".join("-" if value != value else f"{value:,.4g} {unit}" for value in found)
        ratios = [found[2] / peer if unit == "calls/s" else peer / found[2] for peer in (found[1], found[0])]
        told = " | ".join("-" if value != value else f"{value:.1f}x" for value in ratios)
        print(f"| {title} | {cells} | {told} |")


if __name__ == "__main__":
    main()
