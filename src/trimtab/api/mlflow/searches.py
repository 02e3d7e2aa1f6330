"""Searches of experiments, runs and logged models, and histories of metrics."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from trimtab.api.mlflow.entities import experiment_data, point_data, runs_data
from trimtab.api.mlflow.models import model_data
from trimtab.api.mlflow.tracking import experiment_number, stages_of
from trimtab.api.mlflow.wire import LIST, NEEDED, TEXT, TEXTS, WHOLE, Field, MlflowError, Spec
from trimtab.core.metric import split_value
from trimtab.core.nouns import Data
from trimtab.store import datasets, runsearch
from trimtab.store.engine import ALL
from trimtab.store.history import Place, histories, history, sampled
from trimtab.store.points import Point
from trimtab.store.runsearch import ModelOrder, OnData
from trimtab.store.store import Store

MOST_ROWS, MOST_POINTS, MOST_RUNS, MOST_SAMPLES, MOST_EXPERIMENTS = 50_000, 25_000, 100, 2_500, 20
_ANY = Field("any")


class Searches:
    """The operations that find what was recorded.

    Args:
        store: whose ledger is read.
    """

    def __init__(self, store: Store) -> None:
        self._ledger = store.ledger

    def experiments(self, given: Data) -> Data:
        """Find experiments."""
        found, token = runsearch.search_experiments(
            self._ledger,
            stages=stages_of(given.get("view_type")),
            filter=given.get("filter") or "",
            order=_texts(given, "order_by"),
            most=_most(given, 1000),
            token=given.get("page_token") or "",
        )
        return _paged("experiments", [experiment_data(one) for one in found], token)

    def runs(self, given: Data) -> Data:
        """Find runs."""
        found, token = runsearch.search_runs(
            self._ledger,
            _experiments(given),
            stages=stages_of(given.get("run_view_type")),
            filter=given.get("filter") or "",
            order=_texts(given, "order_by"),
            most=_most(given, 1000),
            token=given.get("page_token") or "",
        )
        return _paged("runs", runs_data(self._ledger, found), token)

    def models(self, given: Data) -> Data:
        """Find logged models."""
        found, token = runsearch.search_models(
            self._ledger,
            _experiments(given),
            filter=given.get("filter") or "",
            data=[_data(item) for item in given.get("datasets") or []],
            order=[_order(item) for item in given.get("order_by") or []],
            most=_most(given, 100),
            token=given.get("page_token") or "",
        )
        return _paged("models", [model_data(one) for one in found], token)

    def datasets(self, given: Data) -> Data:
        """List the datasets that runs of some experiments read."""
        asked = _texts(given, "experiment_ids")
        if not asked:
            raise MlflowError("SearchDatasets request must specify at least one experiment_id.")
        if len(asked) > MOST_EXPERIMENTS:
            raise MlflowError(
                f"SearchDatasets request cannot specify more than {MOST_EXPERIMENTS} experiment_ids. Received"
                f" {len(asked)} experiment_ids."
            )
        found = datasets.summaries(self._ledger, _experiments(given))
        return {
            "dataset_summaries": [
                {"experiment_id": str(one.experiment), "name": one.name, "digest": one.digest}
                | ({} if one.context is None else {"context": one.context})
                for one in found
            ]
        }

    def history(self, given: Data) -> Data:
        """Return a metric's values by time; all of them, or a page where the client asks for so many."""
        asked = given.get("max_results")
        most, token = (ALL - 1 if asked is None else asked), given.get("page_token") or ""
        if most < 1:
            raise _no_count(most)
        points = history(
            self._ledger, given["run_id"], given["metric_key"], after=_place(token) if token else None, most=most + 1
        )
        page = points[:most]
        following = _token(page[-1]) if len(points) > most else ""
        return _paged("metrics", [point_data(point) for point in page], following)

    def bulk(self, given: Data) -> Data:
        """Return one metric's values of several runs."""
        runs, name = _texts(given, "run_id"), given.get("metric_key")
        if not runs:
            raise MlflowError("GetMetricHistoryBulk request must specify at least one run_id.")
        if len(runs) > MOST_RUNS:
            raise MlflowError(
                f"GetMetricHistoryBulk request cannot specify more than {MOST_RUNS} run_ids. Received {len(runs)}"
                " run_ids."
            )
        if name is None:
            raise MlflowError("GetMetricHistoryBulk request must specify a metric_key.")
        asked = given.get("max_results")
        most = min(max(MOST_POINTS if asked is None else asked, 0), MOST_POINTS)
        return {"metrics": _of_runs(histories(self._ledger, runs, name, most=most))}

    def sampled(self, given: Data) -> Data:
        """Return one metric's values of several runs at steps that a plot can show."""
        runs = _texts(given, "run_ids")
        if not runs:
            raise MlflowError("Missing value for required parameter 'run_ids'.")
        if len(runs) > MOST_RUNS:
            raise MlflowError(
                f"GetMetricHistoryBulkInterval request must specify at most {MOST_RUNS} run_ids. Received {len(runs)}"
                " run_ids."
            )
        asked = given.get("max_results")
        most = MOST_SAMPLES if asked is None else asked
        if not 1 <= most <= MOST_SAMPLES:
            raise MlflowError(f"max_results must be between 1 and {MOST_SAMPLES}.")
        found = sampled(self._ledger, runs, given["metric_key"], most=most, steps=_steps(given))
        return {"metrics": _of_runs(found)}


def _experiments(given: Data) -> list[int]:
    """Return the numbers of the experiments that a search names; one that cannot be is in no search."""
    numbers = list[int]()
    for text in _texts(given, "experiment_ids"):
        if not text.lstrip("-").isdecimal():
            raise MlflowError(f"Invalid experiment ID '{text}'. Experiment ID must be a valid integer.")
        if not text.startswith("-"):
            numbers.append(experiment_number(text))
    return numbers


def _texts(given: Data, name: str) -> list[str]:
    found = given.get(name) or []
    for item in found:
        if not isinstance(item, str):
            shown = msgspec.json.encode(found).decode()
            raise MlflowError(f"Invalid value {shown} for parameter '{name}' supplied: {item!r} is not a text.")
    return list(found)


def _no_count(most: int) -> MlflowError:
    return MlflowError(f"Invalid value {most} for parameter 'max_results' supplied. It must be a positive integer")


def _most(given: Data, usual: int) -> int:
    asked = given.get("max_results")
    most = usual if asked is None else int(asked)
    if most < 1:
        raise _no_count(most)
    if most > MOST_ROWS:
        raise MlflowError(f"Invalid value {most} for parameter 'max_results' supplied. It must be at most {MOST_ROWS}")
    return most


def _paged(name: str, found: Sequence[Data], token: str) -> Data:
    """Return a page; the last one has no token."""
    return {name: found, "next_page_token": token} if token else {name: found}


def _data(item: Any) -> OnData:
    if not isinstance(item, Mapping) or not item.get("dataset_name"):
        raise MlflowError("`dataset_name` in the `datasets` clause must be specified.")
    name, digest = item["dataset_name"], item.get("dataset_digest") or ""
    if not isinstance(name, str) or not isinstance(digest, str):
        raise MlflowError("`dataset_name` and `dataset_digest` in the `datasets` clause must be texts.")
    return OnData(name, digest)


def _order(item: Any) -> ModelOrder:
    if not isinstance(item, Mapping) or not isinstance(item.get("field_name"), str):
        raise MlflowError("`field_name` in the `order_by` clause must be specified.")
    on = _data(item) if item.get("dataset_name") else None
    if on is None and item.get("dataset_digest"):
        raise MlflowError("`dataset_name` in the `order_by` clause must be specified with `dataset_digest`.")
    return ModelOrder(item["field_name"], item.get("ascending") is not False, on)


def _steps(given: Data) -> tuple[int, int] | None:
    first, last = given.get("start_step"), given.get("end_step")
    if first is None and last is None:
        return None
    if first is None or last is None:
        raise MlflowError("If either start step or end step are specified, both must be specified.")
    if first > last:
        raise MlflowError(f"end_step must be greater than start_step. Found start_step={first} and end_step={last}.")
    return first, last


def _of_runs(found: Sequence[tuple[str, Point]]) -> list[Data]:
    return [{**point_data(point), "run_id": ident} for ident, point in found]


def _token(point: Point) -> str:
    value, kind = split_value(point.value)
    kept = point.value if value is None and kind in ("+inf", "-inf") else value or 0.0
    text = msgspec.json.encode([point.at, point.step, kept.hex(), kind])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _place(token: str) -> Place:
    """Return the place in a history that a token stands for."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        at, step, value, kind = msgspec.json.decode(text, type=tuple[int, int, str, str])
        place = at, step, float.fromhex(value), kind
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise MlflowError("Invalid page token: it cannot be read") from error
    if place[2] != place[2] or not all(-(1 << 63) <= number < 1 << 63 for number in place[:2]):
        raise MlflowError("Invalid page token: it cannot be read")
    return place


_PAGE: Spec = {"filter": TEXT, "max_results": WHOLE, "order_by": LIST, "page_token": TEXT}
_OF_EXPERIMENTS: Spec = {"experiment_ids": LIST, **_PAGE}
Operation = tuple[str, str, Spec, Callable[[Searches, Data], Data]]
OPERATIONS: tuple[Operation, ...] = (
    ("POST", "experiments/search", {"view_type": _ANY, **_PAGE}, Searches.experiments),
    ("GET", "experiments/search", {"view_type": _ANY, **_PAGE}, Searches.experiments),
    ("POST", "experiments/search-datasets", {"experiment_ids": LIST}, Searches.datasets),
    ("POST", "runs/search", {"run_view_type": _ANY, **_OF_EXPERIMENTS}, Searches.runs),
    (
        "POST",
        "logged-models/search",
        {**_OF_EXPERIMENTS, "experiment_ids": Field("list", required=True), "datasets": LIST},
        Searches.models,
    ),
    (
        "GET",
        "metrics/get-history",
        {"run_id": NEEDED, "metric_key": NEEDED, "max_results": WHOLE, "page_token": TEXT},
        Searches.history,
    ),
    (
        "GET",
        "metrics/get-history-bulk",
        {"run_id": TEXTS, "metric_key": TEXT, "max_results": WHOLE},
        Searches.bulk,
    ),
    (
        "GET",
        "metrics/get-history-bulk-interval",
        {"run_ids": TEXTS, "metric_key": NEEDED, "max_results": WHOLE, "start_step": WHOLE, "end_step": WHOLE},
        Searches.sampled,
    ),
)
"""Method, path below ``/api/2.0/mlflow/``, the request's fields, and what answers it."""
