"""A store: ledger, blobs, tables and clock of one folder, opened together."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from trimtab.core.clock import RealClock, from_micros, to_micros
from trimtab.core.errors import WrongUse
from trimtab.store.blobs import LocalBlobs
from trimtab.store.layout import Home
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.tables import DeltaTables

Mode = Literal["real", "simulated"]


class Store:
    """Everything that is kept, behind one handle; many processes may hold one on the same folder."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self.home = home
        self.ledger = ledger
        self.blobs = LocalBlobs(home.blobs)

    @cached_property
    def tables(self) -> DeltaTables:
        """The tables; their engines are imported when they are first used."""
        return DeltaTables(self.home.tables)

    @property
    def environment(self) -> str:
        """The environment whose names and facts are meant."""
        return self.ledger.environment

    def _clock(self) -> tuple[str, int] | None:
        sql = "SELECT mode, at FROM clock WHERE workspace=? AND environment=?"
        rows = self.ledger.query(sql, (self.ledger.workspace, self.ledger.environment))
        return rows[0] if rows else None

    def clock_is_set(self) -> bool:
        """Say whether somebody chose this store's clock."""
        return self._clock() is not None

    def clock_mode(self) -> Mode:
        """Return whether event time is real or simulated."""
        row = self._clock()
        return "simulated" if row and row[0] == "simulated" else "real"

    def now(self) -> datetime:
        """Return event time."""
        row = self._clock()
        return from_micros(row[1]) if row and row[0] == "simulated" else RealClock().now()

    def set_clock(self, mode: Mode, at: datetime) -> None:
        """Choose the clock, or move a simulated one forward.

        Raises:
            WrongUse: simulated time would go back, or has begun and should become real.
        """

        def change(tx: Tx) -> None:
            rows = tx.query(
                "SELECT mode, at FROM clock WHERE workspace=? AND environment=?",
                (tx.workspace, tx.environment),
            )
            if rows and rows[0][0] == "simulated":
                if mode != "simulated":
                    raise WrongUse("this store lives on simulated time", fix="use another store for real time")
                if to_micros(at) < rows[0][1]:
                    raise WrongUse(
                        f"the clock stands at {from_micros(rows[0][1]).isoformat()} and cannot go back to"
                        f" {at.isoformat()}",
                        fix="advance it to a later time",
                    )
            tx.execute(
                "INSERT OR REPLACE INTO clock(workspace, environment, mode, at) VALUES (?,?,?,?)",
                (tx.workspace, tx.environment, mode, to_micros(at)),
            )
            tx.note("clock", mode=mode, at=to_micros(at))

        self.ledger.write(change, what="clock")

    def close(self) -> None:
        """Close what is open."""
        self.ledger.close()


def open_store(root: Path, *, environment: str = "dev", workspace: str = "default", actor: str = "") -> Store:
    """Open the store in the folder ``root``, made if it is not there."""
    home = Home(root)
    ledger = Ledger.open(home.ledger, workspace=workspace, environment=environment, actor=actor)
    return Store(home, ledger)
