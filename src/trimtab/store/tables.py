"""Tables in Delta Lake: stage Parquet, judge it, commit it with the run's id, then write the ledger row.

Staged files lie in the table's folder and outside its log, so that no reader ever sees rows that were not
checked. A commit carries the run id as its application transaction: after a kill between the commit and the
ledger row, ``find_commit`` finds it again, or ``rollback_to`` drops it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest, digest_file
from trimtab.core.errors import BadInput, Corrupt, NotFound, WrongUse
from trimtab.core.ids import is_id, new_hex
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.blobs import sync_folder

if TYPE_CHECKING:
    import polars
    import pyarrow

_PREFIX = "trimtab-run-"


class Staged(Struct, frozen=True, kw_only=True):
    """A Parquet file that lies in a table's folder and is not part of the table yet.

    Attributes:
        file: its name in the folder.
        rows: how many it holds.
        size: of the file, in bytes.
        digest: of its bytes.
        schema: column -> Arrow type, as text.
        arrow: the Arrow schema, serialised.
    """

    file: str
    rows: int
    size: int
    digest: str
    schema: dict[str, str]
    arrow: bytes


class Tables(Protocol):
    """Keeps versions of tables.

    Contract: a version never changes and is read whole or not at all; ``commit`` is atomic and durable; equal
    content in equal order has an equal digest; writers of one table are serialised by their caller (a run's
    lease), readers never wait.
    """

    def stage(self, table_id: str, frame: polars.DataFrame | pyarrow.Table) -> Staged:
        """Write a frame into the table's folder without making it part of the table."""
        ...

    def commit(
        self,
        staged: Sequence[Staged],
        *,
        table_id: str,
        mode: Literal["overwrite", "append"],
        run_id: str,
        drop_files: Iterable[str] = (),
    ) -> Data:
        """Make staged files part of the table and return where the new version lies."""
        ...

    def find_commit(self, table_id: str, run_id: str) -> Data | None:
        """Return where the version lies that a run committed, if it did."""
        ...

    def arrow(self, location: Data) -> pyarrow.Table:
        """Return a version's rows."""
        ...

    def scan(self, location: Data) -> polars.LazyFrame:
        """Return a version's rows, to be read when they are needed."""
        ...

    def files(self, location: Data) -> list[Path]:
        """Return a version's files, in order."""
        ...


class DeltaTables:
    """Tables as Delta Lake folders below ``root``; the folder's name is the table's id."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, table_id: str) -> Path:
        """Return the folder of a table.

        Raises:
            WrongUse: ``table_id`` is not an id.
        """
        if not is_id(table_id):
            raise WrongUse(f"{table_id[:80]!r} is not a table's id")
        return self._root / table_id

    def stage(self, table_id: str, frame: polars.DataFrame | pyarrow.Table) -> Staged:
        """Write a frame into the table's folder without making it part of the table.

        Raises:
            BadInput: a column has a type that a Delta table cannot keep.
        """
        parquet = need("pyarrow.parquet")
        table = _storable(frame if hasattr(frame, "schema") and hasattr(frame, "to_batches") else frame.to_arrow())
        folder = self.folder(table_id)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"tmp-{new_hex()}"
        with temporary.open("wb") as out:
            parquet.write_table(
                table, out, compression="zstd", row_group_size=1 << 20, store_schema=False, version="2.6"
            )
            out.flush()
            os.fsync(out.fileno())
        content = digest_file(temporary)
        # The name carries the digest; the tail keeps a file that comes back apart from the one that was dropped.
        name = f"part-{content.removeprefix('sha256:')}-{new_hex()[-8:]}.parquet"
        path = temporary.rename(folder / name)
        sync_folder(folder)
        return Staged(
            file=name,
            rows=table.num_rows,
            size=path.stat().st_size,
            digest=content,
            schema={field.name: str(field.type) for field in table.schema},
            arrow=table.schema.serialize().to_pybytes(),
        )

    def commit(
        self,
        staged: Sequence[Staged],
        *,
        table_id: str,
        mode: Literal["overwrite", "append"],
        run_id: str,
        drop_files: Iterable[str] = (),
    ) -> Data:
        """Make staged files part of the table and return where the new version lies.

        Args:
            staged: at least one file for ``overwrite``; their schemas agree. Columns that the table does not
                have yet are added by ``append``.
            table_id: the table.
            mode: ``overwrite`` replaces all rows, ``append`` keeps them.
            run_id: found again by ``find_commit``.
            drop_files: names of files that the new version no longer has (``append`` only).
        """
        deltalake, transaction = need("deltalake"), need("deltalake.transaction")
        folder = self.folder(table_id)
        properties = transaction.CommitProperties(
            custom_metadata={"trimtab.run": run_id},
            app_transactions=[transaction.Transaction(_PREFIX + run_id, 1)],
        )
        schema = _merged([_arrow_schema(one) for one in staged])
        if not deltalake.DeltaTable.is_deltatable(str(folder)):
            deltalake.DeltaTable.create(str(folder), deltalake.Schema.from_arrow(schema), mode="ignore")
        delta = deltalake.DeltaTable(str(folder))
        if mode == "append":
            delta = _with_columns(deltalake, delta, schema)
        actions: list[Any] = [_add(transaction, one) for one in staged]
        actions += [transaction.RemoveAction(name, True, int(wall_seconds() * 1000)) for name in drop_files]
        target = delta.schema() if mode == "append" else deltalake.Schema.from_arrow(schema)
        delta.create_write_transaction(actions, mode, target, commit_properties=properties)
        found = self.find_commit(table_id, run_id)
        if found is None:
            raise Corrupt(f"the commit of {run_id} is not in the log of {table_id}")
        return found

    def find_commit(self, table_id: str, run_id: str) -> Data | None:
        """Return where the version lies that a run committed, if it did and it was not dropped."""
        log = self.folder(table_id) / "_delta_log"
        if not log.is_dir():
            return None
        for path in sorted(log.glob("*.json"), reverse=True):
            for line in path.read_text().splitlines():
                action = json.loads(line)
                if action.get("txn", {}).get("appId") == _PREFIX + run_id:
                    number = int(path.stem)
                    return None if self._dropped(table_id, number) else self.location(table_id, number)
        return None

    def location(self, table_id: str, number: int) -> Data:
        """Return where version ``number`` of the Delta table lies, with its rows, bytes, schema and digest."""
        delta = need("deltalake").DeltaTable(str(self.folder(table_id)), version=number)
        actions = need("pyarrow").table(delta.get_add_actions(flatten=True)).to_pylist()
        schema = {field.name: str(field.type) for field in need("pyarrow").schema(delta.schema().to_arrow())}
        digests = sorted(_digest_of(action["path"]) for action in actions)
        return {
            "table": table_id,
            "delta_version": number,
            "rows": sum(action["num_records"] for action in actions),
            "bytes": sum(action["size_bytes"] for action in actions),
            "schema": schema,
            "digest": digest({"schema": schema, "files": digests}),
        }

    def latest(self, table_id: str) -> int | None:
        """Return the newest version of the Delta table, whether a ledger row names it or not."""
        deltalake = need("deltalake")
        folder = self.folder(table_id)
        if not deltalake.DeltaTable.is_deltatable(str(folder)):
            return None
        return int(deltalake.DeltaTable(str(folder)).version())

    def rollback_to(self, table_id: str, number: int | None) -> None:
        """Make version ``number`` (None: no rows) the newest again; what came after stays in the history only.

        This drops commits that no ledger row names; files that no version names are removed.
        """
        deltalake = need("deltalake")
        folder = self.folder(table_id)
        if not deltalake.DeltaTable.is_deltatable(str(folder)):
            return
        delta = deltalake.DeltaTable(str(folder))
        newest = int(delta.version())
        if newest == (number or 0):
            return
        marker = need("deltalake.transaction").CommitProperties(
            custom_metadata={"trimtab.dropped_after": number or 0, "trimtab.dropped_until": newest}
        )
        delta.restore(number or 0, commit_properties=marker)

    def _dropped(self, table_id: str, number: int) -> bool:
        """Say whether a later commit dropped version ``number``."""
        log = self.folder(table_id) / "_delta_log"
        for path in log.glob("*.json"):
            for line in path.read_text().splitlines():
                info = json.loads(line).get("commitInfo", {})
                if "trimtab.dropped_after" in info:
                    first, last = int(info["trimtab.dropped_after"]), int(info["trimtab.dropped_until"])
                    if first < number <= last:
                        return True
        return False

    def files(self, location: Data) -> list[Path]:
        """Return a version's files; their order depends on their content only.

        Raises:
            NotFound: the table is not in this store.
        """
        deltalake = need("deltalake")
        folder = self.folder(location["table"])
        if not deltalake.DeltaTable.is_deltatable(str(folder)):
            raise NotFound(f"table {location['table']} is not in this store")
        delta = deltalake.DeltaTable(str(folder), version=int(location["delta_version"]))
        names = need("pyarrow").table(delta.get_add_actions(flatten=True)).column("path").to_pylist()
        return [folder / name for name in sorted(names)]

    def arrow(self, location: Data) -> pyarrow.Table:
        """Return a version's rows."""
        arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
        delta = need("deltalake").DeltaTable(
            str(self.folder(location["table"])), version=int(location["delta_version"])
        )
        schema = arrow.schema(delta.schema().to_arrow())
        parts = [_conform(arrow, parquet.read_table(path), schema) for path in self.files(location)]
        return arrow.concat_tables(parts) if parts else schema.empty_table()

    def scan(self, location: Data) -> polars.LazyFrame:
        """Return a version's rows, to be read when they are needed."""
        frames: Any = need("polars")
        arrow = need("pyarrow")
        files = self.files(location)
        delta = need("deltalake").DeltaTable(
            str(self.folder(location["table"])), version=int(location["delta_version"])
        )
        empty = frames.from_arrow(arrow.schema(delta.schema().to_arrow()).empty_table())
        if not files:
            return empty.lazy()  # type: ignore[no-any-return]
        return frames.scan_parquet(  # type: ignore[no-any-return]
            files, schema=empty.schema, missing_columns="insert"
        )

    def sweep(self, table_id: str, before: float) -> int:
        """Remove files older than ``before`` (seconds since the epoch) that no version ever named."""
        deltalake = need("deltalake")
        folder = self.folder(table_id)
        if not folder.is_dir():
            return 0
        named: set[str] = set()
        if deltalake.DeltaTable.is_deltatable(str(folder)):
            for path in (folder / "_delta_log").glob("*.json"):
                for line in path.read_text().splitlines():
                    named.add(json.loads(line).get("add", {}).get("path", ""))
        old = [
            path
            for pattern in ("part-*.parquet", "tmp-*")
            for path in folder.glob(pattern)
            if path.name not in named and path.stat().st_mtime < before
        ]
        for path in old:
            path.unlink()
        return len(old)


def _digest_of(name: str) -> str:
    return "sha256:" + name.removeprefix("part-").split("-")[0]


def _arrow_schema(staged: Staged) -> Any:
    pyarrow = need("pyarrow")
    return pyarrow.ipc.read_schema(pyarrow.py_buffer(staged.arrow))


def _merged(schemas: Sequence[Any]) -> Any:
    pyarrow = need("pyarrow")
    try:
        return pyarrow.unify_schemas(schemas)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise BadInput(f"batches disagree about a column's type: {error}", fix="cast it in the source") from error


def _add(transaction: Any, staged: Staged) -> Any:
    stats = json.dumps({"numRecords": staged.rows})
    return transaction.AddAction(staged.file, staged.size, {}, int(wall_seconds() * 1000), True, stats)


def _with_columns(deltalake: Any, delta: Any, schema: Any) -> Any:
    """Return the table with the columns that ``schema`` has and the table does not."""
    have = {field.name for field in delta.schema().fields}
    fresh = [field for field in deltalake.Schema.from_arrow(schema).fields if field.name not in have]
    if not fresh:
        return delta
    delta.alter.add_columns(fresh)
    return deltalake.DeltaTable(delta.table_uri)


def _conform(pyarrow: Any, table: Any, schema: Any) -> Any:
    """Return the table with the schema's columns and types; a column that it lacks is null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pyarrow.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _storable(table: Any) -> Any:
    """Return the Arrow table with types that a Delta table keeps exactly.

    Raises:
        BadInput: a column's type has no exact counterpart.
    """
    pyarrow = need("pyarrow")
    names = table.schema.names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"column {twice!r} is there twice", where=twice, fix="rename one")
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = _storable_type(pyarrow, field)
        try:
            columns.append(column.cast(kind) if kind != field.type else column)
        except pyarrow.ArrowInvalid as error:
            raise BadInput(
                f"column {field.name!r} does not fit {kind} exactly: {error}", where=field.name, fix="cast it"
            ) from error
        fields.append(pyarrow.field(field.name, kind))
    return pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(fields)).combine_chunks()


def _storable_type(pyarrow: Any, field: Any) -> Any:
    types, kind = pyarrow.types, field.type
    if types.is_null(kind):
        return pyarrow.string()
    if types.is_large_string(kind) or types.is_string_view(kind) or types.is_dictionary(kind):
        return pyarrow.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pyarrow.binary()
    if types.is_timestamp(kind):
        return pyarrow.timestamp("us", tz="UTC" if kind.tz else None)
    if types.is_date64(kind):
        return pyarrow.date32()
    if types.is_large_list(kind) or types.is_list(kind):
        inner = _storable_type(pyarrow, kind.value_field)
        return pyarrow.list_(inner)
    wider = {
        "uint8": pyarrow.int16(),
        "uint16": pyarrow.int32(),
        "uint32": pyarrow.int64(),
        "halffloat": pyarrow.float32(),
    }
    if str(kind) in wider:
        return wider[str(kind)]
    if types.is_uint64(kind):
        return pyarrow.int64()
    if types.is_time(kind) or types.is_duration(kind) or types.is_union(kind) or types.is_map(kind):
        raise BadInput(
            f"column {field.name!r} is {kind}, which a Delta table cannot keep",
            where=field.name,
            fix="cast it",
        )
    return kind
