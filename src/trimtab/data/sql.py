"""SQL over the store's tables and records, for reading only; a query reaches nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from trimtab.core.clock import from_micros
from trimtab.core.errors import NotFound, TrimtabError, WrongUse, closest
from trimtab.core.nouns import Asset, Data, Version
from trimtab.core.optional import need
from trimtab.data.checks import CHECK, REASON
from trimtab.data.plain import plain
from trimtab.data.publish import QUARANTINE
from trimtab.store import facts, live
from trimtab.store.store import Store

_READS = ("SELECT", "EXPLAIN")
_TABLES = ("source", "table", "features")
_LISTING = frozenset({"show", "describe", "information_schema", "duckdb_tables", "duckdb_views", "duckdb_columns"})
_SCOPE = "workspace=? AND environment=?"
# Name of a record's view -> column -> its SQL in the ledger. AT is a keyword of DuckDB, so no column is called that.
_RECORDS: dict[str, tuple[str, dict[str, str]]] = {
    "_runs": (
        f"run WHERE {_SCOPE} ORDER BY id",
        {n: n for n in ("id", "kind", "name", "state", "started_at", "ended_at", "actor", "parent_id", "key")},
    ),
    "_versions": (
        "version v JOIN asset a ON a.id = v.asset_id WHERE v.workspace=? AND v.environment=? ORDER BY v.id",
        {
            "id": "v.id",
            "asset": "a.name",
            "kind": "a.kind",
            "number": "v.number",
            "digest": "v.digest",
            "run_id": "v.run_id",
            "state": "v.state",
            "created_at": "v.created_at",
        },
    ),
    "_verdicts": (
        f"verdict WHERE {_SCOPE} ORDER BY id",
        {
            "id": "id",
            "check": "name",
            **{n: n for n in ("kind", "status", "subject", "run_id", "reason", "evidence")},
            "judged_at": "at",
        },
    ),
    "_alarms": (
        f"alarm WHERE {_SCOPE} ORDER BY at, id",
        {"id": "id", "check": "name", "endpoint_id": "endpoint_id", "raised_at": "at", "resolved_at": "resolved_at"},
    ),
}
_CALLS = {
    "prediction_id": "c.prediction_id",
    "request_id": "c.request_id",
    "row_index": "c.row",
    "event_time": "c.at",
    "deployment": "d.number",
    "version": "a.name || ':' || v.number",
    "weight": "c.weight",
    "candidate_weight": "c.candidate_weight",
    "status": "c.status",
    "latency_ms": "c.latency_us / 1000.0",
    "prediction": "c.prediction",
    "score": "c.score",
}
_CALLS_FROM = (
    "call c JOIN version v ON v.id = c.version_id JOIN asset a ON a.id = v.asset_id"
    " JOIN deployment d ON d.id = c.deployment_id WHERE c.endpoint_id=? ORDER BY c.at, c.prediction_id"
)
_LABELS = {
    "prediction_id": "prediction_id",
    "label": "label",
    "event_time": "at",
    "arrived_at": "arrived_at",
    "corrections": "corrections",
}
_LABELS_FROM = "label WHERE endpoint_id=? ORDER BY arrived_at, prediction_id"
_NUMBERS = ("v.number", "c.row", "d.number", "c.status", "corrections")
_SHARES = ("weight", "candidate_weight", "score", "latency_ms")
_PACKED = ("prediction", "label", "evidence")


def query(store: Store, text: str, *, limit: int | None = None) -> Data:
    """Return the answer to a query over the current versions of tables and over records.

    Tables, sources and feature sets stand under their names and show their current version;
    ``NAME.quarantine`` holds the rows that the newest version set aside (also one that was refused),
    ``ENDPOINT.calls`` and ``ENDPOINT.labels`` what an endpoint answered and what was true. ``_runs``,
    ``_versions``, ``_verdicts`` and ``_alarms`` are records of this environment. Times are in UTC.

    Args:
        store: where the tables are.
        text: one DuckDB statement that reads: SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN.
        limit: how many rows to return at most; whether there were more is told in ``more``.

    Returns:
        ``{"columns", "types", "rows", "more"}``; values are what JSON can say: times as ISO text, decimals
        as text, NaN and the infinities as the texts NaN, Infinity and -Infinity, bytes as hex digits.

    Raises:
        WrongUse: it is not one SQL statement that reads, it fails, or it reaches for something else.
        NotFound: a table does not exist or holds nothing yet; the closest name is told.
    """
    duckdb: Any = need("duckdb")
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET python_enable_replacements = false")
        _one_that_reads(connection, text)
        views = _Views(connection, store, text)
        views.make()
        connection.execute(f"SET allowed_paths = [{', '.join(map(_text, views.paths))}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            return _answer(connection.sql(text), limit)
        except duckdb.Error as error:
            raise _failed(error, views, text) from error
        except RuntimeError as error:
            # What DuckDB makes of Ctrl-C.
            raise KeyboardInterrupt if "interrupted" in str(error).lower() else error from error
    finally:
        connection.close()


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _one_that_reads(connection: Any, text: str) -> None:
    duckdb: Any = need("duckdb")
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise WrongUse(f"this is no SQL: {_first(error)}", fix="trimtab sql 'select * from NAME limit 5'") from error
    if len(statements) != 1:
        raise WrongUse(f"there are {len(statements)} statements", fix="give one statement that reads")
    kind = str(statements[0].type).rpartition(".")[2]
    told = _words(text)
    if kind == "MULTI" and told & {"pivot", "unpivot"}:
        return  # PIVOT is carried out as several statements, each of which reads
    if kind not in _READS or (kind == "EXPLAIN" and "analyze" in told):
        raise WrongUse(
            f"`trimtab sql` only reads, and this is {kind} {' '.join(sorted(told & {'analyze'}))}".rstrip(),
            fix="start with SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN; data is made by steps",
        )


def _words(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}


class _Views:
    """Makes a view for each table and record that a query could mean.

    Attributes:
        paths: the files that the views read.
        known: every name that a query may use.
        absent: names that exist and hold no rows yet, with the reason.
    """

    def __init__(self, connection: Any, store: Store, text: str) -> None:
        self.paths: list[str] = []
        self.known: list[str] = []
        self.absent: dict[str, str] = {}
        self._connection = connection
        self._store = store
        self._words = _words(text)
        self._all = bool(self._words & _LISTING)
        self._held = 0

    def make(self) -> None:
        """Make the views."""
        ledger = self._store.ledger
        assets = {asset.name: asset for asset in facts.list_assets(ledger)}
        for asset in assets.values():
            if not asset.name.endswith(f".{QUARANTINE}") and asset.kind != "model":
                self._asset(asset)
        for endpoint in live.list_endpoints(ledger):
            for what, columns, source in (("calls", _CALLS, _CALLS_FROM), ("labels", _LABELS, _LABELS_FROM)):
                name = f"{endpoint.name}.{what}"
                if name not in assets or name in self.absent:
                    self.absent.pop(name, None)
                    self._add(name, partial(self._rows, columns, source, (endpoint.id,)))
        for name, (source, columns) in _RECORDS.items():
            scope = (ledger.workspace, ledger.environment)
            self._add(name, partial(self._rows, columns, source, scope))

    def _meant(self, name: str) -> bool:
        return self._all or all(part.lower() in self._words for part in name.split("."))

    def _hold(self, rows: Any) -> str:
        """Register an Arrow table and return its quoted name."""
        self._held += 1
        name = f"__held_{self._held}"
        self._connection.register(name, rows)
        return _name(name)

    def _add(self, name: str, rows: Callable[[], Any]) -> None:
        """Know a name, and make its view if it may be meant."""
        self.known.append(name)
        if self._meant(name):
            self._view(name, f"SELECT * FROM {self._hold(rows())}")

    def _asset(self, asset: Asset) -> None:
        ledger = self._store.ledger
        told = f"{asset.name}.{QUARANTINE}"
        has_quarantine = asset.kind in _TABLES and "." not in asset.name
        if asset.kind in _TABLES:
            self.known += [asset.name, told] if has_quarantine else [asset.name]
        meant = self._meant(asset.name), has_quarantine and self._meant(told)
        if not any(meant):
            return
        newest = facts.newest(ledger, asset.name)
        version = facts.current(ledger, asset.name)
        kept = version is not None and "delta_version" in version.location
        if not kept:
            self.absent[asset.name] = "was never made" if newest is None else "has no version that passed its gate"
        if version is not None and kept and meant[0]:
            self._delta(asset.name, version.location)
        if newest is not None and meant[1]:
            self._quarantine(told, newest, version if kept else None)

    def _quarantine(self, name: str, newest: Version, current: Version | None) -> None:
        place = newest.meta.get(QUARANTINE)
        if place:
            self._delta(name, place)
        elif current is not None:
            empty = self._hold(self._store.tables.arrow(current.location).slice(0, 0))
            self._view(name, f"SELECT *, '' AS {CHECK}, '' AS {REASON} FROM {empty}")
        else:
            columns = [*(newest.meta.get("columns") or {}), CHECK, REASON]
            shown = ", ".join(f"NULL::VARCHAR AS {_name(column)}" for column in columns)
            self._view(name, f"SELECT {shown} LIMIT 0")

    def _delta(self, name: str, location: Mapping[str, Any]) -> None:
        files = [str(path) for path in self._store.tables.files(dict(location))]
        columns = ", ".join(_name(column) for column in location["schema"])
        if not files:
            self._view(name, f"SELECT {columns} FROM {self._hold(self._store.tables.arrow(dict(location)))}")
            return
        self.paths += files
        listed = ", ".join(map(_text, files))
        self._view(name, f"SELECT {columns} FROM read_parquet([{listed}], union_by_name = true)")

    def _view(self, name: str, select: str) -> None:
        schema, _, table = name.rpartition(".")
        if schema:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(schema)}")
        target = f"{_name(schema or 'main')}.{_name(table)}"
        self._connection.execute(f"CREATE OR REPLACE VIEW {target} AS {select}")

    def _rows(self, columns: Mapping[str, str], source: str, params: Sequence[Any]) -> Any:
        """Return rows of the ledger as an Arrow table."""
        pyarrow: Any = need("pyarrow")
        listed = ", ".join(columns.values())
        rows = self._store.ledger.query(f"SELECT {listed} FROM {source}", params)
        made = {}
        for number, (name, column) in enumerate(columns.items()):
            values = [row[number] for row in rows]
            if name == "event_time" or name.endswith("_at"):
                times = [None if value is None else from_micros(value) for value in values]
                made[name] = pyarrow.array(times, pyarrow.timestamp("us", tz="UTC"))
            elif name in _PACKED:
                made[name] = pyarrow.array([_unpacked(value) for value in values], pyarrow.string())
            else:
                kind = pyarrow.int64() if column in _NUMBERS else pyarrow.string()
                made[name] = pyarrow.array(values, pyarrow.float64() if name in _SHARES else kind)
        return pyarrow.table(made)


def _unpacked(value: bytes | None) -> str | None:
    """Return a stored value as text: evidence as JSON, anything else as Python shows it."""
    if value is None:
        return None
    found = facts.unpack(value)
    return msgspec.json.encode(plain(found)).decode() if isinstance(found, dict | list) else str(found)


def _answer(relation: Any, limit: int | None) -> Data:
    if relation is None:
        return {"columns": [], "types": [], "rows": [], "more": False}
    if limit is not None:
        relation = relation.limit(limit + 1)
    types = [str(kind) for kind in relation.types]
    columns = [_values(column, kind) for column, kind in zip(relation.to_arrow_table().columns, types, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    more = limit is not None and len(rows) > limit
    return {"columns": list(relation.columns), "types": types, "rows": rows[:limit] if more else rows, "more": more}


def _values(column: Any, kind: str) -> list[Any]:
    pyarrow: Any = need("pyarrow")
    if kind in ("HUGEINT", "UHUGEINT"):
        return [None if value is None else int(value) for value in column.to_pylist()]
    if column.type == pyarrow.timestamp("ns"):
        column = column.cast(pyarrow.string())
    try:
        return [plain(value) for value in column.to_pylist()]
    except (OverflowError, ValueError):
        # A time that no calendar of Python's has (infinity, before Christ) is told as DuckDB writes it.
        return _written(column, kind)


def _written(column: Any, kind: str) -> list[Any]:
    duckdb: Any = need("duckdb")
    held = need("pyarrow").table({"a": column})
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("held", held)
        return [row[0] for row in connection.sql("SELECT a::VARCHAR FROM held").fetchall()]


def _failed(error: Exception, views: _Views, text: str) -> TrimtabError:
    """Return what DuckDB said as an error of ours."""
    message = str(error).strip()
    found = re.search(r"Table with name (\S+) does not exist", message)
    if found is None:
        if "disabled" in message or "Permission" in message:
            return WrongUse(
                "the query reaches for something outside the store, and `trimtab sql` reads tables of the store only",
                fix="declare a @tt.source for it",
            )
        return WrongUse(f"the query fails: {message}", fix="trimtab sql 'describe NAME' shows a table's columns")
    name = found.group(1).strip('"!')
    # DuckDB leaves out a schema that exists.
    whole = re.search(rf'([\w]+)"?\."?{re.escape(name)}\b', text)
    name = f"{whole.group(1)}.{name}" if whole is not None and "." not in name else name
    reason = views.absent.get(name) or views.absent.get(name.rpartition(".")[0])
    if reason:
        return NotFound(f"{name} {reason}", where=name, fix="trimtab run")
    return NotFound(f"there is no table {name!r}{closest(name, views.known)}", fix="trimtab sql 'show all tables'")
