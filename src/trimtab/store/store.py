"""A store: ledger, blobs, tables and clock of one folder, opened together."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType

from trimtab.core.clock import wall_seconds
from trimtab.core.errors import Corrupt, WrongUse
from trimtab.store.blobs import LocalBlobs
from trimtab.store.clock import Mode, event_time, put_clock, read_clock
from trimtab.store.layout import Home
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.packing import pack
from trimtab.store.tables import DeltaTables

_SCOPE_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


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

    def clock_is_set(self) -> bool:
        """Say whether somebody chose this store's clock."""
        return read_clock(self.ledger) is not None

    def clock_mode(self) -> Mode:
        """Return whether event time is real or simulated."""
        row = read_clock(self.ledger)
        return row[0] if row else "real"

    def now(self) -> datetime:
        """Return event time."""
        return event_time(self.ledger)

    def set_clock(self, mode: Mode, at: datetime) -> None:
        """Choose the clock, or move a simulated one forward.

        Raises:
            WrongUse: simulated time would go back, has begun and should become real, or would begin where real
                calls have been answered.
        """
        self.ledger.write(lambda tx: put_clock(tx, mode, at), what="clock")

    def close(self) -> None:
        """Close what is open; calling it again does nothing."""
        self.ledger.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(root: Path, *, environment: str = "dev", workspace: str = "default", actor: str = "") -> Store:
    """Open the store in the folder ``root``, made if it is not there.

    Args:
        root: the folder.
        environment: where names resolve and facts are written, such as ``dev`` or ``prod``.
        workspace: which of the store's workspaces is meant.
        actor: who acts, for the audit leaves.

    Raises:
        WrongUse: the environment or workspace has a name that no reference could contain.
    """
    for what, name in (("an environment", environment), ("a workspace", workspace)):
        if _SCOPE_NAME.fullmatch(name) is None:
            raise WrongUse(f"{name[:60]!r} cannot name {what}", fix="use letters, digits, _ and -")
    home = Home(root)
    _check_whole(home)
    ledger = Ledger.open(home.ledger, workspace=workspace, environment=environment, actor=actor)
    try:
        _register(ledger)
    except BaseException:
        ledger.close()
        raise
    return Store(home, ledger)


def _check_whole(home: Home) -> None:
    """Refuse a store whose ledger was lost while what it speaks of is still there: it is not a new one.

    Raises:
        Corrupt: the ledger is empty or gone, and there are tables or blobs.
    """
    if home.ledger.exists() and home.ledger.stat().st_size:
        return
    kept = [folder for folder in (home.tables, home.blobs) if folder.exists() and any(folder.iterdir())]
    if kept:
        raise Corrupt(
            f"the ledger is {'empty' if home.ledger.exists() else 'gone'}, and {kept[0].name}/ is not",
            where=str(home.ledger),
            fix="restore ledger.db (with ledger.db-wal) from a copy, or move the whole folder away to begin anew",
        )


def _register(ledger: Ledger) -> None:
    sql = "SELECT 1 FROM environment WHERE workspace=? AND name=?"
    if ledger.query(sql, (ledger.workspace, ledger.environment)):
        return
    at = int(wall_seconds() * 1e6)

    def add(tx: Tx) -> None:
        tx.execute("INSERT OR IGNORE INTO workspace(name, created_at) VALUES (?,?)", (tx.workspace, at))
        tx.execute(
            "INSERT OR IGNORE INTO environment(workspace, name, spec) VALUES (?,?,?)",
            (tx.workspace, tx.environment, pack({})),
        )

    ledger.write(add, what="open environment")
