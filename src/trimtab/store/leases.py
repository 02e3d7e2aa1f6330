"""Leases and heartbeats: who works on what, and how a dead worker's claim ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.errors import Conflict
from trimtab.core.nouns import Run
from trimtab.store.clock import event_time
from trimtab.store.facts import finish_run, get_run
from trimtab.store.ledger import Ledger, Tx

STALE_AFTER = 60.0


class Lease(Struct, frozen=True):
    """A claim on a name; ``epoch`` counts the holders and fences out an earlier one."""

    name: str
    holder: str
    epoch: int


@lru_cache(maxsize=1)
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip() if boot.exists() else ''}"


def _started(pid: int) -> str:
    """Return when a process started, so that a reused pid is not taken for it; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def holder() -> str:
    """Return the identity of this process: host and boot, pid, and when it started."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_started(pid)}"


def is_alive(identity: str) -> bool | None:
    """Say whether a holder lives; None when it is on another machine and cannot be seen."""
    machine, pid, started = identity.rsplit("/", 2)
    if machine != _machine():
        return None
    return _started(int(pid)) == started


def _now() -> int:
    return int(wall_seconds() * 1e6)


def acquire(ledger: Ledger, name: str, ttl_s: float = STALE_AFTER) -> Lease | None:
    """Claim a name for this process; None while somebody else has it.

    A holder on this machine has it until it releases it or dies; one elsewhere until its time runs out. This
    process may claim again what it has, which fences out its earlier claim.
    """
    me = holder()

    def claim(tx: Tx) -> tuple[str, int] | None:
        rows = tx.query("SELECT holder, epoch, expires FROM lease WHERE name=?", (name,))
        epoch = 0
        if rows:
            other, epoch, expires = rows[0]
            alive = is_alive(other) if other else False
            if other and other != me and alive is not False and (alive or expires > _now()):
                return None
        tx.execute(
            "INSERT OR REPLACE INTO lease(name, workspace, environment, holder, epoch, expires) VALUES (?,?,?,?,?,?)",
            (name, tx.workspace, tx.environment, me, epoch + 1, _now() + int(ttl_s * 1e6)),
        )
        return me, epoch + 1

    got = ledger.write(claim, what="lease")
    return Lease(name, got[0], got[1]) if got else None


def renew(ledger: Ledger, lease: Lease, ttl_s: float = STALE_AFTER) -> bool:
    """Hold on to a lease; False when somebody else has it now."""

    def hold(tx: Tx) -> bool:
        sql = "UPDATE lease SET expires=? WHERE name=? AND holder=? AND epoch=? RETURNING 1"
        return bool(tx.execute(sql, (_now() + int(ttl_s * 1e6), lease.name, lease.holder, lease.epoch)))

    return ledger.write(hold, what="lease")


def release(ledger: Ledger, lease: Lease) -> None:
    """Give a lease back, if it is still held."""

    def drop(tx: Tx) -> None:
        tx.execute(
            "UPDATE lease SET holder='', expires=0 WHERE name=? AND holder=? AND epoch=?",
            (lease.name, lease.holder, lease.epoch),
        )

    ledger.write(drop, what="lease")


def check_lease(tx: Tx, lease: Lease) -> None:
    """Let a transaction go on only while a lease is held: what a fenced-out holder writes is refused.

    Raises:
        Conflict: somebody else has it now, or it was given back.
    """
    sql = "SELECT 1 FROM lease WHERE name=? AND holder=? AND epoch=?"
    if not tx.query(sql, (lease.name, lease.holder, lease.epoch)):
        raise Conflict(f"the lease {lease.name!r} is no longer held", where=lease.name, fix="do the work again")


def claim_run(tx: Tx, run_id: str, identity: str) -> None:
    """Say that a process executes a run."""
    tx.execute("UPDATE run SET holder=?, beat=? WHERE id=? AND state='running'", (identity, _now(), run_id))


def beat(ledger: Ledger, run_ids: Iterable[str]) -> None:
    """Say that this process still executes these runs."""
    me, ids = holder(), list(run_ids)

    def touch(tx: Tx) -> None:
        for run_id in ids:
            tx.execute("UPDATE run SET beat=? WHERE id=? AND holder=?", (_now(), run_id, me))

    if ids:
        ledger.write(touch, what="beat")


def reap(ledger: Ledger, now: datetime | None = None) -> list[Run]:
    """Mark runs whose executor is dead as lost and return them.

    A holder on this machine is looked at; one elsewhere counts as dead after 60 s (real time) without a beat.

    Args:
        ledger: whose runs are meant, in its environment.
        now: event time of their end; what the ledger's clock says if it is not given.
    """
    sql = "SELECT id, holder, beat FROM run WHERE workspace=? AND environment=? AND state='running' AND holder<>''"
    dead = []
    for run_id, identity, last in ledger.query(sql, (ledger.workspace, ledger.environment)):
        alive = is_alive(identity)
        if alive is False or (alive is None and _now() - last > STALE_AFTER * 1e6):
            dead.append((run_id, identity))
    if not dead:
        return []

    def mark(tx: Tx) -> list[str]:
        marked = []
        for run_id, identity in dead:
            claimed = tx.query("SELECT 1 FROM run WHERE id=? AND holder=? AND state='running'", (run_id, identity))
            run = get_run(tx, run_id) if claimed else None
            if run is None:
                continue
            error = {
                "type": "Lost",
                "message": "the process that executed it died",
                "where": "",
                "fix": "run it again",
            }
            ended = max(now or event_time(tx), run.started_at)
            finish_run(tx, run_id, state="lost", ended_at=ended, error=error)
            marked.append(run_id)
        return marked

    found = [get_run(ledger, run_id) for run_id in ledger.write(mark, what="reap")]
    return [run for run in found if run is not None]
