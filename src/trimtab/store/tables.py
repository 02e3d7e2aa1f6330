"""Tables in Delta Lake: stage Parquet, judge it, commit it with the run's id, then write the ledger row.

Staged files lie in the table's folder and outside its log, so that no reader ever sees rows that were not
checked. A commit carries the run id as its application transaction: after a kill between the commit and the
ledger row, ``find_commit`` finds it again, or ``rollback_to`` drops it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import digest, digest_file
from trimtab.core.errors import BadInput, Conflict, Corrupt, Fault, NotFound, WrongUse
from trimtab.core.ids import is_id, new_hex
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.store.blobs import sync_folder
from trimtab.store.columns import conform, has_local_times, keepable, merge_schemas, narrow

if TYPE_CHECKING:
    import polars
    import pyarrow

Mode = Literal["overwrite", "append"]
_PREFIX = "trimtab-run-"
_AFTER, _UNTIL = "trimtab.dropped_after", "trimtab.dropped_until"
# A version stays readable for as long as the ledger names it: Delta must not clean up by age.
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
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
        """Return a version's files; their order depends on their content only."""
        ...

    def sweep(self, table_id: str, before: float) -> int:
        """Remove what dead writers staged before a time (seconds since the epoch) and return how many files."""
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
            BadInput: a column cannot be kept exactly (see ``columns.keepable``).
        """
        folder = self.folder(table_id)
        delta = _open(folder)
        table = keepable(frame, None if delta is None else _schema(delta))
        schema = narrow(table.schema)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"tmp-{new_hex()}"
        try:
            with temporary.open("xb") as out:
                need("pyarrow.parquet").write_table(table, out, **_PARQUET)
                out.flush()
                os.fsync(out.fileno())
            content = digest_file(temporary)
            # The name carries the digest; the tail keeps a file that comes back apart from the dropped one.
            name = f"part-{content.removeprefix('sha256:')}-{new_hex()[-8:]}.parquet"
            path = temporary.rename(folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(folder)
        return Staged(
            file=name,
            rows=table.num_rows,
            size=path.stat().st_size,
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
        folder = self.folder(table_id)
        delta = _open(folder)
        before = self._find(delta, table_id, run_id)
        if before is not None:
            names = {path.name for path in self.files(before)}
            if any(one.file not in names for one in staged):
                raise Conflict(f"run {run_id} has committed to this table before", where=table_id)
            return before
        if base is not ...:
            self.rollback_to(table_id, base)
            delta = _open(folder)
        with _told(table_id):
            self._commit(folder, delta, staged, mode, run_id, dropped)
        found = self._find(_open(folder), table_id, run_id)
        if found is None:
            raise Corrupt(f"the commit of {run_id} is not in the log", where=table_id)
        return found

    def _commit(
        self, folder: Path, delta: Any, staged: Sequence[Staged], mode: Mode, run_id: str, dropped: list[str]
    ) -> None:
        deltalake, transaction = need("deltalake"), need("deltalake.transaction")
        new = merge_schemas([_staged_schema(one) for one in staged])
        first = 0 if delta is None else int(delta.version()) + 1
        if delta is None:
            schema = deltalake.Schema.from_arrow(new)
            delta = deltalake.DeltaTable.create(str(folder), schema, mode="ignore", configuration=_CONFIGURATION)
        if mode == "append":
            delta = _with_columns(deltalake, delta, new)
            new = _schema(delta)
        delta = _with_local_times(deltalake, delta, new)
        missing = set(dropped) - set(_names(delta))
        if missing:
            raise NotFound(f"the table has no file {min(missing)!r}", where=folder.name)
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
        _settle(folder, first)

    def find_commit(self, table_id: str, run_id: str) -> Data | None:
        """Return where the version lies that a run committed, if it did and it was not dropped."""
        return self._find(_open(self.folder(table_id)), table_id, run_id)

    def _find(self, delta: Any, table_id: str, run_id: str) -> Data | None:
        if delta is None or delta.transaction_version(_PREFIX + run_id) is None:
            return None
        folder, newest, mark = self.folder(table_id), int(delta.version()), json.dumps(_PREFIX + run_id)
        for number, text in _log(folder, newest):
            if mark in text and any(
                action.get("txn", {}).get("appId") == _PREFIX + run_id for action in _actions(text)
            ):
                if _dropped(folder, number, newest):
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
        delta = _open(self.folder(table_id))
        return None if delta is None else int(delta.version())

    def rollback_to(self, table_id: str, number: int | None) -> None:
        """Make version ``number`` (None: no rows) the newest again; what came after stays readable by its number.

        This drops commits that no ledger row names. Doing it again changes nothing.
        """
        folder, target = self.folder(table_id), number or 0
        delta = _open(folder)
        if delta is None:
            return
        newest = int(delta.version())
        marker = _marker(next(_log(folder, newest))[1])
        if target == newest or (marker is not None and marker[0] == target):
            return
        if target > newest:
            raise NotFound(f"the table has no version {target}; its newest is {newest}", where=table_id)
        properties = need("deltalake.transaction").CommitProperties(custom_metadata={_AFTER: target, _UNTIL: newest})
        with _told(table_id):
            delta.restore(target, commit_properties=properties)
        _settle(folder, newest + 1)

    def files(self, location: Data) -> list[Path]:
        """Return a version's files; their order depends on their content only.

        Raises:
            NotFound: the table or the version is not in this store.
            Corrupt: a file is missing.
        """
        return self._files(location, self._at(location))

    def arrow(self, location: Data) -> pyarrow.Table:
        """Return a version's rows (for errors see ``files``)."""
        delta = self._at(location)
        schema = _schema(delta)
        # ParquetFile and not read_table: the latter would read columns out of the folder's path.
        reader = need("pyarrow.parquet").ParquetFile
        parts = []
        for path in self._files(location, delta):
            with reader(path) as source:
                parts.append(conform(source.read(), schema))
        return need("pyarrow").concat_tables(parts) if parts else schema.empty_table()

    def scan(self, location: Data) -> polars.LazyFrame:
        """Return a version's rows, to be read when they are needed (for errors see ``files``)."""
        frames: Any = need("polars")
        delta = self._at(location)
        files = self._files(location, delta)
        empty = frames.from_arrow(_schema(delta).empty_table())
        if not files:
            return empty.lazy()  # type: ignore[no-any-return]
        return frames.scan_parquet(  # type: ignore[no-any-return]
            files, schema=empty.schema, missing_columns="insert", glob=False, hive_partitioning=False
        )

    def verify(self, location: Data) -> None:
        """Read every byte of a version and compare it with the digests.

        Raises:
            Corrupt: a file is missing or has other content; ``where`` names it.
        """
        for path in self.files(location):
            if digest_file(path) != _digest_of(path.name):
                raise Corrupt(f"a file of table {location['table']} has other content", where=str(path))

    def sweep(self, table_id: str, before: float) -> int:
        """Remove files older than ``before`` (seconds since the epoch) that no version ever named."""
        folder = self.folder(table_id)
        delta = _open(folder) if folder.is_dir() else None
        named: set[str] = set()
        if delta is not None:
            for _, text in _log(folder, int(delta.version())):
                named.update(action["add"]["path"] for action in _actions(text) if "add" in action)
        left = [*folder.glob("part-*.parquet"), *folder.glob("tmp-*")]
        old = [path for path in left if path.name not in named and path.stat().st_mtime < before]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _at(self, location: Data) -> Any:
        deltalake: Any = need("deltalake")
        folder, number = self.folder(location["table"]), int(location["delta_version"])
        if not _is_table(folder):
            raise NotFound(f"table {location['table']} is not in this store", where=location["table"])
        if not _log_file(folder, number).exists():
            raise NotFound(f"table {location['table']} has no version {number}", where=location["table"])
        return deltalake.DeltaTable(str(folder), version=number)

    def _files(self, location: Data, delta: Any) -> list[Path]:
        found = [self.folder(location["table"]) / name for name in sorted(_names(delta))]
        for path in found:
            if not path.exists():
                raise Corrupt(f"a file of table {location['table']} is missing", where=str(path))
        return found


def _check_request(staged: Sequence[Staged], mode: Mode, dropped: Sequence[str]) -> None:
    if mode == "overwrite" and dropped:
        raise WrongUse("overwrite drops all files", where="drop_files", fix="leave drop_files out, or append")
    if not staged and not (mode == "append" and dropped):
        raise BadInput("there is nothing to commit", fix="stage a frame first; it may have no rows")


@contextmanager
def _told(table_id: str) -> Iterator[None]:
    """Turn the engine's errors into ours."""
    errors = need("deltalake.exceptions")
    try:
        yield
    except errors.CommitFailedError as error:
        raise Conflict(f"somebody else wrote the table: {error}", where=table_id, fix="do it again") from error
    except errors.DeltaError as error:
        raise Fault(f"the table could not be written: {error}", where=table_id) from error


def _is_table(folder: Path) -> bool:
    return _log_file(folder, 0).exists()


def _open(folder: Path) -> Any:
    """Return the newest state of a Delta table, or None where there is none."""
    return need("deltalake").DeltaTable(str(folder)) if _is_table(folder) else None


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


def _log_file(folder: Path, number: int) -> Path:
    return folder / "_delta_log" / f"{number:020d}.json"


def _log(folder: Path, newest: int) -> Iterator[tuple[int, str]]:
    """Yield the commits of a table as number and text, newest first."""
    for number in range(newest, -1, -1):
        path = _log_file(folder, number)
        if path.exists():
            yield number, path.read_text()


def _actions(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _marker(text: str) -> tuple[int, int] | None:
    """Return which versions a commit dropped (after the first, up to the second), if it is a rollback."""
    if _AFTER in text:
        for action in _actions(text):
            info = action.get("commitInfo", {})
            if _AFTER in info:
                return int(info[_AFTER]), int(info[_UNTIL])
    return None


def _dropped(folder: Path, number: int, newest: int) -> bool:
    """Say whether a later commit dropped version ``number``."""
    for later, text in _log(folder, newest):
        if later <= number:
            return False
        marker = _marker(text)
        if marker is not None and marker[0] < number <= marker[1]:
            return True
    return False


def _settle(folder: Path, first: int) -> None:
    """Make the log durable from commit ``first`` on: the engine itself does not sync."""
    log = folder / "_delta_log"
    for path in log.iterdir():
        number = path.name[:20]
        if not number.isdigit() or int(number) >= first - 1:
            with path.open("rb") as source:
                os.fsync(source.fileno())
    for place in (log, folder, folder.parent):
        sync_folder(place)


def _with_columns(deltalake: Any, delta: Any, schema: Any) -> Any:
    """Return the table with the columns that ``schema`` has and the table does not."""
    have = _schema(delta)
    merge_schemas([have, schema])
    fresh = [field for field in schema if field.name not in have.names]
    if not fresh:
        return delta
    lower = {name.lower(): name for name in have.names}
    for field in fresh:
        if field.name.lower() in lower:
            raise BadInput(
                f"columns {lower[field.name.lower()]!r} and {field.name!r} have one name",
                where=field.name,
                fix="rename one",
            )
    delta.alter.add_columns(deltalake.Schema.from_arrow(need("pyarrow").schema(fresh)).fields)
    return deltalake.DeltaTable(delta.table_uri)


def _with_local_times(deltalake: Any, delta: Any, schema: Any) -> Any:
    """Return the table with the feature that timestamps without a zone need; without it nobody could read them."""
    feature = deltalake.TableFeatures.TimestampWithoutTimezone
    if not has_local_times(schema) or "timestampNtz" in (delta.protocol().reader_features or ()):
        return delta
    delta.alter.add_feature(feature, allow_protocol_versions_increase=True)
    return deltalake.DeltaTable(delta.table_uri)
