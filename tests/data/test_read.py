"""Reading files: exactly what is there, or an error that names file, line and fix."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import BadSource
from trimtab.data.read import format_of, read_file


def _read(tmp_path: Path, content: bytes, name: str = "a.csv", **options: object) -> pa.Table:
    path = tmp_path / name
    path.write_bytes(content)
    return read_file(path, name=f"data/{name}", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"id,x\n1,2\n", [("1", "2")]),
        (b"id,x\n1,2", [("1", "2")]),
        (b"id,x\r\n1,2\r\n", [("1", "2")]),
        (b"id,x\r1,2\r", [("1", "2")]),
        (b"\xef\xbb\xbfid,x\n1,2\n", [("1", "2")]),
        (b"id,x\n", []),
        (b"id,x", []),
        (b"id,x\n\n1,2\n\n\n", [("1", "2")]),
        (b'id,x\n"",\n', [("", None)]),
        (b'id,x\n"a",', [("a", None)]),
        (b'id,x\n"a\nb","say ""hi"""\n', [("a\nb", 'say "hi"')]),
        (b'id,x\n5" pipe,2\n', [('5" pipe', "2")]),
        (b"id,x\n 007 ,1e3\n", [(" 007 ", "1e3")]),
        ('id,x\nü,"€"\n'.encode(), [("ü", "€")]),
        (b'"id","x"\n1,2\n', [("1", "2")]),
    ],
)
def test_csv_is_read_as_received(tmp_path: Path, content: bytes, rows: list[tuple[str, str]]) -> None:
    """Texts come as they are; an unquoted empty text is null and a quoted one is not."""
    table = _read(tmp_path, content)
    assert table.schema.names == ["id", "x"] and set(table.schema.types) == {pa.string()}
    assert list(zip(*table.to_pydict().values(), strict=True)) == rows


@pytest.mark.parametrize(
    ("content", "where", "says"),
    [
        (b"", "data/a.csv", "is empty"),
        (b"\n1,2\n", "data/a.csv:1", "header"),
        (b"id,x\n3,0.5\n4", "data/a.csv:3", "last line has 1 of 2 values"),
        (b"id,x\n3,0.5\n4,5,6\n7,8\n", "data/a.csv:3", "has 3 values and the header has 2"),
        (b"id,x\n1,2\n3\n4,5\n", "data/a.csv:3", "has 1 values"),
        (b'id,x\n3,"0.5\n', "data/a.csv:2", "never closed"),
        (b'id,x\n1,2\n3,"0.5\n4,6\n', "data/a.csv:3", "never closed"),
        (b'id,x\n"a\nb",2\n"c"d,2\n', "data/a.csv:4", "garbled"),
        (b"id,x\n3,\xff\xfe\n", "data/a.csv:2", r"byte 8 \(0xff\) is not UTF-8"),
        (b"id,\xe9\n3,4\n", "data/a.csv:1", "not UTF-8"),
        (b"\xff\xfei\x00d\x00", "data/a.csv", "UTF-16"),
        (b"id,id\n1,2\n", "data/a.csv:1", "'id' is there twice"),
        (b"id,ID\n1,2\n", "data/a.csv:1", "differ only in case"),
        (b"id,\n1,2\n", "data/a.csv:1", "column 2 has no name"),
        (b"id;x\n1;2\n", "data/a.csv:1", "separator is not a comma"),
    ],
)
def test_a_broken_csv_is_named_with_its_line(tmp_path: Path, content: bytes, where: str, says: str) -> None:
    """File, line and fix are told."""
    with pytest.raises(BadSource, match=says) as caught:
        _read(tmp_path, content)
    assert caught.value.where == where and caught.value.fix


def test_null_texts_are_the_source_s_own(tmp_path: Path) -> None:
    """Only the declared texts mean "no value", and only without quotes."""
    table = _read(tmp_path, b'x,y\nNA,\n-,"NA"\n', null=("NA", "-"))
    assert table.to_pydict() == {"x": [None, None], "y": ["", "NA"]}


def test_one_column_keeps_blank_lines_as_missing_values(tmp_path: Path) -> None:
    """In a file of one column a blank line is a row."""
    assert _read(tmp_path, b"id\n1\n\n3\n").to_pydict() == {"id": ["1", None, "3"]}


def test_long_values_and_many_rows(tmp_path: Path) -> None:
    """A value larger than a reader's block and a ragged line far down are handled."""
    long = "x" * (20 << 20)
    assert _read(tmp_path, f"id,t\n1,{long}\n".encode())["t"][0].as_py() == long
    lines = [b"id,x", *[b"%d,%d" % (n, n) for n in range(300_000)]]
    assert _read(tmp_path, b"\n".join(lines)).num_rows == 300_000
    lines[250_001] = b"oops"
    with pytest.raises(BadSource) as caught:
        _read(tmp_path, b"\n".join(lines))
    assert caught.value.where == "data/a.csv:250002"


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6),
            min_size=3,
            max_size=3,
        ),
        max_size=6,
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_wrote_is_read_back(rows: list[list[str]], ending: str) -> None:
    """Whatever texts were written with all quotes, the same texts are read."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b", "c"], *rows])
    path = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path()
    file = path / "trimtab-read-test.csv"
    file.write_bytes(out.getvalue().encode())
    table = read_file(file)
    assert [list(row.values()) for row in table.to_pylist()] == rows
    file.unlink()


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(min_value=0, max_value=60))
def test_a_file_that_was_cut_off_never_gains_or_garbles_rows(cut: int) -> None:
    """Cut anywhere, a quoted file is refused or gives a prefix of its rows."""
    content = b'id,name,note\n1,"a, b","x"\n2,"c ""d""","y\nz"\n3,"e","w"\n'
    whole = [("1", "a, b", "x"), ("2", 'c "d"', "y\nz"), ("3", "e", "w")]
    file = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".") / "trimtab-cut-test.csv"
    file.write_bytes(content[: len(content) - cut] if cut < len(content) else b"")
    try:
        table = read_file(file)
    except BadSource as error:
        assert error.where and error.fix
        return
    finally:
        file.unlink()
    rows = [tuple(row.values()) for row in table.to_pylist()]
    if rows and table.num_columns == 3:
        assert rows[:-1] == whole[: len(rows) - 1]
        # A cut right behind the last comma cannot be told from an empty value.
        assert rows[-1] in (whole[len(rows) - 1], (*whole[len(rows) - 1][:2], None))


def test_archives(tmp_path: Path) -> None:
    """One file in a gz or zip is read; a cut-off archive and one with several files are refused."""
    content = b"id,x\n" + b"1,2\n" * 1000
    packed = gzip.compress(content)
    assert _read(tmp_path, packed, "a.csv.gz").num_rows == 1000
    with pytest.raises(BadSource, match="cut off or damaged"):
        _read(tmp_path, packed[:-20], "a.csv.gz")
    with pytest.raises(BadSource, match="cut off or damaged"):
        _read(tmp_path, content, "b.csv.gz")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/a.csv", content)
    assert _read(tmp_path, out.getvalue(), "a.csv.zip").num_rows == 1000
    with pytest.raises(BadSource, match="cut off or damaged"):
        _read(tmp_path, out.getvalue()[:-30], "a.csv.zip")
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("b.csv", content)
    with pytest.raises(BadSource, match="holds 2 files"):
        _read(tmp_path, out.getvalue(), "a.csv.zip")


def test_parquet(tmp_path: Path) -> None:
    """Types are the file's own; without its footer it is refused; folders are no columns."""
    folder = tmp_path / "day=1"
    folder.mkdir()
    frame = pl.DataFrame({"id": [1, None], "t": ["a", "b"]})
    frame.write_parquet(folder / "a.parquet")
    assert pl.from_arrow(read_file(folder / "a.parquet")).equals(frame)  # type: ignore[arg-type]
    content = (folder / "a.parquet").read_bytes()
    with pytest.raises(BadSource, match="Parquet file is cut off"):
        _read(tmp_path, content[:-10], "b.parquet")
    with pytest.raises(BadSource, match="Parquet file is cut off"):
        _read(tmp_path, b"id,x\n1,2\n", "b.parquet")


def test_json_lines(tmp_path: Path) -> None:
    """Keys may be left out, nulls are null, and each value keeps its type."""
    table = _read(tmp_path, b'{"a": 1, "b": "x"}\n\n{"a": null, "c": [1.5]}\n{"a": 3}', "a.jsonl")
    assert table.to_pylist() == [
        {"a": 1, "b": "x", "c": None},
        {"a": None, "b": None, "c": [1.5]},
        {"a": 3, "b": None, "c": None},
    ]
    assert _read(tmp_path, b'[{"a": 1}, {"a": 2.5}]', "a.json").to_pydict() == {"a": [1.0, 2.5]}


@pytest.mark.parametrize(
    ("content", "name", "where", "says"),
    [
        (b'{"a": 1}\n{"a": ', "a.jsonl", "data/a.jsonl:2", "last line is cut off"),
        (b'{"a": 1}\n{"a": x}\n{"a": 2}\n', "a.jsonl", "data/a.jsonl:2", "is not JSON"),
        (b'{"a": 1}\n[1]\n', "a.jsonl", "data/a.jsonl:2", "not an object but list"),
        (b'{"a": 1}\n{"a": "x"}\n', "a.jsonl", "data/a.jsonl:2", "'a' are not of one type"),
        (b'{"a": NaN}\n', "a.jsonl", "data/a.jsonl:1", "JSON"),
        (b'{"a": 1}\n{"a": 123456789012345678901234567890}\n', "a.jsonl", None, "'a' are not of one type|JSON"),
        (b'{"a": true}\n{"a": 1}\n', "a.jsonl", "data/a.jsonl:2", "'a' are not of one type"),
        (b"{}\n", "a.jsonl", "data/a.jsonl", "no row has a value"),
        (b'[{"a": 1}', "a.json", "data/a.json", "not JSON"),
        (b'{"a": 1}', "a.json", "data/a.json", "not a list of objects"),
        (b'{"a": 1}\n{"a": 2}\n', "a.json", "data/a.json", "not JSON"),
    ],
)
def test_broken_json_is_named(tmp_path: Path, content: bytes, name: str, where: str | None, says: str) -> None:
    """The line that breaks is told; numbers are never rounded to fit."""
    with pytest.raises(BadSource, match=says) as caught:
        _read(tmp_path, content, name)
    assert where is None or caught.value.where == where


def test_missing_file_and_unknown_ending(tmp_path: Path) -> None:
    """What is not there and what cannot be told apart are refused."""
    with pytest.raises(BadSource, match="cannot read the file"):
        read_file(tmp_path / "nope.csv")
    with pytest.raises(BadSource, match=r"tells no format; did you mean '\.csv'"):
        format_of("data/a.cvs")
    assert format_of("a.CSV.GZ") == "csv" and format_of("a.dat", "jsonl") == "jsonl"


def test_parquet_module_is_there() -> None:
    """Arrow's Parquet reader is what reads Parquet here."""
    assert pyarrow.parquet.ParquetFile
