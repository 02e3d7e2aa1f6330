"""Prints everything that a client reads of a store, as JSON: mlflow_read.py TRACKING_URI."""

# mypy: ignore-errors

import hashlib
import json
import sys
from pathlib import Path

import mlflow
from mlflow.entities import ViewType

URI = sys.argv[1]
PROMPT = "tag.`mlflow.prompt.is_prompt` = 'true'"
mlflow.set_tracking_uri(URI)
client = mlflow.MlflowClient(URI)
experiments = client.search_experiments(view_type=ViewType.ALL)
names = {one.experiment_id: one.name for one in experiments}
active = [one.experiment_id for one in experiments if one.lifecycle_stage == "active"]


def content(uri: str) -> dict[str, str]:
    """Return path -> sha256 of the files below a URI."""
    root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    files = [path for path in root.rglob("*") if path.is_file() and path.name != "registered_model_meta"]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def runs() -> dict:
    """Return what is known of each run."""
    found = {}
    for one in client.search_runs(list(names), run_view_type=ViewType.ALL, max_results=5000):
        info, data = one.info, one.data
        points = {name: client.get_metric_history(info.run_id, name) for name in data.metrics}
        found[info.run_id] = {
            "experiment": names[info.experiment_id], "name": info.run_name, "status": info.status,
            "stage": info.lifecycle_stage, "start": info.start_time, "end": info.end_time, "user": info.user_id,
            "params": data.params, "tags": data.tags, "metrics": {name: repr(v) for name, v in data.metrics.items()},
            "points": {
                name: sorted({(point.timestamp, point.step, repr(point.value)) for point in history})
                for name, history in points.items()
            },
            "inputs": [
                [one.dataset.name, one.dataset.digest, one.dataset.source_type, one.dataset.source, one.dataset.schema,
                 one.dataset.profile, {tag.key: tag.value for tag in one.tags}]
                for one in one.inputs.dataset_inputs
            ],
            "outputs": [[model.model_id, model.step] for model in (one.outputs.model_outputs if one.outputs else [])],
            "files": {} if info.artifact_uri.startswith("s3:") else artifacts(info.run_id),
        }  # fmt: skip
    return found


def artifacts(run_id: str, folder: str | None = None) -> dict:
    """Return path -> sha256 of a run's artifacts, found by listing."""
    found = {}
    for one in client.list_artifacts(run_id, folder):
        if one.is_dir:
            found |= artifacts(run_id, one.path)
        else:
            found[one.path] = hashlib.sha256(Path(client.download_artifacts(run_id, one.path)).read_bytes()).hexdigest()
    return found


def models() -> dict:
    """Return what is known of each logged model."""
    found = {}
    for one in client.search_logged_models(active):
        model = client.get_logged_model(one.model_id)
        found[model.model_id] = {
            "experiment": names[model.experiment_id], "name": model.name, "status": str(model.status),
            "type": model.model_type or None, "run": model.source_run_id or None, "params": model.params,
            "tags": model.tags, "created": model.creation_timestamp, "updated": model.last_updated_timestamp,
            "metrics": sorted([one.key, one.value, one.step, one.timestamp, one.run_id, one.dataset_name or None,
                               one.dataset_digest or None] for one in model.metrics or []),
            "files": content(model.artifact_location) if str(model.status) == "READY" else {},
        }  # fmt: skip
    return found


def registry() -> dict:
    """Return what is known of each registered model and prompt."""
    found = {}
    for only in ("",) if URI.startswith("file") else ("", PROMPT):
        for model in client.search_registered_models(only):
            versions = client.search_model_versions(f"name='{model.name}'" + (f" AND {only}" if only else ""))
            found[model.name] = {
                "description": model.description or None, "tags": model.tags,
                "aliases": {name: int(version) for name, version in model.aliases.items()},
                "created": model.creation_timestamp, "updated": model.last_updated_timestamp,
                "versions": {
                    int(one.version): [
                        one.description or None, one.current_stage, one.run_id or None, one.source, one.tags,
                        one.creation_timestamp, one.last_updated_timestamp, one.status,
                        {} if only else content(f"models:/{one.name}/{one.version}"),
                    ]
                    for one in versions
                },
            }  # fmt: skip
    return found


def said_of(said: object) -> dict:
    """Return an assessment; that an expectation is valid is told of a database only."""
    return {name: value for name, value in said.to_dictionary().items() if (name, value) != ("valid", True)}


def traces() -> dict:
    """Return what is known of each trace."""
    found = {}
    for one in client.search_traces(active):
        info = one.info
        own = ("mlflow.artifactLocation", "mlflow.trace.spansLocation")
        found[info.trace_id] = {
            "state": str(info.state), "start": info.request_time, "took": info.execution_duration,
            "client": info.client_request_id or None, "request": info.request_preview,
            "response": info.response_preview or None, "metadata": info.trace_metadata,
            "tags": {name: value for name, value in info.tags.items() if name not in own},
            "spans": sorted((span.to_dict() for span in one.data.spans), key=lambda span: span["span_id"]),
            "said": sorted((said_of(said) for said in info.assessments), key=lambda said: said["assessment_id"]),
        }  # fmt: skip
    return found


print(
    json.dumps(
        {
            "experiments": {
                one.name: [one.lifecycle_stage, one.tags, one.creation_time, one.last_update_time]
                for one in experiments
            },
            "runs": runs(), "models": models(), "registry": registry(), "traces": traces(),
        },
        default=str,
    )
)  # fmt: skip
