"""Records that were made elsewhere, written whole and as they are: with their ids, times, ends and stages.

Nothing is told to webhooks and nothing is checked against what is live: a deleted experiment takes its runs. Each
function writes one unit of a move; whoever calls it gives the transaction an idempotency key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from msgspec.structs import replace

from trimtab.core.digest import digest
from trimtab.core.errors import Conflict
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.store import facts, traces, tracking
from trimtab.store.artifacts import PROXIED, put_artifact
from trimtab.store.assessments import Assessment, create_assessment
from trimtab.store.datasets import Input, add_inputs
from trimtab.store.ledger import Reader, Tx
from trimtab.store.models import COLUMNS, SPACE, LoggedModel, ModelMetric, add_model_metrics
from trimtab.store.packing import pack
from trimtab.store.points import Point, add_points
from trimtab.store.registry import PROMPT, TEXT, ModelVersion, RegisteredModel, need_free, need_registered
from trimtab.store.spaces import next_version
from trimtab.store.tracking import KIND, STATES, TrackedRun, put_params, put_tags

SCHEME = "mlflow-artifacts:"
Kept = tuple[str, str, int]
"""A file that is kept: its path below its root, its blob and its size in bytes."""
Role = tuple[str, str, int]
"""What a run did with a model: ``input`` or ``output``, the model's id and the step."""


@contextmanager
def opened(tx: Tx, table: str, column: str, key: str | int) -> Iterator[None]:
    """Let what is deleted take more records, inside one transaction that nobody sees a part of."""
    sql = f"UPDATE {table} SET stage='active' WHERE workspace=? AND {column}=? AND stage='deleted' RETURNING 1"
    was = tx.execute(sql, (tx.workspace, key))
    yield
    if was:
        tx.execute(f"UPDATE {table} SET stage='deleted' WHERE workspace=? AND {column}=?", (tx.workspace, key))


def put_experiment(tx: Tx, given: tracking.Experiment) -> int:
    """Make an experiment and return its number: its own if that is free, else the next one.

    Raises:
        Conflict: there is one of that name.
    """
    sql = "SELECT 1 FROM experiment WHERE workspace=? AND number=?"
    free = not tx.query(sql, (tx.workspace, given.number)) and given.number >= 0
    number = tracking.create_experiment(
        tx, given.name, root=given.root, tags=given.tags, now_ms=given.created_ms, number=given.number if free else -1
    )
    sql = "UPDATE experiment SET stage=?, updated_ms=? WHERE workspace=? AND number=?"
    tx.execute(sql, (given.stage, given.updated_ms, tx.workspace, number))
    return number


def put_run(
    tx: Tx,
    run: TrackedRun,
    *,
    points: Iterable[Sequence[Point]],
    inputs: Sequence[Input],
    roles: Sequence[Role],
    files: Sequence[Kept],
    deleted_ms: int | None = None,
) -> int:
    """Write a run with everything of it, and return how many points it has then; its ``metrics`` are not read.

    Raises:
        Conflict: there is such a run.
        NotFound: there is no such experiment.
    """
    run_id, scope = f"run_{run.id}", (tx.workspace, tx.environment)
    if tx.query("SELECT 1 FROM run WHERE id=?", (run_id,)):
        raise Conflict(f"run {run.id} is there already", where=run.id)
    tracking.get_experiment(tx, run.experiment)
    state, begin = STATES[run.status], run.start_ms * 1000
    end = None if state == "running" else max(begin, begin if run.end_ms is None else run.end_ms * 1000)
    tx.execute(
        "INSERT INTO run(id, workspace, environment, kind, name, state, started_at, ended_at, actor, parent_id,"
        " attempt, key, seed, data) VALUES (?,?,?,?,?,?,?,?,?,'',1,'',0,?)",
        (run_id, *scope, KIND, run.name, state, begin, end, run.user_id, pack({})),
    )
    tx.execute(
        "INSERT INTO tracked(run_id, workspace, environment, experiment, name, status, stage, start_ms, end_ms,"
        " deleted_ms, user_id, root) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        (run_id, *scope, run.experiment, run.name, run.status, run.stage, run.start_ms, run.end_ms, deleted_ms,
         run.user_id, run.root),
    )  # fmt: skip
    put_tags(tx, run_id, run.tags)
    put_params(tx, run_id, run.params, run.id)
    for page in points:
        add_points(tx, run_id, page)
    with opened(tx, "tracked", "run_id", run_id):
        if inputs:
            add_inputs(tx, run.id, inputs)
    for place, (role, model_id, step) in enumerate(roles):
        tx.execute(
            "INSERT OR IGNORE INTO run_model(run_id, model_id, workspace, environment, role, step, place)"
            " VALUES (?,?,?,?,?,?,?)",
            (run_id, model_id, *scope, role, step, place),
        )
    put_files(tx, run.root, files, begin)
    tx.note(run_id, run=KIND, name=run.name, experiment=run.experiment, brought=True)
    return int(tx.query("SELECT count(*) FROM metric WHERE run_id=?", (run_id,))[0][0])


def put_files(tx: Tx, root: str, files: Sequence[Kept], at: int) -> None:
    """Let the paths below a root of ours hold blobs that are kept already."""
    base = root.removeprefix(SCHEME).strip("/")
    for path, blob, size in files:
        put_artifact(tx, PROXIED, f"{base}/{path}", blob=blob, size=size, at=at)


def link_parents(tx: Tx) -> None:
    """Let runs that were brought in before those that they are nested in know them."""
    tx.execute(
        "UPDATE run SET parent_id=(SELECT 'run_' || g.value FROM tag g WHERE g.subject=run.id AND"
        " g.name='mlflow.parentRunId') WHERE workspace=? AND kind=? AND parent_id='' AND EXISTS (SELECT 1 FROM tag g"
        " JOIN tracked t ON t.run_id='run_' || g.value WHERE g.subject=run.id AND g.name='mlflow.parentRunId')",
        (tx.workspace, KIND),
    )


def put_model(tx: Tx, model: LoggedModel, *, metrics: Sequence[ModelMetric], files: Sequence[Kept]) -> None:
    """Write a logged model with everything of it; its ``metrics`` are not read.

    Raises:
        Conflict: there is such a model.
        NotFound: there is no such experiment.
    """
    if tx.query("SELECT 1 FROM logged_model WHERE model_id=?", (model.id,)):
        raise Conflict(f"model {model.id} is there already", where=model.id)
    tracking.get_experiment(tx, model.experiment)
    scope, by = (tx.workspace, tx.environment), f"run_{model.run_id}"
    known = bool(tx.query("SELECT 1 FROM tracked WHERE run_id=? AND workspace=?", (by, tx.workspace)))
    name, at = f"{model.experiment}/{model.name}", model.created_ms * 1000
    asset_id, number = next_version(tx, SPACE, name, kind="model", at=at)
    ready = model.status == "LOGGED_MODEL_READY"
    content = {path: blob for path, blob, _ in files}
    tx.execute(
        "INSERT INTO version(id, workspace, environment, asset_id, number, digest, run_id, state, location, meta,"
        " created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (model.version_id, *scope, asset_id, number, digest(content) if ready else "", by if known else "",
         "published" if ready else "candidate", pack({"files": content, "root": model.root} if ready else {}),
         pack({}), model.created_ms * 1000),
    )  # fmt: skip
    tx.execute(
        f"INSERT INTO logged_model(version_id, workspace, environment, {COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (model.version_id, *scope, model.id, model.experiment, model.name, model.run_id, model.status, model.type,
         model.stage, model.root, model.created_ms, model.updated_ms),
    )  # fmt: skip
    put_params(tx, model.version_id, model.params, model.id)
    put_tags(tx, model.version_id, model.tags)
    with opened(tx, "logged_model", "model_id", model.id):
        add_model_metrics(tx, model.id, metrics)
    if known:
        facts.add_made(tx, by, [model.version_id])
    for run_id, role in tx.query("SELECT run_id, role FROM run_model WHERE model_id=?", (model.id,)):
        if role == "output":
            facts.add_made(tx, run_id, [model.version_id])
        else:
            facts.add_used(tx, run_id, [(model.version_id, "model")])
    put_files(tx, model.root, files, model.created_ms * 1000)
    tx.note(model.version_id, model=model.name, experiment=model.experiment, brought=True)


def put_registered(tx: Tx, given: RegisteredModel) -> None:
    """Register a name with its times and tags; its versions come by ``put_version``, its aliases by ``put_aliases``.

    Raises:
        Conflict: clients have registered it before.
        BadInput: it belongs to the pipeline, or to an endpoint.
    """
    kind = "prompt" if PROMPT in given.tags else "model"
    need_free(tx, given.name, prompt=kind == "prompt")
    ident, scope = f"ast_{new_hex()}", (tx.workspace, tx.environment)
    tx.execute(
        "INSERT INTO asset(id, workspace, environment, name, kind, spec, created_at) VALUES (?,?,?,?,?,?,?)",
        (ident, *scope, given.name, kind, pack(facts.REGISTERED), given.created_ms * 1000),
    )
    tx.execute(
        "INSERT INTO registered(asset_id, workspace, environment, description, created_ms, updated_ms)"
        " VALUES (?,?,?,?,?,?)",
        (ident, *scope, given.description, given.created_ms, given.updated_ms),
    )
    put_tags(tx, ident, given.tags)
    tx.note(ident, registered=given.name, kind=kind, brought=True)


def put_version(tx: Tx, given: ModelVersion, *, root: str, files: Sequence[Kept] = ()) -> None:
    """Write a version of a registered model under its own number.

    Args:
        tx: the transaction.
        given: the version; its id is not read, nor are its aliases.
        root: where its files are.
        files: those that come with it; by default those that are kept below ``root``.

    Raises:
        NotFound: there is no such registered model.
        Conflict: it has that version.
    """
    asset_id, scope = need_registered(tx, given.model), (tx.workspace, tx.environment)
    if tx.query("SELECT 1 FROM version WHERE asset_id=? AND number=?", (asset_id, given.number)):
        raise Conflict(f"version {given.number} of {given.model} is there already", where=given.model)
    version_id, at = f"ver_{new_hex()}", given.created_ms * 1000
    put_files(tx, root, files, at)
    made_from, location = _content(tx, root, given.tags)
    by = f"run_{given.run_id}"
    known = bool(tx.query("SELECT 1 FROM tracked WHERE run_id=? AND workspace=?", (by, tx.workspace)))
    tx.execute(
        "INSERT INTO version(id, workspace, environment, asset_id, number, digest, run_id, state, location, meta,"
        " created_at) VALUES (?,?,?,?,?,?,?,'published',?,?,?)",
        (version_id, *scope, asset_id, given.number, made_from, by if known else "", pack(location), pack({}), at),
    )
    if known:
        facts.add_made(tx, by, [version_id])
    tx.execute(
        "INSERT INTO registered_version(version_id, workspace, environment, asset_id, number, description, stage,"
        " status, source, run_id, run_link, model_id, user_id, created_ms, updated_ms)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (version_id, *scope, asset_id, given.number, given.description, given.stage, given.status, given.source,
         given.run_id, given.run_link, given.model_id, given.user_id, given.created_ms, given.updated_ms),
    )  # fmt: skip
    put_tags(tx, version_id, given.tags)
    tx.note(version_id, version=f"{given.model}:{given.number}", source=given.source, digest=made_from, brought=True)


def _content(tx: Tx, root: str, tags: Mapping[str, str]) -> tuple[str, Data]:
    if PROMPT in tags and TEXT in tags:
        text = {"text": tags[TEXT]}
        return digest(text), {**text, "root": root}
    if not root.startswith(SCHEME):
        return "", {"root": root}
    files = {path: blob for path, blob, _ in files_below(tx, root)}
    return digest(files) if files else "", {"files": files, "root": root}


def files_below(reader: Reader, root: str) -> list[Kept]:
    """Return the files that are kept below a root of ours, by their paths below it."""
    base = root.removeprefix(SCHEME).strip("/")
    sql = "SELECT path, blob, size FROM artifact WHERE root=? AND path>? AND path<? ORDER BY path"
    rows = reader.query(sql, (PROXIED, f"{base}/", f"{base}0")) if root.startswith(SCHEME) else []
    return [(path[len(base) + 1 :], blob, size) for path, blob, size in rows]


def put_aliases(tx: Tx, name: str, aliases: Mapping[str, int]) -> list[str]:
    """Set aliases of a registered model; return those whose version is not there.

    Raises:
        NotFound: there is no such registered model.
    """
    asset_id, missing = need_registered(tx, name), []
    for alias, number in aliases.items():
        sql = "SELECT version_id FROM registered_version WHERE asset_id=? AND number=? AND deleted=0"
        rows = tx.query(sql, (asset_id, number))
        if not rows:
            missing.append(alias)
            continue
        tx.execute(
            "INSERT OR IGNORE INTO alias(workspace, environment, asset_id, name, version_id, epoch)"
            " VALUES (?,?,?,?,?,1)",
            (tx.workspace, tx.environment, asset_id, alias, rows[0][0]),
        )
        tx.note(rows[0][0], alias=f"{name}@{alias}", brought=True)
    return missing


def put_trace(
    tx: Tx,
    trace: traces.Trace,
    *,
    spans: Sequence[traces.Span],
    said: Sequence[Assessment],
    links: Sequence[tuple[str, str]] = (),
    files: Sequence[Kept] = (),
) -> None:
    """Write a trace with its spans and what was said of it.

    Args:
        tx: the transaction.
        trace: as a whole; what it says stands above what its spans tell.
        spans: all of them.
        said: of it, in the order in which it was said.
        links: kind and target of each.
        files: of it, by their paths below its root.

    Raises:
        Conflict: there is such a trace.
        NotFound: there is no such experiment.
    """
    if traces.find_trace(tx, trace.trace_id) is not None:
        raise Conflict(f"trace {trace.trace_id} is there already", where=trace.trace_id)
    with opened(tx, "experiment", "number", trace.experiment):
        made = traces.start_trace(tx, replace(trace, final=True))
        if spans:
            traces.log_spans(tx, trace.experiment, spans)
    home = tracking.get_experiment(tx, trace.experiment)
    put_files(tx, traces.root_of(home, trace.trace_id), files, trace.start_ms * 1000)
    # What the trace says of itself stands above what its spans told, also where it says nothing.
    kept = {name: value for name, value in made.tags.items() if name == traces.ROOT_TAG}
    tx.execute("DELETE FROM trace_metadata WHERE trace=?", (made.id,))
    tx.execute("DELETE FROM tag WHERE subject=?", (made.id,))
    traces.put_metadata(tx, made.id, trace.metadata)
    put_tags(tx, made.id, {**trace.tags, **kept, **({traces.PLACE_TAG: traces.HERE} if spans else {})})
    sql = "UPDATE trace SET state=?, duration_ms=?, request=?, response=? WHERE id=?"
    tx.execute(sql, (trace.state, trace.duration_ms, trace.request, trace.response, made.id))
    for one in said:
        create_assessment(tx, replace(one, overrides=""))
    for one in said:
        sql = "UPDATE assessment SET overrides=?, valid=? WHERE trace=? AND id=?"
        tx.execute(sql, (one.overrides, int(one.valid), made.id, one.id))
    for kind, target in links:
        traces.link(tx, kind, [trace.trace_id], [target])


def mark_of(reader: Reader, key: str) -> Data | None:
    """Return what a write with an idempotency key answered, or None if there was none."""
    rows = reader.query("SELECT answer FROM idempotency WHERE workspace=? AND key=?", (reader.workspace, key))
    return msgspec.msgpack.decode(rows[0][0]) if rows else None


def counts_of(reader: Reader, subject: str) -> tuple[int, int, int]:
    """Return how many params, tags and points a run, model or trace has."""
    sql = (
        "SELECT (SELECT count(*) FROM param WHERE subject=?), (SELECT count(*) FROM tag WHERE subject=?),"
        " (SELECT count(*) FROM metric WHERE run_id=?)"
    )
    row = reader.query(sql, (subject, subject, subject))[0]
    return int(row[0]), int(row[1]), int(row[2])


def metric_count(reader: Reader, model_id: str) -> int:
    """Return how many values speak of a model."""
    return int(reader.query("SELECT count(*) FROM model_metric WHERE model_id=?", (model_id,))[0][0])


def points_of(reader: Reader, run_id: str, size: int = 10_000) -> Iterator[list[Point]]:
    """Yield all points of a run in pages, by the ledger's id of it."""
    after: tuple[object, ...] = ()
    while True:
        more = " AND (name, at, step, value, kind) > (?,?,?,?,?)" if after else ""
        sql = f"SELECT name, at, step, value, kind FROM metric WHERE run_id=?{more} ORDER BY 1, 2, 3, 4, 5 LIMIT ?"
        rows = reader.query(sql, (run_id, *after, size))  # type: ignore[arg-type]
        if rows:
            yield [Point.joined(name, value, kind, step, at) for name, at, step, value, kind in rows]
        if len(rows) < size:
            return
        after = tuple(rows[-1])
