"""What is live: endpoints, deployments, traffic, rollouts, automations, firings, alarms, cases and check state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from trimtab.core.clock import from_micros, to_micros
from trimtab.core.digest import canonical
from trimtab.core.errors import Conflict, NotFound, WrongUse, closest
from trimtab.core.ids import new_id
from trimtab.core.nouns import Automation, Case, Data, Deployment, DeploymentState, Endpoint
from trimtab.store.ledger import Reader, Tx
from trimtab.store.packing import pack, unpack

RolloutState = Literal["starting", "stepping", "paused", "watching", "promoted", "rolled_back", "failed"]
FiringState = Literal["pending", "running", "done", "failed"]
ACTIVE = ("starting", "stepping", "paused", "watching")


class RolloutRow(Struct, frozen=True, kw_only=True):
    """One rollout: from a stable deployment (or none) to a candidate, and how far it has come."""

    id: str
    endpoint_id: str
    run_id: str
    state: RolloutState
    stable_id: str
    candidate_id: str
    data: Data
    updated_at: datetime


class Firing(Struct, frozen=True, kw_only=True):
    """One time that an automation fired; ``key`` says for what and is unique within the automation."""

    id: str
    automation_id: str
    key: str
    state: FiringState
    at: datetime
    data: Data
    run_id: str = ""


class Alarm(Struct, frozen=True, kw_only=True):
    """One alarm that a monitor raised."""

    id: str
    check: str
    endpoint_id: str
    at: datetime
    data: Data
    resolved_at: datetime | None = None


def _check_state(state: str, states: Any) -> None:
    if state not in get_args(states):
        raise WrongUse(f"{state!r} is not a state", where="state", fix=f"one of {', '.join(get_args(states))}")


_ENDPOINT = "SELECT id, name, spec, traffic, epoch, created_at, environment, workspace FROM endpoint"


def _endpoint(row: tuple[Any, ...]) -> Endpoint:
    return Endpoint(
        id=row[0], name=row[1], spec=unpack(row[2]), traffic=unpack(row[3]), epoch=row[4],
        created_at=from_micros(row[5]), environment=row[6], workspace=row[7],
    )  # fmt: skip


def put_endpoint(tx: Tx, *, name: str, spec: Data, at: datetime) -> Endpoint:
    """Insert an endpoint without traffic, or update its spec.

    Raises:
        Conflict: the name belongs to an asset.
    """
    known = find_endpoint(tx, name)
    if known is not None:
        if canonical(known.spec) != canonical(spec):
            tx.execute("UPDATE endpoint SET spec=? WHERE id=?", (pack(spec), known.id))
            tx.note(known.id, spec="changed")
        return msgspec.structs.replace(known, spec=spec)
    kind = tx.query("SELECT kind FROM asset WHERE workspace=? AND space='' AND name=?", (tx.workspace, name))
    if kind:
        raise Conflict(f"{name!r} is a {kind[0][0]} already", where=name, fix="choose another name")
    made_id = new_id("end")
    tx.execute(
        "INSERT INTO endpoint(id, workspace, environment, name, spec, traffic, epoch, created_at)"
        " VALUES (?,?,?,?,?,?,0,?)",
        (made_id, tx.workspace, tx.environment, name, pack(spec), pack({}), to_micros(at)),
    )
    tx.note(made_id, endpoint=name)
    return get_endpoint(tx, made_id)


def find_endpoint(reader: Reader, name: str) -> Endpoint | None:
    """Return the endpoint called ``name`` in this environment, if there is one."""
    sql = f"{_ENDPOINT} WHERE workspace=? AND environment=? AND name=?"
    rows = reader.query(sql, (reader.workspace, reader.environment, name))
    return _endpoint(rows[0]) if rows else None


def need_endpoint(reader: Reader, name: str) -> Endpoint:
    """Return the endpoint called ``name``.

    Raises:
        NotFound: there is none; the closest is named.
    """
    found = find_endpoint(reader, name)
    if found is None:
        known = [endpoint.name for endpoint in list_endpoints(reader)]
        raise NotFound(f"there is no endpoint {name!r}{closest(name, known)}", fix="trimtab apply makes declared ones")
    return found


def get_endpoint(reader: Reader, endpoint_id: str) -> Endpoint:
    """Return the endpoint with this id.

    Raises:
        NotFound: there is none.
    """
    rows = reader.query(f"{_ENDPOINT} WHERE id=?", (endpoint_id,))
    if not rows:
        raise NotFound(f"there is no endpoint {endpoint_id}", where=endpoint_id)
    return _endpoint(rows[0])


def list_endpoints(reader: Reader) -> list[Endpoint]:
    """Return the endpoints of this environment, by name."""
    sql = f"{_ENDPOINT} WHERE workspace=? AND environment=? ORDER BY name"
    return [_endpoint(row) for row in reader.query(sql, (reader.workspace, reader.environment))]


def set_traffic(tx: Tx, endpoint_id: str, traffic: Mapping[str, float], *, expect_epoch: int) -> Endpoint:
    """Split an endpoint's traffic over its ready deployments.

    Args:
        tx: the transaction.
        endpoint_id: the endpoint.
        traffic: deployment id -> percent; sums to 0 or 100; zeros are dropped.
        expect_epoch: the epoch that was read before.

    Raises:
        Conflict: somebody changed the traffic first.
        WrongUse: the shares do not sum to 0 or 100, or a deployment is not this endpoint's or not ready.
    """
    endpoint = get_endpoint(tx, endpoint_id)
    if endpoint.epoch != expect_epoch:
        raise Conflict(
            f"traffic of {endpoint.name} has changed (epoch {endpoint.epoch}, not {expect_epoch})",
            where=endpoint_id,
            fix="read it again",
        )
    shares = {name: float(share) for name, share in traffic.items() if share}
    total = sum(shares.values())
    # "not <=" rather than ">": a NaN compares as false and must be refused.
    if any(share < 0 for share in shares.values()) or not min(abs(total), abs(total - 100)) <= 1e-9:
        raise WrongUse(
            f"traffic of {endpoint.name} would sum to {total:.12g}", fix="shares are percent and sum to 0 or 100"
        )
    for deployment_id in shares:
        deployment = get_deployment(tx, deployment_id)
        if deployment.endpoint_id != endpoint_id:
            raise WrongUse(f"deployment {deployment.number} belongs to another endpoint", where=deployment_id)
        if deployment.state != "ready":
            raise WrongUse(
                f"deployment {deployment.number} of {endpoint.name} is {deployment.state}",
                where=deployment_id,
                fix="send traffic to it when it is ready",
            )
    tx.execute("UPDATE endpoint SET traffic=?, epoch=epoch+1 WHERE id=?", (pack(shares), endpoint_id))
    tx.note(endpoint_id, traffic=shares, before=endpoint.traffic)
    return msgspec.structs.replace(endpoint, traffic=shares, epoch=endpoint.epoch + 1)


_DEPLOYMENT = "SELECT id, endpoint_id, number, version_id, runtime, desired, state, reason, created_at FROM deployment"


def _deployment(row: tuple[Any, ...]) -> Deployment:
    return Deployment(
        id=row[0], endpoint_id=row[1], number=row[2], version_id=row[3], runtime=unpack(row[4]), desired=row[5],
        state=row[6], reason=row[7], created_at=from_micros(row[8]),
    )  # fmt: skip


def add_deployment(tx: Tx, *, endpoint_id: str, version_id: str, runtime: Data, at: datetime) -> Deployment:
    """Insert a deployment that should come up."""
    number = int(
        tx.query("SELECT coalesce(max(number), 0) + 1 FROM deployment WHERE endpoint_id=?", (endpoint_id,))[0][0]
    )
    made_id = new_id("dep")
    tx.execute(
        "INSERT INTO deployment(id, workspace, environment, endpoint_id, number, version_id, runtime, desired, state,"
        " reason, created_at) VALUES (?,?,?,?,?,?,?,'up','starting','',?)",
        (
            made_id,
            tx.workspace,
            tx.environment,
            endpoint_id,
            number,
            version_id,
            pack(runtime),
            to_micros(at),
        ),
    )
    tx.note(made_id, deployment=number, endpoint=endpoint_id, version=version_id)
    return get_deployment(tx, made_id)


def get_deployment(reader: Reader, deployment_id: str) -> Deployment:
    """Return the deployment with this id.

    Raises:
        NotFound: there is none.
    """
    rows = reader.query(f"{_DEPLOYMENT} WHERE id=?", (deployment_id,))
    if not rows:
        raise NotFound(f"there is no deployment {deployment_id}", where=deployment_id)
    return _deployment(rows[0])


def list_deployments(reader: Reader, endpoint_id: str = "") -> list[Deployment]:
    """Return deployments of one endpoint, or of all in this environment, oldest first."""
    where, params = ("endpoint_id=?", (endpoint_id,)) if endpoint_id else (
        "workspace=? AND environment=?", (reader.workspace, reader.environment)
    )  # fmt: skip
    return [_deployment(row) for row in reader.query(f"{_DEPLOYMENT} WHERE {where} ORDER BY id", params)]


def set_desired(tx: Tx, deployment_id: str, desired: Literal["up", "down"]) -> None:
    """Say whether a deployment should be up.

    Raises:
        Conflict: it has traffic and should go down.
    """
    deployment = get_deployment(tx, deployment_id)
    if desired == "down" and get_endpoint(tx, deployment.endpoint_id).traffic.get(deployment_id):
        raise Conflict(f"deployment {deployment.number} has traffic", fix="move its traffic first")
    tx.execute("UPDATE deployment SET desired=? WHERE id=?", (desired, deployment_id))
    if desired == "up" and deployment.state in ("stopped", "failed"):
        tx.execute("UPDATE deployment SET state='starting', reason='' WHERE id=?", (deployment_id,))
    tx.note(deployment_id, desired=desired)


def set_deployment_state(tx: Tx, deployment_id: str, state: DeploymentState, reason: str = "") -> None:
    """Say what is true of a deployment, and why.

    Raises:
        NotFound: there is no such deployment.
        WrongUse: ``state`` is none of a deployment's.
    """
    _check_state(state, DeploymentState)
    get_deployment(tx, deployment_id)
    tx.execute("UPDATE deployment SET state=?, reason=? WHERE id=?", (state, reason, deployment_id))
    tx.note(deployment_id, state=state, reason=reason)


_ROLLOUT = "SELECT id, endpoint_id, run_id, state, stable_id, candidate_id, data, updated_at FROM rollout"


def _rollout(row: tuple[Any, ...]) -> RolloutRow:
    return RolloutRow(
        id=row[0], endpoint_id=row[1], run_id=row[2], state=row[3], stable_id=row[4], candidate_id=row[5],
        data=unpack(row[6]), updated_at=from_micros(row[7]),
    )  # fmt: skip


def add_rollout(tx: Tx, row: RolloutRow) -> None:
    """Insert a rollout.

    Raises:
        Conflict: the endpoint has another one under way.
    """
    _check_state(row.state, RolloutState)
    active = active_rollout(tx, row.endpoint_id)
    if active is not None and row.state in ACTIVE:
        raise Conflict(f"rollout {active.id} of this endpoint is still {active.state}")
    tx.execute(
        "INSERT INTO rollout(id, workspace, environment, endpoint_id, run_id, state, stable_id, candidate_id, data,"
        " updated_at) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (row.id, tx.workspace, tx.environment, row.endpoint_id, row.run_id, row.state, row.stable_id, row.candidate_id,
         pack(row.data), to_micros(row.updated_at)),
    )  # fmt: skip
    tx.note(row.id, rollout=row.endpoint_id, state=row.state)


def update_rollout(tx: Tx, row: RolloutRow, expect_state: RolloutState | None = None) -> None:
    """Write a rollout's state and data.

    Raises:
        NotFound: there is no such rollout.
        Conflict: it is not in the state that was expected, or it is over.
    """
    _check_state(row.state, RolloutState)
    found = tx.query("SELECT state FROM rollout WHERE id=?", (row.id,))
    if not found:
        raise NotFound(f"there is no rollout {row.id}", where=row.id)
    have = found[0][0]
    if have != (expect_state or have):
        raise Conflict(f"rollout {row.id} is {have}, not {expect_state}", where=row.id, fix="read it again")
    if have not in ACTIVE and row.state != have:
        raise Conflict(f"rollout {row.id} is {have} and cannot become {row.state}", where=row.id)
    tx.execute(
        "UPDATE rollout SET state=?, data=?, updated_at=? WHERE id=?",
        (row.state, pack(row.data), to_micros(row.updated_at), row.id),
    )
    tx.note(row.id, state=row.state)


def active_rollout(reader: Reader, endpoint_id: str) -> RolloutRow | None:
    """Return the rollout of an endpoint that is under way, if one is."""
    rows = reader.query(
        f"{_ROLLOUT} WHERE endpoint_id=? AND state IN (?,?,?,?) ORDER BY id DESC LIMIT 1",
        (endpoint_id, *ACTIVE),
    )
    return _rollout(rows[0]) if rows else None


def list_rollouts(reader: Reader, endpoint_id: str) -> list[RolloutRow]:
    """Return the rollouts of an endpoint, oldest first."""
    return [_rollout(row) for row in reader.query(f"{_ROLLOUT} WHERE endpoint_id=? ORDER BY id", (endpoint_id,))]


def put_automation(tx: Tx, *, name: str, spec: Data, enabled: bool, at: datetime) -> Automation:
    """Insert or update an automation."""
    tx.execute(
        "INSERT INTO automation(id, workspace, environment, name, spec, enabled, created_at) VALUES (?,?,?,?,?,?,?)"
        " ON CONFLICT (workspace, environment, name) DO UPDATE SET spec=excluded.spec, enabled=excluded.enabled",
        (new_id("aut"), tx.workspace, tx.environment, name, pack(spec), int(enabled), to_micros(at)),
    )
    made = next(one for one in list_automations(tx) if one.name == name)
    tx.note(made.id, automation=name, enabled=enabled)
    return made


def list_automations(reader: Reader) -> list[Automation]:
    """Return the automations of this environment, by name."""
    sql = (
        "SELECT id, name, spec, enabled, created_at, environment, workspace FROM automation"
        " WHERE workspace=? AND environment=? ORDER BY name"
    )
    return [
        Automation(id=row[0], name=row[1], spec=unpack(row[2]), enabled=bool(row[3]), created_at=from_micros(row[4]),
                   environment=row[5], workspace=row[6])
        for row in reader.query(sql, (reader.workspace, reader.environment))
    ]  # fmt: skip


def add_firing(tx: Tx, *, automation_id: str, key: str, at: datetime, data: Data) -> Firing | None:
    """Insert a pending firing, or return None when the automation has fired for ``key`` before."""
    if tx.query("SELECT 1 FROM firing WHERE automation_id=? AND key=?", (automation_id, key)):
        return None
    made = Firing(id=new_id("fir"), automation_id=automation_id, key=key, state="pending", at=at, data=data)
    tx.execute(
        "INSERT INTO firing(id, workspace, environment, automation_id, key, state, at, data, run_id)"
        " VALUES (?,?,?,?,?,?,?,?,'')",
        (made.id, tx.workspace, tx.environment, automation_id, key, made.state, to_micros(at), pack(data)),
    )
    tx.note(made.id, firing=key)
    return made


def update_firing(tx: Tx, firing: Firing) -> None:
    """Write a firing's state, data and run.

    Raises:
        NotFound: there is no such firing.
    """
    _check_state(firing.state, FiringState)
    found = tx.execute(
        "UPDATE firing SET state=?, data=?, run_id=? WHERE id=? RETURNING 1",
        (firing.state, pack(firing.data), firing.run_id, firing.id),
    )
    if not found:
        raise NotFound(f"there is no firing {firing.id}", where=firing.id)
    tx.note(firing.id, state=firing.state)


def list_firings(reader: Reader, automation_id: str = "") -> list[Firing]:
    """Return the firings of one automation, or of all in this environment, oldest first."""
    where, params = ("automation_id=?", (automation_id,)) if automation_id else (
        "workspace=? AND environment=?", (reader.workspace, reader.environment)
    )  # fmt: skip
    sql = f"SELECT id, automation_id, key, state, at, data, run_id FROM firing WHERE {where} ORDER BY at, id"
    return [
        Firing(id=row[0], automation_id=row[1], key=row[2], state=row[3], at=from_micros(row[4]), data=unpack(row[5]),
               run_id=row[6])
        for row in reader.query(sql, params)
    ]  # fmt: skip


def add_alarm(tx: Tx, *, check: str, endpoint_id: str, at: datetime, data: Data) -> Alarm:
    """Insert an alarm."""
    made = Alarm(id=new_id("alm"), check=check, endpoint_id=endpoint_id, at=at, data=data)
    tx.execute(
        "INSERT INTO alarm(id, workspace, environment, name, endpoint_id, at, data, resolved_at)"
        " VALUES (?,?,?,?,?,?,?,NULL)",
        (made.id, tx.workspace, tx.environment, check, endpoint_id, to_micros(at), pack(data)),
    )
    tx.note(made.id, alarm=check, endpoint=endpoint_id)
    return made


def list_alarms(reader: Reader, endpoint_id: str = "") -> list[Alarm]:
    """Return the alarms of one endpoint, or of all in this environment, oldest first."""
    where, params = ("endpoint_id=?", (endpoint_id,)) if endpoint_id else (
        "workspace=? AND environment=?", (reader.workspace, reader.environment)
    )  # fmt: skip
    sql = f"SELECT id, name, endpoint_id, at, data, resolved_at FROM alarm WHERE {where} ORDER BY at, id"
    return [
        Alarm(id=row[0], check=row[1], endpoint_id=row[2], at=from_micros(row[3]), data=unpack(row[4]),
              resolved_at=None if row[5] is None else from_micros(row[5]))
        for row in reader.query(sql, params)
    ]  # fmt: skip


def update_alarm(tx: Tx, alarm: Alarm) -> Alarm:
    """Replace what an alarm says; when it was raised and by which check stays.

    Raises:
        NotFound: there is no such alarm.
    """
    if not tx.execute("UPDATE alarm SET data=? WHERE id=? RETURNING 1", (pack(alarm.data), alarm.id)):
        raise NotFound(f"there is no alarm {alarm.id}", where=alarm.id)
    tx.note(alarm.id, alarm=alarm.check, repeats=alarm.data.get("repeats", 0))
    return alarm


def resolve_alarm(tx: Tx, alarm_id: str, at: datetime) -> None:
    """Say when an alarm was over; the first time stands.

    Raises:
        NotFound: there is no such alarm.
    """
    sql = "UPDATE alarm SET resolved_at=coalesce(resolved_at, ?) WHERE id=? RETURNING 1"
    if not tx.execute(sql, (to_micros(at), alarm_id)):
        raise NotFound(f"there is no alarm {alarm_id}", where=alarm_id)
    tx.note(alarm_id, resolved=True)


def open_case(tx: Tx, *, kind: str, title: str, subject: str, at: datetime, facts: Data) -> Case:
    """Open a matter that waits for people; one that is open for the same subject and kind is returned."""
    for case in list_cases(tx):
        if case.state == "open" and (case.kind, case.subject) == (kind, subject):
            return case
    made = Case(id=new_id("cas"), kind=kind, title=title, state="open", opened_at=at, subject=subject, facts=facts)
    tx.execute(
        'INSERT INTO "case"(id, workspace, environment, kind, title, state, opened_at, subject, owner, closed_by, data)'
        " VALUES (?,?,?,?,?,'open',?,?,'','',?)",
        (made.id, tx.workspace, tx.environment, kind, title, to_micros(at), subject, pack(facts)),
    )
    tx.note(made.id, case=kind, title=title)
    return made


def close_case(tx: Tx, case_id: str, *, run_id: str) -> None:
    """Close a case by the run that decided it.

    Raises:
        Conflict: it is not open.
    """
    sql = "UPDATE \"case\" SET state='closed', closed_by=? WHERE id=? AND state='open' RETURNING 1"
    if not tx.execute(sql, (run_id, case_id)):
        raise Conflict(f"case {case_id} is not open", where=case_id)
    tx.note(case_id, closed_by=run_id)


def list_cases(reader: Reader) -> list[Case]:
    """Return the cases of this environment, oldest first."""
    sql = (
        'SELECT id, kind, title, state, opened_at, subject, owner, closed_by, data FROM "case"'
        " WHERE workspace=? AND environment=? ORDER BY id"
    )
    return [
        Case(id=row[0], kind=row[1], title=row[2], state=row[3], opened_at=from_micros(row[4]), subject=row[5],
             owner=row[6], closed_by=row[7], facts=unpack(row[8]))
        for row in reader.query(sql, (reader.workspace, reader.environment))
    ]  # fmt: skip


def get_state(reader: Reader, key: str) -> Data | None:
    """Return the state that a check keeps under ``key``, if it keeps one."""
    sql = "SELECT data FROM state WHERE workspace=? AND environment=? AND key=?"
    rows = reader.query(sql, (reader.workspace, reader.environment, key))
    return unpack(rows[0][0]) if rows else None


def put_state(tx: Tx, key: str, data: Data) -> None:
    """Keep plain data under ``key``."""
    tx.execute(
        "INSERT OR REPLACE INTO state(workspace, environment, key, data) VALUES (?,?,?,?)",
        (tx.workspace, tx.environment, key, pack(data)),
    )
