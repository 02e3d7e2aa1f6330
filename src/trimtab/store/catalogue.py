"""The ledger's tables as its migrations make them, and one consistent look at all of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from trimtab.core.errors import Corrupt, Unavailable
from trimtab.store.engine import Lost, Session
from trimtab.store.ledger import Ledger, Reader, Tx, Value
from trimtab.store.migrations import migrate
from trimtab.store.sqlite import SqliteEngine

_PAGE = 500
_SIZE = 1 << 256
Row = tuple[Any, ...]


class Table(Struct, frozen=True):
    """A table of the ledger.

    Attributes:
        columns: their names, in one order for every database.
        key: the columns of its primary key.
        serial: the column that numbers the rows by itself, or empty.
        owners: the tables that its rows point to.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    serial: str
    owners: tuple[str, ...]

    @property
    def quoted(self) -> str:
        """Its name in a statement; some are words of SQL."""
        return f'"{self.name}"'

    @property
    def listed(self) -> str:
        """Its columns in a statement."""
        return _listed(self.columns)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


@lru_cache(maxsize=1)
def tables() -> tuple[Table, ...]:
    """Return every table of the schema, each after those that its rows point to."""
    connection = apsw.Connection(":memory:")
    migrate(connection)
    names = [
        str(name)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
        if not str(name).startswith("sqlite_")
    ]
    known = {name: _table(connection, name) for name in names}
    connection.close()
    ordered: dict[str, Table] = {}

    def place(table: Table) -> None:
        for owner in table.owners:
            place(known[owner])
        ordered.setdefault(table.name, table)

    for name in names:
        place(known[name])
    return tuple(ordered.values())


def _table(connection: apsw.Connection, name: str) -> Table:
    info: list[Any] = list(connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (name,)))
    key = tuple(str(column) for column, _, place in sorted(info, key=lambda one: one[2]) if place)
    alone = len(key) == 1 and any(column == key[0] and kind == "INTEGER" for column, kind, _ in info)
    owners = connection.execute('SELECT DISTINCT "table" FROM pragma_foreign_key_list(?) ORDER BY 1', (name,))
    return Table(
        name=name,
        columns=tuple(str(column) for column, _, _ in info),
        key=key,
        serial=key[0] if alone else "",
        owners=tuple(str(owner) for (owner,) in owners),
    )


def open_ledger(location: str, *, actor: str = "") -> Ledger:
    """Open a ledger; see ``Ledger.open``.

    Raises:
        Corrupt: the file is no ledger, or is broken where it begins.
    """
    try:
        return Ledger.open(location, actor=actor)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Corrupt(
            f"the ledger cannot be read: {error}", where=location, fix="restore it: trimtab ledger import FILE"
        ) from error


class _Snapshot:
    """Reads what was committed when the first query was asked, and nothing later."""

    def __init__(self, session: Session, ledger: Ledger) -> None:
        self._session = session
        self._where = ledger.where
        self.workspace = ledger.workspace
        self.environment = ledger.environment

    def query(self, sql: str, params: Sequence[Value] = ()) -> list[Row]:
        try:
            return self._session.execute(sql, params)
        except Lost as error:
            raise Unavailable(f"the ledger does not answer: {error}", where=self._where, fix=error.fix) from error


def is_sqlite(ledger: Ledger) -> bool:
    """Say whether a ledger lies in a file."""
    return isinstance(ledger.engine, SqliteEngine)


@contextmanager
def snapshot(ledger: Ledger) -> Iterator[Reader]:
    """Open a reader for which the ledger stands still; nobody waits for it, and it waits for nobody.

    Raises:
        Unavailable: the database does not answer.
    """
    try:
        with ledger.engine.turn():
            session = ledger.engine.reader()
    except Lost as error:
        raise Unavailable(f"the ledger does not answer: {error}", where=ledger.where, fix=error.fix) from error
    try:
        reader = _Snapshot(session, ledger)
        reader.query("BEGIN" if is_sqlite(ledger) else "BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.query("SELECT count(*) FROM workspace")  # the look is taken here
        yield reader
    finally:
        with suppress(Lost, *ledger.engine.errors):
            session.rollback()
        with ledger.engine.turn():
            session.close()


def counts(reader: Reader) -> dict[str, int]:
    """Return how many rows each table has."""
    return {one.name: int(reader.query(f"SELECT count(*) FROM {one.quoted}")[0][0]) for one in tables()}


def pages(reader: Reader, table: Table) -> Iterator[list[Row]]:
    """Yield the rows of a table, some hundred at a time, by its key."""
    key = _listed(table.key)
    select, order = f"SELECT {table.listed} FROM {table.quoted}", f"ORDER BY {key} LIMIT {_PAGE}"
    after = f"WHERE ({key}) > ({', '.join('?' * len(table.key))})"
    places = [table.columns.index(name) for name in table.key]
    found = reader.query(f"{select} {order}")
    while found:
        yield found
        last = [found[-1][place] for place in places]
        found = reader.query(f"{select} {after} {order}", last) if len(found) == _PAGE else []


class Sum:
    """Counts rows and adds up their digests, so that the order in which they come does not matter."""

    def __init__(self) -> None:
        self.rows = 0
        self._total = 0

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take in rows, each with its values in the order of the table's columns."""
        for row in rows:
            self.rows += 1
            self._total += int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(row)).digest(), "big")

    @property
    def digest(self) -> str:
        """The sum of the rows' sha256, as 64 hex digits."""
        return f"{self._total % _SIZE:064x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.rows, self.digest) == (other.rows, other.digest)

    __hash__ = None  # type: ignore[assignment]


def sum_of(reader: Reader, table: Table) -> Sum:
    """Return the sum of a table's rows."""
    found = Sum()
    for page in pages(reader, table):
        found.add(page)
    return found


def continue_numbers(tx: Tx, *, sqlite: bool) -> None:
    """Let tables that number their rows go on after the highest number that they have."""
    for table in tables():
        if not table.serial:
            continue
        high = int(tx.query(f"SELECT coalesce(max({table.serial}), 0) FROM {table.quoted}")[0][0])
        if sqlite:
            tx.execute("UPDATE sqlite_sequence SET seq=? WHERE name=?", (high, table.name))
        elif high:
            tx.query("SELECT setval(pg_get_serial_sequence(?, ?), ?)", (table.name, table.serial, high))
