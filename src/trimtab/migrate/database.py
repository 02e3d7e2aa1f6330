"""A database of MLflow: SQLite or PostgreSQL, of its current schema or an older one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from trimtab.api.mlflow.spans import BadSpan
from trimtab.core.nouns import Data
from trimtab.migrate.roots import Roots
from trimtab.migrate.source import PAGE, Broken, Files, OldRun, OldTrace, OldVersion, texts
from trimtab.migrate.spans import span_from
from trimtab.migrate.tables import Row, Tables, marks
from trimtab.store.assessments import KINDS, Assessment
from trimtab.store.bring import Role
from trimtab.store.datasets import Dataset, Input
from trimtab.store.models import LoggedModel, ModelMetric
from trimtab.store.points import Point
from trimtab.store.registry import ModelVersion, RegisteredModel, Stage
from trimtab.store.traces import ROOT_TAG, Span, Trace
from trimtab.store.tracking import STATES, Experiment, TrackedRun, parts

GONE = "Deleted_Internal"
STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}
STAGES = get_args(Stage)
TRACE_STATES = ("OK", "ERROR", "IN_PROGRESS", "STATE_UNSPECIFIED")
_RUN = ("run_uuid", "experiment_id", "name", "status", "lifecycle_stage", "start_time", "end_time", "user_id",
        "artifact_uri", "deleted_time")  # fmt: skip
_MODEL = ("model_id", "experiment_id", "name", "source_run_id", "status", "model_type", "lifecycle_stage",
          "artifact_location", "creation_timestamp_ms", "last_updated_timestamp_ms")  # fmt: skip
_METRIC = ("run_id", "metric_name", "metric_value", "metric_step", "metric_timestamp_ms", "dataset_name",
           "dataset_digest")  # fmt: skip
_VERSION = ("version", "description", "current_stage", "status", "source", "storage_location", "run_id", "run_link",
            "user_id", "creation_time", "last_updated_time")  # fmt: skip
_TRACE = ("request_id", "experiment_id", "status", "timestamp_ms", "execution_time_ms", "client_request_id",
          "request_preview", "response_preview")  # fmt: skip
_SAID = ("assessment_id", "assessment_type", "name", "value", "error", "source_type", "source_id", "run_id", "span_id",
         "rationale", "assessment_metadata", "overrides", "valid", "created_timestamp",
         "last_updated_timestamp")  # fmt: skip
_DATASET = ("dataset_uuid", "name", "digest", "dataset_source_type", "dataset_source", "dataset_schema",
            "dataset_profile")  # fmt: skip


class DatabaseSource:
    """The records in a database; see ``Source``.

    Args:
        tables: the database.
        roots: where files lie.
    """

    def __init__(self, tables: Tables, roots: Roots) -> None:
        self._tables = tables
        self._roots = roots

    @property
    def where(self) -> str:
        """Where the database is."""
        return self._tables.rows.where

    def close(self) -> None:
        """Close the database."""
        self._tables.rows.close()

    def files(self, root: str, run_id: str = "") -> Files | None:
        """Return the files below a root; see ``Source``."""
        del run_id
        return self._roots.files(root)

    def experiments(self) -> Iterator[Experiment | Broken]:
        """Yield all experiments of the workspace that MLflow uses by default."""
        if self._tables.has("experiments", "workspace"):
            sql = "SELECT DISTINCT workspace FROM experiments WHERE workspace<>'default' ORDER BY 1"
            for (workspace,) in self._tables.rows.query(sql):
                yield Broken("workspace", workspace, "only the workspace 'default' is read")
        names = ("experiment_id", "name", "lifecycle_stage", "artifact_location", "creation_time", "last_update_time")
        for page in self._tables.paged("experiments", names, "experiment_id"):
            tags = self._tables.grouped("experiment_tags", "experiment_id", ("key", "value"), [row[0] for row in page])
            for number, name, stage, root, created, updated in page:
                yield Experiment(
                    id="", number=number, name=name, stage=stage or "active", root=root or "", created_ms=created or 0,
                    updated_ms=updated or created or 0, tags=texts(tags.get(number)),
                )  # fmt: skip

    def runs(self, homes: Sequence[int]) -> Iterator[OldRun | Broken]:
        """Yield the runs of experiments."""
        for page in self._tables.paged("runs", _RUN, "run_uuid", ("experiment_id", homes)):
            ids = [row[0] for row in page]
            params = self._tables.grouped("params", "run_uuid", ("key", "value"), ids)
            tags = self._tables.grouped("tags", "run_uuid", ("key", "value"), ids)
            inputs, roles = self._inputs(ids), self._roles(ids)
            for ident, home, name, status, stage, start, end, user, root, deleted in page:
                if status not in STATES:
                    yield Broken("run", ident, f"its status is {status}")
                    continue
                own = texts(tags.get(ident))
                run = TrackedRun(
                    id=ident, experiment=home, name=name or own.get("mlflow.runName", ""), status=status,
                    stage=stage or "active", start_ms=start or 0, end_ms=end, user_id=user or "", root=root or "",
                    params=texts(params.get(ident)), tags=own, metrics={},
                )  # fmt: skip
                yield OldRun(run=run, inputs=inputs.get(ident, ()), roles=roles.get(ident, ()), deleted_ms=deleted)

    def _inputs(self, ids: Sequence[str]) -> dict[str, list[Input]]:
        found: dict[str, list[Input]] = {}
        for part in parts(ids):
            rest = f"WHERE destination_type='RUN' AND source_type='DATASET' AND destination_id IN ({marks(part)})"
            rows = self._tables.select(
                "inputs", ("input_uuid", "destination_id", "source_id"), f"{rest} ORDER BY 1", part
            )
            data = {key: one[0] for key, one in self._tables.grouped(
                "datasets", "dataset_uuid", _DATASET[1:], list({row[2] for row in rows})).items()}  # fmt: skip
            tags = self._tables.grouped("input_tags", "input_uuid", ("name", "value"), [row[0] for row in rows])
            for ident, run_id, data_id in rows:
                if data_id in data:
                    name, digest, kind, source, schema, profile = data[data_id]
                    dataset = Dataset(
                        name=name, digest=digest, source_type=kind, source=source, schema=schema, profile=profile
                    )
                    found.setdefault(run_id, []).append(Input(dataset=dataset, tags=texts(tags.get(ident))))
        return found

    def _roles(self, ids: Sequence[str]) -> dict[str, list[Role]]:
        found: dict[str, list[Role]] = {}
        for part in parts(ids):
            names = ("source_id", "source_type", "destination_id", "step")
            rest = f"WHERE source_type IN ('RUN_INPUT','RUN_OUTPUT') AND source_id IN ({marks(part)}) ORDER BY 1, 4, 3"
            for run_id, kind, model_id, step in self._tables.select("inputs", names, rest, part):
                found.setdefault(run_id, []).append(("input" if kind == "RUN_INPUT" else "output", model_id, step or 0))
        return found

    def points(self, run: TrackedRun) -> Iterator[Sequence[Point]]:
        """Yield all points of a run in pages, by name, step and time."""
        names = ("key", "step", "timestamp", "value", "is_nan")
        hint = self._tables.rows.hint("metrics", "index_metrics_run_uuid_key_step")
        page: list[Row] = []
        last: Row = ("", 0, 0, 0.0, False)
        while True:
            if len(page) == PAGE:
                # The rest of a metric by its steps: a page costs as much at the end of a long history as at its begin.
                rest = f"{hint} WHERE run_uuid=? AND key=? AND step>=? AND (step, timestamp, value, is_nan) > (?,?,?,?)"
                params: list[Any] = [run.id, last[0], last[1], *last[1:]]
            else:
                rest, params = f"{hint} WHERE run_uuid=? AND key>?", [run.id, last[0]]
            more = len(page) == PAGE
            order = f"{rest} ORDER BY key, step, timestamp, value, is_nan LIMIT {PAGE}"
            page = self._tables.select("metrics", names, order, params)
            if page:
                last = page[-1]
                yield [_point(*row) for row in page]
            elif not more:
                return

    def models(self, homes: Sequence[int]) -> Iterator[LoggedModel | Broken]:
        """Yield the logged models of experiments."""
        for page in self._tables.paged("logged_models", _MODEL, "model_id", ("experiment_id", homes)):
            ids = [row[0] for row in page]
            params = self._tables.grouped("logged_model_params", "model_id", ("param_key", "param_value"), ids)
            tags = self._tables.grouped("logged_model_tags", "model_id", ("tag_key", "tag_value"), ids)
            metrics = self._tables.grouped("logged_model_metrics", "model_id", _METRIC, ids)
            for ident, home, name, run_id, status, kind, stage, root, created, updated in page:
                if status not in STATUSES:
                    yield Broken("model", ident, f"its status is {status}")
                    continue
                yield LoggedModel(
                    id=ident, experiment=home, name=name, run_id=run_id or "", status=STATUSES[status],  # type: ignore[arg-type]
                    type=kind or "", stage=stage or "active", root=root or "", created_ms=created or 0,
                    updated_ms=updated or 0, params=texts(params.get(ident)), tags=texts(tags.get(ident)),
                    metrics=[_metric(row) for row in metrics.get(ident, [])],
                )  # fmt: skip

    def traces(self, homes: Sequence[int]) -> Iterator[OldTrace | Broken]:
        """Yield the traces of experiments."""
        for page in self._tables.paged("trace_info", _TRACE, "request_id", ("experiment_id", homes)):
            ids = [row[0] for row in page]
            tags = self._tables.grouped("trace_tags", "request_id", ("key", "value"), ids)
            metadata = self._tables.grouped("trace_request_metadata", "request_id", ("key", "value"), ids)
            said = self._tables.grouped("assessments", "trace_id", _SAID, ids)
            links = self._tables.grouped(
                "entity_associations", "source_id", ("source_type", "destination_type", "destination_id"), ids
            )
            for row in page:
                ident = row[0]
                try:
                    yield OldTrace(
                        trace=trace_of(row, texts(tags.get(ident)), texts(metadata.get(ident))),
                        spans=self._spans(ident),
                        said=[
                            said_of(ident, one)
                            for one in sorted(said.get(ident, []), key=lambda one: (one[13], one[0]))
                        ],
                        links=sorted(_links(links.get(ident, []))),
                        root=texts(tags.get(ident)).get(ROOT_TAG, ""),
                    )
                except (BadSpan, ValueError) as error:
                    yield Broken("trace", ident, str(error))

    def _spans(self, trace_id: str) -> list[Span]:
        rows = self._tables.select(
            "spans", ("content",), "WHERE trace_id=? ORDER BY start_time_unix_nano, span_id", (trace_id,)
        )
        return [span_from(json.loads(content), trace_id) for (content,) in rows]

    def registered(self) -> Iterator[RegisteredModel | Broken]:
        """Yield the registered models and prompts of the default workspace."""
        names = ("name", "description", "creation_time", "last_updated_time")
        for page in self._tables.paged("registered_models", names, "name"):
            known = [row[0] for row in page]
            tags = self._tables.grouped("registered_model_tags", "name", ("key", "value"), known)
            aliases = self._tables.grouped("registered_model_aliases", "name", ("alias", "version"), known)
            for name, description, created, updated in page:
                yield RegisteredModel(
                    id="", name=name, description=description or "", created_ms=created or 0,
                    updated_ms=updated or created or 0, tags=texts(tags.get(name)),
                    aliases=dict(sorted(aliases.get(name, []))), latest=[],
                )  # fmt: skip

    def versions(self, name: str) -> Iterator[OldVersion | Broken]:
        """Yield the versions of a registered model that are not deleted."""
        rows = self._tables.select("model_versions", _VERSION, "WHERE name=? ORDER BY version", (name,))
        tags: dict[int, list[Row]] = {}
        for number, *pair in self._tables.select(
            "model_version_tags", ("version", "key", "value"), "WHERE name=?", (name,)
        ):
            tags.setdefault(number, []).append(tuple(pair))
        for number, text, stage, status, source, storage, run_id, link, user, created, updated in rows:
            if stage == GONE:
                continue
            if (stage or "None") not in STAGES:
                yield Broken("version", f"{name}:{number}", f"its stage is {stage}")
                continue
            version = ModelVersion(
                id="", model=name, number=number, description=text or "", stage=stage or "None",
                status=status or "READY", source=source or "", run_id=run_id or "", run_link=link or "", model_id="",
                user_id=user or "", created_ms=created or 0, updated_ms=updated or created or 0,
                tags=texts(tags.get(number)), aliases=[],
            )  # fmt: skip
            yield OldVersion(version=version, storage=storage or "")

    def counts(self, homes: Sequence[int], whole: bool) -> Mapping[str, int]:
        """Count rows; see ``Source``."""
        found: dict[str, int] = {}
        for kind, table, owner, via in _COUNTED:
            if self._tables.has(table):
                joined = f"{table} x JOIN {via[0]} o ON o.{via[1]}=x.{owner}" if via else f"{table} x"
                at = "o" if via else "x"
                sql = f"SELECT count(*) FROM {joined} WHERE {at}.experiment_id IN "
                found[kind] = sum(self._tables.count(f"{sql}({marks(part)})", part) for part in parts(list(homes)))
        if whole and self._tables.has("registered_models"):
            for kind, table, rest in _REGISTRY:
                found[kind] = self._tables.count(f"SELECT count(*) FROM {self._tables.scoped(table)} WHERE {rest}", ())
        return found


_COUNTED: tuple[tuple[str, str, str, tuple[str, str] | None], ...] = (
    ("experiments", "experiments", "", None),
    ("runs", "runs", "", None),
    ("params", "params", "run_uuid", ("runs", "run_uuid")),
    ("tags", "tags", "run_uuid", ("runs", "run_uuid")),
    ("points", "metrics", "run_uuid", ("runs", "run_uuid")),
    ("models", "logged_models", "", None),
    ("traces", "trace_info", "", None),
    ("spans", "spans", "trace_id", ("trace_info", "request_id")),
    ("assessments", "assessments", "trace_id", ("trace_info", "request_id")),
)
_REGISTRY = (
    ("registered models", "registered_models", "1=1"),
    ("versions", "model_versions", f"current_stage<>'{GONE}'"),
    ("aliases", "registered_model_aliases", "1=1"),
)


def _point(name: str, step: int, at: int, value: float, nan: Any) -> Point:
    return Point(name, float("nan") if nan else float(value), step, at * 1000)


def _metric(row: Row) -> ModelMetric:
    run_id, name, value, step, at, data, digest = row
    point = Point(name, float("nan") if value is None else float(value), step or 0, at * 1000)
    return ModelMetric(run_id=run_id or "", point=point, dataset_name=data or "", dataset_digest=digest or "")


def trace_of(row: Row, tags: dict[str, str], metadata: dict[str, str]) -> Trace:
    """Return a trace from a row of ``trace_info``.

    Raises:
        ValueError: its state is none.
    """
    ident, home, state, start, duration, client_id, request, response = row
    state = "STATE_UNSPECIFIED" if state == "TRACE_STATUS_UNSPECIFIED" else state
    if state not in TRACE_STATES:
        raise ValueError(f"its state is {state}")
    return Trace(
        trace_id=ident, experiment=home, state=state, start_ms=start, duration_ms=duration, client_id=client_id,
        request=request, response=response, metadata=metadata, tags=tags, final=True,
    )  # fmt: skip


def said_of(trace_id: str, row: Row) -> Assessment:
    """Return an assessment from a row of ``assessments`` without its trace.

    Raises:
        ValueError: its kind is none.
    """
    (ident, kind, name, value, error, source_type, source_id, run_id, span_id, why, metadata, overrides, valid, created,
     updated) = row  # fmt: skip
    if kind not in KINDS:
        raise ValueError(f"assessment {ident} is of kind {kind}")
    found = json.loads(value)
    told: Data = found if kind == "issue" else {"value": found}
    if kind == "expectation" and isinstance(found, list | dict):
        told = {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": json.dumps(found)}}
    if error:
        told = {**told, "error": json.loads(error)}
    return Assessment(
        trace_id=trace_id, id=ident, kind=kind, name=name, value=told, source_type=source_type,
        source_id=source_id or "", run_id=run_id or "", span_id=span_id or "", rationale=why,
        metadata=json.loads(metadata) if metadata else {}, overrides=overrides or "", valid=bool(valid),
        created_ms=created, updated_ms=updated,
    )  # fmt: skip


def _when(row: Row) -> tuple[int, str]:
    return row[13], row[0]


def _links(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    kinds: Mapping[Any, str] = {"run": "run", "prompt_version": "prompt"}
    for kind, target_kind, target in rows:
        if kind == "trace" and target_kind in kinds:
            yield kinds[target_kind], target
