"""The data that runs of tracking clients read: each digest of a dataset is a version, which the run used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.ids import new_hex
from trimtab.store.facts import add_used
from trimtab.store.ledger import Reader, Tx
from trimtab.store.packing import pack
from trimtab.store.spaces import next_version
from trimtab.store.tracking import get_run, need_run, parts

SPACE = "data"
CONTEXT = "mlflow.data.context"
"""The tag that says what a run read the data for, such as ``train``."""
MOST_SUMMARIES = 1000


class Dataset(Struct, frozen=True, kw_only=True):
    """Data as its client describes it; where it is, is told and never followed.

    Attributes:
        digest: by which the client tells its contents apart.
        source: where it is, in words of ``source_type``.
        schema, profile: JSON, if the client sent some.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


class Input(Struct, frozen=True, kw_only=True):
    """A dataset that a run read, and the tags of that reading."""

    dataset: Dataset
    tags: dict[str, str]


class Summary(Struct, frozen=True, kw_only=True):
    """A dataset that runs of an experiment read, and what for."""

    experiment: int
    name: str
    digest: str
    context: str | None


def add_inputs(tx: Tx, ident: str, inputs: Sequence[Input]) -> None:
    """Record what a run read; the first of one name and digest stands, also over later requests.

    Raises:
        NotFound: there is no such run.
        BadInput: it is deleted.
    """
    run_id = need_run(tx, ident)
    experiment = get_run(tx, ident).experiment
    known = int(tx.query("SELECT count(*) FROM run_dataset WHERE run_id=?", (run_id,))[0][0])
    for place, one in enumerate(inputs, known):
        version_id = _version(tx, experiment, one.dataset)
        tx.execute(
            "INSERT OR IGNORE INTO run_dataset(run_id, version_id, workspace, environment, context, tags, place)"
            " VALUES (?,?,?,?,?,?,?)",
            (run_id, version_id, tx.workspace, tx.environment, one.tags.get(CONTEXT), _json(one.tags), place),
        )
        add_used(tx, run_id, [(version_id, "data")])
    tx.note(run_id, inputs=len(inputs))


def _json(tags: Mapping[str, str]) -> str:
    return msgspec.json.encode(tags).decode()


def _version(tx: Tx, experiment: int, data: Dataset) -> str:
    """Return the id of the version that a dataset is, making it if it is new."""
    sql = "SELECT version_id FROM dataset WHERE workspace=? AND experiment=? AND name=? AND digest=?"
    rows = tx.query(sql, (tx.workspace, experiment, data.name, data.digest))
    if rows:
        return str(rows[0][0])
    scope, at = (tx.workspace, tx.environment), int(wall_seconds() * 1_000_000)
    asset_id, number = next_version(tx, SPACE, f"{experiment}/{data.name}", kind="source", at=at)
    version_id = f"ver_{new_hex()}"
    tx.execute(
        "INSERT INTO version(id, workspace, environment, asset_id, number, digest, run_id, state, location, meta,"
        " created_at) VALUES (?,?,?,?,?,?,'','published',?,?,?)",
        (version_id, *scope, asset_id, number, data.digest, pack({}), pack({"source_type": data.source_type}), at),
    )
    tx.execute(
        "INSERT INTO dataset(version_id, workspace, environment, experiment, name, digest, source_type, source, schema,"
        " profile) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (version_id, *scope, experiment, data.name, data.digest, data.source_type, data.source, data.schema,
         data.profile),
    )  # fmt: skip
    return version_id


def inputs_of(reader: Reader, run_ids: Sequence[str]) -> dict[str, list[Input]]:
    """Return, by the ledger's id of a run, what it read, in the order in which it said so."""
    found: dict[str, list[Input]] = {}
    for part in parts(run_ids):
        sql = (
            "SELECT i.run_id, i.tags, d.name, d.digest, d.source_type, d.source, d.schema, d.profile FROM run_dataset i"
            f" JOIN dataset d ON d.version_id=i.version_id WHERE i.run_id IN ({','.join('?' * len(part))})"
            " ORDER BY i.run_id, i.place"
        )
        for run_id, tags, name, digest, kind, source, schema, profile in reader.query(sql, part):
            data = Dataset(
                name=name, digest=digest, source_type=kind, source=source, schema=schema, profile=profile
            )  # fmt: skip
            told = Input(dataset=data, tags=msgspec.json.decode(tags, type=dict[str, str]))
            found.setdefault(run_id, []).append(told)
    return found


def summaries(reader: Reader, experiments: Sequence[int]) -> list[Summary]:
    """Return the datasets that runs of some experiments read, at most ``MOST_SUMMARIES``."""
    sql = (
        "SELECT DISTINCT d.experiment, d.name, d.digest, i.context FROM dataset d JOIN run_dataset i"
        f" ON i.version_id=d.version_id WHERE d.workspace=? AND d.experiment IN ({','.join('?' * len(experiments))})"
        " ORDER BY 1, 2, 3, 4 LIMIT ?"
    )
    rows = reader.query(sql, [reader.workspace, *experiments, MOST_SUMMARIES]) if experiments else []
    return [Summary(experiment=row[0], name=row[1], digest=row[2], context=row[3]) for row in rows]
