"""Webhooks: who elsewhere wants to hear of what happens in the registry, and what is yet to be told to them.

An act and what is to be told of it are one transaction: ``publish`` writes a delivery for each webhook that is
interested, and nothing where none is. Delivering is at least once: a delivery keeps its id over all attempts, by which
its receiver knows a second one. A webhook whose target does not answer is paused as a whole, longer each time, so that
it costs little; a delivery that was refused waits by itself, so that it does not hold up the next ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.errors import NotFound
from trimtab.core.ids import new_hex
from trimtab.core.nouns import Data
from trimtab.store.ledger import Reader, Tx
from trimtab.store.search import Token, query_digest

Status = Literal["ACTIVE", "DISABLED"]
EVENTS: dict[str, tuple[str, ...]] = {
    "registered_model": ("created",),
    "model_version": ("created",),
    "model_version_tag": ("set", "deleted"),
    "model_version_alias": ("created", "deleted"),
    "prompt": ("created",),
    "prompt_version": ("created",),
    "prompt_tag": ("set", "deleted"),
    "prompt_version_tag": ("set", "deleted"),
    "prompt_alias": ("created", "deleted"),
    "budget_policy": ("exceeded",),
}
"""What may be heard of -> what happens to it; nothing here exceeds a budget yet."""
_OF_PROMPT = {
    "registered_model": "prompt",
    "model_version": "prompt_version",
    "model_version_tag": "prompt_version_tag",
    "model_version_alias": "prompt_alias",
}
_ALIASES = ("model_version_alias", "prompt_alias")
_ERROR = 500


class Webhook(Struct, frozen=True, kw_only=True):
    """A receiver and what it wants to hear of.

    Attributes:
        environment: whose server made it, and tells it.
        events: such as ``model_version_tag.set``; see ``EVENTS``.
        secret: sealed, or empty; see ``store.secrets``.
    """

    id: str
    environment: str
    name: str
    url: str
    description: str
    status: Status
    secret: str
    created_ms: int
    updated_ms: int
    events: tuple[str, ...]


class Delivery(Struct, frozen=True, kw_only=True):
    """What is to be told to one webhook.

    Attributes:
        id: the same over all attempts.
        body: the bytes that are sent.
        attempts: how often it was sent before, in vain.
        failures: how often in a row anything could not be told to its webhook.
    """

    id: str
    webhook_id: str
    event: str
    body: bytes
    attempts: int
    failures: int
    name: str
    url: str
    secret: str


_COLUMNS = "id, environment, name, url, description, status, secret, created_ms, updated_ms"


def new_key() -> str:
    """Return the id of a new webhook or delivery: a UUID that sorts by time."""
    return str(UUID(hex=new_hex()))


def now_us() -> int:
    """Return real microseconds since the epoch: deliveries live on real time, as leases do."""
    return int(wall_seconds() * 1e6)


def create(
    tx: Tx, ident: str, *, name: str, url: str, description: str, secret: str, status: Status, events: Sequence[str],
    now_ms: int,
) -> Webhook:  # fmt: skip
    """Add a webhook; its secret comes sealed."""
    tx.execute(
        "INSERT INTO webhook(id, workspace, environment, name, url, description, status, secret, created_ms,"
        " updated_ms) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (ident, tx.workspace, tx.environment, name, url, description, status, secret, now_ms, now_ms),
    )
    _put_events(tx, ident, events)
    tx.note(ident, webhook=name, host=_host(url), events=list(events), status=status)
    return get(tx, ident)


def _host(url: str) -> str:
    """Return what the audit may keep of a URL for ever: its path can be as good as a password."""
    return urlsplit(url).hostname or ""


def _put_events(tx: Tx, ident: str, events: Sequence[str]) -> None:
    tx.execute("DELETE FROM webhook_event WHERE webhook_id=?", (ident,))
    tx.execute_many(
        "INSERT INTO webhook_event(webhook_id, workspace, environment, event, place) VALUES (?,?,?,?,?)",
        [(ident, tx.workspace, tx.environment, event, place) for place, event in enumerate(dict.fromkeys(events))],
    )


def get(reader: Reader, ident: str) -> Webhook:
    """Return a webhook.

    Raises:
        NotFound: there is none.
    """
    sql = f"SELECT {_COLUMNS} FROM webhook WHERE workspace=? AND id=?"
    rows = reader.query(sql, (reader.workspace, ident))
    if not rows:
        raise NotFound(f"Webhook with ID {ident} not found.", where="webhook_id")
    return _whole(reader, rows)[0]


def _whole(reader: Reader, rows: Sequence[tuple[Any, ...]]) -> list[Webhook]:
    events: dict[str, list[str]] = {}
    marks = ",".join("?" * len(rows))
    sql = f"SELECT webhook_id, event FROM webhook_event WHERE webhook_id IN ({marks}) ORDER BY webhook_id, place"
    for ident, event in reader.query(sql, [row[0] for row in rows]):
        events.setdefault(ident, []).append(event)
    return [
        Webhook(
            id=row[0], environment=row[1], name=row[2], url=row[3], description=row[4], status=row[5], secret=row[6],
            created_ms=row[7], updated_ms=row[8], events=tuple(events.get(row[0], ())),
        )
        for row in rows
    ]  # fmt: skip


def page(reader: Reader, *, most: int, token: str = "") -> tuple[list[Webhook], str]:
    """Return a page of webhooks, newest first, and the next page's token or an empty text.

    Raises:
        BadInput: the token is none of this list.
    """
    digest = query_digest(reader.workspace, "webhooks")
    before = str(Token.decode(token, digest).values[0]) if token else "~"
    sql = f"SELECT {_COLUMNS} FROM webhook WHERE workspace=? AND id<? ORDER BY id DESC LIMIT ?"
    rows = reader.query(sql, (reader.workspace, before, most + 1))
    following = Token((rows[most - 1][0],), digest).encode() if len(rows) > most else ""
    return _whole(reader, rows[:most]), following


def update(tx: Tx, ident: str, changes: Mapping[str, str], events: Sequence[str], *, now_ms: int) -> Webhook:
    """Change a webhook; what was paused is tried again at once.

    Args:
        tx: the transaction.
        ident: its id.
        changes: name, url, description, status or sealed secret; what is not there stays.
        events: instead of those that it has, or none to keep them.
        now_ms: when.

    Raises:
        NotFound: there is none.
    """
    get(tx, ident)
    names = [name for name in ("name", "url", "description", "status", "secret") if name in changes]
    sql = f"UPDATE webhook SET {''.join(f'{name}=?, ' for name in names)}updated_ms=?, failures=0, paused=0 WHERE id=?"
    tx.execute(sql, (*(changes[name] for name in names), now_ms, ident))
    if events:
        _put_events(tx, ident, events)
    made = get(tx, ident)
    tx.note(ident, changed=names, host=_host(made.url), events=list(made.events), status=made.status)
    return made


def delete(tx: Tx, ident: str) -> None:
    """Delete a webhook with its secret and what was yet to be told to it.

    Raises:
        NotFound: there is none.
    """
    known = get(tx, ident)
    tx.execute("DELETE FROM delivery WHERE webhook_id=?", (ident,))
    tx.execute("DELETE FROM webhook_event WHERE webhook_id=?", (ident,))
    tx.execute("DELETE FROM webhook WHERE id=?", (ident,))
    tx.note(ident, deleted=known.name)


def any_secret(reader: Reader) -> bool:
    """Say whether a webhook of any workspace has a secret."""
    return bool(reader.query("SELECT 1 FROM webhook WHERE secret<>'' LIMIT 1"))


def body_of(event: str, data: Mapping[str, Any]) -> bytes:
    """Return what is sent of an event, whose time is the real one."""
    entity, action = event.split(".")
    at = datetime.fromtimestamp(wall_seconds(), UTC).isoformat()
    return msgspec.json.encode({"entity": entity, "action": action, "timestamp": at, "data": data})


def publish(tx: Tx, event: str, data: Data, *, prompt: bool = False) -> None:
    """Write what is to be told of an act, in its transaction.

    Names of models are the workspace's, so webhooks of all its environments hear of them; aliases are of one
    environment, and only its webhooks hear of those.

    Args:
        tx: the transaction of the act.
        event: of ``EVENTS``, as it is named for a model.
        data: what is told of it.
        prompt: it happened to a prompt, whose events have names of their own.
    """
    entity, action = event.split(".")
    if prompt:
        entity, event = _OF_PROMPT.get(entity, entity), f"{_OF_PROMPT.get(entity, entity)}.{action}"
    sql = (
        "SELECT w.id, w.environment FROM webhook_event e JOIN webhook w ON w.id = e.webhook_id"
        " WHERE e.workspace=? AND e.event=? AND w.status='ACTIVE'"
    )
    found = tx.query(sql, (tx.workspace, event))
    wanted = [row for row in found if entity not in _ALIASES or row[1] == tx.environment]
    if not wanted:
        return
    body, at = body_of(event, data), now_us()
    tx.execute_many(
        "INSERT INTO delivery(id, workspace, environment, webhook_id, event, body, state, attempts, due, created_at,"
        " error) VALUES (?,?,?,?,?,?,'waiting',0,?,?,'')",
        [(new_key(), tx.workspace, environment, ident, event, body, at, at) for ident, environment in wanted],
    )


_DELIVERY = "d.id, d.webhook_id, d.event, d.body, d.attempts, w.failures, w.name, w.url, w.secret"


def due(reader: Reader, *, most: int, busy: Collection[str] = (), only: str = "") -> list[Delivery]:
    """Return the delivery that is due first of each webhook that is neither paused nor disabled.

    Args:
        reader: in whose environment.
        most: how many webhooks; those that answered last time come first.
        busy: the ids of webhooks that are being told something.
        only: the id of the only webhook that is meant.
    """
    now = now_us()
    sql = (
        f"SELECT {_DELIVERY} FROM webhook w JOIN delivery d ON d.id = (SELECT n.id FROM delivery n"
        " WHERE n.webhook_id=w.id AND n.state='waiting' AND n.due<=? ORDER BY n.due, n.id LIMIT 1)"
        " WHERE w.workspace=? AND w.environment=? AND w.status='ACTIVE' AND w.paused<=?"
    )
    given: list[Any] = [now, reader.workspace, reader.environment, now]
    if only:
        sql, given = f"{sql} AND w.id=?", [*given, only]
    rows = reader.query(f"{sql} ORDER BY w.failures, d.due, d.id LIMIT ?", [*given, most + len(busy)])
    found = [
        Delivery(
            id=row[0], webhook_id=row[1], event=row[2], body=bytes(row[3]), attempts=row[4], failures=row[5],
            name=row[6], url=row[7], secret=row[8],
        )
        for row in rows
        if row[1] not in busy
    ]  # fmt: skip
    return found[:most]


def settle(
    tx: Tx, delivery: Delivery, *, answer: int = 0, error: str = "", again: int | None = None, paused: int = 0
) -> None:
    """Write how an attempt ended; a webhook that was deleted meanwhile is none any more.

    Args:
        tx: the transaction.
        delivery: as it was read before the attempt.
        answer: the status of the HTTP answer, or 0 where there was none.
        error: why it failed; empty means that it was delivered.
        again: when it is tried again, in microseconds since the epoch; None means never.
        paused: until when its webhook is told nothing, in microseconds since the epoch.
    """
    state = "delivered" if not error else "failed" if again is None else "waiting"
    ended = None if state == "waiting" else now_us()
    sql = "UPDATE delivery SET state=?, attempts=?, due=coalesce(?, due), ended_at=?, answer=?, error=? WHERE id=?"
    given = (state, delivery.attempts + 1, again, ended, answer or None, error[:_ERROR], delivery.id)
    if not tx.execute(f"{sql} RETURNING 1", given):
        return
    failures = delivery.failures + 1 if paused else 0
    tx.execute("UPDATE webhook SET failures=?, paused=? WHERE id=?", (failures, paused, delivery.webhook_id))
    tx.note(delivery.id, webhook=delivery.webhook_id, event=delivery.event, state=state, answer=answer)


def is_stale(reader: Reader, *, ended: int, waiting: int) -> bool:
    """Say whether ``sweep`` would find something."""
    sql = (
        "SELECT 1 FROM delivery WHERE workspace=? AND environment=? AND (state<>'waiting' AND ended_at<?"
        " OR state='waiting' AND created_at<?) LIMIT 1"
    )
    return bool(reader.query(sql, (reader.workspace, reader.environment, ended, waiting)))


def sweep(tx: Tx, *, ended: int, waiting: int) -> None:
    """Remove what ended before one moment, and give up what waits since before another.

    Args:
        tx: the transaction.
        ended: microseconds since the epoch.
        waiting: microseconds since the epoch.
    """
    scope = (tx.workspace, tx.environment)
    gone = tx.execute(
        "DELETE FROM delivery WHERE workspace=? AND environment=? AND state<>'waiting' AND ended_at<? RETURNING 1",
        (*scope, ended),
    )
    late = tx.execute(
        "UPDATE delivery SET state='failed', ended_at=?, error='it waited too long'"
        " WHERE workspace=? AND environment=? AND state='waiting' AND created_at<? RETURNING 1",
        (now_us(), *scope, waiting),
    )
    tx.note("delivery", swept=len(gone), given_up=len(late))
