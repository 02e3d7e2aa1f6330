"""Event time of a store: a row in the ledger, so that every process lives on the same clock."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from trimtab.core.clock import RealClock, from_micros, to_micros
from trimtab.core.errors import WrongUse
from trimtab.store.ledger import Reader, Tx

Mode = Literal["real", "simulated"]


def read_clock(reader: Reader) -> tuple[Mode, datetime] | None:
    """Return what was chosen for this environment and when it stood at; None when nobody chose."""
    sql = "SELECT mode, at FROM clock WHERE workspace=? AND environment=?"
    rows = reader.query(sql, (reader.workspace, reader.environment))
    return (rows[0][0], from_micros(rows[0][1])) if rows else None


def event_time(reader: Reader) -> datetime:
    """Return event time: the time of day, or where the simulated clock stands."""
    row = read_clock(reader)
    return row[1] if row and row[0] == "simulated" else RealClock().now()


def put_clock(tx: Tx, mode: Mode, at: datetime) -> None:
    """Choose the clock, or move a simulated one forward.

    Raises:
        WrongUse: simulated time would go back, has begun and should become real, or would begin where real calls
            have been answered.
    """
    have = read_clock(tx)
    if mode == "simulated" and (have is None or have[0] == "real") and _has_calls(tx):
        raise WrongUse(
            "this store has answered calls in real time, and simulated time never ends",
            fix="choose it for a new store: --dir NEW, or `clock: {simulated: TIME}` in a new project's trimtab.yaml",
        )
    if have is not None and have[0] == "simulated":
        if mode != "simulated":
            raise WrongUse("this store lives on simulated time", fix="use another store for real time")
        if at < have[1]:
            raise WrongUse(
                f"the clock stands at {have[1].isoformat()} and cannot go back to {at.isoformat()}",
                fix="advance it to a later time",
            )
    tx.execute(
        "INSERT OR REPLACE INTO clock(workspace, environment, mode, at) VALUES (?,?,?,?)",
        (tx.workspace, tx.environment, mode, to_micros(at)),
    )
    tx.note("clock", mode=mode, at=to_micros(at))


def _has_calls(reader: Reader) -> bool:
    sql = "SELECT 1 FROM call WHERE workspace=? AND environment=? LIMIT 1"
    return bool(reader.query(sql, (reader.workspace, reader.environment)))
