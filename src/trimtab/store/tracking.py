"""What tracking clients record: experiments, and runs with their params, tags and metrics.

An experiment is an asset with a decimal number; a client's run is a run, and ``tracked`` holds what only its client
knows of it. Times are milliseconds since 1970, exactly as they were sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from msgspec import Struct

from trimtab.core.errors import BadInput, Conflict, NotFound
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data, RunState
from trimtab.store.ledger import Reader, Tx
from trimtab.store.packing import pack
from trimtab.store.points import Point, add_points

T = TypeVar("T")
Stage = Literal["active", "deleted"]
Status = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
KIND = "tracked"
WITHIN = "trimtab.run"
"""The tag by which a client's run names the run of ours that it is a part of."""
STATES: Mapping[str, RunState] = {
    "RUNNING": "running",
    "SCHEDULED": "running",
    "FINISHED": "done",
    "FAILED": "failed",
    "KILLED": "cancelled",
}
"""Status that a client gives -> state of the run."""

_EARLIEST, _LATEST = -62_135_596_800_000, 253_402_300_799_999


class Experiment(Struct, frozen=True, kw_only=True):
    """A named collection of runs.

    Attributes:
        number: what clients know it by.
        root: where artifacts of its runs go, as a URI that the client resolves.
    """

    id: str
    number: int
    name: str
    stage: Stage
    root: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]


class TrackedRun(Struct, frozen=True, kw_only=True):
    """A client's run.

    Attributes:
        id: 32 hex digits; the run's id is ``run_`` and these.
        metrics: name -> its latest point.
    """

    id: str
    experiment: int
    name: str
    status: Status
    stage: Stage
    start_ms: int
    end_ms: int | None
    user_id: str
    root: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, Point]


EXPERIMENT_COLUMNS = "id, number, name, stage, root, created_ms, updated_ms"
_EXPERIMENT = f"SELECT {EXPERIMENT_COLUMNS} FROM experiment"


def create_experiment(tx: Tx, name: str, *, root: str, tags: Mapping[str, str], now_ms: int, number: int = -1) -> int:
    """Make an experiment and return its number.

    Args:
        tx: the transaction.
        name: unique in its workspace, deleted ones included.
        root: where artifacts go; ``{number}`` stands for the experiment's own.
        tags: its tags.
        now_ms: when.
        number: by default the next one; 0 is the default experiment's.

    Raises:
        Conflict: there is one of that name.
    """
    if tx.query("SELECT 1 FROM experiment WHERE workspace=? AND name=?", (tx.workspace, name)):
        raise Conflict(f"Experiment(name={name}) already exists.", where=name, fix="choose another name")
    if number < 0:
        sql = "SELECT coalesce(max(number), 0) + 1 FROM experiment WHERE workspace=?"
        number = int(tx.query(sql, (tx.workspace,))[0][0])
    ident = f"ast_{new_hex()}"
    scope = (tx.workspace, tx.environment)
    tx.execute(
        "INSERT INTO asset(id, workspace, environment, space, name, kind, spec, created_at)"
        " VALUES (?,?,?,'experiment',?,'experiment',?,?)",
        (ident, *scope, str(number), pack({}), now_ms * 1000),
    )
    tx.execute(
        "INSERT INTO experiment(id, workspace, environment, number, name, stage, root, created_ms, updated_ms)"
        " VALUES (?,?,?,?,?,'active',?,?,?)",
        (ident, *scope, number, name, root.replace("{number}", str(number)), now_ms, now_ms),
    )
    put_tags(tx, ident, tags)
    tx.note(ident, experiment=name, number=number)
    return number


def get_experiment(reader: Reader, number: int) -> Experiment:
    """Return an experiment, deleted or not.

    Raises:
        NotFound: there is none.
    """
    rows = reader.query(f"{_EXPERIMENT} WHERE workspace=? AND number=?", (reader.workspace, number))
    if not rows:
        raise NotFound(f"No Experiment with id={number} exists", where="experiment_id")
    return experiments_of(reader, rows)[0]


def find_experiment(reader: Reader, name: str) -> Experiment | None:
    """Return the experiment with this name, deleted or not."""
    rows = reader.query(f"{_EXPERIMENT} WHERE workspace=? AND name=?", (reader.workspace, name))
    return experiments_of(reader, rows)[0] if rows else None


def experiments_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[Experiment]:
    """Return experiments from rows that begin with ``EXPERIMENT_COLUMNS``."""
    tags = tags_of(reader, [row[0] for row in rows])
    return [
        Experiment(
            id=row[0], number=row[1], name=row[2], stage=row[3], root=row[4], created_ms=row[5], updated_ms=row[6],
            tags=tags.get(row[0], {}),
        )
        for row in rows
    ]  # fmt: skip


def rename_experiment(tx: Tx, number: int, name: str, *, now_ms: int) -> None:
    """Give an active experiment another name.

    Raises:
        NotFound: there is none.
        BadInput: it is deleted.
        Conflict: the name is taken.
    """
    known = get_experiment(tx, number)
    if known.stage != "active":
        raise BadInput("Cannot rename a non-active experiment.", where="experiment_id")
    other = find_experiment(tx, name)
    if other is not None and other.number != number:
        raise Conflict(f"Experiment(name={name}) already exists.", where=name, fix="choose another name")
    sql = "UPDATE experiment SET name=?, updated_ms=? WHERE id=?"
    tx.execute(sql, (name, now_ms, known.id))
    tx.note(known.id, name=name)


def set_experiment_stage(tx: Tx, number: int, stage: Stage, *, now_ms: int) -> None:
    """Delete or restore an experiment together with its runs.

    Raises:
        NotFound: there is none in the other stage.
    """
    known = get_experiment(tx, number)
    if known.stage == stage:
        raise NotFound(f"No Experiment with id={number} exists", where="experiment_id")
    tx.execute("UPDATE experiment SET stage=?, updated_ms=? WHERE id=?", (stage, now_ms, known.id))
    deleted = now_ms if stage == "deleted" else None
    tx.execute(
        "UPDATE tracked SET stage=?, deleted_ms=? WHERE workspace=? AND experiment=? AND stage<>?",
        (stage, deleted, tx.workspace, number, stage),
    )
    tx.note(known.id, stage=stage)


def put_tags(tx: Tx, subject: str, tags: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
    """Set tags of an experiment, run, model or trace; the last one of a name stands."""
    items = dict(tags)
    tx.execute_many(
        "INSERT OR REPLACE INTO tag(subject, workspace, environment, name, value) VALUES (?,?,?,?,?)",
        [(subject, tx.workspace, tx.environment, name, value) for name, value in items.items()],
    )


def drop_tag(tx: Tx, subject: str, name: str) -> bool:
    """Remove a tag and say whether it was there."""
    return bool(tx.execute("DELETE FROM tag WHERE subject=? AND name=? RETURNING 1", (subject, name)))


def tags_of(reader: Reader, subjects: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return subject -> its tags, for those that have some."""
    return _named(reader, "SELECT subject, name, value FROM tag", subjects)


def params_of(reader: Reader, subjects: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return subject -> its params, for those that have some."""
    return _named(reader, "SELECT subject, name, value FROM param", subjects)


def _named(reader: Reader, select: str, subjects: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for part in parts(subjects):
        marks = ",".join("?" * len(part))
        for subject, name, value in reader.query(f"{select} WHERE subject IN ({marks}) ORDER BY subject, name", part):
            found.setdefault(subject, {})[name] = value
    return found


def parts(items: Sequence[T], size: int = 500) -> list[Sequence[T]]:
    """Return ``items`` in parts that a statement takes as parameters."""
    return [items[start : start + size] for start in range(0, len(items), size)]


RUN_COLUMNS = "run_id, experiment, name, status, stage, start_ms, end_ms, user_id, root"
_RUN = f"SELECT {RUN_COLUMNS} FROM tracked"


def create_run(
    tx: Tx, *, experiment: int, name: str, user_id: str, start_ms: int, tags: Mapping[str, str], root: str = ""
) -> TrackedRun:
    """Begin a client's run.

    Args:
        tx: the transaction.
        experiment: its number.
        name: of the run.
        user_id: who the client says it is.
        start_ms: when it began, by the client's clock.
        tags: its tags.
        root: where its artifacts go; by default below the experiment's.

    Raises:
        NotFound: there is no such experiment.
        BadInput: it is deleted, or the time is none that a calendar has.
    """
    home = get_experiment(tx, experiment)
    _require_active(home)
    ident = new_hex()
    run_id = f"run_{ident}"
    scope = (tx.workspace, tx.environment)
    tx.execute(
        "INSERT INTO run(id, workspace, environment, kind, name, state, started_at, ended_at, actor, parent_id,"
        " attempt, key, seed, data) VALUES (?,?,?,?,?,'running',?,NULL,?,?,1,'',0,?)",
        (run_id, *scope, KIND, name, _micros(start_ms, "start_time"), user_id, _parent(tx, tags), pack({})),
    )
    root = root or f"{home.root.rstrip('/')}/{ident}/artifacts"
    tx.execute(
        "INSERT INTO tracked(run_id, workspace, environment, experiment, name, status, stage, start_ms, user_id, root)"
        " VALUES (?,?,?,?,?,'RUNNING','active',?,?,?)",
        (run_id, *scope, experiment, name, start_ms, user_id, root),
    )
    put_tags(tx, run_id, tags)
    tx.note(run_id, run=KIND, name=name, experiment=experiment)
    return TrackedRun(
        id=ident, experiment=experiment, name=name, status="RUNNING", stage="active", start_ms=start_ms, end_ms=None,
        user_id=user_id, root=root, params={}, tags=dict(tags), metrics={},
    )  # fmt: skip


def _require_active(experiment: Experiment) -> None:
    if experiment.stage != "active":
        raise BadInput(
            f"The experiment {experiment.number} must be in the 'active' state. Current state is {experiment.stage}.",
            where="experiment_id",
        )


def _parent(tx: Tx, tags: Mapping[str, str]) -> str:
    """Return the id of the run that a client says this one is nested in, or runs within, if that is on record."""
    for parent in (f"run_{tags.get('mlflow.parentRunId', '')}", tags.get(WITHIN, "")):
        if tx.query("SELECT 1 FROM run WHERE id=? AND workspace=?", (parent, tx.workspace)):
            return parent
    return ""


def _micros(ms: int, field: str) -> int:
    if not _EARLIEST <= ms <= _LATEST:
        raise BadInput(f"{ms} is not a time in milliseconds that a calendar has", where=field)
    return ms * 1000


def get_run(reader: Reader, ident: str) -> TrackedRun:
    """Return a client's run, deleted or not.

    Raises:
        NotFound: there is none.
    """
    sql = f"{_RUN} WHERE run_id=? AND workspace=?"
    rows = reader.query(sql, (f"run_{ident}", reader.workspace))
    if not rows:
        raise NotFound(f"Run with id={ident} not found", where="run_id")
    return runs_of(reader, rows)[0]


def need_run(reader: Reader, ident: str, *, active: bool = True) -> str:
    """Return the ledger's id of a client's run, and only that.

    Raises:
        NotFound: there is none.
        BadInput: it is deleted and ``active`` is wanted.
    """
    run_id = f"run_{ident}"
    rows = reader.query("SELECT stage FROM tracked WHERE run_id=? AND workspace=?", (run_id, reader.workspace))
    if not rows:
        raise NotFound(f"Run with id={ident} not found", where="run_id")
    if active and rows[0][0] != "active":
        raise BadInput(f"The run {ident} must be in the 'active' state. Current state is {rows[0][0]}.", where="run_id")
    return run_id


def runs_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[TrackedRun]:
    """Return runs from rows that begin with ``RUN_COLUMNS``."""
    ids = [row[0] for row in rows]
    params, tags, metrics = params_of(reader, ids), tags_of(reader, ids), latest_of(reader, ids)
    return [
        TrackedRun(
            id=row[0].removeprefix("run_"), experiment=row[1], name=row[2], status=row[3], stage=row[4],
            start_ms=row[5], end_ms=row[6], user_id=row[7], root=row[8], params=params.get(row[0], {}),
            tags=tags.get(row[0], {}), metrics=metrics.get(row[0], {}),
        )
        for row in rows
    ]  # fmt: skip


def latest_of(reader: Reader, subjects: Sequence[str]) -> dict[str, dict[str, Point]]:
    """Return subject -> metric -> its latest point."""
    found: dict[str, dict[str, Point]] = {}
    for part in parts(subjects):
        marks = ",".join("?" * len(part))
        sql = f"SELECT subject, name, value, kind, step, at FROM latest WHERE subject IN ({marks})"
        for subject, name, value, kind, step, at in reader.query(f"{sql} ORDER BY subject, name", part):
            found.setdefault(subject, {})[name] = Point.joined(name, value, kind, step, at)
    return found


def update_run(
    tx: Tx, ident: str, *, status: Status | None = None, end_ms: int | None = None, name: str | None = None
) -> TrackedRun:
    """Change a run's status, end or name; one that had ended and runs again is another attempt of it.

    Raises:
        NotFound: there is no such run.
        BadInput: it is deleted, or the time is none that a calendar has.
    """
    run_id = need_run(tx, ident)
    known = get_run(tx, ident)
    if status is not None and status != known.status:
        state = STATES[status]
        again = state == "running" and STATES[known.status] != "running"
        tx.execute(
            "UPDATE run SET state=?, attempt=attempt+?, ended_at=CASE WHEN ?='running' THEN NULL ELSE ended_at END"
            " WHERE id=?",
            (state, int(again), state, run_id),
        )
    new = status or known.status
    ended = end_ms if end_ms is not None else known.end_ms
    if STATES[new] != "running":
        at = _micros(ended, "end_time") if ended is not None else known.start_ms * 1000
        # By a clock that went backwards a run may end before it began; the ledger's own account stays in order.
        sql = "UPDATE run SET ended_at=CASE WHEN started_at > ? THEN started_at ELSE ? END WHERE id=?"
        tx.execute(sql, (at, at, run_id))
    tx.execute("UPDATE tracked SET status=?, end_ms=?, name=? WHERE run_id=?", (new, ended, name or known.name, run_id))
    if name:
        tx.execute("UPDATE run SET name=? WHERE id=?", (name, run_id))
        put_tags(tx, run_id, {"mlflow.runName": name})
    tx.note(run_id, status=new, name=name or known.name)
    return get_run(tx, ident)


def set_run_stage(tx: Tx, ident: str, stage: Stage, *, now_ms: int) -> None:
    """Delete or restore a run; nothing of it goes.

    Raises:
        NotFound: there is no such run.
        BadInput: it is in that stage already.
    """
    run_id = need_run(tx, ident, active=False)
    deleted = now_ms if stage == "deleted" else None
    sql = "UPDATE tracked SET stage=?, deleted_ms=? WHERE run_id=? AND stage<>? RETURNING 1"
    if not tx.execute(sql, (stage, deleted, run_id, stage)) and stage == "active":
        raise BadInput(f"The run {ident} must be in the 'deleted' state. Current state is active.", where="run_id")
    tx.note(run_id, stage=stage)


def log(
    tx: Tx, ident: str, *, points: Sequence[Point] = (), params: Mapping[str, str] = {}, tags: Mapping[str, str] = {}
) -> None:
    """Record points, params and tags of a run, all of them or none.

    Raises:
        NotFound: there is no such run.
        BadInput: it is deleted, or a param has another value already.
    """
    run_id = need_run(tx, ident)
    if params:
        put_params(tx, run_id, params, ident)
    if points:
        add_points(tx, run_id, points)
    if tags:
        put_tags(tx, run_id, tags)
        if tags.get("mlflow.runName"):
            tx.execute("UPDATE tracked SET name=? WHERE run_id=?", (tags["mlflow.runName"], run_id))
    tx.note(run_id, points=len(points), params=len(params), tags=len(tags))


def put_params(tx: Tx, subject: str, params: Mapping[str, str], told: str) -> None:
    """Record params; one that has a value keeps it.

    Raises:
        BadInput: one has another value already.
    """
    known = params_of(tx, [subject]).get(subject, {})
    changed = [name for name, value in params.items() if known.get(name, value) != value]
    if changed:
        several = [{"key": name, "old_value": known[name], "new_value": params[name]} for name in changed]
        raise BadInput(
            f"Changing param values is not allowed. Params were already logged='{several}' for run ID='{told}'.",
            where=f"params.{changed[0]}",
        )
    tx.execute_many(
        "INSERT INTO param(subject, workspace, environment, name, value) VALUES (?,?,?,?,?)",
        [(subject, tx.workspace, tx.environment, name, value) for name, value in params.items() if name not in known],
    )


def as_data(reader: Reader, run_id: str) -> Data:
    """Return what only its client knows of a run, for ``show``; nothing for a run that no client made."""
    rows = reader.query(f"{_RUN} WHERE run_id=?", (run_id,))
    if not rows:
        return {}
    run = runs_of(reader, rows)[0]
    return {
        "experiment": get_experiment(reader, run.experiment).name,
        "experiment_id": run.experiment,
        "status": run.status,
        "stage": run.stage,
        "user": run.user_id,
        "artifacts": run.root,
        "params": run.params,
        "tags": run.tags,
    }
