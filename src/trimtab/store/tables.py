"""Tables in Delta Lake: stage Parquet, judge it, commit it with the run's id, then write the ledger row.

Staged files lie in the table's folder and outside its log, so that no reader ever sees rows that were not
checked. A commit carries the run id as its application transaction: after a kill between the commit and the
ledger row, ``find_commit`` finds it again, or ``rollback_to`` drops it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol

from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest
from trimtab.core.errors import BadInput, Conflict, Corrupt, Fault, NotFound, WrongUse
from trimtab.core.ids import is_id, new_hex
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.blobs import Files, LocalFiles, open_files
from trimtab.store.columns import conform, has_local_times, keepable, merge_schemas, narrow
from trimtab.store.deltalog import AFTER, UNTIL, actions_of, dropped_by, log_key, replay

if TYPE_CHECKING:
    import polars
    import pyarrow

Mode = Literal["overwrite", "append"]
_PREFIX = "trimtab-run-"
# A version stays readable for as long as the ledger names it: Delta must not clean up by age.
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# Where every file of the log is a question over a network, whoever opens a table asks few of them.
_REMOTE_CONFIGURATION = {**_CONFIGURATION, "delta.checkpointInterval": "10"}
# Stated one by one, so that equal rows have equal bytes whatever the defaults of a release are.
_PARQUET = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,
    "write_statistics": True,
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "write_batch_size": 1024,
    "row_group_size": 1 << 20,
    "store_schema": False,
}


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

    Contract: a version never changes and is read whole or not at all; what is staged is read by nobody; ``commit``
    is atomic and durable, and a run's commit is found by its id until it is dropped; equal rows in equal order have
    an equal digest; writers of one table are serialised by their caller (a run's lease), readers never wait.
    """

    def stage(self, table_id: str, frame: polars.DataFrame | pyarrow.Table) -> Staged:
        """Write a frame where the table can take it up, without making it part of the table."""
        ...

    def commit(
        self,
        staged: Sequence[Staged],
        *,
        table_id: str,
        mode: Mode,
        run_id: str,
        drop_files: Iterable[str] = (),
        base: int | EllipsisType | None = ...,
    ) -> Data:
        """Make staged files part of the table and return where the new version lies."""
        ...

    def find_commit(self, table_id: str, run_id: str) -> Data | None:
        """Return where the version lies that a run committed, if it did and it was not dropped."""
        ...

    def latest(self, table_id: str) -> int | None:
        """Return the newest version of a table, whether a ledger row names it or not."""
        ...

    def rollback_to(self, table_id: str, number: int | None) -> None:
        """Drop the commits after version ``number`` (None: all): the next one builds on ``number`` again."""
        ...

    def arrow(self, location: Data) -> pyarrow.Table:
        """Return a version's rows."""
        ...

    def scan(self, location: Data) -> polars.LazyFrame:
        """Return a version's rows, to be read when they are needed."""
        ...

    def files(self, location: Data) -> list[Path]:
        """Return local files with a version's bytes; their order depends on their content only."""
        ...

    def missing(self, location: Data) -> str:
        """Return the first file of a version that is not there any more, or an empty string; names only."""
        ...

    def remove(self, table_id: str) -> None:
        """Remove a table that no ledger row names; if it is not here, nothing happens."""
        ...

    def sweep(self, table_id: str, before: float) -> int:
        """Remove what dead writers staged before a time (seconds since the epoch) and return how many files."""
        ...


class DeltaTables:
    """Tables as Delta Lake folders below a root, a folder or a URL; the folder's name is the table's id.

    In an object store two writers may commit to one table at once: a commit is one conditional put, appends are
    put after each other, and what cannot be is a Conflict.
    """

    def __init__(self, root: Path | Files) -> None:
        self._files = LocalFiles(root) if isinstance(root, Path) else root
        self._options = dict(self._files.options) or None

    def uri(self, table_id: str) -> str:
        """Return where a table lies, for people and for engines.

        Raises:
            WrongUse: ``table_id`` is not an id.
        """
        return self._files.uri(_checked(table_id))

    def stage(self, table_id: str, frame: polars.DataFrame | pyarrow.Table) -> Staged:
        """Write a frame into the table's folder without making it part of the table.

        Raises:
            BadInput: a column cannot be kept exactly (see ``columns.keepable``).
        """
        delta = self._open(table_id)
        table = keepable(frame, None if delta is None else _schema(delta))
        schema = narrow(table.schema)

        def write(out: BinaryIO) -> None:
            need("pyarrow.parquet").write_table(table, out, **_PARQUET)

        # The name carries the digest; the tail keeps a file that comes back apart from the dropped one.
        name, size, content = self._files.add(
            table_id, write, lambda found: f"part-{found.removeprefix('sha256:')}-{new_hex()[-8:]}.parquet"
        )
        return Staged(
            file=name,
            rows=table.num_rows,
            size=size,
            digest=content,
            schema={field.name: str(field.type) for field in schema},
            arrow=schema.serialize().to_pybytes(),
        )

    def commit(
        self,
        staged: Sequence[Staged],
        *,
        table_id: str,
        mode: Mode,
        run_id: str,
        drop_files: Iterable[str] = (),
        base: int | EllipsisType | None = ...,
    ) -> Data:
        """Make staged files part of the table and return where the new version lies.

        A run commits to a table once: the same call again returns the same version.

        Args:
            staged: files from ``stage``; their schemas agree. ``append`` adds columns that the table lacks.
            table_id: the table.
            mode: ``overwrite`` replaces all rows, ``append`` keeps them.
            run_id: found again by ``find_commit``.
            drop_files: names of files that the new version no longer has (``append`` only).
            base: the version that ``append`` builds on (None: no rows); the newest if it is not given.

        Returns:
            ``{"table", "delta_version", "rows", "bytes", "schema", "digest"}``.

        Raises:
            BadInput: the files disagree about a column, with each other or with the table.
            NotFound: ``drop_files`` names a file that the table does not have.
            Conflict: another writer committed at the same time, or this run committed something else before.
        """
        dropped = list(drop_files)
        _check_request(staged, mode, dropped)
        delta = self._open(table_id)
        before = self._of_run(delta, table_id, run_id, staged)
        if before is not None:
            return before
        if base is not ...:
            self.rollback_to(table_id, base)
            delta = self._open(table_id)
        try:
            with self._told(table_id):
                self._commit(table_id, delta, staged, mode, run_id, dropped)
        except Conflict:
            # The one who was first may be this run: its other attempt, or a put whose answer was lost.
            found = self._of_run(self._open(table_id), table_id, run_id, staged)
            if found is None:
                raise
            return found
        found = self._find(self._open(table_id), table_id, run_id)
        if found is None:
            raise Corrupt(f"the commit of {run_id} is not in the log", where=table_id)
        return found

    def _of_run(self, delta: Any, table_id: str, run_id: str, staged: Sequence[Staged]) -> Data | None:
        """Return the version that a run committed, if it did; it must hold the same files."""
        found = self._find(delta, table_id, run_id)
        if found is not None:
            named = set(_names(self._at(found)))
            if any(one.file not in named for one in staged):
                raise Conflict(f"run {run_id} has committed to this table before", where=table_id)
        return found

    def _commit(
        self, table_id: str, delta: Any, staged: Sequence[Staged], mode: Mode, run_id: str, dropped: list[str]
    ) -> None:
        deltalake, transaction = need("deltalake"), need("deltalake.transaction")
        new = merge_schemas([_staged_schema(one) for one in staged])
        first = 0 if delta is None else int(delta.version()) + 1
        if delta is None:
            delta = self._create(table_id, new)
        if mode == "append":
            if _add_columns(deltalake, delta, new):
                delta = self._load(table_id)
            new = _schema(delta)
        if _add_local_times(deltalake, delta, new):
            delta = self._load(table_id)
        missing = set(dropped) - set(_names(delta))
        if missing:
            raise NotFound(f"the table has no file {min(missing)!r}", where=table_id)
        now = int(wall_seconds() * 1000)
        actions: list[Any] = [
            transaction.AddAction(one.file, one.size, {}, now, True, json.dumps({"numRecords": one.rows}))
            for one in staged
        ]
        actions += [transaction.RemoveAction(name, True, now) for name in dropped]
        properties = transaction.CommitProperties(
            custom_metadata={"trimtab.run": run_id},
            app_transactions=[transaction.Transaction(_PREFIX + run_id, 1)],
        )
        schema = deltalake.Schema.from_arrow(new)
        delta.create_write_transaction(actions, mode, schema, commit_properties=properties)
        self._files.settle(table_id, first)

    def _create(self, table_id: str, schema: Any) -> Any:
        """Return a new table without rows, or the one that somebody else made just now."""
        deltalake = need("deltalake")
        try:
            return deltalake.DeltaTable.create(
                self._files.uri(table_id),
                deltalake.Schema.from_arrow(schema),
                mode="ignore",
                configuration=_CONFIGURATION if isinstance(self._files, LocalFiles) else _REMOTE_CONFIGURATION,
                storage_options=self._options,
            )
        except need("deltalake.exceptions").DeltaError:
            made = self._open(table_id)
            if made is None:
                raise
            return made

    def find_commit(self, table_id: str, run_id: str) -> Data | None:
        """Return where the version lies that a run committed, if it did and it was not dropped."""
        return self._find(self._open(table_id), table_id, run_id)

    def _find(self, delta: Any, table_id: str, run_id: str) -> Data | None:
        if delta is None:
            return None
        with self._told(table_id):
            if delta.transaction_version(_PREFIX + run_id) is None:
                return None
        newest, mark = int(delta.version()), json.dumps(_PREFIX + run_id)
        for number, text in self._log(table_id, newest):
            if mark in text and any(
                action.get("txn", {}).get("appId") == _PREFIX + run_id for action in actions_of(text)
            ):
                if self._dropped(table_id, number, newest):
                    return None
                return _location(delta, table_id) if number == newest else self.location(table_id, number)
        raise Corrupt(f"the log no longer holds the commit of {run_id}", where=table_id)

    def location(self, table_id: str, number: int) -> Data:
        """Return where version ``number`` of the Delta table lies, with its rows, bytes, schema and digest.

        Raises:
            NotFound: the table or the version is not in this store.
        """
        return _location(self._at({"table": table_id, "delta_version": number}), table_id)

    def latest(self, table_id: str) -> int | None:
        """Return the newest version of the Delta table, whether a ledger row names it or not."""
        delta = self._open(table_id)
        return None if delta is None else int(delta.version())

    def rollback_to(self, table_id: str, number: int | None) -> None:
        """Make version ``number`` (None: no rows) the newest again; what came after stays readable by its number.

        This drops commits that no ledger row names. Doing it again changes nothing.
        """
        target = number or 0
        delta = self._open(table_id)
        if delta is None:
            return
        newest = int(delta.version())
        marker = dropped_by(next(self._log(table_id, newest))[1])
        if target == newest or (marker is not None and marker[0] == target):
            return
        if target > newest:
            raise NotFound(f"the table has no version {target}; its newest is {newest}", where=table_id)
        properties = need("deltalake.transaction").CommitProperties(custom_metadata={AFTER: target, UNTIL: newest})
        with self._told(table_id):
            delta.restore(target, commit_properties=properties)
        self._files.settle(table_id, newest + 1)

    def files(self, location: Data) -> list[Path]:
        """Return local files with a version's bytes; their order depends on their content only.

        Where the tables lie in an object store, they are copies in the cache, compared with their digests.

        Raises:
            NotFound: the table or the version is not in this store.
            Corrupt: a file is missing.
        """
        return self._paths(location, self._at(location))

    def arrow(self, location: Data) -> pyarrow.Table:
        """Return a version's rows (for errors see ``files``)."""
        delta = self._at(location)
        schema = _schema(delta)
        # ParquetFile and not read_table: the latter would read columns out of the folder's path.
        reader = need("pyarrow.parquet").ParquetFile
        parts = []
        for path in self._paths(location, delta):
            with reader(path) as source:
                parts.append(conform(source.read(), schema))
        return need("pyarrow").concat_tables(parts) if parts else schema.empty_table()

    def scan(self, location: Data) -> polars.LazyFrame:
        """Return a version's rows, to be read when they are needed (for errors see ``files``)."""
        frames: Any = need("polars")
        delta = self._at(location)
        # Local copies also of what lies in an object store: one client of it, one way to be let in, digests compared.
        paths = self._paths(location, delta)
        empty = frames.from_arrow(_schema(delta).empty_table())
        if not paths:
            return empty.lazy()  # type: ignore[no-any-return]
        return frames.scan_parquet(  # type: ignore[no-any-return]
            paths,
            schema=empty.schema,
            missing_columns="insert",
            glob=False,
            hive_partitioning=False,
        )

    def missing(self, location: Data) -> str:
        """Return the first file of a version that is not there any more, or an empty string.

        Light, and without an engine where the tables lie in a folder: it is asked for every step of a plan. Only
        names are looked at (see ``verify``).
        """
        table_id, number = str(location["table"]), int(location["delta_version"])
        if not is_id(table_id) or not self._files.has(log_key(table_id, number)):
            return f"version {number} of table {table_id}"
        gone = self._files.missing(table_id, self._named(table_id, number))
        return f"{table_id}/{gone}" if gone else ""

    def _named(self, table_id: str, number: int) -> list[str]:
        """Return the names of a version's files."""
        if not isinstance(self._files, LocalFiles):  # an engine asks for few files of the log, by its checkpoints
            return _names(self._load(table_id, number))
        return replay(text for _, text in reversed(list(self._log(table_id, number))))

    def remove(self, table_id: str) -> None:
        """Remove a table that no ledger row names; if it is not here, nothing happens."""
        self._files.remove(_checked(table_id))

    def verify(self, location: Data) -> None:
        """Read every byte of a version and compare it with the digests.

        Raises:
            Corrupt: a file is missing or has other content; ``where`` names it.
        """
        for name in self._present(location, self._at(location)):
            key = f"{location['table']}/{name}"
            if self._files.digest(key) != _digest_of(name):
                where = self._files.uri(key)
                raise Corrupt(f"a file of table {location['table']} has other content", where=where)

    def sweep(self, table_id: str, before: float) -> int:
        """Remove files older than ``before`` (seconds since the epoch) that no version ever named."""
        # Listed before the log is read: what is committed in between is named there.
        left = self._files.names(_checked(table_id))
        delta = self._open(table_id)
        named: set[str] = set()
        if delta is not None:
            for _, text in self._log(table_id, int(delta.version())):
                named.update(action["add"]["path"] for action in actions_of(text) if "add" in action)
        ours = [
            name for name in left if name.startswith("tmp-") or (name.startswith("part-") and name[-8:] == ".parquet")
        ]
        old = [name for name in ours if name not in named and left[name] < before]
        for name in old:
            self._files.delete(f"{table_id}/{name}")
        return len(old)

    def _open(self, table_id: str) -> Any:
        """Return the newest state of a Delta table, or None where there is none."""
        if not self._files.has(log_key(_checked(table_id), 0)):
            return None
        return self._load(table_id)

    def _load(self, table_id: str, number: int | None = None) -> Any:
        with self._told(table_id):
            return need("deltalake").DeltaTable(
                self._files.uri(table_id), version=number, storage_options=self._options
            )

    def _at(self, location: Data) -> Any:
        table_id, number = _checked(location["table"]), int(location["delta_version"])
        if not self._files.has(log_key(table_id, 0)):
            raise NotFound(f"table {table_id} is not in this store", where=table_id)
        if not self._files.has(log_key(table_id, number)):
            raise NotFound(f"table {table_id} has no version {number}", where=table_id)
        return self._load(table_id, number)

    def _present(self, location: Data, delta: Any) -> list[str]:
        """Return the names of a version's files, all of which are there."""
        table_id, names = location["table"], sorted(_names(delta))
        gone = self._files.missing(table_id, names)
        if gone is not None:
            raise Corrupt(f"a file of table {table_id} is missing", where=self._files.uri(f"{table_id}/{gone}"))
        return names

    def _paths(self, location: Data, delta: Any) -> list[Path]:
        names = self._present(location, delta)
        return [self._files.path(f"{location['table']}/{name}", _digest_of(name)) for name in names]

    def _log(self, table_id: str, newest: int) -> Iterator[tuple[int, str]]:
        """Yield the commits of a table as number and text, newest first."""
        for number in range(newest, -1, -1):
            content = self._files.read(log_key(table_id, number))
            if content is not None:
                yield number, content.decode()

    def _dropped(self, table_id: str, number: int, newest: int) -> bool:
        """Say whether a later commit dropped version ``number``."""
        for later, text in self._log(table_id, newest):
            if later <= number:
                return False
            marker = dropped_by(text)
            if marker is not None and marker[0] < number <= marker[1]:
                return True
        return False

    @contextmanager
    def _told(self, table_id: str) -> Iterator[None]:
        """Turn the engine's errors into ours."""
        errors = need("deltalake.exceptions")
        with self._files.told(table_id):
            try:
                yield
            except errors.CommitFailedError as error:
                words = self._files.clean(str(error))
                raise Conflict(f"somebody else wrote the table: {words}", where=table_id, fix="do it again") from None
            except errors.DeltaError as error:
                words = self._files.clean(str(error))
                raise Fault(f"the table could not be written: {words}", where=table_id) from None


def open_tables(
    location: str | Path, options: Mapping[str, str] | None = None, *, cache: Path | None = None
) -> DeltaTables:
    """Open the tables of a folder or of a URL (for arguments and errors see ``blobs.open_blobs``)."""
    return DeltaTables(open_files(location, options, cache=cache))


def _checked(table_id: str) -> str:
    if not is_id(table_id):
        raise WrongUse(f"{table_id[:80]!r} is not a table's id")
    return table_id


def _check_request(staged: Sequence[Staged], mode: Mode, dropped: Sequence[str]) -> None:
    if mode == "overwrite" and dropped:
        raise WrongUse("overwrite drops all files", where="drop_files", fix="leave drop_files out, or append")
    if not staged and not (mode == "append" and dropped):
        raise BadInput("there is nothing to commit", fix="stage a frame first; it may have no rows")


def _location(delta: Any, table_id: str) -> Data:
    actions = need("pyarrow").table(delta.get_add_actions(flatten=True)).to_pylist()
    schema = {field.name: str(field.type) for field in _schema(delta)}
    return {
        "table": table_id,
        "delta_version": int(delta.version()),
        "rows": sum(action["num_records"] for action in actions),
        "bytes": sum(action["size_bytes"] for action in actions),
        "schema": schema,
        "digest": digest({"schema": schema, "files": sorted(_digest_of(one["path"]) for one in actions)}),
    }


def _schema(delta: Any) -> Any:
    return narrow(need("pyarrow").schema(delta.schema().to_arrow()))


def _staged_schema(staged: Staged) -> Any:
    pyarrow: Any = need("pyarrow")
    return pyarrow.ipc.read_schema(pyarrow.py_buffer(staged.arrow))


def _names(delta: Any) -> list[str]:
    return list(need("pyarrow").table(delta.get_add_actions(flatten=True)).column("path").to_pylist())


def _digest_of(name: str) -> str:
    return "sha256:" + name.removeprefix("part-").split("-")[0]


def _add_columns(deltalake: Any, delta: Any, schema: Any) -> bool:
    """Give the table the columns that ``schema`` has and it does not; say whether there were any."""
    have = _schema(delta)
    merge_schemas([have, schema])
    fresh = [field for field in schema if field.name not in have.names]
    if not fresh:
        return False
    lower = {name.lower(): name for name in have.names}
    for field in fresh:
        if field.name.lower() in lower:
            raise BadInput(
                f"columns {lower[field.name.lower()]!r} and {field.name!r} have one name",
                where=field.name,
                fix="rename one",
            )
    delta.alter.add_columns(deltalake.Schema.from_arrow(need("pyarrow").schema(fresh)).fields)
    return True


def _add_local_times(deltalake: Any, delta: Any, schema: Any) -> bool:
    """Give the table the feature that timestamps without a zone need, if ``schema`` has any and it lacks it.

    Without the feature nobody could read them.
    """
    feature = deltalake.TableFeatures.TimestampWithoutTimezone
    if not has_local_times(schema) or "timestampNtz" in (delta.protocol().reader_features or ()):
        return False
    delta.alter.add_feature(feature, allow_protocol_versions_increase=True)
    return True
