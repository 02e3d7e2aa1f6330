"""Models that tracking clients log: each is a version, made by the run that logged it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from trimtab.core.digest import digest
from trimtab.core.errors import NotFound
from trimtab.core.ids import new_hex
from trimtab.core.metric import join_value, split_value
from trimtab.store.facts import add_made, add_used
from trimtab.store.ledger import Reader, Tx
from trimtab.store.packing import pack
from trimtab.store.points import Point
from trimtab.store.spaces import next_version
from trimtab.store.tracking import Stage, get_experiment, need_run, params_of, parts, put_params, put_tags, tags_of

Status = Literal["LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"]
SPACE = "logged"


class ModelMetric(Struct, frozen=True, kw_only=True):
    """A value of a metric that speaks of a model, and of the data that it was measured on."""

    run_id: str
    point: Point
    dataset_name: str
    dataset_digest: str


class LoggedModel(Struct, frozen=True, kw_only=True):
    """A model as its client knows it.

    Attributes:
        id: ``m-`` and 32 hex digits; the version's id is ``ver_`` and these.
        run_id: the 32 hex digits of the run that logged it, or empty.
        root: where its files are.
    """

    id: str
    experiment: int
    name: str
    run_id: str
    status: Status
    type: str
    stage: Stage
    root: str
    created_ms: int
    updated_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[ModelMetric]

    @property
    def version_id(self) -> str:
        """The id of the version that it is."""
        return version_of(self.id)


def version_of(model_id: str) -> str:
    """Return the id of the version that a logged model is."""
    return f"ver_{model_id.removeprefix('m-')}"


COLUMNS = "model_id, experiment, name, run_id, status, type, stage, root, created_ms, updated_ms"


def create_model(
    tx: Tx,
    *,
    experiment: int,
    name: str,
    type: str,
    run_id: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    now_ms: int,
) -> LoggedModel:
    """Make a model whose files are yet to come.

    Args:
        tx: the transaction.
        experiment: its number.
        name: of the model; several may share one, and are its versions.
        type: what its client calls its type.
        run_id: of the run that logs it, or empty; one that is not known is kept as text.
        params: of the model.
        tags: its tags.
        now_ms: when.

    Raises:
        NotFound: there is no such experiment.
        BadInput: the run is deleted.
    """
    home = get_experiment(tx, experiment)
    ledger_run = _known_run(tx, run_id) if run_id else ""
    model_id = f"m-{new_hex()}"
    version_id, scope = version_of(model_id), (tx.workspace, tx.environment)
    asset_id, number = next_version(tx, SPACE, f"{experiment}/{name}", kind="model", at=now_ms * 1000)
    tx.execute(
        "INSERT INTO version(id, workspace, environment, asset_id, number, digest, run_id, state, location, meta,"
        " created_at) VALUES (?,?,?,?,?,'',?,'candidate',?,?,?)",
        (version_id, *scope, asset_id, number, ledger_run, pack({}), pack({}), now_ms * 1000),
    )
    if ledger_run:
        tx.execute(
            "INSERT INTO made(run_id, version_id, workspace, environment) VALUES (?,?,?,?)",
            (ledger_run, version_id, *scope),
        )
    root = f"{home.root.rstrip('/')}/models/{model_id}/artifacts"
    tx.execute(
        f"INSERT INTO logged_model(version_id, workspace, environment, {COLUMNS})"
        " VALUES (?,?,?,?,?,?,?,'LOGGED_MODEL_PENDING',?,'active',?,?,?)",
        (version_id, *scope, model_id, experiment, name, run_id, type, root, now_ms, now_ms),
    )
    put_params(tx, version_id, params, model_id)
    put_tags(tx, version_id, tags)
    tx.note(version_id, model=name, experiment=experiment)
    return get_model(tx, model_id)


def _known_run(tx: Tx, run_id: str) -> str:
    try:
        return need_run(tx, run_id)
    except NotFound:
        return ""


def get_model(reader: Reader, model_id: str, *, deleted: bool = False) -> LoggedModel:
    """Return a logged model.

    Raises:
        NotFound: there is none, or it is deleted and such are not wanted.
    """
    sql = f"SELECT {COLUMNS} FROM logged_model WHERE model_id=? AND workspace=?"
    rows = reader.query(sql, (model_id, reader.workspace))
    if not rows or (rows[0][6] != "active" and not deleted):
        raise NotFound(f"Logged model with ID '{model_id}' not found.", where="model_id")
    return models_of(reader, rows)[0]


def models_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[LoggedModel]:
    """Return models from rows of the columns that ``logged_model`` has after its scope."""
    ids = [version_of(row[0]) for row in rows]
    params, tags, metrics = params_of(reader, ids), tags_of(reader, ids), _metrics_of(reader, [row[0] for row in rows])
    return [
        LoggedModel(
            id=row[0], experiment=row[1], name=row[2], run_id=row[3], status=row[4], type=row[5], stage=row[6],
            root=row[7], created_ms=row[8], updated_ms=row[9], params=params.get(ident, {}), tags=tags.get(ident, {}),
            metrics=metrics.get(row[0], []),
        )
        for ident, row in zip(ids, rows, strict=True)
    ]  # fmt: skip


def settle_model(tx: Tx, model_id: str, status: Status, *, now_ms: int) -> LoggedModel:
    """Say that a model's files are there, or that they failed to come; its digest is that of its files.

    Raises:
        NotFound: there is no such model.
    """
    known = get_model(tx, model_id)
    tx.execute("UPDATE logged_model SET status=?, updated_ms=? WHERE model_id=?", (status, now_ms, model_id))
    if status == "LOGGED_MODEL_READY":
        base = known.root.partition(":")[2].strip("/")
        sql = "SELECT path, blob FROM artifact WHERE root='' AND path>? AND path<? ORDER BY path"
        files = {path[len(base) + 1 :]: blob for path, blob in tx.query(sql, (f"{base}/", f"{base}0"))}
        state = "published"
        tx.execute(
            "UPDATE version SET digest=?, state=?, location=? WHERE id=?",
            (digest(files), state, pack({"files": files, "root": known.root}), known.version_id),
        )
    tx.note(known.version_id, status=status)
    return get_model(tx, model_id)


def set_model_stage(tx: Tx, model_id: str, stage: Stage, *, now_ms: int) -> None:
    """Delete or restore a model.

    Raises:
        NotFound: there is no such model.
    """
    known = get_model(tx, model_id, deleted=stage == "active")
    tx.execute("UPDATE logged_model SET stage=?, updated_ms=? WHERE model_id=?", (stage, now_ms, model_id))
    tx.note(known.version_id, stage=stage)


def add_model_metrics(tx: Tx, model_id: str, metrics: Sequence[ModelMetric]) -> None:
    """Record values that speak of a model; one that is there already is kept once.

    Raises:
        NotFound: there is no such model.
    """
    get_model(tx, model_id)
    tx.execute_many(
        "INSERT OR IGNORE INTO model_metric(model_id, workspace, environment, run_id, name, at, step, value, kind,"
        " dataset_name, dataset_digest) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        [
            (model_id, tx.workspace, tx.environment, one.run_id, one.point.name, one.point.at, one.point.step,
             value if value is not None else 0.0, kind, one.dataset_name, one.dataset_digest)
            for one in metrics
            for value, kind in (split_value(one.point.value),)
        ],
    )  # fmt: skip


def _metrics_of(reader: Reader, model_ids: Sequence[str]) -> dict[str, list[ModelMetric]]:
    """Return each model's latest value of every metric, for each run and data that it was measured on."""
    found: dict[str, dict[tuple[str, str, str, str], ModelMetric]] = {}
    for part in parts(model_ids):
        marks = ",".join("?" * len(part))
        sql = (
            "SELECT model_id, run_id, name, at, step, value, kind, dataset_name, dataset_digest FROM model_metric"
            f" WHERE model_id IN ({marks}) ORDER BY model_id, name, step, at, value"
        )
        for model_id, run_id, name, at, step, value, kind, data, data_digest in reader.query(sql, part):
            point = Point(name, join_value(value, kind), step, at)
            found.setdefault(model_id, {})[name, run_id, data, data_digest] = ModelMetric(
                run_id=run_id, point=point, dataset_name=data, dataset_digest=data_digest
            )
    return {model_id: list(metrics.values()) for model_id, metrics in found.items()}


def use_models(tx: Tx, run_id: str, model_ids: Sequence[str]) -> None:
    """Record that a run used models.

    Raises:
        NotFound: there is no such run or model.
        BadInput: the run is deleted.
    """
    ledger_run = need_run(tx, run_id)
    for model_id in model_ids:
        known = get_model(tx, model_id)
        add_used(tx, ledger_run, [(known.version_id, "model")])
        _add_role(tx, ledger_run, model_id, "input", 0)


def make_models(tx: Tx, run_id: str, made: Sequence[tuple[str, int]]) -> None:
    """Record that a run made models, each with the step at which it did; errors as in ``use_models``."""
    ledger_run = need_run(tx, run_id)
    for model_id, step in made:
        known = get_model(tx, model_id)
        add_made(tx, ledger_run, [known.version_id])
        _add_role(tx, ledger_run, model_id, "output", step)


def _add_role(tx: Tx, run_id: str, model_id: str, role: str, step: int) -> None:
    tx.execute(
        "INSERT OR IGNORE INTO run_model(run_id, model_id, workspace, environment, role, step, place)"
        " SELECT ?,?,?,?,?,?, count(*) FROM run_model WHERE run_id=?",
        (run_id, model_id, tx.workspace, tx.environment, role, step, run_id),
    )


def roles_of(reader: Reader, run_ids: Sequence[str]) -> dict[str, list[tuple[str, str, int]]]:
    """Return, by the ledger's id of a run, the models that it used and made: role, model's id and step."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for part in parts(run_ids):
        marks = ",".join("?" * len(part))
        sql = f"SELECT run_id, role, model_id, step FROM run_model WHERE run_id IN ({marks}) ORDER BY run_id, place"
        for run_id, *role in reader.query(sql, part):
            found.setdefault(run_id, []).append((role[0], role[1], role[2]))
    return found
