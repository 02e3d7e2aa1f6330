"""Logged models, and which of them a run used or made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.artifacts import Artifacts, folder_of
from trimtab.api.mlflow.entities import pairs, point_data
from trimtab.api.mlflow.items import params_from, tags_from
from trimtab.api.mlflow.tracking import experiment_number, now_ms, random_name
from trimtab.api.mlflow.wire import LIST, NEEDED, TEXT, MlflowError, Spec
from trimtab.core.nouns import Data
from trimtab.store import models, tracking
from trimtab.store.ledger import Tx
from trimtab.store.models import LoggedModel, ModelMetric
from trimtab.store.store import Store

_BAD = ("/", ":", ".", "%", '"', "'")
_STATUS = dict(enumerate(get_args(models.Status), start=1))


class Models:
    """The operations on logged models.

    Args:
        store: whose ledger is read and written.
        kept: the artifacts.
    """

    def __init__(self, store: Store, kept: Artifacts) -> None:
        self._ledger = store.ledger
        self._kept = kept

    def create(self, given: Data) -> Data:
        """Make a model whose files are yet to come."""
        tags = tags_from(given.get("tags") or [], "tags", limits.TAG)
        params = params_from(given.get("params") or [], "params")
        made = self._ledger.write(
            lambda tx: models.create_model(
                tx,
                experiment=experiment_number(given["experiment_id"]),
                name=_name(given),
                type=given.get("model_type") or "",
                run_id=given.get("source_run_id") or "",
                params=params,
                tags=tags,
                now_ms=now_ms(),
            ),
            what="create logged model",
        )
        return {"model": model_data(made)}

    def get(self, given: Data) -> Data:
        """Return a model."""
        return {"model": model_data(models.get_model(self._ledger, given["model_id"]))}

    def finalize(self, given: Data) -> Data:
        """Say that a model's files are there."""
        status: Any = given.get("status") or "LOGGED_MODEL_READY"
        if status not in get_args(models.Status):
            raise MlflowError(f"Invalid model status: {status}")
        made = self._ledger.write(
            lambda tx: models.settle_model(tx, given["model_id"], status, now_ms=now_ms()), what="finalize logged model"
        )
        return {"model": model_data(made)}

    def delete(self, given: Data) -> Data:
        """Delete a model."""
        self._ledger.write(
            lambda tx: models.set_model_stage(tx, given["model_id"], "deleted", now_ms=now_ms()),
            what="delete logged model",
        )
        return {}

    def set_tags(self, given: Data) -> Data:
        """Set tags of a model."""
        tags = tags_from(given.get("tags") or [], "tags", limits.TAG)

        def put(tx: Tx) -> LoggedModel:
            known = models.get_model(tx, given["model_id"])
            tracking.put_tags(tx, known.version_id, tags)
            return models.get_model(tx, given["model_id"])

        return {"model": model_data(self._ledger.write(put, what="tag logged model"))}

    def delete_tag(self, given: Data) -> Data:
        """Remove a tag of a model."""

        def drop(tx: Tx) -> None:
            known = models.get_model(tx, given["model_id"])
            if not tracking.drop_tag(tx, known.version_id, given["tag_key"]):
                text = f"No tag with key '{given['tag_key']}' found for logged model with ID '{known.id}'."
                raise MlflowError(text, "RESOURCE_DOES_NOT_EXIST")

        self._ledger.write(drop, what="untag logged model")
        return {}

    def log_params(self, given: Data) -> Data:
        """Record params of a model."""
        params = params_from(given.get("params") or [], "params")

        def put(tx: Tx) -> None:
            known = models.get_model(tx, given["model_id"])
            tracking.put_params(tx, known.version_id, params, known.id)

        self._ledger.write(put, what="log model params")
        return {}

    def artifacts(self, given: Data) -> Data:
        """List a model's files in one of its folders."""
        folder = folder_of(given.get("artifact_directory_path") or "")
        known = models.get_model(self._ledger, given["model_id"])
        below = self._kept.below(known.root, folder)
        return {"root_uri": known.root, "files": below}


def _name(given: Data) -> str:
    name: str = given.get("name") or random_name()
    if any(sign in name for sign in _BAD):
        raise MlflowError(
            f"Invalid model name ({name!r}) provided. Model name must be a non-empty string and cannot contain the"
            f" following characters: {_BAD}"
        )
    return name


def metric_data(model_id: str, one: ModelMetric) -> Data:
    """Return a model's metric as an answer has it."""
    data = {"dataset_name": one.dataset_name, "dataset_digest": one.dataset_digest}
    told = {name: value for name, value in data.items() if value}
    return {**point_data(one.point), "model_id": model_id, "run_id": one.run_id, **told}


def model_data(found: LoggedModel) -> Data:
    """Return a model as an answer has it."""
    place = next(number for number, name in _STATUS.items() if name == found.status)
    source = {"source_run_id": found.run_id} if found.run_id else {}
    kind = {"model_type": found.type} if found.type else {}
    return {
        "info": {
            "model_id": found.id,
            "experiment_id": str(found.experiment),
            "name": found.name,
            "creation_timestamp_ms": found.created_ms,
            "last_updated_timestamp_ms": found.updated_ms,
            "artifact_uri": found.root,
            "status": _STATUS[place],
            **kind,
            **source,
            "tags": pairs(found.tags),
        },
        "data": {
            "params": pairs(found.params),
            "metrics": [metric_data(found.id, one) for one in found.metrics],
        },
    }


_MODEL: Spec = {}
Operation = tuple[str, str, Spec, Callable[[Models, Data], Data]]
_AT = "logged-models/{model_id:str}"
OPERATIONS: tuple[Operation, ...] = (
    (
        "POST",
        "logged-models",
        {
            "experiment_id": NEEDED,
            "name": TEXT,
            "model_type": TEXT,
            "source_run_id": TEXT,
            "params": LIST,
            "tags": LIST,
        },
        Models.create,
    ),
    ("GET", _AT, _MODEL, Models.get),
    ("PATCH", _AT, {"status": TEXT}, Models.finalize),
    ("DELETE", _AT, _MODEL, Models.delete),
    ("PATCH", f"{_AT}/tags", {"tags": LIST}, Models.set_tags),
    ("DELETE", f"{_AT}/tags/{{tag_key:str}}", _MODEL, Models.delete_tag),
    ("POST", f"{_AT}/params", {"params": LIST}, Models.log_params),
    ("GET", f"{_AT}/artifacts/directories", {"artifact_directory_path": TEXT, "page_token": TEXT}, Models.artifacts),
)
"""Method, path below ``/api/2.0/mlflow/``, the request's fields, and what answers it."""
