"""A store: ledger, blobs, tables and clock of one folder, opened together."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType

from trimtab.core.clock import wall_seconds
from trimtab.core.errors import Conflict, Corrupt, WrongUse
from trimtab.core.ids import new_hex
from trimtab.store.blobs import Blobs
from trimtab.store.clock import Mode, event_time, put_clock, read_clock
from trimtab.store.layout import Home
from trimtab.store.ledger import Ledger, Tx
from trimtab.store.packing import pack
from trimtab.store.roots import Roots, choose, probe, remember, trim
from trimtab.store.tables import DeltaTables

_SCOPE_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Store:
    """Everything that is kept, behind one handle; many processes may hold one on the same folder."""

    def __init__(self, home: Home, ledger: Ledger, roots: Roots | None = None) -> None:
        self.home = home
        self.ledger = ledger
        self.roots = roots or Roots()

    @cached_property
    def blobs(self) -> Blobs:
        """The blobs; the client of an object store is imported when they are first used."""
        return self.roots.blobs(self.home)

    @cached_property
    def tables(self) -> DeltaTables:
        """The tables; their engines are imported when they are first used."""
        return self.roots.tables(self.home)

    def trim_cache(self, before: float) -> int:
        """Remove local copies of objects that nobody asked for since ``before`` (seconds since the epoch)."""
        return trim(self.home, before)

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


def open_store(
    root: Path,
    *,
    environment: str = "dev",
    workspace: str = "default",
    actor: str = "",
    ledger: str = "",
    artifacts: str | Path = "",
    options: Mapping[str, str] | None = None,
) -> Store:
    """Open the store in the folder ``root``, made if it is not there.

    Args:
        root: the folder.
        environment: where names resolve and facts are written, such as ``dev`` or ``prod``.
        workspace: which of the store's workspaces is meant.
        actor: who acts, for the audit leaves.
        ledger: the URL of the database that holds the store's ledger, which the folder remembers from then on;
            by default what it remembers, else a file in it.
        artifacts: the URL or folder that holds blobs and tables, below ``blobs/`` and ``tables/``, which the folder
            remembers too; by default what it remembers, else itself.
        options: what the object store behind ``artifacts`` needs; secrets as ``${VARIABLE}`` of the environment.

    Raises:
        Conflict: the folder's ledger, or its blobs and tables, lie elsewhere already.
        Unavailable: the database or the object store does not answer.
        WrongUse: the environment or workspace has a name that no reference could contain; an option holds a secret.
    """
    for what, name in (("an environment", environment), ("a workspace", workspace)):
        if _SCOPE_NAME.fullmatch(name) is None:
            raise WrongUse(f"{name[:60]!r} cannot name {what}", fix="use letters, digits, _ and -")
    home = Home(root)
    location = _location(home, ledger)
    roots, fresh = choose(home, artifacts, options or {})
    if location is None:
        _check_whole(home)
    if fresh:
        probe(roots, home)
    opened = Ledger.open(location or home.ledger, workspace=workspace, environment=environment, actor=actor)
    try:
        _register(opened)
        if location is not None:
            _remember(home, location)
        if fresh:
            remember(home, roots)
    except BaseException:
        opened.close()
        raise
    return Store(home, opened, roots)


def _location(home: Home, wanted: str) -> str | None:
    """Return the URL of the store's ledger, or None where it is a file of the store.

    Raises:
        Conflict: it lies elsewhere already.
    """
    known = home.ledger_url.read_text().strip() if home.ledger_url.exists() else ""
    if not wanted or wanted == known:
        return known or None
    there = known or (str(home.ledger) if home.ledger.exists() else "")
    if there:
        raise Conflict(
            f"the ledger of {home.root} is {without_password(there)}, and not {without_password(wanted)}",
            where="ledger",
            fix="leave the URL out, or use another --dir",
        )
    return wanted


def without_password(location: str) -> str:
    """Return a ledger's location as it may be shown."""
    return re.sub(r"(//[^:/@]*):[^@/]*@", r"\1@", location)


def _remember(home: Home, location: str) -> None:
    if not home.ledger_url.exists():
        fresh = home.ledger_url.with_name(f"{home.ledger_url.name}.{new_hex()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(location)
        fresh.replace(home.ledger_url)


def _check_whole(home: Home) -> None:
    """Refuse a store whose ledger was lost while what it speaks of is still there: it is not a new one.

    Raises:
        Corrupt: the ledger is empty or gone, and there are tables or blobs, here or elsewhere.
    """
    if home.ledger.exists() and home.ledger.stat().st_size:
        return
    kept = [folder for folder in (home.tables, home.blobs) if folder.exists() and any(folder.iterdir())]
    kept += [home.artifacts] if home.artifacts.exists() else []
    if kept:
        raise Corrupt(
            f"the ledger is {'empty' if home.ledger.exists() else 'gone'}, and {kept[0].name} is not",
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
