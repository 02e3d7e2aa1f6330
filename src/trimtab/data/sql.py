"""SQL over the store's tables, reading only; and SQL steps of a pipeline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from trimtab.core.declare import SQL
from trimtab.core.errors import BadInput, NotFound, WrongUse, closest
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store import facts
from trimtab.store.store import Store

_READS = {"SELECT", "EXPLAIN", "RELATION"}
_RECORDS = {
    "_runs": "SELECT id, kind, name, state, started_at, ended_at, actor FROM run WHERE workspace=? AND environment=?",
    "_versions": "SELECT v.id, a.name, a.kind, v.number, v.digest, v.run_id, v.state, v.created_at FROM version v"
    " JOIN asset a ON a.id = v.asset_id WHERE v.workspace=? AND v.environment=?",
    "_verdicts": 'SELECT id, name AS "check", kind, status, subject, run_id, reason, at FROM verdict'
    " WHERE workspace=? AND environment=?",
    "_alarms": 'SELECT id, name AS "check", endpoint_id, at FROM alarm WHERE workspace=? AND environment=?',
}
_HEADS = {
    "_runs": ("id", "kind", "name", "state", "started_at", "ended_at", "actor"),
    "_versions": ("id", "asset", "kind", "number", "digest", "run_id", "state", "created_at"),
    "_verdicts": ("id", "check", "kind", "status", "subject", "run_id", "reason", "at"),
    "_alarms": ("id", "check", "endpoint_id", "at"),
}
_TIMES = {"started_at", "ended_at", "created_at", "at"}


def query(store: Store, text: str) -> Data:
    """Return the answer of a query over current table versions and records.

    Args:
        store: where the tables are.
        text: one DuckDB statement that reads. Tables stand under their names; ``NAME.quarantine``,
            ``ENDPOINT.calls`` and ``ENDPOINT.labels`` too; ``_runs``, ``_versions``, ``_verdicts``, ``_alarms``
            are records.

    Returns:
        ``{"columns", "types", "rows"}``; values are what JSON can say: times as ISO text, decimals as
        text, NaN and infinities as the texts NaN, Infinity and -Infinity.

    Raises:
        WrongUse: it is no SQL, is not one statement, or would write or leave the store.
        NotFound: a table does not exist; the closest is named.
    """
    duckdb: Any = need("duckdb")
    connection = duckdb.connect(":memory:", config={"threads": "2"})
    try:
        _only_reads(connection, text)
        known = _views(connection, store, text)
        connection.execute(f"SET allowed_directories=['{_quoted(str(store.home.tables))}/']")
        connection.execute("SET enable_external_access=false")
        connection.execute("SET lock_configuration=true")
        try:
            cursor = connection.execute(text)
            described = cursor.description or []
            rows = cursor.fetchall()
        except duckdb.CatalogException as error:
            raise _unknown(str(error), known) from error
        except duckdb.Error as error:
            raise WrongUse(f"the query failed: {_first(error)}", fix="trimtab sql 'show tables'") from error
    finally:
        connection.close()
    return {
        "columns": [column[0] for column in described],
        "types": [str(column[1]) for column in described],
        "rows": [[plain(value) for value in row] for row in rows],
    }


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _only_reads(connection: Any, text: str) -> None:
    duckdb: Any = need("duckdb")
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise WrongUse(f"not SQL: {_first(error)}") from error
    if len(statements) != 1:
        raise WrongUse(f"{len(statements)} statements", fix="give one")
    kind = str(statements[0].type).rpartition(".")[2]
    if kind not in _READS:
        raise WrongUse(f"trimtab sql only reads; {kind} does not", fix="change data in a @tt.table step")


def _views(connection: Any, store: Store, text: str) -> list[str]:
    """Make a view for each table that the text could mean, and return all names."""
    words = {word.lower() for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
    listing = bool({"show", "describe", "information_schema", "duckdb_tables", "duckdb_views"} & words)
    known = []
    for asset in facts.list_assets(store.ledger):
        if asset.kind not in ("source", "table", "features"):
            continue
        known.append(asset.name)
        parts = asset.name.split(".")
        if not listing and not all(part.lower() in words for part in parts):
            continue
        version = facts.current(store.ledger, asset.name)
        if version is not None:
            _view(connection, store, parts, version.location)
    for name, sql in _RECORDS.items():
        known.append(name)
        if listing or name in words:
            _record_view(connection, store, name, sql)
    return known


def _view(connection: Any, store: Store, parts: Sequence[str], location: Data) -> None:
    if len(parts) > 1:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{parts[0]}"')
    target = ".".join(f'"{part}"' for part in parts)
    files = store.tables.files(location)
    if files:
        listed = ", ".join(f"'{_quoted(str(path))}'" for path in files)
        connection.execute(f"CREATE VIEW {target} AS SELECT * FROM read_parquet([{listed}], union_by_name=true)")
        return
    held = f"__empty_{'_'.join(parts)}"
    connection.register(held, store.tables.arrow(location))
    connection.execute(f'CREATE VIEW {target} AS SELECT * FROM "{held}"')


def _record_view(connection: Any, store: Store, name: str, sql: str) -> None:
    pyarrow: Any = need("pyarrow")
    rows = store.ledger.query(sql, (store.ledger.workspace, store.ledger.environment))
    columns: dict[str, Any] = {}
    for index, head in enumerate(_HEADS[name]):
        kind = pyarrow.timestamp("us", tz="UTC") if head in _TIMES else None
        kind = pyarrow.int64() if head == "number" else kind or pyarrow.string()
        columns[head] = pyarrow.array([row[index] for row in rows], kind)
    connection.register(f"__record{name}", pyarrow.table(columns))
    connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM "__record{name}"')


def _unknown(message: str, known: Sequence[str]) -> WrongUse:
    found = re.search(r"Table with name ([\w.]+) does not exist", message)
    if found is None:
        return WrongUse(f"the query failed: {message.strip().splitlines()[0]}")
    name = found.group(1)
    return NotFound(f"there is no table {name!r}{closest(name, known)}", fix="trimtab list")


def plain(value: Any) -> Any:
    """Return a value of a result as what JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal | Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def run_step(step: SQL, frames: Mapping[str, Any], *, where: str = "") -> Any:
    """Return what a SQL step makes from Arrow tables, as an Arrow table; it can read nothing else.

    Raises:
        BadInput: the SQL fails; the message is DuckDB's.
    """
    duckdb: Any = need("duckdb")
    connection = duckdb.connect(":memory:", config={"threads": "1"})
    try:
        for name, table in frames.items():
            connection.register(name, table)
        connection.execute("SET enable_external_access=false")
        made = connection.sql(step.text, params=list(step.params)).to_arrow_table()
        return made
    except duckdb.Error as error:
        names = ", ".join(frames)
        raise BadInput(f"the SQL step failed: {error}", where=where, fix=f"its tables are {names}") from error
    finally:
        connection.close()
