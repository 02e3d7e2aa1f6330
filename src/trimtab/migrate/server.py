"""A server of MLflow, asked by its REST API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from trimtab.api.mlflow.assessments import assessment_from
from trimtab.api.mlflow.spans import BadSpan
from trimtab.api.mlflow.traces import trace_from
from trimtab.api.mlflow.wire import MlflowError
from trimtab.core.errors import Fault, NotFound
from trimtab.core.nouns import Data
from trimtab.migrate.asking import Server, pages, quoted
from trimtab.migrate.database import STAGES
from trimtab.migrate.roots import PROXY, Roots
from trimtab.migrate.source import Broken, File, Files, OldRun, OldTrace, OldVersion, texts
from trimtab.migrate.spans import span_from
from trimtab.store.bring import Role
from trimtab.store.datasets import Dataset, Input
from trimtab.store.models import LoggedModel, ModelMetric
from trimtab.store.points import Point
from trimtab.store.registry import PROMPT, ModelVersion, RegisteredModel
from trimtab.store.traces import ROOT_TAG, Span
from trimtab.store.tracking import STATES, Experiment, TrackedRun, parts

_API, _NEW = "/api/2.0/mlflow", "/api/3.0/mlflow"
_RUNS, _HISTORY, _HOMES, _TRACES, _MODELS = 200, 25_000, 50, 200, 50
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, MlflowError)


class ServerSource:
    """The records of a server; see ``Source``. What it says of logged models that are deleted is nothing.

    Args:
        server: the server.
        roots: which files can be read without it.
    """

    def __init__(self, server: Server, roots: Roots) -> None:
        self._server = server
        self._roots = roots

    @property
    def where(self) -> str:
        """Where the server is."""
        return self._server.where

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _post(self, path: str) -> Callable[[Data], Data]:
        return lambda body: self._server.post(path, body)

    def experiments(self) -> Iterator[Experiment | Broken]:
        """Yield all experiments."""
        found = pages(self._post(f"{_API}/experiments/search"), "experiments", view_type="ALL", max_results=1000)
        for one in found:
            created = _whole(one.get("creation_time"))
            yield Experiment(
                id="", number=int(one["experiment_id"]), name=one["name"], stage=one.get("lifecycle_stage", "active"),
                root=one.get("artifact_location", ""), created_ms=created,
                updated_ms=_whole(one.get("last_update_time")) or created, tags=texts(one.get("tags")),
            )  # fmt: skip

    def runs(self, homes: Sequence[int]) -> Iterator[OldRun | Broken]:
        """Yield the runs of experiments."""
        for part in parts(list(homes), _HOMES):
            found = pages(
                self._post(f"{_API}/runs/search"), "runs", experiment_ids=[str(one) for one in part],
                run_view_type="ALL", max_results=_RUNS,
            )  # fmt: skip
            for one in found:
                try:
                    yield _run(one)
                except _UNREADABLE as error:
                    yield Broken("run", str(one.get("info", {}).get("run_id")), f"{type(error).__name__}: {error}")

    def points(self, run: TrackedRun) -> Iterator[Sequence[Point]]:
        """Yield all points of a run in pages, by name."""
        for name in sorted(run.metrics):
            token = ""
            while True:
                answer = self._server.get(
                    f"{_API}/metrics/get-history", run_id=run.id, metric_key=name, max_results=_HISTORY,
                    page_token=token,
                )  # fmt: skip
                page = [_point(one) for one in answer.get("metrics") or []]
                if page:
                    yield page
                token = answer.get("next_page_token") or ""
                if not token:
                    break

    def models(self, homes: Sequence[int]) -> Iterator[LoggedModel | Broken]:
        """Yield the logged models of experiments that are not deleted."""
        for part in parts(list(homes), _HOMES):
            found = pages(
                self._post(f"{_API}/logged-models/search"), "models", experiment_ids=[str(one) for one in part],
                max_results=_MODELS,
            )  # fmt: skip
            try:
                for one in found:
                    yield _model(one)
            except NotFound:  # a server older than logged models
                return

    def traces(self, homes: Sequence[int]) -> Iterator[OldTrace | Broken]:
        """Yield the traces of experiments, each with its spans."""
        for home in homes:
            place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(home)}}
            found = pages(self._post(f"{_NEW}/traces/search"), "traces", locations=[place], max_results=_TRACES)
            try:
                for info in found:
                    yield self._trace(dict(info))
            except NotFound:  # a server older than these traces
                return

    def _trace(self, info: Data) -> OldTrace | Broken:
        ident = str(info.get("trace_id"))
        try:
            trace = trace_from(info)
            said = [assessment_from(one, ident) for one in info.get("assessments") or []]
            spans, reason = self._spans(ident)
        except (BadSpan, *_UNREADABLE) as error:
            return Broken("trace", ident, f"{type(error).__name__}: {error}")
        if reason and not spans:
            return Broken("trace", ident, f"its spans cannot be read: {reason}")
        said.sort(key=lambda one: (one.created_ms, one.id))
        return OldTrace(trace=trace, said=said, spans=spans, root=trace.tags.get(ROOT_TAG, ""))

    def _spans(self, ident: str) -> tuple[list[Span], str]:
        try:
            with self._server.file("/ajax-api/2.0/mlflow/get-trace-artifact", request_id=ident) as place:
                data = json.loads(place.read_bytes())
        except (Fault, NotFound) as error:
            return [], error.message
        return [span_from(one, ident) for one in data.get("spans") or []], ""

    def registered(self) -> Iterator[RegisteredModel | Broken]:
        """Yield the registered models, then the prompts."""
        for sign in ("!=", "="):
            found = pages(
                lambda body: self._server.get(f"{_API}/registered-models/search", **body),
                "registered_models", filter=f"tag.`{PROMPT}` {sign} 'true'", max_results=1000,
            )  # fmt: skip
            for one in found:
                created = _whole(one.get("creation_timestamp"))
                yield RegisteredModel(
                    id="", name=one["name"], description=one.get("description", ""), created_ms=created,
                    updated_ms=_whole(one.get("last_updated_timestamp")) or created, tags=texts(one.get("tags")),
                    aliases={item["alias"]: int(item["version"]) for item in one.get("aliases") or []}, latest=[],
                )  # fmt: skip

    def versions(self, name: str) -> Iterator[OldVersion | Broken]:
        """Yield the versions of a registered model."""
        mark = '"' if "'" in name else "'"
        found: list[Mapping[str, Any]] = []
        for sign in ("!=", "="):
            filter = f"name={mark}{name}{mark} AND tag.`{PROMPT}` {sign} 'true'"
            found += pages(
                lambda body: self._server.get(f"{_API}/model-versions/search", **body),
                "model_versions", filter=filter, max_results=1000,
            )  # fmt: skip
        for one in sorted(found, key=lambda one: int(one["version"])):
            stage = one.get("current_stage") or "None"
            if stage not in STAGES:
                yield Broken("version", f"{name}:{one['version']}", f"its stage is {stage}")
                continue
            yield OldVersion(version=_version(one, name), storage=self._storage(name, one))

    def _storage(self, name: str, one: Mapping[str, Any]) -> str:
        try:
            answer = self._server.get(f"{_API}/model-versions/get-download-uri", name=name, version=one["version"])
        except Fault:
            return ""
        return str(answer.get("artifact_uri") or "")

    def files(self, root: str, run_id: str = "") -> Files | None:
        """Return the files below a root: by the server's proxy, through a run's own list, or from this machine."""
        scheme = root.partition(":")[0] if ":" in root else ""
        if scheme == PROXY:
            rest = root.partition(":")[2]
            path = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest.lstrip("/")
            return _Proxied(self._server, path.rstrip("/"))
        if scheme not in ("", "file"):
            return None
        return _OfRun(self._server, run_id) if run_id else self._roots.files(root)

    def counts(self, homes: Sequence[int], whole: bool) -> Mapping[str, int]:
        """Return nothing: a server does not count."""
        del homes, whole
        return {}


class _Proxied:
    """Files that the server keeps for its clients."""

    def __init__(self, server: Server, root: str) -> None:
        self._server = server
        self._root = root

    def listed(self) -> Iterator[File | Broken]:
        yield from self._below("")

    def _below(self, folder: str) -> Iterator[File | Broken]:
        at = f"{self._root}/{folder}" if folder else self._root
        try:
            answer = self._server.get("/api/2.0/mlflow-artifacts/artifacts", path=at)
        except NotFound:
            return
        for one in answer.get("files") or []:
            path = f"{folder}/{one['path']}" if folder else str(one["path"])
            if one.get("is_dir"):
                yield from self._below(path)
            else:
                yield File(path, _whole(one.get("file_size")))

    def local(self, path: str) -> AbstractContextManager[Path]:
        return self._server.file(f"/api/2.0/mlflow-artifacts/artifacts/{quoted(f'{self._root}/{path}')}")


class _OfRun:
    """Files of a run that the server reads where they are."""

    def __init__(self, server: Server, run_id: str) -> None:
        self._server = server
        self._run_id = run_id

    def listed(self) -> Iterator[File | Broken]:
        yield from self._below("")

    def _below(self, folder: str) -> Iterator[File | Broken]:
        def ask(body: Data) -> Data:
            return self._server.get(f"{_API}/artifacts/list", run_id=self._run_id, **body)

        for one in list(pages(ask, "files", path=folder)):
            if one.get("is_dir"):
                yield from self._below(str(one["path"]))
            else:
                yield File(str(one["path"]), _whole(one.get("file_size")))

    def local(self, path: str) -> AbstractContextManager[Path]:
        return self._server.file("/get-artifact", run_id=self._run_id, path=path)


def _whole(value: Any) -> int:
    return int(value or 0)


def _point(one: Mapping[str, Any]) -> Point:
    return Point(one["key"], float(one.get("value", 0)), _whole(one.get("step")), _whole(one.get("timestamp")) * 1000)


def _run(one: Mapping[str, Any]) -> OldRun:
    info, data = one["info"], one.get("data") or {}
    if info["status"] not in STATES:
        raise ValueError(f"its status is {info['status']}")
    end = info.get("end_time")
    tags = texts(data.get("tags"))
    run = TrackedRun(
        id=info["run_id"], experiment=int(info["experiment_id"]),
        name=info.get("run_name") or tags.get("mlflow.runName", ""), status=info["status"],
        stage=info.get("lifecycle_stage", "active"), start_ms=_whole(info.get("start_time")),
        end_ms=int(end) if end else None, user_id=info.get("user_id", ""), root=info.get("artifact_uri", ""),
        params=texts(data.get("params")), tags=tags,
        metrics={point.name: point for point in (_point(item) for item in data.get("metrics") or [])},
    )  # fmt: skip
    read, made = one.get("inputs") or {}, one.get("outputs") or {}
    roles: list[Role] = [("input", item["model_id"], 0) for item in read.get("model_inputs") or []]
    roles += [("output", item["model_id"], _whole(item.get("step"))) for item in made.get("model_outputs") or []]
    inputs = [_input(item) for item in read.get("dataset_inputs") or []]
    return OldRun(run=run, inputs=inputs, roles=roles)


def _input(one: Mapping[str, Any]) -> Input:
    data = one["dataset"]
    dataset = Dataset(
        name=data["name"], digest=data["digest"], source_type=data["source_type"], source=data["source"],
        schema=data.get("schema"), profile=data.get("profile"),
    )  # fmt: skip
    return Input(dataset=dataset, tags=texts(one.get("tags")))


def _model(one: Mapping[str, Any]) -> LoggedModel | Broken:
    info, data = one["info"], one.get("data") or {}
    try:
        return LoggedModel(
            id=info["model_id"], experiment=int(info["experiment_id"]), name=info["name"],
            run_id=info.get("source_run_id", ""), status=_status(info.get("status", 0)),  # type: ignore[arg-type]
            type=info.get("model_type", ""), stage="active", root=info.get("artifact_uri", ""),
            created_ms=_whole(info.get("creation_timestamp_ms")),
            updated_ms=_whole(info.get("last_updated_timestamp_ms")), params=texts(data.get("params")),
            tags=texts(info.get("tags")), metrics=[_metric(item) for item in data.get("metrics") or []],
        )  # fmt: skip
    except _UNREADABLE as error:
        return Broken("model", str(info.get("model_id")), f"{type(error).__name__}: {error}")


def _status(value: Any) -> str:
    names = ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
    found = names[value - 1] if isinstance(value, int) and 1 <= value <= 3 else str(value)
    if found not in names:
        raise ValueError(f"its status is {value}")
    return found


def _metric(one: Mapping[str, Any]) -> ModelMetric:
    return ModelMetric(
        run_id=one.get("run_id", ""), point=_point(one), dataset_name=one.get("dataset_name", ""),
        dataset_digest=one.get("dataset_digest", ""),
    )  # fmt: skip


def _version(one: Mapping[str, Any], name: str) -> ModelVersion:
    created = _whole(one.get("creation_timestamp"))
    return ModelVersion(
        id="", model=name, number=int(one["version"]), description=one.get("description", ""),
        stage=one.get("current_stage") or "None", status=one.get("status", "READY"), source=one.get("source", ""),
        run_id=one.get("run_id", ""), run_link=one.get("run_link", ""), model_id=one.get("model_id", ""),
        user_id=one.get("user_id", ""), created_ms=created,
        updated_ms=_whole(one.get("last_updated_timestamp")) or created, tags=texts(one.get("tags")), aliases=[],
    )  # fmt: skip
