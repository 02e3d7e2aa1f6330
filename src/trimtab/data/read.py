"""Reading source files as they are: nothing is guessed, nothing is dropped, and a broken file is named.

CSV columns stay text, exactly as received: types are given in the next step, where a value that does not fit
costs its row and not the file. A CSV text that stands for "no value" becomes null, unless it is quoted.
Parquet and JSON bring their own types.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trimtab.core.errors import BadSource, closest
from trimtab.core.optional import need

if TYPE_CHECKING:
    import pyarrow

FORMATS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_AGAIN = "it may have been cut off on its way: deliver it again"
_BLOCK = 1 << 24
# A quote between two characters that are neither quotes nor ends of a field: only then can something stand
# behind a closing quote.
_STRAY = re.compile(rb'[^,\r\n"]"[^,\r\n"]')


def format_of(name: str, wanted: str = "auto") -> str:
    """Return the format of a file: what was asked for, else what its ending says.

    Raises:
        BadSource: the ending is unknown.
    """
    if wanted != "auto":
        return wanted
    path = Path(name)
    plain = path.with_suffix("") if path.suffix.lower() in (".gz", ".zip") else path
    found = FORMATS.get(plain.suffix.lower())
    if found is None:
        raise BadSource(
            f"the ending {plain.suffix!r} tells no format{closest(plain.suffix, FORMATS)}",
            where=name,
            fix="give format='csv', 'parquet', 'json' or 'jsonl', or a function that reads the file",
        )
    return found


def read_file(path: Path, *, name: str = "", format: str = "auto", null: Sequence[str] = ("",)) -> pyarrow.Table:
    """Return the rows of one source file, in its order and with its columns in theirs.

    Args:
        path: a plain file, a ``.gz``, or a ``.zip`` with one member.
        name: what the file is called in errors; by default its path.
        format: csv, parquet, json, jsonl, or auto: by the ending.
        null: unquoted CSV texts that mean "no value".

    Raises:
        BadSource: the file is missing, empty, cut off, not UTF-8 or otherwise not what its format wants;
            file, line and fix are named.
    """
    told = name or str(path)
    kind = format_of(told, format)
    content = _bytes(path, told)
    if not content:
        raise BadSource("the file is empty", where=told, fix=f"{_AGAIN}, or remove it")
    if kind == "parquet":
        return _parquet(content, told)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadSource("the file is UTF-16", where=told, fix="save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    if kind == "csv" and not content.endswith((b"\n", b"\r")):
        # Arrow takes an empty last value behind a quoted one for a quoted one when the line has no end.
        content += b"\n"
    if kind == "csv":
        return _csv(content, told, null)
    rows = _json_lines(content, told) if kind == "jsonl" else _json_rows(content, told)
    return _json_table(rows, told)


def _bytes(path: Path, told: str) -> bytes:
    try:
        if path.suffix.lower() == ".gz":
            return gzip.decompress(path.read_bytes())
        if path.suffix.lower() == ".zip":
            return _member(path, told)
        return path.read_bytes()
    except (EOFError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error) as error:
        raise BadSource(f"the archive is cut off or damaged: {error}", where=told, fix=_AGAIN) from error
    except (OSError, RuntimeError) as error:
        text = getattr(error, "strerror", None) or error
        raise BadSource(f"cannot read the file: {text}", where=told, fix="mend its permissions") from error


def _member(path: Path, told: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise BadSource(
                f"the archive holds {len(names)} files ({', '.join(names[:4])})",
                where=told,
                fix="put each file into an archive of its own",
            )
        return archive.read(names[0])


def _csv(content: bytes, told: str, null: Sequence[str]) -> pyarrow.Table:
    pyarrow, reader = need("pyarrow"), need("pyarrow.csv")
    header, start = _header(content, told)
    quoted = content.count(b'"')
    if quoted and (quoted % 2 or _STRAY.search(content)):
        _diagnose(content, told, len(header))
    body = memoryview(content)[start:]
    texts = {name: pyarrow.string() for name in header}
    schema = pyarrow.schema(texts)
    if not bytes(body[:2]).strip() and not bytes(body).strip(b"\r\n"):
        return schema.empty_table()
    problem = ""
    for block in (_BLOCK, len(body) + 1):
        try:
            return reader.read_csv(
                pyarrow.BufferReader(pyarrow.py_buffer(body)),
                read_options=reader.ReadOptions(column_names=header, block_size=block),
                parse_options=reader.ParseOptions(newlines_in_values=quoted > 0, ignore_empty_lines=len(header) > 1),
                convert_options=reader.ConvertOptions(
                    column_types=texts,
                    null_values=list(null),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except pyarrow.ArrowInvalid as error:
            problem = str(error)
            if len(body) < _BLOCK or "straddling" not in problem:
                break
    _diagnose(content, told, len(header))
    raise BadSource(f"the CSV cannot be read: {problem}", where=told, fix=_AGAIN)


def _header(content: bytes, told: str) -> tuple[list[str], int]:
    """Return the names in the first line, and where the rows begin."""
    end = 0
    while True:
        lines = [at + 1 for mark in (b"\n", b"\r") if (at := content.find(mark, end)) >= 0]
        end = min(lines, default=len(content))
        if content[end - 1 : end + 1] == b"\r\n":
            end += 1
        if content.count(b'"', 0, end) % 2 == 0 or end == len(content):
            break
    try:
        text = content[:end].decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise _not_utf8(content, told, error) from error
    except csv.Error as error:
        raise BadSource(f"the header line is garbled: {error}", where=f"{told}:1", fix=_AGAIN) from error
    if not rows or not rows[0]:
        raise BadSource("the file does not begin with a header line", where=f"{told}:1", fix=_AGAIN)
    _check_header(rows[0], told)
    return rows[0], end


def _check_header(header: Sequence[str], told: str) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise BadSource(
            f"the header {header[0]!r} is one column: its separator is not a comma",
            where=f"{told}:1",
            fix="give the source a function that takes the file's path and reads it",
        )
    seen: dict[str, str] = {}
    for number, name in enumerate(header, start=1):
        if not name.strip():
            raise BadSource(f"column {number} has no name", where=f"{told}:1", fix="name it in the header line")
        if name.lower() in seen:
            other = seen[name.lower()]
            what = f"column {name!r} is there twice"
            if other != name:
                what = f"columns {other!r} and {name!r} differ only in case"
            raise BadSource(what, where=f"{told}:1", fix="rename one of them in the header line")
        seen[name.lower()] = name


def _not_utf8(content: bytes, told: str, error: UnicodeDecodeError) -> BadSource:
    line = content.count(b"\n", 0, error.start) + 1
    return BadSource(
        f"byte {error.start + 1} (0x{content[error.start]:02x}) is not UTF-8",
        where=f"{told}:{line}",
        fix="save the file as UTF-8, or give the source a function that reads its encoding",
    )


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record begins, and its values."""
    before = csv.field_size_limit(1 << 30)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        line = 1
        for record in reader:
            yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Garbled(line, str(error)) from error
    finally:
        csv.field_size_limit(before)


class _Garbled(Exception):
    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def _diagnose(content: bytes, told: str, width: int) -> None:
    """Find the line that makes a CSV unreadable and say what is wrong with it; return if none does."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(content, told, error) from error
    found: tuple[int, int] | None = None
    try:
        for line, record in _records(text):
            if found is not None:
                break
            if record and len(record) != width:
                found = line, len(record)
        else:
            if found is not None and found[1] < width:
                raise BadSource(
                    f"the last line has {found[1]} of {width} values",
                    where=f"{told}:{found[0]}",
                    fix=_AGAIN,
                )
    except _Garbled as error:
        if found is None:
            unclosed = "unexpected end" in str(error)
            problem = "a quote is opened here and never closed" if unclosed else f"garbled: {error}"
            where = f"{told}:{error.line}"
            raise BadSource(problem, where=where, fix=_AGAIN if unclosed else "double a quote in a text") from error
    if found is not None:
        raise BadSource(
            f"the line has {found[1]} values and the header has {width}",
            where=f"{told}:{found[0]}",
            fix="mend the line; a text that contains a comma or a line break has to be quoted",
        )


def _parquet(content: bytes, told: str) -> pyarrow.Table:
    pyarrow: Any = need("pyarrow")
    try:
        table = need("pyarrow.parquet").ParquetFile(pyarrow.BufferReader(content)).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadSource(f"the Parquet file is cut off or damaged: {error}", where=told, fix=_AGAIN) from error
    _check_header(table.schema.names, told)
    return table.replace_schema_metadata(None)


def _json_lines(content: bytes, told: str) -> list[tuple[int, Any]]:
    rows: list[tuple[int, Any]] = []
    lines = content.split(b"\n")
    last = max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, msgspec.json.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            cut = number == last and not content.endswith(b"\n")
            what = "the last line is cut off" if cut else "the line is not JSON"
            raise BadSource(
                f"{what}: {error}", where=f"{told}:{number}", fix=_AGAIN if cut else "write one object a line"
            ) from error
    return rows


def _json_rows(content: bytes, told: str) -> list[tuple[int, Any]]:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fix = "give format='jsonl'" if b"}\n{" in content.replace(b"\r", b"") else _AGAIN
        raise BadSource(f"the file is not JSON: {error}", where=told, fix=fix) from error
    if not isinstance(found, list):
        raise BadSource("the JSON is not a list of objects", where=told, fix="write [{...}, {...}]")
    return list(enumerate(found, start=1))


def _json_table(rows: Sequence[tuple[int, Any]], told: str) -> pyarrow.Table:
    pyarrow: Any = need("pyarrow")
    names: dict[str, None] = {}
    for number, row in rows:
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise BadSource(f"a row is not an object but {kind}", where=f"{told}:{number}", fix='{"column": value}')
        names.update(dict.fromkeys(row))
    if not names:
        raise BadSource("no row has a value", where=told, fix=f"{_AGAIN}, or remove it")
    _check_header(list(names), told)
    columns = []
    for name in names:
        values = [row.get(name) for _, row in rows]
        try:
            columns.append(pyarrow.array(values))
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            raise BadSource(
                f"the values of {name!r} are not of one type: {error}",
                where=f"{told}:{_odd(rows, name)}",
                fix="give them one type, or give the source a function that reads the file",
            ) from error
    return pyarrow.table(dict(zip(names, columns, strict=True)))


def _odd(rows: Sequence[tuple[int, Any]], name: str) -> int:
    """Return the number of the first row whose value has another type than the first one."""
    first: type | None = None
    for number, row in rows:
        value = row.get(name)
        kind = float if type(value) is int else type(value)
        if value is None:
            continue
        if first is not None and kind is not first:
            return number
        first = kind
    return rows[0][0]
