"""Takes all rows of a ledger elsewhere, exactly: into one file, out of it, and from one database into another.

The file is gzip around frames: four bytes of length, big-endian, and MessagePack. The first frame is a header with the
number of the schema and, for each table, its columns and rows; then come rows, some hundred a frame, each with the
name of its table; the last frame has the sums of the tables and the sha256 of all bytes before it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from trimtab.core.clock import wall_seconds
from trimtab.core.digest import canonical
from trimtab.core.errors import Conflict, Corrupt, Fault, WrongUse
from trimtab.core.ids import new_hex
from trimtab.store.blobs import sync_folder
from trimtab.store.catalogue import (
    Row,
    Sum,
    Table,
    continue_numbers,
    counts,
    is_sqlite,
    pages,
    snapshot,
    sum_of,
    tables,
)
from trimtab.store.leases import STALE_AFTER, holder, is_alive
from trimtab.store.ledger import Ledger, Reader, Tx
from trimtab.store.ledgercheck import IMPORTED, audit_gaps
from trimtab.store.migrations import MIGRATIONS

FORMAT = "trimtab-ledger"
_FORMAT_NUMBER = 1
_OPENING = ("clock", "environment", "workspace", "audit")
_OPENING_ACTS = ("open environment", "clock")
_STALE_US = int(STALE_AFTER * 1e6)
Chunks = Iterable[tuple[str, list[Row]]]


class Header(Struct, frozen=True, kw_only=True):
    """How a file begins.

    Attributes:
        schema: of the ledger that the rows come from.
        release: of Trimtab that wrote it.
        tables: each with its columns, in the order of its rows' values.
        rows: how many each table has.
        missing: numbers that the audit left out.
    """

    format: str
    number: int
    schema: int
    release: str
    made_at: datetime
    tables: dict[str, list[str]]
    rows: dict[str, int]
    missing: list[int]


class Footer(Struct, frozen=True, kw_only=True):
    """How a file ends: the digest of each table's rows, and that of every byte before."""

    sums: dict[str, str]
    sha256: str


class Copied(Struct, frozen=True, kw_only=True):
    """What was copied.

    Attributes:
        rows: how many of each table.
        sums: the digest of each table's rows; see ``catalogue.Sum``.
    """

    rows: dict[str, int]
    sums: dict[str, str]
    size: int = 0

    @property
    def total(self) -> int:
        """How many rows there are in all."""
        return sum(self.rows.values())


def export_ledger(ledger: Ledger, path: Path) -> Copied:
    """Write all rows of a ledger, as they stand at one moment, to a file; whoever writes meanwhile is not in the way.

    The file is there whole and durable, or not at all; one that is there already is replaced. Blobs and tables are
    not in it.

    Raises:
        Unavailable: the database does not answer.
        WrongUse: the file cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{new_hex()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            with gzip.GzipFile("", "wb", 6, out, mtime=0) as packed, snapshot(ledger) as reader:
                copied = _write(reader, packed)
            out.flush()
            os.fsync(out.fileno())
        size = fresh.stat().st_size
        fresh.replace(path)
        sync_folder(path.absolute().parent)
    except OSError as error:
        raise WrongUse(f"the file cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)
    return msgspec.structs.replace(copied, size=size)


def _write(reader: Reader, packed: BinaryIO | gzip.GzipFile) -> Copied:
    running = hashlib.sha256()
    sums = {table.name: Sum() for table in tables()}

    def frame(data: Any) -> None:
        content = msgspec.msgpack.encode(data)
        framed = _framed(content)
        running.update(framed)
        packed.write(framed)

    frame(
        Header(
            format=FORMAT,
            number=_FORMAT_NUMBER,
            schema=len(MIGRATIONS),
            release=version("trimtab"),
            made_at=datetime.fromtimestamp(wall_seconds(), UTC),
            tables={table.name: list(table.columns) for table in tables()},
            rows=counts(reader),
            missing=audit_gaps(reader),
        )
    )
    for name, rows in _chunks(reader):
        sums[name].add(rows)
        frame((name, rows))
    digests = {name: one.digest for name, one in sums.items()}
    frame(Footer(sums=digests, sha256=running.hexdigest()))
    return Copied(rows={name: one.rows for name, one in sums.items()}, sums=digests)


def _chunks(reader: Reader) -> Iterator[tuple[str, list[Row]]]:
    for table in tables():
        for page in pages(reader, table):
            yield table.name, page


def read_header(path: Path) -> Header:
    """Return how a file begins.

    Raises:
        Corrupt: it is none of an export.
        WrongUse: it cannot be read, or another release wrote it.
    """
    for content in _frames(path):
        return _header(content, path)
    raise Corrupt("the file is empty", where=str(path), fix="take another copy")


def _header(content: bytes, path: Path) -> Header:
    try:
        header = msgspec.msgpack.decode(content, type=Header)
    except msgspec.MsgspecError as error:
        raise Corrupt("this is no export of a ledger", where=str(path), fix="trimtab ledger export FILE") from error
    if header.format != FORMAT or header.number != _FORMAT_NUMBER or header.schema != len(MIGRATIONS):
        raise WrongUse(
            f"the file has schema {header.schema} of release {header.release}, and this release has {len(MIGRATIONS)}",
            where=str(path),
            fix="import it with the release that wrote it; a newer one brings the ledger up to date when it opens it",
        )
    if header.tables != {table.name: list(table.columns) for table in tables()}:
        raise Corrupt("the file has other tables than its schema", where=str(path), fix="take another copy")
    return header


def _frames(path: Path) -> Iterator[bytes]:
    """Yield the contents of a file's frames.

    Raises:
        Corrupt: it is cut off, or its bytes have changed.
        WrongUse: it cannot be read.
    """
    try:
        with gzip.open(path, "rb") as packed:
            while length := packed.read(4):
                size = int.from_bytes(length, "big")
                content = packed.read(size)
                if len(length) < 4 or len(content) < size:
                    raise EOFError("it ends within a frame")
                yield content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Corrupt(f"the file is broken: {error}", where=str(path), fix="take another copy") from error
    except OSError as error:
        raise WrongUse(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def _read(path: Path) -> Iterator[tuple[str, list[Row]]]:
    """Yield a file's rows, and raise at the end if they are not all that was written, exactly."""
    broken = Corrupt("the file is not what was written", where=str(path), fix="take another copy")
    frames = _frames(path)
    first = next(frames, b"")
    header, footer = _header(first, path), None
    running = hashlib.sha256(_framed(first))
    sums = {table.name: Sum() for table in tables()}
    for content in frames:
        if footer is not None:
            raise broken
        try:
            data = msgspec.msgpack.decode(content)
            if isinstance(data, dict):
                footer = msgspec.convert(data, Footer)
                continue
            name, rows = data
            sums[name].add(rows)
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
            raise broken from error
        running.update(_framed(content))
        yield name, rows
    found = {name: one.digest for name, one in sums.items()}
    counted = {name: one.rows for name, one in sums.items()}
    if footer is None or (running.hexdigest(), found, counted) != (footer.sha256, footer.sums, header.rows):
        raise broken


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def import_ledger(ledger: Ledger, path: Path) -> Copied:
    """Put all rows of a file into an empty ledger: all of them, exactly, or nothing.

    Raises:
        Conflict: something is recorded in the ledger already.
        Corrupt: the file is not what was written.
        WrongUse: it cannot be read, or another release wrote it.
    """
    header = read_header(path)
    for _ in _read(path):  # the whole file is proven before the first row is written
        pass
    return _write_all(ledger, lambda: _read(path), header.missing)


def copy_ledger(source: Ledger, target: Ledger) -> Copied:
    """Put all rows of one ledger into another that is empty: all of them, exactly, or nothing.

    Raises:
        Conflict: something is recorded in the target already; or somebody wrote to the source meanwhile.
        Unavailable: one of the databases does not answer.
    """
    # Two files in one folder share one lock, so within the target's turn the source opens nothing.
    before = source.changes()
    with snapshot(source) as reader:

        def check() -> None:
            if source.changes() != before:
                raise Conflict(
                    "somebody wrote to the ledger while it was copied; nothing was copied",
                    where=source.where,
                    fix="stop what writes to it, and try again",
                )

        return _write_all(target, lambda: _chunks(reader), audit_gaps(reader), check)


def _write_all(
    ledger: Ledger, chunks: Callable[[], Chunks], missing: list[int], check: Callable[[], None] = lambda: None
) -> Copied:
    def act(tx: Tx) -> tuple[dict[str, int], dict[str, str]]:
        need_empty(tx, ledger.where)
        for name in _OPENING:
            tx.execute(f'DELETE FROM "{name}"')
        sums = _insert(tx, chunks())
        continue_numbers(tx, sqlite=is_sqlite(ledger))
        for table in tables():
            if sum_of(tx, table) != sums[table.name]:
                raise Fault(
                    f"the rows of {table.name} are not those that were sent; nothing was kept", where=table.name
                )
        check()
        rows = {name: one.rows for name, one in sums.items()}
        told = f"no leaf {' '.join(map(str, missing))};" if missing else ""
        tx.note("ledger", rows=sum(rows.values()), missing=told)
        return rows, {name: one.digest for name, one in sums.items()}

    rows, sums = ledger.write(act, what=IMPORTED)
    return Copied(rows=rows, sums=sums)


def _insert(tx: Tx, chunks: Chunks) -> Mapping[str, Sum]:
    sums = {table.name: Sum() for table in tables()}
    statements = {table.name: _statement(table) for table in tables()}
    for name, rows in chunks:
        tx.execute_many(statements[name], rows)
        sums[name].add(rows)
    return sums


def _statement(table: Table) -> str:
    return f"INSERT INTO {table.quoted}({table.listed}) VALUES ({', '.join('?' * len(table.columns))})"


def need_empty(reader: Reader, where: str) -> None:
    """Refuse a ledger in which something is recorded, other than that it was opened.

    Raises:
        Conflict: there is something.
    """
    found = {name: rows for name, rows in counts(reader).items() if rows and name not in _OPENING}
    leaves = [leaf for (leaf,) in reader.query("SELECT leaf FROM audit ORDER BY id LIMIT 50")]
    acts = [canonical("what") + canonical(act) for act in _OPENING_ACTS]
    opened = len(leaves) < 50 and all(any(act in leaf for act in acts) for leaf in leaves)
    if found or not opened:
        told = (
            ", ".join(f"{rows} rows of {name}" for name, rows in list(found.items())[:3]) or "its audit tells of acts"
        )
        raise Conflict(f"the ledger is not empty: {told}", where=where, fix="name a new file, database or schema")


def need_still(ledger: Ledger) -> None:
    """Refuse a ledger that a living process works with.

    Raises:
        Conflict: one executes a run, or holds a lease.
    """
    runs = ledger.query("SELECT id, holder, beat + ? FROM run WHERE state='running' AND holder<>''", (_STALE_US,))
    for name, identity, expires in [*runs, *ledger.query("SELECT name, holder, expires FROM lease WHERE holder<>''")]:
        alive = is_alive(identity)
        if identity != holder() and (alive or (alive is None and expires > wall_seconds() * 1e6)):
            raise Conflict(f"a process works with the ledger: it holds {name}", where=ledger.where, fix="stop it first")
