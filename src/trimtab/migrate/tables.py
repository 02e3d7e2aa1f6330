"""Tables of another system's database, read only: SQLite or PostgreSQL, by short queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import apsw

from trimtab.core.errors import NotFound, Unavailable, WrongUse
from trimtab.core.optional import need
from trimtab.store.tracking import parts

Row = tuple[Any, ...]
BATCH = 200
"""How many rows of a list are read at once."""


class Rows(Protocol):
    """A database that answers queries with ``?`` for parameters."""

    where: str

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT."""
        ...

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table, nothing if there is none."""
        ...

    def hint(self, table: str, index: str) -> str:
        """Return what follows a table's name to have an index used, nothing where that needs no saying."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class SqliteRows:
    """A file of SQLite. Each query stands by itself, so that whoever writes it is held up for moments only.

    Args:
        path: the file.

    Raises:
        NotFound: there is none.
        Unavailable: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        if not path.is_file():
            raise NotFound("there is no such database", where=self.where)
        try:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._connection.set_busy_timeout(30_000)
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except apsw.Error as error:
            raise Unavailable(f"the database cannot be read: {error}", where=self.where) from error

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT; see ``Rows``."""
        try:
            return self._connection.execute(sql, tuple(params)).fetchall()
        except apsw.Error as error:
            raise Unavailable(f"the database cannot be read: {error}", where=self.where) from error

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table; see ``Rows``."""
        return {row[0] for row in self.query("SELECT name FROM pragma_table_info(?)", (table,))}

    def hint(self, table: str, index: str) -> str:
        """Return what has an index used, if it is there; without statistics the planner takes a worse one."""
        known = self.query("SELECT 1 FROM pragma_index_list(?) WHERE name=?", (table, index))
        return f"INDEXED BY {index}" if known else ""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class PostgresRows:
    """A database of PostgreSQL, seen as it was when it was opened.

    Args:
        url: the database, without a driver's name.

    Raises:
        MissingExtra: psycopg is not installed.
        Unavailable: it does not answer.
    """

    def __init__(self, url: str) -> None:
        psycopg = need("psycopg")
        self._error: type[Exception] = psycopg.Error
        self.where = without_secrets(url)
        try:
            self._connection: Any = psycopg.connect(url, connect_timeout=10)
            self._connection.read_only = True
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        except psycopg.Error as error:
            raise Unavailable(f"the database does not answer: {error}", where=self.where) from error

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a SELECT; see ``Rows``."""
        try:
            with self._connection.cursor() as cursor:
                found: list[Row] = cursor.execute(sql.replace("?", "%s"), tuple(params)).fetchall()
                return found
        except self._error as error:
            raise Unavailable(f"the database cannot be read: {error}", where=self.where) from error

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table; see ``Rows``."""
        sql = "SELECT column_name FROM information_schema.columns WHERE table_schema=current_schema() AND table_name=?"
        return {row[0] for row in self.query(sql, (table,))}

    def hint(self, table: str, index: str) -> str:
        """Return nothing: the planner has statistics."""
        del table, index
        return ""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def without_secrets(url: str) -> str:
    """Return a URL without user and password."""
    found = urlsplit(url)
    return urlunsplit(found._replace(netloc=found.netloc.rpartition("@")[2], query=""))


class Tables:
    """Reads tables of a schema that may be older: a column that is not there is NULL, a table without rows.

    Args:
        rows: the database.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._known: dict[str, set[str]] = {}

    def has(self, table: str, column: str = "") -> bool:
        """Say whether there is a table, or a column of it."""
        if table not in self._known:
            self._known[table] = self.rows.columns(table)
        return column in self._known[table] if column else bool(self._known[table])

    def select(self, table: str, names: Sequence[str], rest: str = "", params: Sequence[Any] = ()) -> list[Row]:
        """Return columns of a table's rows; ``rest`` is what follows the table's name."""
        if not self.has(table):
            return []
        columns = ", ".join(f'"{name}"' if self.has(table, name) else "NULL" for name in names)
        return self.rows.query(f"SELECT {columns} FROM {self.scoped(table)} {rest}", params)

    def scoped(self, table: str) -> str:
        """Return what to select from: of a table that is shared by workspaces only the default one's rows."""
        if not self.has(table, "workspace"):
            return table
        return f"(SELECT * FROM {table} WHERE workspace='default') AS {table}"

    def count(self, sql: str, params: Sequence[Any]) -> int:
        """Return the number that a query gives."""
        return int(self.rows.query(sql, params)[0][0])

    def paged(
        self, table: str, names: Sequence[str], key: str, among: tuple[str, Sequence[Any]] | None = None
    ) -> Iterator[list[Row]]:
        """Yield rows in pages, by a key that is unique; ``names`` begins with it.

        Args:
            table: the table.
            names: the columns.
            key: a column.
            among: a column, and the values that are wanted of it.
        """
        for part in parts(list(among[1])) if among else [()]:
            wanted = f"{among[0]} IN ({marks(part)}) AND " if among else ""
            after: Any = None
            while True:
                more, last = (f"{key}>?", [after]) if after is not None else ("1=1", [])
                rest = f"WHERE {wanted}{more} ORDER BY {key} LIMIT {BATCH}"
                found = self.select(table, names, rest, [*part, *last])
                if found:
                    yield found
                if len(found) < BATCH:
                    break
                after = found[-1][0]

    def grouped(self, table: str, owner: str, names: Sequence[str], owners: Sequence[Any]) -> dict[Any, list[Row]]:
        """Return owner -> its rows of a table, without the owner's column."""
        found: dict[Any, list[Row]] = {}
        for part in parts(list(owners)):
            for row in self.select(table, [owner, *names], f"WHERE {owner} IN ({marks(part)})", part):
                found.setdefault(row[0], []).append(row[1:])
        return found


def marks(items: Sequence[Any]) -> str:
    """Return as many question marks."""
    return ",".join("?" * len(items))


def open_rows(location: str) -> Rows:
    """Open the database that a URL of SQLAlchemy or a file's name means.

    Raises:
        WrongUse: it is another kind of database.
    """
    scheme, found, rest = location.partition("://")
    if not found:
        return SqliteRows(Path(location))
    kind = scheme.partition("+")[0]
    if kind == "sqlite":
        return SqliteRows(Path(rest.partition("?")[0].removeprefix("/")))
    if kind in ("postgresql", "postgres"):
        return PostgresRows(f"postgresql://{rest}")
    raise WrongUse(
        f"{scheme} is not a database that can be read here",
        where="source",
        fix="give the URL of the server that uses it, such as http://127.0.0.1:5000",
    )
