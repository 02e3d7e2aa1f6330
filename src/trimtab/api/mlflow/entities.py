"""Experiments, runs and metrics as answers have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.api.mlflow.wire import number
from trimtab.core.nouns import Data
from trimtab.store.datasets import Input, inputs_of
from trimtab.store.ledger import Reader
from trimtab.store.models import roles_of
from trimtab.store.points import Point
from trimtab.store.tracking import Experiment, TrackedRun


def experiment_data(found: Experiment) -> Data:
    """Return an experiment as an answer has it."""
    return {
        "experiment_id": str(found.number),
        "name": found.name,
        "artifact_location": found.root,
        "lifecycle_stage": found.stage,
        "last_update_time": found.updated_ms,
        "creation_time": found.created_ms,
        "tags": pairs(found.tags),
    }


def info_data(run: TrackedRun) -> Data:
    """Return what is known of a run as a whole."""
    ended = {} if run.end_ms is None else {"end_time": run.end_ms}
    return {
        "run_uuid": run.id,
        "run_id": run.id,
        "run_name": run.name,
        "experiment_id": str(run.experiment),
        "user_id": run.user_id,
        "status": run.status,
        "start_time": run.start_ms,
        **ended,
        "artifact_uri": run.root,
        "lifecycle_stage": run.stage,
    }


def _plain_run(run: TrackedRun) -> Data:

    return {
        "info": info_data(run),
        "data": {
            "metrics": [point_data(point) for point in run.metrics.values()],
            "params": pairs(run.params),
            "tags": pairs(run.tags),
        },
    }


def point_data(point: Point) -> Data:
    """Return one value of a metric as an answer has it."""
    return {"key": point.name, "value": number(point.value), "timestamp": point.at // 1000, "step": point.step}


def pairs(items: Mapping[str, str]) -> list[Data]:
    """Return names and values as answers have them."""
    return [{"key": key, "value": value} for key, value in items.items()]


def run_data(reader: Reader, run: TrackedRun) -> Data:
    """Return a run as an answer has it."""
    return runs_data(reader, [run])[0]


def runs_data(reader: Reader, runs: Sequence[TrackedRun]) -> list[Data]:
    """Return runs as answers have them, with what they read and made."""
    ids = [f"run_{run.id}" for run in runs]
    inputs, roles = inputs_of(reader, ids), roles_of(reader, ids)
    return [
        {**_plain_run(run), **_links(inputs.get(ident, []), roles.get(ident, []))}
        for ident, run in zip(ids, runs, strict=True)
    ]


def _links(inputs: Sequence[Input], roles: Sequence[tuple[str, str, int]]) -> Data:
    used: Data = {}
    if inputs:
        used["dataset_inputs"] = [_input_data(one) for one in inputs]
    models = [{"model_id": model_id} for role, model_id, _ in roles if role == "input"]
    if models:
        used["model_inputs"] = models
    made = [{"model_id": model_id, "step": step} for role, model_id, step in roles if role == "output"]
    return {"inputs": used, "outputs": {"model_outputs": made} if made else {}}


def _input_data(one: Input) -> Data:
    data = one.dataset
    told: Data = {
        "name": data.name, "digest": data.digest, "source_type": data.source_type, "source": data.source
    }  # fmt: skip
    told |= {name: value for name, value in (("schema", data.schema), ("profile", data.profile)) if value is not None}
    return {"tags": pairs(one.tags), "dataset": told}
