"""What one MLflow client does against one tracking URI; runs in the client's own environment, prints JSON.

``python client.py URI CASE COUNT``: each case prints the seconds that its repetitions took, or what it counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")

from mlflow import MlflowClient  # type: ignore[import-not-found]
from mlflow.entities import Metric, Param, RunTag  # type: ignore[import-not-found]

EXPERIMENT = "bench"


def experiment(client: Any) -> str:
    """Return the experiment's id, made when it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id if found else client.create_experiment(EXPERIMENT))


def timed(count: int, act: Any) -> list[float]:
    """Return how long each of ``count`` calls took, after five that warm up."""
    for number in range(-5, 0):
        act(number)
    found = []
    for number in range(count):
        begun = time.perf_counter()
        act(number)
        found.append(time.perf_counter() - begun)
    return found


def create_run(client: Any, count: int) -> list[float]:
    """Create runs."""
    where = experiment(client)
    return timed(count, lambda number: client.create_run(where))


def log_metric(client: Any, count: int) -> list[float]:
    """Log one value of one metric at a time."""
    run = client.create_run(experiment(client)).info.run_id
    return timed(count, lambda number: client.log_metric(run, "loss", number / 7, step=number + 5))


def log_batch(client: Any, count: int) -> list[float]:
    """Log 1,000 values in one call."""
    run = client.create_run(experiment(client)).info.run_id

    def act(number: int) -> None:
        at = 1_700_000_000_000 + number
        client.log_batch(run, metrics=[Metric("loss", step / 7, at, step) for step in range(1000)])

    return timed(count, act)


def fill(client: Any, count: int) -> list[float]:
    """Make ``count`` runs with two metrics, a param and a tag each."""
    where = experiment(client)
    begun = time.perf_counter()
    for number in range(count):
        run = client.create_run(where).info.run_id
        mixed = number * 7919 % 10_007 / 10_007
        client.log_batch(
            run,
            metrics=[Metric("m1", mixed, 1_700_000_000_000, 0), Metric("m2", 1 - mixed * mixed, 1_700_000_000_000, 0)],
            params=[Param("depth", str(number % 8))],
            tags=[RunTag("team", "a" if number % 3 else "b")],
        )
    return [time.perf_counter() - begun]


def search(client: Any, count: int) -> list[float]:
    """Search by one metric, ordered by another; the first 100."""
    where = [experiment(client)]

    def act(number: int) -> None:
        found = client.search_runs(where, "metrics.m1 > 0.5", order_by=["metrics.m2 DESC"], max_results=100)
        assert len(found) == 100, len(found)

    act(-1)
    begun = time.perf_counter()
    act(0)
    found = [time.perf_counter() - begun]
    while len(found) < count and sum(found) < 60:
        begun = time.perf_counter()
        act(len(found))
        found.append(time.perf_counter() - begun)
    return found


def history(client: Any, count: int) -> list[float]:
    """Read the whole history of a metric with ``count`` points, written by batches of 1,000."""
    run = client.create_run(experiment(client)).info.run_id
    for start in range(0, count, 1000):
        points = [Metric("long", step / 7, 1_700_000_000_000 + step, step) for step in range(start, start + 1000)]
        client.log_batch(run, metrics=points)
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        read = client.get_metric_history(run, "long")
        found.append(time.perf_counter() - begun)
        assert len(read) == count, len(read)
    return found


CASES = {
    "create_run": create_run,
    "log_metric": log_metric,
    "log_batch": log_batch,
    "fill": fill,
    "search": search,
    "history": history,
}

if __name__ == "__main__":
    uri, case, amount = sys.argv[1:4]
    print(json.dumps(CASES[case](MlflowClient(uri), int(amount))))
