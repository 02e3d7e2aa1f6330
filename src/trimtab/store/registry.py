"""The registry of models and prompts that tracking clients keep: named assets, their versions, stages and aliases.

A registered model is an asset in the project's own name space, marked by ``REGISTERED`` in its spec: a name belongs
either to the pipeline or to clients, so no version of a client can become what a step of the pipeline resolves to.
Its versions are published when they are made and refused when they are deleted; nothing that was recorded goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from trimtab.core.digest import digest
from trimtab.core.errors import BadInput, Conflict, NotFound, TrimtabError
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.store import facts, models, webhooks
from trimtab.store.artifacts import PROXIED
from trimtab.store.ledger import Reader, Tx
from trimtab.store.packing import pack, unpack
from trimtab.store.tracking import parts, put_tags, tags_of

Stage = Literal["None", "Staging", "Production", "Archived"]
PROMPT, TEXT, VERSIONS = "mlflow.prompt.is_prompt", "mlflow.prompt.text", "mlflow.modelVersions"
_MARKS = (PROMPT, TEXT, "_mlflow_prompt_type")
"""The tags of a prompt that are not told as tags."""
LATEST = "latest"
"""The alias that no one sets: the newest version."""
_GONE = "deleted"
_PROXY = "mlflow-artifacts:"
_OF_MODEL = re.compile(r"models:/+(?:(m-[0-9a-f]{32})|([^/:@]+)/([1-9][0-9]{0,8})|([^/:@]+)@([\w-]+))")
_OF_RUN = re.compile(r"runs:/+([0-9a-zA-Z_-]+)/(.+)")


class ModelVersion(Struct, frozen=True, kw_only=True):
    """A version of a registered model as clients know it.

    Attributes:
        id: of the version that it is.
        model: the name of its model.
        source: what its client said it was made from; never read by the server.
        run_id: what its client said made it, 32 hex digits or empty; it need not be on record.
        aliases: those of the reader's environment.
    """

    id: str
    model: str
    number: int
    description: str
    stage: Stage
    status: str
    source: str
    run_id: str
    run_link: str
    model_id: str
    user_id: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]
    aliases: list[str]


class RegisteredModel(Struct, frozen=True, kw_only=True):
    """A name that clients keep versions under: a model, or a prompt.

    Attributes:
        id: of the asset that it is.
        aliases: alias -> number of its version, in the reader's environment.
        latest: the newest version of each stage.
    """

    id: str
    name: str
    description: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str]
    aliases: dict[str, int]
    latest: list[ModelVersion]


MODEL_COLUMNS = "a.id, a.name, r.description, r.created_ms, r.updated_ms"
MODELS = "registered r JOIN asset a ON a.id = r.asset_id"
VERSION_COLUMNS = (
    "n.version_id, a.name, n.number, n.description, n.stage, n.status, n.source, n.run_id, n.run_link, n.model_id,"
    " n.user_id, n.created_ms, n.updated_ms"
)
VERSIONS_FROM = "registered_version n JOIN asset a ON a.id = n.asset_id"


def create_registered(
    tx: Tx, name: str, *, description: str = "", tags: Mapping[str, str] | None = None, now_ms: int
) -> RegisteredModel:
    """Register a name.

    Args:
        tx: the transaction.
        name: of the model or prompt.
        description: of it.
        tags: its tags; one makes it a prompt.
        now_ms: when.

    Raises:
        Conflict: clients have registered it before.
        BadInput: it belongs to the pipeline, or to an endpoint.
    """
    tags = tags or {}
    need_free(tx, name, prompt=PROMPT in tags)
    ident, scope = f"ast_{new_hex()}", (tx.workspace, tx.environment)
    kind = "prompt" if PROMPT in tags else "model"
    tx.execute(
        "INSERT INTO asset(id, workspace, environment, name, kind, spec, created_at) VALUES (?,?,?,?,?,?,?)",
        (ident, *scope, name, kind, pack(facts.REGISTERED), now_ms * 1000),
    )
    tx.execute(
        "INSERT INTO registered(asset_id, workspace, environment, description, created_ms, updated_ms)"
        " VALUES (?,?,?,?,?,?)",
        (ident, *scope, description, now_ms, now_ms),
    )
    put_tags(tx, ident, tags)
    tx.note(ident, registered=name, kind=kind)
    told = {"name": name, "tags": _told_tags(tags), "description": description}
    webhooks.publish(tx, "registered_model.created", told, prompt=PROMPT in tags)
    return get_registered(tx, name)


def _told_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if PROMPT not in tags or name not in _MARKS}


def is_prompt(reader: Reader, asset_id: str) -> bool:
    """Say whether a registered model is a prompt."""
    return bool(reader.query("SELECT 1 FROM asset WHERE id=? AND kind='prompt'", (asset_id,)))


def need_free(tx: Tx, name: str, *, prompt: bool, itself: str = "") -> None:
    """Check that a name can be registered; ``itself`` is the asset that may have it already.

    Raises:
        Conflict: clients have registered it before.
        BadInput: it belongs to the pipeline, or to an endpoint.
    """
    sql = "SELECT id, kind, spec FROM asset WHERE workspace=? AND space='' AND name=?"
    for ident, kind, spec in tx.query(sql, (tx.workspace, name)):
        if ident == itself:
            return
        if facts.REGISTERED.items() <= unpack(spec).items():
            was, wanted = (("Prompt" if one else "Registered Model") for one in (kind == "prompt", prompt))
            text = f"{was} (name={name}) already exists."
            if was != wanted and not itself:
                text = (
                    f"Tried to create a {wanted.lower()} with name {name!r}, but the name is already taken by a"
                    f" {was.lower()}. MLflow does not allow creating a model and a prompt with the same name."
                )
            raise Conflict(text, where=name, fix="choose another name")
        raise _owned(name, kind)
    if tx.query("SELECT 1 FROM endpoint WHERE workspace=? AND name=?", (tx.workspace, name)):
        raise BadInput(f"{name!r} is an endpoint; register under another name", where="name")


def _owned(name: str, kind: str) -> BadInput:
    text = f"{name!r} is a {kind} that the project's pipeline makes; clients register under another name"
    return BadInput(text, where="name", fix="choose another name")


def get_registered(reader: Reader, name: str) -> RegisteredModel:
    """Return a registered model.

    Raises:
        NotFound: there is none.
    """
    ident = need_registered(reader, name)
    return models_of(reader, reader.query(f"SELECT {MODEL_COLUMNS} FROM {MODELS} WHERE r.asset_id=?", (ident,)))[0]


def need_registered(reader: Reader, name: str) -> str:
    """Return the id of the asset that a registered model is, and only that.

    Raises:
        NotFound: there is none.
    """
    sql = f"SELECT r.asset_id FROM {MODELS} WHERE a.workspace=? AND a.space='' AND a.name=?"
    rows = reader.query(sql, (reader.workspace, name))
    if not rows:
        raise NotFound(f"Registered Model with name={name} not found", where="name")
    return str(rows[0][0])


def models_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[RegisteredModel]:
    """Return registered models from rows that begin with ``MODEL_COLUMNS``."""
    ids = [row[0] for row in rows]
    tags = tags_of(reader, ids)
    aliases: dict[str, dict[str, int]] = {}
    latest: dict[str, list[ModelVersion]] = {}
    for part in parts(ids):
        marks = ",".join("?" * len(part))
        sql = (
            "SELECT l.asset_id, l.name, v.number FROM alias l JOIN version v ON v.id = l.version_id"
            f" WHERE l.environment=? AND l.asset_id IN ({marks}) ORDER BY l.asset_id, l.name"
        )
        for asset_id, alias, number in reader.query(sql, (reader.environment, *part)):
            aliases.setdefault(asset_id, {})[alias] = number
        sql = (
            f"SELECT {VERSION_COLUMNS}, n.asset_id FROM (SELECT asset_id, max(number) AS number FROM registered_version"
            f" WHERE asset_id IN ({marks}) AND deleted=0 GROUP BY asset_id, stage) AS newest"
            " JOIN registered_version n ON n.asset_id = newest.asset_id AND n.number = newest.number"
            " JOIN asset a ON a.id = n.asset_id ORDER BY n.asset_id, n.number"
        )
        found = reader.query(sql, part)
        for row, version in zip(found, versions_of(reader, found), strict=True):
            latest.setdefault(row[13], []).append(version)
    return [
        RegisteredModel(
            id=row[0], name=row[1], description=row[2], created_ms=row[3], updated_ms=row[4], tags=tags.get(row[0], {}),
            aliases=aliases.get(row[0], {}), latest=latest.get(row[0], []),
        )
        for row in rows
    ]  # fmt: skip


def rename_registered(tx: Tx, name: str, new_name: str, *, now_ms: int) -> RegisteredModel:
    """Give a registered model another name; its versions and aliases go with it.

    Raises:
        NotFound: there is none.
        Conflict: clients have registered the new name before.
        BadInput: it belongs to the pipeline, or to an endpoint.
    """
    ident = need_registered(tx, name)
    need_free(tx, new_name, prompt=False, itself=ident)
    tx.execute("UPDATE asset SET name=? WHERE id=?", (new_name, ident))
    tx.execute("UPDATE registered_version SET updated_ms=? WHERE asset_id=? AND deleted=0", (now_ms, ident))
    _touch(tx, ident, now_ms)
    tx.note(ident, registered=new_name, before=name)
    return get_registered(tx, new_name)


def describe_registered(tx: Tx, name: str, description: str, *, now_ms: int) -> RegisteredModel:
    """Replace a registered model's description.

    Raises:
        NotFound: there is none.
    """
    ident = need_registered(tx, name)
    sql = "UPDATE registered SET description=?, updated_ms=? WHERE asset_id=?"
    tx.execute(sql, (description, now_ms, ident))
    tx.note(ident, description="changed")
    return get_registered(tx, name)


def _touch(tx: Tx, asset_id: str, now_ms: int) -> None:
    tx.execute("UPDATE registered SET updated_ms=? WHERE asset_id=?", (now_ms, asset_id))


def delete_registered(tx: Tx, name: str) -> None:
    """Delete a registered model with its versions, and free its name; lineage keeps what was made.

    Raises:
        NotFound: there is none.
        BadInput: one of its versions is deployed or pinned.
    """
    ident = need_registered(tx, name)
    sql = "SELECT version_id, number FROM registered_version WHERE asset_id=? AND deleted=0 ORDER BY number"
    for version_id, number in tx.query(sql, (ident,)):
        _need_idle(tx, name, number, version_id)
    tx.execute("DELETE FROM alias WHERE asset_id=?", (ident,))
    tx.execute("UPDATE version SET state='refused' WHERE asset_id=?", (ident,))
    tx.execute("UPDATE registered_version SET deleted=1 WHERE asset_id=?", (ident,))
    tx.execute("DELETE FROM registered WHERE asset_id=?", (ident,))
    tx.execute("UPDATE asset SET space=?, name=? WHERE id=?", (_GONE, f"{name} ({ident})", ident))
    tx.note(ident, deleted=name)


def _need_idle(tx: Tx, name: str, number: int, version_id: str) -> None:
    """Refuse to take away what is served, or what somebody holds on to."""
    sql = (
        "SELECT e.name, d.number FROM deployment d JOIN endpoint e ON e.id = d.endpoint_id"
        " WHERE d.version_id=? AND (d.desired='up' OR d.state IN ('starting', 'ready', 'draining')) ORDER BY d.id"
    )
    about = f"Model Version (name={name}, version={number}) cannot be deleted:"
    for endpoint, deployment in tx.query(sql, (version_id,)):
        raise BadInput(f"{about} endpoint {endpoint} has it deployed (deployment {deployment})", where="version")
    for (reason,) in tx.query("SELECT reason FROM pin WHERE version_id=? ORDER BY reason", (version_id,)):
        raise BadInput(f"{about} it is pinned ({reason})", where="version")


def create_version(
    tx: Tx,
    name: str,
    *,
    source: str,
    run_id: str = "",
    run_link: str = "",
    model_id: str = "",
    description: str = "",
    tags: Mapping[str, str] | None = None,
    now_ms: int,
) -> ModelVersion:
    """Add the next version of a registered model, made by its run if that is on record.

    Args:
        tx: the transaction.
        name: of the model.
        source: where its files are, such as ``models:/m-..``; kept as it is, and resolved where it can be.
        run_id: 32 hex digits of the run that made it, or empty.
        run_link: where that run is shown.
        model_id: of the logged model that it is.
        description: of it.
        tags: its tags.
        now_ms: when.

    Raises:
        NotFound: there is no such registered model, or logged model.
        BadInput: the name belongs to the pipeline, or the source speaks of a model that is not there.
    """
    asset_id = _need_clients(tx, name)
    tags = tags or {}
    logged, root = _resolved(tx, source)
    if not run_id and logged:
        run_id = models.get_model(tx, logged).run_id
    if model_id:
        run_id = run_id or models.get_model(tx, model_id).run_id
    made_from, location = _content(tx, root, model_id or logged, tags)
    version_id, scope = f"ver_{new_hex()}", (tx.workspace, tx.environment)
    by = f"run_{run_id}"
    ledger_run = by if tx.query("SELECT 1 FROM tracked WHERE run_id=? AND workspace=?", (by, tx.workspace)) else ""
    sql = "SELECT coalesce(max(number), 0) + 1 FROM version WHERE asset_id=?"
    number = int(tx.query(sql, (asset_id,))[0][0])
    tx.execute(
        "INSERT INTO version(id, workspace, environment, asset_id, number, digest, run_id, state, location, meta,"
        " created_at) VALUES (?,?,?,?,?,?,?,'published',?,?,?)",
        (version_id, *scope, asset_id, number, made_from, ledger_run, pack(location), pack({}), now_ms * 1000),
    )
    if ledger_run:
        facts.add_made(tx, ledger_run, [version_id])
    tx.execute(
        "INSERT INTO registered_version(version_id, workspace, environment, asset_id, number, description, stage,"
        " status, source, run_id, run_link, model_id, user_id, created_ms, updated_ms)"
        " VALUES (?,?,?,?,?,?,'None','READY',?,?,?,?,'',?,?)",
        (version_id, *scope, asset_id, number, description, source, run_id, run_link, model_id, now_ms, now_ms),
    )
    put_tags(tx, version_id, tags)
    _touch(tx, asset_id, now_ms)
    if model_id and PROMPT not in tags:
        _tell_logged(tx, model_id, name, number)
    tx.note(version_id, version=f"{name}:{number}", source=source, digest=made_from)
    made = get_version(tx, name, number)
    _tell_made(tx, made)
    return made


def _tell_made(tx: Tx, made: ModelVersion) -> None:
    prompt = PROMPT in made.tags
    only = {"template": made.tags.get(TEXT)} if prompt else {"source": made.source, "run_id": made.run_id or None}
    told = {"name": made.model, "version": str(made.number), **only, "tags": _told_tags(made.tags)}
    told["description"] = made.description or None
    webhooks.publish(tx, "model_version.created", told, prompt=prompt)


def _need_clients(reader: Reader, name: str) -> str:
    """Return the id of a registered model, or say that the pipeline has the name."""
    try:
        return need_registered(reader, name)
    except NotFound:
        asset = facts.find_asset(reader, name)
        if asset is None:
            raise
        raise _owned(name, asset.kind) from None


def _resolved(reader: Reader, source: str) -> tuple[str, str]:
    """Return the logged model that a source means, if it means one, and where the files are."""
    try:
        of_model, of_run = _OF_MODEL.fullmatch(source), _OF_RUN.fullmatch(source)
        if of_model:
            return _resolved_model(reader, of_model)
        if source.startswith("models:"):
            raise BadInput(f"Not a proper models:/ URI: {source}.", where="source")
    except TrimtabError as error:
        text = f"Unable to fetch model from model URI source artifact location '{source}'.Error: {error.message}"
        raise BadInput(text, where="source") from error
    if of_run:
        run_id, path = of_run.groups()
        sql = (
            "SELECT model_id, root FROM logged_model WHERE run_id=? AND name=? AND workspace=? AND stage='active'"
            " ORDER BY created_ms DESC, model_id DESC LIMIT 1"
        )
        for model_id, root in reader.query(sql, (run_id, path, reader.workspace)):
            return model_id, root
        sql = "SELECT root FROM tracked WHERE run_id=? AND workspace=?"
        for (root,) in reader.query(sql, (f"run_{run_id}", reader.workspace)):
            return "", f"{root.rstrip('/')}/{path}"
    return "", source


def _resolved_model(reader: Reader, found: re.Match[str]) -> tuple[str, str]:
    model_id, name, number, aliased_name, alias = found.groups()
    if model_id:
        return model_id, models.get_model(reader, model_id).root
    version = aliased(reader, aliased_name, alias) if alias else get_version(reader, name, int(number))
    return version.model_id, root_of(reader, version)


def _content(tx: Tx, root: str, model_id: str, tags: Mapping[str, str]) -> tuple[str, Data]:
    """Return the digest of what a version holds, empty if that is not here, and where it is."""
    if TEXT in tags:
        text = {"text": tags[TEXT]}
        return digest(text), {**text, "root": root}
    if model_id:
        sql = "SELECT digest, location FROM version WHERE id=?"
        for known, location in tx.query(sql, (models.version_of(model_id),)):
            if known and unpack(location).get("root") == root:
                return str(known), unpack(location)
    if not root.startswith(_PROXY):
        return "", {"root": root}
    base = root.removeprefix(_PROXY).strip("/")
    sql = "SELECT path, blob FROM artifact WHERE root=? AND path>? AND path<? ORDER BY path"
    files = {path[len(base) + 1 :]: blob for path, blob in tx.query(sql, (PROXIED, f"{base}/", f"{base}0"))}
    return digest(files) if files else "", {"files": files, "root": root}


def _tell_logged(tx: Tx, model_id: str, name: str, number: int) -> None:
    """Note on a logged model which version it became, as its pages show it."""
    known = models.get_model(tx, model_id)
    try:
        before = msgspec.json.decode(known.tags.get(VERSIONS, "[]"), type=list[Data])
    except msgspec.MsgspecError:
        before = []
    told = [*before, {"name": name, "version": number}]
    # With the spaces that MLflow writes: its clients compare this text.
    put_tags(tx, known.version_id, {VERSIONS: json.dumps(told)})


def get_version(reader: Reader, name: str, number: int) -> ModelVersion:
    """Return a version of a registered model.

    Raises:
        NotFound: there is none, or it is deleted.
    """
    sql = (
        f"SELECT {VERSION_COLUMNS} FROM {VERSIONS_FROM}"
        " WHERE a.workspace=? AND a.space='' AND a.name=? AND n.number=? AND n.deleted=0"
    )
    rows = reader.query(sql, (reader.workspace, name, number))
    if not rows:
        raise NotFound(f"Model Version (name={name}, version={number}) not found", where="version")
    return versions_of(reader, rows)[0]


def versions_of(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[ModelVersion]:
    """Return versions from rows that begin with ``VERSION_COLUMNS``."""
    ids = [row[0] for row in rows]
    tags = tags_of(reader, ids)
    aliases: dict[str, list[str]] = {}
    for part in parts(ids):
        marks = ",".join("?" * len(part))
        sql = f"SELECT version_id, name FROM alias WHERE environment=? AND version_id IN ({marks}) ORDER BY name"
        for version_id, alias in reader.query(sql, (reader.environment, *part)):
            aliases.setdefault(version_id, []).append(alias)
    return [
        ModelVersion(
            id=row[0], model=row[1], number=row[2], description=row[3], stage=row[4], status=row[5], source=row[6],
            run_id=row[7], run_link=row[8], model_id=row[9], user_id=row[10], created_ms=row[11], updated_ms=row[12],
            tags=tags.get(row[0], {}), aliases=aliases.get(row[0], []),
        )
        for row in rows
    ]  # fmt: skip


def root_of(reader: Reader, version: ModelVersion) -> str:
    """Return where a version's files are, as a URI for its client; the source where nothing better is known."""
    location = unpack(reader.query("SELECT location FROM version WHERE id=?", (version.id,))[0][0])
    return str(location.get("root") or version.source)


def describe_version(tx: Tx, name: str, number: int, description: str, *, now_ms: int) -> ModelVersion:
    """Replace a version's description.

    Raises:
        NotFound: there is none.
    """
    known = get_version(tx, name, number)
    sql = "UPDATE registered_version SET description=?, updated_ms=? WHERE version_id=?"
    tx.execute(sql, (description, now_ms, known.id))
    tx.note(known.id, description="changed")
    return get_version(tx, name, number)


def move_version(tx: Tx, name: str, number: int, stage: Stage, *, archive: bool, now_ms: int) -> ModelVersion:
    """Put a version in a stage; ``archive`` moves the others that are there to Archived.

    Raises:
        NotFound: there is none.
    """
    assert stage in get_args(Stage)
    known = get_version(tx, name, number)
    ident = tx.query("SELECT asset_id FROM registered_version WHERE version_id=?", (known.id,))[0][0]
    if archive:
        tx.execute(
            "UPDATE registered_version SET stage='Archived', updated_ms=?"
            " WHERE asset_id=? AND stage=? AND version_id<>? AND deleted=0",
            (now_ms, ident, stage, known.id),
        )
    sql = "UPDATE registered_version SET stage=?, updated_ms=? WHERE version_id=?"
    tx.execute(sql, (stage, now_ms, known.id))
    _touch(tx, ident, now_ms)
    tx.note(known.id, stage=stage, before=known.stage)
    return get_version(tx, name, number)


def delete_version(tx: Tx, name: str, number: int, *, now_ms: int) -> None:
    """Delete a version and the aliases that point to it; its number is not given again.

    Raises:
        NotFound: there is none.
        BadInput: it is deployed or pinned.
    """
    known = get_version(tx, name, number)
    _need_idle(tx, name, number, known.id)
    tx.execute("DELETE FROM alias WHERE version_id=?", (known.id,))
    tx.execute("UPDATE registered_version SET deleted=1, updated_ms=? WHERE version_id=?", (now_ms, known.id))
    tx.execute("UPDATE version SET state='refused' WHERE id=?", (known.id,))
    _touch(tx, need_registered(tx, name), now_ms)
    tx.note(known.id, deleted=f"{name}:{number}")


def drop_alias(tx: Tx, name: str, alias: str) -> None:
    """Remove an alias of a registered model in this environment; one that is not there is gone already.

    Raises:
        NotFound: there is no such registered model.
    """
    ident = need_registered(tx, name)
    sql = "DELETE FROM alias WHERE environment=? AND asset_id=? AND name=? RETURNING version_id"
    for (version_id,) in tx.execute(sql, (tx.environment, ident, alias)):
        tx.note(version_id, alias=f"{name}@{alias}", removed=True)
        told = {"name": name, "alias": alias}
        webhooks.publish(tx, "model_version_alias.deleted", told, prompt=is_prompt(tx, ident))


def aliased(reader: Reader, name: str, alias: str) -> ModelVersion:
    """Return the version that an alias points to, or the newest one for ``latest`` in any case.

    Raises:
        NotFound: there is no such registered model, or it has no version yet.
        BadInput: it has no such alias.
    """
    ident = need_registered(reader, name)
    if alias.lower() == LATEST:
        sql = "SELECT max(number) FROM registered_version WHERE asset_id=? AND deleted=0"
        newest = reader.query(sql, (ident,))[0][0]
        if newest is None:
            raise NotFound(f"Latest version not found for model {name}.", where="name")
        return get_version(reader, name, newest)
    sql = (
        "SELECT v.number FROM alias l JOIN version v ON v.id = l.version_id"
        " WHERE l.environment=? AND l.asset_id=? AND l.name=?"
    )
    rows = reader.query(sql, (reader.environment, ident, alias))
    if not rows:
        raise BadInput(f"Registered model alias {alias} not found.", where="alias")
    return get_version(reader, name, rows[0][0])
