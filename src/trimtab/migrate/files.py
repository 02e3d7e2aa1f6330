"""A folder of MLflow, such as ``mlruns``: YAML for what is one thing, a file for each param, tag and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.api.mlflow.assessments import assessment_from, time_from
from trimtab.api.mlflow.wire import MlflowError
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.migrate.database import GONE, STAGES, STATUSES, trace_of
from trimtab.migrate.folder import Folder, local_path
from trimtab.migrate.roots import Roots
from trimtab.migrate.source import PAGE, Broken, Files, OldRun, OldTrace, OldVersion
from trimtab.store.assessments import Assessment
from trimtab.store.bring import Role
from trimtab.store.datasets import Dataset, Input
from trimtab.store.models import LoggedModel, ModelMetric
from trimtab.store.points import Point
from trimtab.store.registry import ModelVersion, RegisteredModel
from trimtab.store.traces import ROOT_TAG
from trimtab.store.tracking import Experiment, TrackedRun

META = "meta.yaml"
_TRASH, _REGISTRY = ".trash", "models"
_NO_RUNS = ("tags", "datasets", "traces", "models")
_RUN_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_UNREADABLE = (KeyError, TypeError, ValueError, OSError, AttributeError, MlflowError)


class FilesSource:
    """The records in a folder; see ``Source``.

    Args:
        root: the folder.
        roots: where files lie that are elsewhere.
    """

    def __init__(self, root: Path, roots: Roots) -> None:
        self._root = root.resolve()
        self._roots = roots
        self._folders: dict[int, Path] = {}

    @property
    def where(self) -> str:
        """Where the folder is."""
        return str(self._root)

    def close(self) -> None:
        """Nothing is open."""

    def files(self, root: str, run_id: str = "") -> Files | None:
        """Return the files below a root, also where the folder has been moved or its experiment deleted since."""
        del run_id
        place = local_path(root)
        if place is None or place.is_dir():
            return self._roots.files(root)
        for count in (3, 4, 5):
            tail = place.parts[-count:]
            for base in (self._root, self._root / _TRASH):
                if len(tail) == count and base.joinpath(*tail).is_dir():
                    return Folder(base.joinpath(*tail))
        return Folder(place)

    def experiments(self) -> Iterator[Experiment | Broken]:
        """Yield the experiments, and those in the folder for what is deleted."""
        for base in (self._root, self._root / _TRASH):
            for folder in _folders(base):
                if not (folder / META).is_file() or folder.name == _REGISTRY:
                    continue
                try:
                    found = _experiment(folder)
                except _UNREADABLE as error:
                    yield Broken("experiment", folder.name, _reason(error))
                    continue
                self._folders[found.number] = folder
                yield found

    def runs(self, homes: Sequence[int]) -> Iterator[OldRun | Broken]:
        """Yield the runs of experiments."""
        for home in homes:
            folder = self._folders[home]
            for place in _folders(folder):
                if place.name in _NO_RUNS or not (place / META).is_file():
                    continue
                try:
                    yield _run(folder, place, home)
                except _UNREADABLE as error:
                    yield Broken("run", place.name, _reason(error))

    def points(self, run: TrackedRun) -> Iterator[Sequence[Point]]:
        """Yield all points of a run in pages, by name, as they were written."""
        folder = self._folders[run.experiment] / run.id / "metrics"
        page: list[Point] = []
        for name, path in _named(folder):
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    at, value, *step = line.rstrip("\n").split(" ", 3)[:3]
                    page.append(Point(name, float(value), int(step[0]) if step else 0, int(at) * 1000))
                    if len(page) == PAGE:
                        yield page
                        page = []
        if page:
            yield page

    def models(self, homes: Sequence[int]) -> Iterator[LoggedModel | Broken]:
        """Yield the logged models of experiments."""
        for home in homes:
            for folder in _folders(self._folders[home] / "models"):
                if not (folder / META).is_file():
                    continue
                try:
                    yield _model(folder, home)
                except _UNREADABLE as error:
                    yield Broken("model", folder.name, _reason(error))

    def traces(self, homes: Sequence[int]) -> Iterator[OldTrace | Broken]:
        """Yield the traces of experiments; their spans are in their files."""
        for home in homes:
            for folder in _folders(self._folders[home] / "traces"):
                if not (folder / "trace_info.yaml").is_file():
                    continue
                try:
                    yield _trace(folder, home)
                except _UNREADABLE as error:
                    yield Broken("trace", folder.name, _reason(error))

    def registered(self) -> Iterator[RegisteredModel | Broken]:
        """Yield the registered models."""
        for folder in _folders(self._root / _REGISTRY):
            if not (folder / META).is_file():
                continue
            try:
                meta = _yaml(folder / META)
                yield RegisteredModel(
                    id="", name=meta["name"], description=meta.get("description") or "",
                    created_ms=meta.get("creation_timestamp") or 0,
                    updated_ms=meta.get("last_updated_timestamp") or 0, tags=_texts(folder / "tags"),
                    aliases={name: int(value) for name, value in _texts(folder / "aliases").items()}, latest=[],
                )  # fmt: skip
            except _UNREADABLE as error:
                yield Broken("registered model", folder.name, _reason(error))

    def versions(self, name: str) -> Iterator[OldVersion | Broken]:
        """Yield the versions of a registered model that are not deleted."""
        folders = [one for one in _folders(self._root / _REGISTRY / name) if one.name.startswith("version-")]
        for folder in sorted(folders, key=lambda one: (len(one.name), one.name)):
            try:
                found = _version(folder, name)
            except _UNREADABLE as error:
                yield Broken("version", f"{name}:{folder.name.removeprefix('version-')}", _reason(error))
                continue
            if found is not None:
                yield found

    def counts(self, homes: Sequence[int], whole: bool) -> Mapping[str, int]:
        """Count folders; see ``Source``."""
        del whole
        places = [self._folders[home] for home in homes]
        return {
            "runs": sum(path.parent.name not in _NO_RUNS for one in places for path in one.glob(f"*/{META}")),
            "models": sum(1 for one in places for _ in one.glob(f"models/*/{META}")),
            "traces": sum(1 for one in places for _ in one.glob("traces/*/trace_info.yaml")),
        }


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _folders(base: Path) -> list[Path]:
    """Return the folders in a folder, by name, without links and what is hidden."""
    if not base.is_dir():
        return []
    return sorted(one for one in base.iterdir() if one.is_dir() and not one.is_symlink() and one.name[0] != ".")


def _yaml(path: Path) -> Data:
    yaml = need("yaml")
    try:
        found = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no names and values")
    return found


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder by the name that their path is."""
    for one in Folder(folder).listed():
        if not isinstance(one, Broken):
            yield one.path, folder / one.path


def _texts(folder: Path) -> dict[str, str]:
    return {name: path.read_bytes().decode() for name, path in _named(folder)}


def _experiment(folder: Path) -> Experiment:
    meta = _yaml(folder / META)
    number = str(meta["experiment_id"])
    if number != folder.name or not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise ValueError(f"its id is {number}")
    created = meta.get("creation_time") or 0
    return Experiment(
        id="", number=int(number), name=meta["name"], stage=meta.get("lifecycle_stage") or "active",
        root=meta.get("artifact_location") or str(folder), created_ms=created,
        updated_ms=meta.get("last_update_time") or created, tags=_texts(folder / "tags"),
    )  # fmt: skip


def _run(home: Path, folder: Path, number: int) -> OldRun:
    meta = _yaml(folder / META)
    ident = meta.get("run_id") or meta["run_uuid"]
    if ident != folder.name:
        raise ValueError(f"its id is {ident}")
    tags = _texts(folder / "tags")
    run = TrackedRun(
        id=ident, experiment=number, name=meta.get("run_name") or meta.get("name") or tags.get("mlflow.runName", ""),
        status=_RUN_STATUSES[meta.get("status", 1)],  # type: ignore[arg-type]
        stage=meta.get("lifecycle_stage") or "active", start_ms=meta.get("start_time") or 0,
        end_ms=meta.get("end_time"), user_id=meta.get("user_id") or "",
        root=meta.get("artifact_uri") or str(folder / "artifacts"), params=_texts(folder / "params"), tags=tags,
        metrics={},
    )  # fmt: skip
    inputs, roles = _inputs(home, folder)
    return OldRun(run=run, inputs=inputs, roles=roles, deleted_ms=meta.get("deleted_time"))


def _inputs(home: Path, folder: Path) -> tuple[list[Input], list[Role]]:
    inputs, roles = list[Input](), list[Role]()
    for one in _folders(folder / "inputs"):
        meta = _yaml(one / META)
        if meta["source_type"] != "DATASET":
            roles.append(("input", meta["source_id"], 0))
            continue
        data = _yaml(home / "datasets" / meta["source_id"] / META)
        dataset = Dataset(
            name=data["name"], digest=data["digest"], source_type=data["source_type"], source=data["source"],
            schema=data.get("schema"), profile=data.get("profile"),
        )  # fmt: skip
        tags = {str(name): str(value) for name, value in (meta.get("tags") or {}).items()}
        inputs.append(Input(dataset=dataset, tags=tags))
    for one in _folders(folder / "outputs"):
        meta = _yaml(one / META)
        roles.append(("output", meta["source_id"], int(meta.get("step") or 0)))
    return inputs, roles


def _model(folder: Path, home: int) -> LoggedModel:
    meta = _yaml(folder / META)
    return LoggedModel(
        id=meta["model_id"], experiment=home, name=meta["name"], run_id=meta.get("source_run_id") or "",
        status=STATUSES[meta["status"]],  # type: ignore[arg-type]
        type=meta.get("model_type") or "", stage=meta.get("lifecycle_stage") or "active",
        root=meta.get("artifact_location") or str(folder / "artifacts"), created_ms=meta.get("creation_timestamp") or 0,
        updated_ms=meta.get("last_updated_timestamp") or 0, params=_texts(folder / "params"),
        tags=_texts(folder / "tags"), metrics=list(_model_metrics(folder / "metrics")),
    )  # fmt: skip


def _model_metrics(folder: Path) -> Iterator[ModelMetric]:
    for name, path in _named(folder):
        for line in path.read_text(encoding="utf-8").splitlines():
            at, value, step, run_id, *rest = line.split(" ", 4)
            data, _, digest = rest[0].rpartition(" ") if rest else ("", "", "")
            point = Point(name, float(value), int(step), int(at) * 1000)
            yield ModelMetric(run_id=run_id, point=point, dataset_name=data, dataset_digest=digest)


def _version(folder: Path, name: str) -> OldVersion | None:
    meta = _yaml(folder / META)
    stage: Any = meta.get("current_stage") or "None"
    if stage == GONE:
        return None
    if stage not in STAGES:
        raise ValueError(f"its stage is {stage}")
    version = ModelVersion(
        id="", model=name, number=int(meta["version"]), description=meta.get("description") or "", stage=stage,
        status=meta.get("status") or "READY", source=meta.get("source") or "", run_id=meta.get("run_id") or "",
        run_link=meta.get("run_link") or "", model_id=meta.get("model_id") or "", user_id=meta.get("user_id") or "",
        created_ms=meta.get("creation_timestamp") or 0, updated_ms=meta.get("last_updated_timestamp") or 0,
        tags=_texts(folder / "tags"), aliases=[],
    )  # fmt: skip
    return OldVersion(version=version, storage=meta.get("storage_location") or "")


def _trace(folder: Path, home: int) -> OldTrace:
    meta = _yaml(folder / "trace_info.yaml")
    ident = meta.get("trace_id") or meta["request_id"]
    tags = _texts(folder / "tags")
    start = time_from(meta["request_time"], "request_time") if "request_time" in meta else meta.get("timestamp_ms")
    duration = meta.get("execution_duration_ms", meta.get("execution_time_ms"))
    row = (ident, home, meta.get("state") or meta.get("status"), start or 0, duration, meta.get("client_request_id"),
           meta.get("request_preview"), meta.get("response_preview"))  # fmt: skip
    return OldTrace(
        trace=trace_of(row, tags, _texts(folder / "request_metadata")),
        said=sorted(_said(folder / "assessments", ident), key=lambda one: (one.created_ms, one.id)),
        root=tags.get(ROOT_TAG) or str(folder / "artifacts"),
    )


def _said(folder: Path, trace_id: str) -> Iterator[Assessment]:
    for _, path in _named(folder):
        found: Mapping[str, Any] = _yaml(path)
        yield assessment_from(dict(found), trace_id)
