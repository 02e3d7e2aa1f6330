"""Frames in and out: Polars, pandas, Arrow and DuckDB relations, told by annotation or by what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadInput
from trimtab.core.nouns import Version
from trimtab.core.optional import need
from trimtab.store.store import Store

if TYPE_CHECKING:
    import pyarrow

_TYPES = {
    "DataFrame": "polars",
    "LazyFrame": "lazy",
    "Table": "arrow",
    "DuckDBPyRelation": "duckdb",
}
_PANDAS = ("pd.", "pandas.")


def frame_kind(text: str) -> str:
    """Return which frame an annotation asks for: polars, lazy, pandas, arrow or duckdb; polars by default."""
    plain = text.strip("\"' ")
    if plain.startswith(_PANDAS):
        return "pandas"
    return _TYPES.get(plain.rpartition(".")[2], "polars")


def load(store: Store, version: Version, frame_type_text: str = "") -> Any:
    """Return a table version as the frame that an annotation asks for.

    Raises:
        BadInput: the version is not a table.
    """
    if "delta_version" not in version.location:
        raise BadInput(
            f"{version.ref} is a {version.kind}, not a table",
            where=version.asset,
            fix="take the table that it was made from",
        )
    return give(store.tables.arrow(version.location), frame_kind(frame_type_text))


def give(table: pyarrow.Table, kind: str) -> Any:
    """Return an Arrow table as a frame of ``kind`` (see ``frame_kind``)."""
    if kind == "arrow":
        return table
    if kind == "pandas":
        need("pandas")
        return table.to_pandas()
    if kind == "duckdb":
        return need("duckdb").from_arrow(table)
    frame = need("polars").from_arrow(table)
    return frame.lazy() if kind == "lazy" else frame


def kind_of(frame: Any) -> str:
    """Return what kind of frame ``frame`` is, or an empty string."""
    module = type(frame).__module__.partition(".")[0].lstrip("_")
    name = type(frame).__name__
    if module == "polars":
        return {"DataFrame": "polars", "LazyFrame": "lazy"}.get(name, "")
    if module == "pandas" and name == "DataFrame":
        return "pandas"
    if module == "pyarrow" and name in ("Table", "RecordBatch", "RecordBatchReader"):
        return "arrow"
    if module == "duckdb" and name == "DuckDBPyRelation":
        return "duckdb"
    return ""


def to_arrow(frame: Any, *, what: str = "the frame") -> pyarrow.Table:
    """Return any known frame as an Arrow table, columns in their order.

    Raises:
        BadInput: it is no frame, or two columns have one name.
    """
    pyarrow: Any = need("pyarrow")
    kind = kind_of(frame)
    if kind == "polars":
        table = frame.to_arrow()
    elif kind == "lazy":
        table = frame.collect().to_arrow()
    elif kind == "pandas":
        names = [str(name) for name in frame.columns]
        _unique(names, what)
        table = pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    elif kind == "arrow":
        made = type(frame).__name__
        table = frame
        if made == "RecordBatch":
            table = pyarrow.Table.from_batches([frame])
        elif made == "RecordBatchReader":
            table = frame.read_all()
    elif kind == "duckdb":
        table = frame.to_arrow_table() if hasattr(frame, "to_arrow_table") else frame.arrow()
        if type(table).__name__ == "RecordBatchReader":
            table = table.read_all()
    else:
        raise BadInput(
            f"{what} is {_article(type(frame).__name__)}, not a frame",
            where=what,
            fix="return a Polars, pandas, Arrow or DuckDB frame, or tt.sql(...)",
        )
    _unique(table.schema.names, what)
    return table


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _unique(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{what} has two columns called {name!r}", where=what, fix="rename one")
