"""Reading source files as received: nothing is guessed, nothing is dropped, and a broken file is named.

CSV columns stay text (DESIGN: bronze is rows as received); types are made in the silver step.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadSource
from trimtab.core.optional import need

if TYPE_CHECKING:
    import pyarrow

_ENDINGS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def format_of(path: Path, wanted: str = "auto") -> str:
    """Return the format of a file: what was asked for, or what its ending says.

    Raises:
        BadSource: the ending is unknown.
    """
    if wanted != "auto":
        return wanted
    plain = path.with_suffix("") if path.suffix in (".gz", ".zip") else path
    found = _ENDINGS.get(plain.suffix.lower())
    if found is None:
        raise BadSource(
            f"cannot tell the format of a file ending in {plain.suffix!r}", where=str(path), fix="give format='csv'"
        )
    return found


def read_file(path: Path, *, format: str = "auto", null: Sequence[str] = ("",)) -> pyarrow.Table:
    """Return the rows of one source file.

    Args:
        path: a plain file, ``.gz``, or ``.zip`` with one member.
        format: csv, parquet, json, jsonl or auto.
        null: CSV texts that mean "no value".

    Raises:
        BadSource: the file is missing, truncated, garbled or has ragged rows; names file and line.
    """
    kind = format_of(path, format)
    content = _bytes(path)
    if not content:
        raise BadSource("the file is empty", where=str(path), fix="deliver it again, or remove it")
    if kind == "parquet":
        return _parquet(path, content)
    text = _text(path, content)
    if kind == "csv":
        return _csv(path, text, null)
    return _json(path, text, lines=kind == "jsonl")


def _bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as source:
                return source.read()
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                if len(names) != 1:
                    raise BadSource(f"the archive holds {len(names)} files", where=str(path), fix="one file each")
                return archive.read(names[0])
        return path.read_bytes()
    except (EOFError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error) as error:
        raise BadSource(
            f"the archive is truncated or damaged: {error}", where=str(path), fix="deliver it again"
        ) from error
    except OSError as error:
        raise BadSource(f"cannot read the file: {error.strerror or error}", where=str(path)) from error


def _text(path: Path, content: bytes) -> str:
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadSource(
            f"byte {error.start} is not UTF-8 ({error.reason})", where=f"{path}:{line}", fix="convert the file to UTF-8"
        ) from error


def _csv(path: Path, text: str, null: Sequence[str]) -> pyarrow.Table:
    pyarrow: Any = need("pyarrow")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    missing = frozenset(null)
    try:
        header = next(reader)
        _header(path, header)
        columns: list[list[str | None]] = [[] for _ in header]
        appends = [column.append for column in columns]
        width = len(header)
        for row in reader:
            if len(row) != width:
                _ragged(path, reader.line_num, row, width, text)
                continue
            for append, value in zip(appends, row, strict=True):
                append(None if value in missing else value)
    except csv.Error as error:
        raise BadSource(
            f"the CSV ends inside a quoted field or is malformed: {error}",
            where=f"{path}:{reader.line_num}",
            fix="the file may be truncated: deliver it again",
        ) from error
    except StopIteration:
        raise BadSource("the file has no header line", where=str(path), fix="deliver it again") from None
    return pyarrow.table(
        {name: pyarrow.array(column, pyarrow.string()) for name, column in zip(header, columns, strict=True)}
    )


def _header(path: Path, header: list[str]) -> None:
    for name in header:
        if not name.strip():
            raise BadSource("a column has no name", where=f"{path}:1", fix="name it in the header line")
        if header.count(name) > 1:
            raise BadSource(f"column {name!r} is there twice", where=f"{path}:1", fix="rename one")


def _ragged(path: Path, line: int, row: list[str], width: int, text: str) -> None:
    if not row:
        return  # a blank line carries no row
    cut = not text.endswith(("\n", "\r")) and line >= text.count("\n")
    what = "the last line is cut short" if cut else "the row is ragged"
    raise BadSource(
        f"{what}: {len(row)} values for {width} columns",
        where=f"{path}:{line}",
        fix="the file may be truncated: deliver it again" if cut else "quote values that contain the separator",
    )


def _parquet(path: Path, content: bytes) -> pyarrow.Table:
    pyarrow: Any = need("pyarrow")
    try:
        return need("pyarrow.parquet").read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BadSource(
            f"the Parquet file is truncated or damaged: {error}", where=str(path), fix="deliver it again"
        ) from error


def _json(path: Path, text: str, *, lines: bool) -> pyarrow.Table:
    msgspec: Any = need("msgspec")
    pyarrow: Any = need("pyarrow")
    rows: list[Any] = []
    numbered = enumerate(text.splitlines(), start=1) if lines else [(1, text)]
    for number, line in numbered:
        if not line.strip():
            continue
        try:
            item = msgspec.json.decode(line.encode())
        except msgspec.DecodeError as error:
            raise BadSource(
                f"not JSON: {error}", where=f"{path}:{number}", fix="the file may be truncated: deliver it again"
            ) from error
        rows.extend(item if not lines and isinstance(item, list) else [item])
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadSource(f"row {number} is not an object", where=f"{path}:{number}", fix="one object for each row")
    try:
        return pyarrow.Table.from_pylist(rows) if rows else pyarrow.table({})
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
        raise BadSource(f"rows disagree about a type: {error}", where=str(path)) from error
