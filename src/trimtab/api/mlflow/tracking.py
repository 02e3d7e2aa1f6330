"""Experiments and runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from trimtab.api.mlflow import limits
from trimtab.api.mlflow.entities import experiment_data, info_data, run_data
from trimtab.api.mlflow.items import Measured, entry, inputs_from, measured_from, models_from, params_from, tags_from
from trimtab.api.mlflow.wire import LIST, NEEDED, TEXT, WHOLE, Field, MlflowError, Spec, as_whole, invalid
from trimtab.core.clock import wall_seconds
from trimtab.core.nouns import Data
from trimtab.store import datasets, models, tracking
from trimtab.store.ledger import Tx
from trimtab.store.store import Store
from trimtab.store.tracking import Experiment

DEFAULT = "Default"
ROOT = "mlflow-artifacts:/{number}"
_ADJECTIVES = ("brisk", "calm", "clear", "deft", "eager", "fair", "keen", "level", "plain", "prompt", "steady", "trim")
_NOUNS = ("anchor", "bow", "buoy", "compass", "harbour", "keel", "lantern", "mast", "rudder", "sail", "tide", "wake")
_MODELS = "mlflow.log-model.history"
_MODEL_PARTS = {"artifact_path", "flavors", "utc_time_created", "run_id"}
_VIEWS = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}


def now_ms() -> int:
    """Return real milliseconds since 1970."""
    return int(wall_seconds() * 1000)


class Tracking:
    """The operations on experiments and runs, each from a request's arguments to an answer.

    Args:
        store: whose ledger is read and written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ledger = store.ledger

    def ensure_default(self) -> None:
        """Make the experiment that runs go to when nobody says where; its number is 0."""
        sql = "SELECT 1 FROM experiment WHERE workspace=? AND number=0"

        def make(tx: Tx) -> None:
            if not tx.query(sql, (tx.workspace,)):
                tracking.create_experiment(tx, DEFAULT, root=ROOT, tags={}, now_ms=now_ms(), number=0)

        if not self._ledger.query(sql, (self._ledger.workspace,)):
            self._ledger.write(make, what="default experiment")

    # Experiments

    def create_experiment(self, given: Data) -> Data:
        """Make an experiment."""
        name = limits.check_experiment_name(given["name"])
        root = given.get("artifact_location") or ROOT
        limits.check_length("artifact_location", limits.LOCATION, root)
        tags = tags_from(given.get("tags") or [], "tags", limits.EXPERIMENT_TAG)
        made = self._ledger.write(
            lambda tx: tracking.create_experiment(
                tx, name, root=root if root == ROOT else root.replace("{", "%7B"), tags=tags, now_ms=now_ms()
            ),
            what="create experiment",
        )
        return {"experiment_id": str(made)}

    def get_experiment(self, given: Data) -> Data:
        """Return an experiment."""
        found = tracking.get_experiment(self._ledger, experiment_number(given["experiment_id"]))
        return {"experiment": experiment_data(found)}

    def get_experiment_by_name(self, given: Data) -> Data:
        """Return the experiment with a name."""
        name = given["experiment_name"]
        found = tracking.find_experiment(self._ledger, name)
        if found is None:
            raise MlflowError(f"Could not find experiment with name '{name}'", "RESOURCE_DOES_NOT_EXIST")
        return {"experiment": experiment_data(found)}

    def update_experiment(self, given: Data) -> Data:
        """Rename an experiment."""
        ident, name = experiment_number(given["experiment_id"]), limits.check_experiment_name(given["new_name"])
        self._ledger.write(
            lambda tx: tracking.rename_experiment(tx, ident, name, now_ms=now_ms()), what="rename experiment"
        )
        return {}

    def delete_experiment(self, given: Data) -> Data:
        """Delete an experiment with its runs; both can be restored."""
        return self._stage(given, "deleted")

    def restore_experiment(self, given: Data) -> Data:
        """Restore a deleted experiment."""
        return self._stage(given, "active")

    def _stage(self, given: Data, stage: tracking.Stage) -> Data:
        ident = experiment_number(given["experiment_id"])
        self._ledger.write(
            lambda tx: tracking.set_experiment_stage(tx, ident, stage, now_ms=now_ms()), what=f"experiment {stage}"
        )
        return {}

    def set_experiment_tag(self, given: Data) -> Data:
        """Set a tag of an experiment."""
        tags = tags_from([{"key": given["key"], "value": given.get("value", "")}], "", limits.EXPERIMENT_TAG)

        def put(tx: Tx) -> None:
            tracking.put_tags(tx, self._active(tx, given).id, tags)

        self._ledger.write(put, what="tag experiment")
        return {}

    def delete_experiment_tag(self, given: Data) -> Data:
        """Remove a tag of an experiment."""

        def drop(tx: Tx) -> None:
            known = self._active(tx, given)
            if not tracking.drop_tag(tx, known.id, given["key"]):
                text = f"No tag with name: {given['key']} in experiment with id {known.number}"
                raise MlflowError(text, "RESOURCE_DOES_NOT_EXIST")

        self._ledger.write(drop, what="untag experiment")
        return {}

    def _active(self, tx: Tx, given: Data) -> Experiment:
        known = tracking.get_experiment(tx, experiment_number(given["experiment_id"]))
        if known.stage != "active":
            raise MlflowError(
                f"The experiment {known.number} must be in the 'active' state. Current state is {known.stage}."
            )
        return known

    # Runs

    def create_run(self, given: Data) -> Data:
        """Begin a run."""
        tags = tags_from(given.get("tags") or [], "tags", limits.TAG)
        named = tags.get("mlflow.runName", "")
        name = given.get("run_name") or ""
        if name and named and name != named:
            raise MlflowError(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values"
                f" (run_name='{name}', mlflow.runName='{named}')."
            )
        name = name or named or random_name()
        tags.setdefault("mlflow.runName", name)
        experiment = experiment_number(given.get("experiment_id") or "0")
        made = self._ledger.write(
            lambda tx: tracking.create_run(
                tx,
                experiment=experiment,
                name=name,
                user_id=given.get("user_id") or "",
                start_ms=given.get("start_time") or now_ms(),
                tags=tags,
            ),
            what="create run",
        )
        return {"run": run_data(self._ledger, made)}

    def get_run(self, given: Data) -> Data:
        """Return a run with its latest metrics, params and tags."""
        return {"run": run_data(self._ledger, tracking.get_run(self._ledger, given["run_id"]))}

    def update_run(self, given: Data) -> Data:
        """Change a run's status, end or name."""
        status = given.get("status")
        if isinstance(status, str) and status not in tracking.STATES:
            raise MlflowError(f"Invalid status: '{status}'. Valid statuses are {', '.join(tracking.STATES)}")
        made = self._ledger.write(
            lambda tx: tracking.update_run(
                tx, given["run_id"], status=status, end_ms=given.get("end_time"), name=given.get("run_name") or None
            ),
            what="update run",
        )
        return {"run_info": info_data(made)}

    def delete_run(self, given: Data) -> Data:
        """Delete a run; it can be restored."""
        return self._run_stage(given, "deleted")

    def restore_run(self, given: Data) -> Data:
        """Restore a deleted run."""
        return self._run_stage(given, "active")

    def _run_stage(self, given: Data, stage: tracking.Stage) -> Data:
        self._ledger.write(
            lambda tx: tracking.set_run_stage(tx, given["run_id"], stage, now_ms=now_ms()), what=f"run {stage}"
        )
        return {}

    def log_metric(self, given: Data) -> Data:
        """Record one value of a metric."""
        self._log(given["run_id"], "log metric", measured_from([given], ""))
        return {}

    def log_parameter(self, given: Data) -> Data:
        """Record a param; it cannot be changed afterwards."""
        self._log(given["run_id"], "log param", params=params_from([given], ""))
        return {}

    def set_tag(self, given: Data) -> Data:
        """Set a tag of a run."""
        tags = tags_from([{"key": given["key"], "value": given.get("value", "")}], "", limits.TAG)
        self._log(given["run_id"], "set tag", tags=tags)
        return {}

    def delete_tag(self, given: Data) -> Data:
        """Remove a tag of a run."""

        def drop(tx: Tx) -> None:
            run_id = tracking.need_run(tx, given["run_id"])
            if not tracking.drop_tag(tx, run_id, given["key"]):
                text = f"No tag with name: {given['key']} in run with id {given['run_id']}"
                raise MlflowError(text, "RESOURCE_DOES_NOT_EXIST")

        self._ledger.write(drop, what="delete tag")
        return {}

    def log_batch(self, given: Data) -> Data:
        """Record metrics, params and tags, all of them or none."""
        metrics, params, tags = (given.get(name) or [] for name in ("metrics", "params", "tags"))
        limits.check_batch(len(metrics), len(params), len(tags))
        limits.check_unique([str(entry(item, f"params[{index}]").get("key")) for index, item in enumerate(params)])
        self._log(
            given["run_id"],
            "log batch",
            measured_from(metrics, "metrics"),
            params=params_from(params, "params"),
            tags=tags_from(tags, "tags", limits.TAG),
        )
        return {}

    def log_inputs(self, given: Data) -> Data:
        """Record the data and the models that a run read."""
        read = inputs_from(given.get("datasets") or [])
        used = [ident for ident, _ in models_from(given.get("models") or [])]

        def put(tx: Tx) -> None:
            datasets.add_inputs(tx, given["run_id"], read)
            models.use_models(tx, given["run_id"], used)

        self._ledger.write(put, what="log inputs")
        return {}

    def log_outputs(self, given: Data) -> Data:
        """Record the models that a run made."""
        made = models_from(given.get("models") or [])
        self._ledger.write(lambda tx: models.make_models(tx, given["run_id"], made), what="log outputs")
        return {}

    def log_model(self, given: Data) -> Data:
        """Add to a run's tag what an old client says of a model among its artifacts."""
        try:
            told = msgspec.json.decode(given["model_json"])
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise MlflowError(f"Malformed model info. \n {given['model_json'][:500]} \n not valid JSON") from error
        missing = _MODEL_PARTS - set(told if isinstance(told, dict) else ())
        if missing:
            raise MlflowError(f"Model json is missing mandatory fields: {missing}")

        def put(tx: Tx) -> None:
            run_id = tracking.need_run(tx, given["run_id"])
            known = tracking.tags_of(tx, [run_id]).get(run_id, {}).get(_MODELS, "[]")
            whole = msgspec.json.encode([*msgspec.json.decode(known), told]).decode()
            tracking.put_tags(tx, run_id, {_MODELS: limits.check_length(_MODELS, limits.TAG, whole)})

        self._ledger.write(put, what="log model")
        return {}

    def _log(self, ident: str, what: str, measured: Sequence[Measured] = (), **items: Any) -> None:
        points = [one.point for one in measured]

        def put(tx: Tx) -> None:
            tracking.log(tx, ident, points=points, **items)
            for model_id in dict.fromkeys(one.model_id for one in measured if one.model_id):
                told = [one.of_model(ident) for one in measured if one.model_id == model_id]
                models.add_model_metrics(tx, model_id, told)

        self._ledger.write(put, what=what)


def experiment_number(text: str) -> int:
    """Return the number that an experiment is known by.

    Raises:
        MlflowError: it is none, so there is no such experiment.
    """
    if text.isdecimal() and text.isascii() and len(text) < 19:
        return int(text)
    raise MlflowError(f"No Experiment with id={text} exists", "RESOURCE_DOES_NOT_EXIST")


def stages_of(view: Any) -> tuple[str, ...]:
    """Return the stages that a view shows; it comes by name or by number.

    Raises:
        MlflowError: there is no such view.
    """
    names = list(_VIEWS)
    if view is None:
        return _VIEWS["ACTIVE_ONLY"]
    if isinstance(view, str) and view in _VIEWS:
        return _VIEWS[view]
    try:
        place = as_whole(view)
    except (TypeError, ValueError, OverflowError):
        place = 0
    if not 1 <= place <= len(names):
        raise invalid("view_type", view)
    return _VIEWS[names[place - 1]]


def random_name() -> str:
    """Return a name for what its client gave none."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(900) + 100}"


_RUN: Spec = {"run_id": NEEDED}
_EXPERIMENT: Spec = {"experiment_id": NEEDED}
_TAG: Spec = {"key": NEEDED, "value": TEXT}
_METRIC: Spec = {
    "key": NEEDED,
    "value": Field("number", required=True),
    "timestamp": Field("whole", required=True),
    "step": WHOLE,
    "model_id": TEXT,
    "dataset_name": TEXT,
    "dataset_digest": TEXT,
}
Operation = tuple[str, str, Spec, Callable[[Tracking, Data], Data]]
OPERATIONS: tuple[Operation, ...] = (
    (
        "POST",
        "experiments/create",
        {"name": NEEDED, "artifact_location": TEXT, "tags": LIST},
        Tracking.create_experiment,
    ),
    ("GET", "experiments/get", _EXPERIMENT, Tracking.get_experiment),
    ("GET", "experiments/get-by-name", {"experiment_name": NEEDED}, Tracking.get_experiment_by_name),
    ("POST", "experiments/update", {**_EXPERIMENT, "new_name": NEEDED}, Tracking.update_experiment),
    ("POST", "experiments/delete", _EXPERIMENT, Tracking.delete_experiment),
    ("POST", "experiments/restore", _EXPERIMENT, Tracking.restore_experiment),
    ("POST", "experiments/set-experiment-tag", {**_EXPERIMENT, **_TAG}, Tracking.set_experiment_tag),
    ("POST", "experiments/delete-experiment-tag", {**_EXPERIMENT, "key": NEEDED}, Tracking.delete_experiment_tag),
    (
        "POST",
        "runs/create",
        {"experiment_id": TEXT, "user_id": TEXT, "run_name": TEXT, "start_time": WHOLE, "tags": LIST},
        Tracking.create_run,
    ),
    ("GET", "runs/get", _RUN, Tracking.get_run),
    (
        "POST",
        "runs/update",
        {**_RUN, "status": TEXT, "end_time": WHOLE, "run_name": TEXT},
        Tracking.update_run,
    ),
    ("POST", "runs/delete", _RUN, Tracking.delete_run),
    ("POST", "runs/restore", _RUN, Tracking.restore_run),
    ("POST", "runs/log-metric", {**_RUN, **_METRIC}, Tracking.log_metric),
    ("POST", "runs/log-parameter", {**_RUN, **_TAG}, Tracking.log_parameter),
    ("POST", "runs/set-tag", {**_RUN, **_TAG}, Tracking.set_tag),
    ("POST", "runs/delete-tag", {**_RUN, "key": NEEDED}, Tracking.delete_tag),
    ("POST", "runs/log-model", {**_RUN, "model_json": NEEDED}, Tracking.log_model),
    ("POST", "runs/log-inputs", {**_RUN, "datasets": LIST, "models": LIST}, Tracking.log_inputs),
    ("POST", "runs/outputs", {**_RUN, "models": LIST}, Tracking.log_outputs),
    ("POST", "runs/log-batch", {**_RUN, "metrics": LIST, "params": LIST, "tags": LIST}, Tracking.log_batch),
)
"""Method, path below ``/api/2.0/mlflow/``, the request's fields, and what answers it."""
