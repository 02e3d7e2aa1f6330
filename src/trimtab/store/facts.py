"""Assets, versions, runs, edges, metrics, verdicts and the cache: what was made, by what, from what."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import EllipsisType
from typing import Any, get_args

import msgspec
from msgspec import Struct

from trimtab.core.clock import from_micros, to_micros
from trimtab.core.digest import canonical
from trimtab.core.errors import Conflict, NotFound, WrongUse, closest
from trimtab.core.ids import new_id
from trimtab.core.metric import join_value
from trimtab.core.nouns import Asset, Data, Run, RunState, Verdict, Version, VersionState
from trimtab.core.ref import Ref, parse_ref
from trimtab.store.engine import ALL
from trimtab.store.ledger import Reader, Tx, Value, within
from trimtab.store.packing import pack as pack
from trimtab.store.packing import unpack as unpack
from trimtab.store.points import Point, add_points
from trimtab.store.webhooks import publish

_RUN_DATA = ("key_fields", "params", "code", "runtime", "error", "facts", "log")
_ENDED = get_args(RunState)[1:]
REGISTERED: Data = {"registered": True}
"""What the spec of an asset says whose versions only clients of the registry make; see ``store.registry``."""


class CacheEntry(Struct, frozen=True, kw_only=True):
    """What a step made for a key; ``asset`` holds the step's name, such as ``make:flights``."""

    key: str
    asset: str
    fields: Data
    run_id: str
    version_ids: tuple[str, ...]
    at: datetime


class Edge(Struct, frozen=True, kw_only=True):
    """A version met on a walk through the lineage, and the run by which it was met."""

    version: Version
    run: Run
    role: str
    depth: int


_ASSET = "SELECT id, name, kind, spec, created_at, workspace FROM asset"


def _asset(row: tuple[Any, ...]) -> Asset:
    return Asset(
        id=row[0],
        name=row[1],
        kind=row[2],
        spec=unpack(row[3]),
        created_at=from_micros(row[4]),
        workspace=row[5],
    )


def put_asset(tx: Tx, *, name: str, kind: str, spec: Data, at: datetime) -> Asset:
    """Insert an asset, or update its spec.

    Raises:
        Conflict: the name belongs to an asset of another kind, to an endpoint, or to clients of the registry.
    """
    known = find_asset(tx, name)
    if known is None:
        if tx.query("SELECT 1 FROM endpoint WHERE workspace=? AND name=?", (tx.workspace, name)):
            raise Conflict(f"{name!r} is an endpoint already", where=name, fix="choose another name")
        made = Asset(id=new_id("ast"), name=name, kind=kind, spec=spec, created_at=at, workspace=tx.workspace)
        tx.execute(
            "INSERT INTO asset(id, workspace, environment, name, kind, spec, created_at) VALUES (?,?,?,?,?,?,?)",
            (made.id, tx.workspace, tx.environment, name, kind, pack(spec), to_micros(at)),
        )
        tx.note(made.id, asset=name, kind=kind)
        return made
    _need_own(known)
    if known.kind != kind:
        raise Conflict(f"{name!r} is a {known.kind} already and cannot become a {kind}", fix="choose another name")
    if canonical(known.spec) != canonical(spec):
        tx.execute("UPDATE asset SET spec=? WHERE id=?", (pack(spec), known.id))
        tx.note(known.id, spec="changed")
        return msgspec.structs.replace(known, spec=spec)
    return known


def _need_own(asset: Asset) -> None:
    if REGISTERED.items() <= asset.spec.items():
        raise Conflict(
            f"{asset.name!r} is a {asset.kind} that clients have registered, and only they add versions to it",
            where=asset.name,
            fix="choose another name, or rename the registered one",
        )


def find_asset(reader: Reader, name: str) -> Asset | None:
    """Return the asset called ``name``, if there is one."""
    rows = reader.query(f"{_ASSET} WHERE workspace=? AND space='' AND name=?", (reader.workspace, name))
    return _asset(rows[0]) if rows else None


def list_assets(reader: Reader, kind: str = "") -> list[Asset]:
    """Return the assets, of one kind or all, by name."""
    where, params = (" AND kind=?", (kind,)) if kind else ("", ())
    return [
        _asset(row)
        for row in reader.query(
            f"{_ASSET} WHERE workspace=? AND space=''{where} ORDER BY name", (reader.workspace, *params)
        )
    ]


_VERSION = (
    "SELECT v.id, v.asset_id, a.name, a.kind, v.number, v.digest, v.run_id, v.state, v.location,"
    " v.meta, v.created_at, v.environment FROM version v JOIN asset a ON a.id = v.asset_id"
)


def _version(row: tuple[Any, ...]) -> Version:
    return Version(
        id=row[0], asset_id=row[1], asset=row[2], kind=row[3], number=row[4], digest=row[5], run_id=row[6],
        state=row[7], location=unpack(row[8]), meta=unpack(row[9]),
        created_at=from_micros(row[10]), environment=row[11],
    )  # fmt: skip


def add_version(
    tx: Tx,
    asset: Asset,
    *,
    digest: str,
    run_id: str,
    state: VersionState,
    location: Data,
    meta: Data,
    at: datetime,
) -> Version:
    """Insert the next version of an asset.

    Raises:
        WrongUse: ``state`` is not a version's state.
        Conflict: only clients of the registry add versions to this asset.
    """
    _need_own(asset)
    if state not in get_args(VersionState):
        raise WrongUse(f"{state!r} is not a version's state", where="state")
    number = int(tx.query("SELECT coalesce(max(number), 0) + 1 FROM version WHERE asset_id=?", (asset.id,))[0][0])
    made = Version(
        id=new_id("ver"), asset_id=asset.id, asset=asset.name, kind=asset.kind, number=number, digest=digest,
        run_id=run_id, state=state, location=location, meta=meta, created_at=at, environment=tx.environment,
    )  # fmt: skip
    tx.execute(
        "INSERT INTO version(id, workspace, environment, asset_id, number, digest, run_id, state, location, meta,"
        " created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (made.id, tx.workspace, tx.environment, asset.id, number, digest, run_id, state, pack(location), pack(meta),
         to_micros(at)),
    )  # fmt: skip
    tx.note(made.id, version=made.ref, digest=digest, state=state)
    return made


def get_version(reader: Reader, version_id: str) -> Version:
    """Return the version with this id.

    Raises:
        NotFound: there is none.
    """
    rows = reader.query(f"{_VERSION} WHERE v.id=?", (version_id,))
    if not rows:
        raise NotFound(f"there is no version {version_id}", where=version_id)
    return _version(rows[0])


def list_versions(reader: Reader, name: str) -> list[Version]:
    """Return all versions of an asset in this environment, oldest first."""
    sql = f"{_VERSION} WHERE a.workspace=? AND a.space='' AND a.name=? AND v.environment=? ORDER BY v.number"
    return [_version(row) for row in reader.query(sql, (reader.workspace, name, reader.environment))]


def _latest(reader: Reader, name: str, state: str) -> Version | None:
    where = "AND v.state=?" if state else ""
    named = f"{_VERSION} WHERE a.workspace=? AND a.space='' AND a.name=? AND v.environment=?"
    sql = f"{named} {where} ORDER BY v.number DESC LIMIT 1"
    params = (reader.workspace, name, reader.environment, *((state,) if state else ()))
    rows = reader.query(sql, params)
    return _version(rows[0]) if rows else None


def current(reader: Reader, name: str) -> Version | None:
    """Return the newest published version of an asset in this environment."""
    return _latest(reader, name, "published")


def newest(reader: Reader, name: str) -> Version | None:
    """Return the newest version of an asset, whatever its state."""
    return _latest(reader, name, "")


def set_version_state(tx: Tx, version_id: str, state: VersionState) -> None:
    """Publish or refuse a candidate.

    Raises:
        Conflict: the version is not a candidate.
    """
    have = get_version(tx, version_id).state
    if have != "candidate" or state == "candidate":
        raise Conflict(f"version {version_id} is {have} and cannot become {state}")
    tx.execute("UPDATE version SET state=? WHERE id=?", (state, version_id))
    tx.note(version_id, state=state)


def resolve(reader: Reader, ref: str | Ref) -> Version:
    """Return the version that a reference means.

    A bare name means the current version (before the first was published: the newest), a number means the same
    in every environment, an alias the one of the reference's environment, or of the reader's.

    Raises:
        NotFound: there is no such asset (the closest is named), alias or number.
    """
    parsed = parse_ref(ref) if isinstance(ref, str) else ref
    if parsed.id:
        return get_version(reader, parsed.id)
    reader = within(reader, workspace=parsed.workspace, environment=parsed.environment)
    name = parsed.name
    if find_asset(reader, name) is None:
        known = [asset.name for asset in list_assets(reader)]
        raise NotFound(f"there is no asset {name!r}{closest(name, known)}", where=str(parsed), fix="trimtab list")
    if parsed.alias:
        found = alias_of(reader, name, parsed.alias)
        if found is None:
            have = aliases(reader, name)
            raise NotFound(
                f"{name} has no alias {parsed.alias!r}{closest(parsed.alias, have)}",
                where=str(parsed),
                fix=f"one of {', '.join(have)}" if have else "it has none yet",
            )
        return found
    if parsed.number:
        sql = f"{_VERSION} WHERE a.workspace=? AND a.space='' AND a.name=? AND v.number=?"
        rows = reader.query(sql, (reader.workspace, name, parsed.number))
        if not rows:
            raise NotFound(f"{name} has no version {parsed.number}", where=str(parsed), fix=f"trimtab show {name}")
        return _version(rows[0])
    found = current(reader, name) or newest(reader, name)
    if found is None:
        raise NotFound(f"{name} was never made", where=str(parsed), fix=f"trimtab run {name}")
    return found


def set_alias(tx: Tx, asset_name: str, alias: str, version_id: str, *, expect: str | EllipsisType | None = ...) -> None:
    """Point an alias to a version; ``expect`` is the version id (None: no alias) that must stand there now.

    Raises:
        Conflict: something else stands there.
        WrongUse: the version is not one of this asset, or the alias is named like an environment.
    """
    version = get_version(tx, version_id)
    kinds = tx.query(
        "SELECT a.kind FROM registered r JOIN asset a ON a.id = r.asset_id WHERE r.asset_id=?", (version.asset_id,)
    )
    sql = "SELECT 1 FROM environment WHERE workspace=? AND name=?"
    # What clients register they name by their own habits (ADR 9); the project's own names stay unmistakable.
    if not kinds and (alias in ("dev", "test", "prod") or tx.query(sql, (tx.workspace, alias))):
        raise WrongUse(f"an alias cannot be named like the environment {alias!r}", where=alias)
    if version.asset != asset_name:
        raise WrongUse(f"{version.ref} is not a version of {asset_name}", where=version_id)
    have = alias_of(tx, asset_name, alias)
    have_id = have.id if have else None
    if expect is not ... and expect != have_id:
        raise Conflict(
            f"{asset_name}@{alias} is {have.ref if have else 'unset'}, not what was expected", fix="read it again"
        )
    tx.execute(
        "INSERT INTO alias(workspace, environment, asset_id, name, version_id, epoch) VALUES (?,?,?,?,?,1)"
        " ON CONFLICT (environment, asset_id, name) DO UPDATE SET version_id=excluded.version_id, epoch=alias.epoch+1",
        (tx.workspace, tx.environment, version.asset_id, alias, version_id),
    )
    tx.note(version_id, alias=f"{asset_name}@{alias}", before=have_id)
    for (kind,) in kinds:
        told = {"name": asset_name, "alias": alias, "version": str(version.number)}
        publish(tx, "model_version_alias.created", told, prompt=kind == "prompt")


def alias_of(reader: Reader, asset_name: str, alias: str) -> Version | None:
    """Return the version that an alias points to, if it is set."""
    found = aliases(reader, asset_name).get(alias)
    return get_version(reader, found) if found else None


def aliases(reader: Reader, asset_name: str) -> dict[str, str]:
    """Return alias -> version id of an asset in this environment."""
    sql = (
        "SELECT l.name, l.version_id FROM alias l JOIN asset a ON a.id = l.asset_id"
        " WHERE a.workspace=? AND a.space='' AND a.name=? AND l.environment=? ORDER BY l.name"
    )
    return {name: version for name, version in reader.query(sql, (reader.workspace, asset_name, reader.environment))}


_RUN = (
    "SELECT id, kind, name, state, started_at, ended_at, actor, parent_id, attempt, key, seed, data, environment,"
    " workspace FROM run"
)


def _run(row: tuple[Any, ...]) -> Run:
    return Run(
        id=row[0], kind=row[1], name=row[2], state=row[3], started_at=from_micros(row[4]),
        ended_at=None if row[5] is None else from_micros(row[5]), actor=row[6], parent_id=row[7], attempt=row[8],
        key=row[9], seed=row[10], environment=row[12], workspace=row[13], **unpack(row[11]),
    )  # fmt: skip


def start_run(tx: Tx, run: Run) -> None:
    """Insert a run; one that is over already (a recorded act) comes with its end.

    Raises:
        WrongUse: its state is none, or does not go with its end.
    """
    if run.state not in get_args(RunState) or (run.state == "running") != (run.ended_at is None):
        raise WrongUse(f"a run that is {run.state!r} cannot have ended at {run.ended_at}", where=run.id)
    if run.ended_at is not None and run.ended_at < run.started_at:
        raise WrongUse(f"run {run.id} cannot end before it started", where="ended_at")
    data = {name: getattr(run, name) for name in _RUN_DATA}
    tx.execute(
        "INSERT INTO run(id, workspace, environment, kind, name, state, started_at, ended_at, actor, parent_id,"
        " attempt, key, seed, data) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (run.id, tx.workspace, tx.environment, run.kind, run.name, run.state, to_micros(run.started_at),
         None if run.ended_at is None else to_micros(run.ended_at), run.actor, run.parent_id, run.attempt, run.key,
         run.seed, pack(data)),
    )  # fmt: skip
    tx.note(run.id, run=run.kind, name=run.name, state=run.state, key=run.key)


def finish_run(
    tx: Tx,
    run_id: str,
    *,
    state: RunState,
    ended_at: datetime,
    error: Data | None = None,
    facts: Data | None = None,
    log: str = "",
    params: Data | None = None,
) -> None:
    """End a run that is running; facts and params are added to what it has.

    Raises:
        NotFound: there is no such run.
        Conflict: it has ended before, or would end before it started.
    """
    run = get_run(tx, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    if run.state != "running" or state not in _ENDED:
        raise Conflict(f"run {run_id} is {run.state} and cannot become {state}")
    if ended_at < run.started_at:
        raise Conflict(f"run {run_id} cannot end before it started")
    data = {name: getattr(run, name) for name in _RUN_DATA}
    data.update(error=error or {}, facts={**run.facts, **(facts or {})}, log=log or run.log)
    data["params"] = {**run.params, **(params or {})}
    tx.execute(
        "UPDATE run SET state=?, ended_at=?, data=?, holder='' WHERE id=?",
        (state, to_micros(ended_at), pack(data), run_id),
    )
    tx.note(run_id, state=state)


def get_run(reader: Reader, run_id: str) -> Run | None:
    """Return the run with this id, if there is one."""
    rows = reader.query(f"{_RUN} WHERE id=?", (run_id,))
    return _run(rows[0]) if rows else None


def list_runs(
    reader: Reader, *, kind: str = "", name: str = "", state: str = "", parent: str = "", limit: int = 0
) -> list[Run]:
    """Return runs, newest first; ``limit`` 0 means all."""
    wanted = {"kind": kind, "name": name, "state": state, "parent_id": parent}
    picked = {column: value for column, value in wanted.items() if value}
    where = "".join(f" AND {column}=?" for column in picked)
    sql = f"{_RUN} WHERE workspace=? AND environment=?{where} ORDER BY id DESC LIMIT ?"
    params: list[Value] = [reader.workspace, reader.environment, *picked.values(), limit or ALL]
    return [_run(row) for row in reader.query(sql, params)]


def add_used(tx: Tx, run_id: str, uses: Iterable[tuple[str, str]]) -> None:
    """Record that a run used versions, each ``(version id, role)``."""
    for version_id, role in uses:
        tx.execute(
            "INSERT OR IGNORE INTO used(run_id, version_id, workspace, environment, role) VALUES (?,?,?,?,?)",
            (run_id, version_id, tx.workspace, tx.environment, role),
        )


def add_made(tx: Tx, run_id: str, version_ids: Iterable[str]) -> None:
    """Record that a run made versions."""
    for version_id in version_ids:
        tx.execute(
            "INSERT OR IGNORE INTO made(run_id, version_id, workspace, environment) VALUES (?,?,?,?)",
            (run_id, version_id, tx.workspace, tx.environment),
        )


def used_by(reader: Reader, run_id: str) -> list[tuple[Version, str]]:
    """Return what a run used, each with its role."""
    joined = _VERSION.replace(" FROM version v", ", u.role FROM used u JOIN version v ON v.id = u.version_id")
    sql = f"{joined} WHERE u.run_id=? ORDER BY u.role"
    return [(_version(row[:-1]), row[-1]) for row in reader.query(sql, (run_id,))]


def made_by(reader: Reader, run_id: str) -> list[Version]:
    """Return what a run made."""
    sql = f"{_VERSION} JOIN made m ON m.version_id = v.id WHERE m.run_id=? ORDER BY v.id"
    return [_version(row) for row in reader.query(sql, (run_id,))]


def users_of(reader: Reader, version_id: str) -> list[Run]:
    """Return the runs that used a version, newest first."""
    sql = f"{_RUN} WHERE id IN (SELECT run_id FROM used WHERE version_id=?) ORDER BY id DESC"
    return [_run(row) for row in reader.query(sql, (version_id,))]


def add_metrics(tx: Tx, run_id: str, metrics: Iterable[tuple[str, int, float]], at: datetime) -> None:
    """Record metrics, each ``(name, step, value)``, exactly; the last of the highest step is the metric's latest."""
    points = [Point(name=name, value=value, step=step, at=to_micros(at)) for name, step, value in metrics]
    add_points(tx, run_id, points, lambda point: point.step)


def metrics_of(reader: Reader, run_id: str) -> dict[str, float]:
    """Return the latest value of each metric of a run."""
    sql = "SELECT name, value, kind FROM latest WHERE subject=? ORDER BY name"
    return {name: join_value(value, kind) for name, value, kind in reader.query(sql, (run_id,))}


_VERDICT = "SELECT id, name, kind, status, subject, run_id, evidence, reason, at FROM verdict"


def _verdict(row: tuple[Any, ...]) -> Verdict:
    return Verdict(
        id=row[0], check=row[1], kind=row[2], status=row[3], subject=row[4], run_id=row[5], evidence=unpack(row[6]),
        reason=row[7], at=from_micros(row[8]),
    )  # fmt: skip


def add_verdict(tx: Tx, verdict: Verdict) -> Verdict:
    """Insert a verdict and return it with its id."""
    made = msgspec.structs.replace(verdict, id=verdict.id or new_id("vrd"))
    tx.execute(
        "INSERT INTO verdict(id, workspace, environment, name, kind, status, subject, run_id, evidence, reason, at)"
        " VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (made.id, tx.workspace, tx.environment, made.check, made.kind, made.status, made.subject, made.run_id,
         pack(made.evidence), made.reason, to_micros(made.at)),
    )  # fmt: skip
    tx.note(made.subject, verdict=made.check, status=made.status)
    return made


def verdicts_of(reader: Reader, subject: str) -> list[Verdict]:
    """Return the verdicts about a subject, oldest first."""
    return [_verdict(row) for row in reader.query(f"{_VERDICT} WHERE subject=? ORDER BY id", (subject,))]


def verdicts_by(reader: Reader, run_id: str) -> list[Verdict]:
    """Return the verdicts of a run, oldest first."""
    return [_verdict(row) for row in reader.query(f"{_VERDICT} WHERE run_id=? ORDER BY id", (run_id,))]


_CACHE = "SELECT key, asset, fields, run_id, versions, at FROM cache WHERE workspace=? AND environment=?"


def _entry(row: tuple[Any, ...]) -> CacheEntry:
    return CacheEntry(
        key=row[0], asset=row[1], fields=unpack(row[2]), run_id=row[3], version_ids=tuple(unpack(row[4])),
        at=from_micros(row[5]),
    )  # fmt: skip


def cache_get(reader: Reader, key: str) -> CacheEntry | None:
    """Return what was made for a key, if anything was."""
    rows = reader.query(f"{_CACHE} AND key=?", (reader.workspace, reader.environment, key))
    return _entry(rows[0]) if rows else None


def cache_put(tx: Tx, entry: CacheEntry) -> None:
    """Remember what was made for a key; the newest entry of a key stands."""
    tx.execute(
        "INSERT OR REPLACE INTO cache(key, workspace, environment, asset, fields, run_id, versions, at)"
        " VALUES (?,?,?,?,?,?,?,?)",
        (entry.key, tx.workspace, tx.environment, entry.asset, pack(entry.fields), entry.run_id,
         pack(list(entry.version_ids)), to_micros(entry.at)),
    )  # fmt: skip


def last_cache(reader: Reader, asset: str, op: str) -> CacheEntry | None:
    """Return the newest cache entry of a step."""
    sql = f"{_CACHE} AND asset=? ORDER BY at DESC, run_id DESC LIMIT 1"
    rows = reader.query(sql, (reader.workspace, reader.environment, f"{op}:{asset}"))
    return _entry(rows[0]) if rows else None


# CROSS JOIN keeps SQLite to the order of the join: from the versions met so far outwards, by index.
_UP = """WITH RECURSIVE walk(id) AS (SELECT id FROM version WHERE id=? UNION
  SELECT u.version_id FROM walk w CROSS JOIN made m ON m.version_id = w.id CROSS JOIN used u ON u.run_id = m.run_id),
step(source, target, run_id, role) AS (SELECT w.id, u.version_id, u.run_id, u.role
  FROM walk w CROSS JOIN made m ON m.version_id = w.id CROSS JOIN used u ON u.run_id = m.run_id)"""

_DOWN = """WITH RECURSIVE walk(id) AS (SELECT id FROM version WHERE id=? UNION
  SELECT m.version_id FROM walk w CROSS JOIN used u ON u.version_id = w.id CROSS JOIN made m ON m.run_id = u.run_id),
step(source, target, run_id, role) AS (SELECT w.id, m.version_id, m.run_id, u.role
  FROM walk w CROSS JOIN used u ON u.version_id = w.id CROSS JOIN made m ON m.run_id = u.run_id)"""


def ancestors(reader: Reader, version_id: str) -> list[Edge]:
    """Return every version that this one was made from, with the run that used it, nearest first."""
    return _edges(reader, _UP, version_id)


def descendants(reader: Reader, version_id: str) -> list[Edge]:
    """Return every version that was made from this one, with the run that made it, nearest first."""
    return _edges(reader, _DOWN, version_id)


def _edges(reader: Reader, walk: str, start: str) -> list[Edge]:
    steps: dict[str, list[tuple[str, str, str]]] = {}
    sql = f"{walk} SELECT source, target, run_id, role FROM step WHERE source <> target"
    for source, target, run_id, role in reader.query(sql, (start,)):
        steps.setdefault(source, []).append((target, run_id, role))
    sql = f"{walk} {_VERSION} WHERE v.id IN (SELECT id FROM walk)"
    versions = {row[0]: _version(row) for row in reader.query(sql, (start,))}
    sql = f"{walk} {_RUN} WHERE id IN (SELECT run_id FROM step)"
    runs = {row[0]: _run(row) for row in reader.query(sql, (start,))}
    depths = {start: 0}
    waiting = [start]
    found: dict[tuple[str, str, str], int] = {}
    for version_id in waiting:  # grows while it is walked: breadth first, so the first depth is the least
        for target, run_id, role in steps.get(version_id, ()):
            found.setdefault((target, run_id, role), depths[version_id] + 1)
            if target not in depths:
                depths[target] = depths[version_id] + 1
                waiting.append(target)
    order = sorted(found.items(), key=lambda item: (item[1], item[0]))
    return [
        Edge(version=versions[version_id], run=runs[run_id], role=role, depth=depth)
        for (version_id, run_id, role), depth in order
    ]


def add_grant(tx: Tx, digest: str, format: str, run_id: str, by: str, at: datetime) -> None:
    """Allow workers to read content of a code-running format, by its digest; audited."""
    tx.execute(
        'INSERT OR IGNORE INTO "grant"(digest, workspace, environment, format, run_id, by, at) VALUES (?,?,?,?,?,?,?)',
        (digest, tx.workspace, tx.environment, format, run_id, by, to_micros(at)),
    )
    tx.note(digest, grant=format, run=run_id, by=by)


def is_granted(reader: Reader, digest: str) -> bool:
    """Say whether content of a code-running format may be read in workers."""
    return bool(reader.query('SELECT 1 FROM "grant" WHERE workspace=? AND digest=?', (reader.workspace, digest)))
