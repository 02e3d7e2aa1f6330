"""Frames in and out: Polars, pandas, Arrow and DuckDB relations, by annotation or by what they are.

Between steps a table is Arrow with the types that a Delta table keeps. What has an exact counterpart there
is converted (categories become text, small unsigned numbers signed ones, timestamps microseconds, zoned ones
in UTC); what has none is refused with the column's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from trimtab.core.errors import BadInput, NotFound, closest
from trimtab.core.nouns import Version
from trimtab.core.optional import need
from trimtab.store.columns import kept_type, narrow
from trimtab.store.store import Store

if TYPE_CHECKING:
    import polars
    import pyarrow

FrameKind = Literal["polars", "lazy", "pandas", "arrow", "relation"]

_TYPES: dict[tuple[str, str], FrameKind] = {
    ("polars", "DataFrame"): "polars",
    ("polars", "LazyFrame"): "lazy",
    ("pandas", "DataFrame"): "pandas",
    ("pyarrow", "Table"): "arrow",
    ("pyarrow", "RecordBatch"): "arrow",
    ("pyarrow", "RecordBatchReader"): "arrow",
    ("duckdb", "DuckDBPyRelation"): "relation",
}
_LIBRARIES = {"pl": "polars", "pd": "pandas", "pa": "pyarrow", "arrow": "pyarrow", "_duckdb": "duckdb"}
_ALONE: dict[str, FrameKind] = {
    "": "polars",
    "Any": "polars",
    "object": "polars",
    "LazyFrame": "lazy",
    "Table": "arrow",
    "DuckDBPyRelation": "relation",
}
_ASKED = ("pl.DataFrame", "pl.LazyFrame", "pd.DataFrame", "pa.Table", "duckdb.DuckDBPyRelation")
_HUGE = ("HUGEINT", "UHUGEINT")


def wanted_kind(text: str, *, where: str = "") -> FrameKind:
    """Return the kind of frame that an annotation asks for; without one, Polars.

    Args:
        text: the annotation, such as ``pl.DataFrame`` or ``polars.dataframe.frame.DataFrame``.
        where: the parameter, for the error.

    Raises:
        BadInput: no known frame has that name.
    """
    plain = text.strip().strip("\"'").removeprefix("typing.")
    root, dot, rest = plain.partition(".")
    name = rest.rpartition(".")[2]
    found = _TYPES.get((_LIBRARIES.get(root, root), name)) if dot else _ALONE.get(plain)
    if found is None or name.startswith("RecordBatch"):
        hint = "; of which library?" if plain == "DataFrame" else closest(plain, _ASKED)
        raise BadInput(
            f"{text!r} is not a frame that a step can ask for{hint}",
            where=where,
            fix=f"annotate the parameter with one of {', '.join(_ASKED)}, or not at all",
        )
    return found


def kind_of(frame: Any) -> FrameKind | None:
    """Return what kind of frame ``frame`` is, or None; subclasses count."""
    for kind in type(frame).__mro__:
        library = kind.__module__.partition(".")[0]
        found = _TYPES.get((_LIBRARIES.get(library, library), kind.__name__))
        if found is not None:
            return found
    return None


def arrow_of(frame: Any, *, what: str = "the frame", where: str = "") -> pyarrow.Table:
    """Return a frame of any kind as an Arrow table: same columns, same order, types as they are.

    Missing values of pandas (NaN, NaT, None, NA) become null; a pandas index that is not just numbers, and
    anything that Arrow cannot hold, is refused.

    Args:
        frame: a frame of any kind; a lazy one is computed now.
        what: says whose frame it is, such as ``what flights() returned``.
        where: ``file:line`` for the error.

    Raises:
        BadInput: it is no frame, has no columns, or a column has no Arrow counterpart.
    """
    kind = kind_of(frame)
    if kind is None:
        raise BadInput(
            f"{what} is {_article(type(frame))}, not a frame",
            where=where,
            fix="use a Polars, pandas or Arrow frame, a DuckDB relation, or return tt.sql(...)",
        )
    if kind == "pandas":
        return _from_pandas(frame, what, where)
    if kind == "relation":
        table = _from_relation(frame, what, where)
    elif kind == "arrow":
        table = _from_arrow(frame)
    else:
        table = _from_polars(frame.collect() if kind == "lazy" else frame, what, where)
    _check_names(table.schema.names, what, where)
    return table


def to_arrow(frame: Any, *, what: str = "the frame", where: str = "") -> pyarrow.Table:
    """Return a frame of any kind as an Arrow table with the types that a Delta table keeps.

    Args:
        frame: a frame of any kind.
        what: says whose frame it is, such as ``what flights() returned``.
        where: ``file:line`` for the error.

    Raises:
        BadInput: it is no frame, two columns have one name (whatever their case), or a column has a type or
            a value that cannot be kept exactly; the column is named.
    """
    return storable(arrow_of(frame, what=what, where=where), what=what, where=where)


def storable(table: pyarrow.Table, *, what: str, where: str = "") -> pyarrow.Table:
    """Return an Arrow table with the types that a Delta table keeps (see ``to_arrow``).

    Text has 64-bit offsets; a column without any value stays one of nulls, so that it can take the type that
    it has in the table already.
    """
    pyarrow: Any = need("pyarrow")
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = kept_type(field.type)
        if kind is None:
            raise BadInput(
                f"column {field.name!r} of {what} is {field.type}, which a table cannot keep exactly",
                where=where or field.name,
                fix="cast it, such as to a number, text or timestamp",
            )
        kind = field.type if pyarrow.types.is_null(field.type) else _wide(pyarrow, kind)
        columns.append(_cast(pyarrow, column, field, kind, what, where))
        fields.append(pyarrow.field(field.name, kind))
    return pyarrow.Table.from_arrays(columns, schema=pyarrow.schema(fields))


def from_arrow(table: pyarrow.Table, kind: FrameKind) -> Any:
    """Return an Arrow table as a frame of ``kind``.

    In pandas, whole numbers and booleans with missing values become the nullable types ``Int64`` and
    ``boolean``, so that no number is rounded; dates and decimals are objects.
    """
    if kind == "arrow":
        return table
    if kind == "pandas":
        return _to_pandas(table)
    if kind == "relation":
        return need("duckdb").from_arrow(table)
    frame = need("polars").from_arrow(table)
    return frame.lazy() if kind == "lazy" else frame


def load(store: Store, version: Version, frame_type_text: str = "") -> Any:
    """Return a version's rows as the frame that an annotation asks for.

    Rows of a source come in the order in which its batches were received; rows of a table in the order in
    which its function returned them.

    Raises:
        BadInput: the annotation names no known frame.
        NotFound: the version holds no rows: it was refused, or is no table.
    """
    kind = wanted_kind(frame_type_text, where=version.asset)
    if "delta_version" not in version.location:
        refused = version.state == "refused"
        raise NotFound(
            f"{version.ref} {'failed its gate and was not kept' if refused else f'is a {version.kind}, not a table'}",
            where=version.asset,
            fix=f"look at {version.asset}.quarantine" if refused else "take a table, a source or a feature set",
        )
    lazy = scan(store, version)
    if kind == "lazy":
        return lazy
    frame = lazy.collect()
    if kind == "polars":
        return frame
    table = frame.to_arrow()
    return from_arrow(table.cast(narrow(table.schema)), kind)


def scan(store: Store, version: Version) -> polars.LazyFrame:
    """Return a version's rows in their order, to be read when they are needed."""
    frame = store.tables.scan(version.location)
    parts: Sequence[str] = version.meta.get("parts") or ()
    if len(parts) < 2:
        return frame
    polars: Any = need("polars")
    paths = {path.name: path for path in store.tables.files(version.location)}
    return polars.scan_parquet(  # type: ignore[no-any-return]
        [paths[name] for name in parts], schema=frame.collect_schema(), missing_columns="insert"
    )


def _article(kind: type) -> str:
    if kind is type(None):
        return "None"
    return f"{'an' if kind.__name__[:1].lower() in 'aeiou' else 'a'} {kind.__name__}"


def _check_names(names: Sequence[str], what: str, where: str) -> None:
    if not names:
        raise BadInput(f"{what} has no columns", where=where, fix="return at least one column")
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name:
            raise BadInput(f"{what} has a column named {name!r}", where=where, fix="name columns by text")
        if name.lower() in seen:
            other = seen[name.lower()]
            same = f"two columns called {name!r}" if other == name else f"columns {other!r} and {name!r}"
            tail = "" if other == name else ", which a table cannot tell apart"
            raise BadInput(f"{what} has {same}{tail}", where=where, fix="rename one of them")
        seen[name.lower()] = name


def _from_arrow(frame: Any) -> Any:
    pyarrow: Any = need("pyarrow")
    if isinstance(frame, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([frame])
    return frame.read_all() if isinstance(frame, pyarrow.RecordBatchReader) else frame


def _from_polars(frame: Any, what: str, where: str) -> Any:
    for name, kind in frame.schema.items():
        if any(word in str(kind) for word in ("Object", "Int128", "Unknown")):
            raise BadInput(
                f"column {name!r} of {what} is {kind}, which Arrow cannot hold", where=where or name, fix="cast it"
            )
    return frame.to_arrow()


def _from_relation(relation: Any, what: str, where: str) -> Any:
    """Return a relation's rows; what SQL sums up as HUGEINT comes back as the BIGINT that it fits."""
    duckdb: Any = need("duckdb")
    wide = [name for name, kind in zip(relation.columns, relation.types, strict=True) if str(kind) in _HUGE]
    try:
        if wide:
            _check_names(relation.columns, what, where)
            quoted = {name: name.replace('"', '""') for name in wide}
            casts = ", ".join(f'"{quoted[name]}"::BIGINT AS "{quoted[name]}"' for name in wide)
            relation = relation.project(f"* REPLACE ({casts})")
        table = relation.to_arrow_table()
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise BadInput(f"{what} cannot be computed: {first}", where=where, fix="mend the query") from error
    return table


def _from_pandas(frame: Any, what: str, where: str) -> Any:
    pyarrow, pandas = need("pyarrow"), need("pandas")
    _check_names(list(frame.columns), what, where)
    index = frame.index
    numbered = index.nlevels == 1 and (not len(index) or pandas.api.types.is_integer_dtype(index.dtype))
    if index.name is not None or not numbered:
        raise BadInput(
            f"{what} has an index ({index.name or index.dtype}) that would be lost",
            where=where,
            fix="use reset_index() to make it a column, or reset_index(drop=True) to drop it",
        )
    columns = []
    for name in frame.columns:
        try:
            columns.append(pyarrow.array(frame[name], from_pandas=True))
        except (pyarrow.ArrowException, TypeError, OverflowError) as error:
            raise BadInput(
                f"column {name!r} of {what} mixes types or has one that Arrow cannot hold: {error}",
                where=where or name,
                fix="give all its values one type",
            ) from error
    return pyarrow.table(dict(zip(frame.columns, columns, strict=True)))


def _to_pandas(table: Any) -> Any:
    pandas, pyarrow = need("pandas"), need("pyarrow")
    types = pyarrow.types
    frame = table.to_pandas()
    for field, column in zip(table.schema, table.columns, strict=True):
        if not column.null_count:
            continue
        if types.is_integer(field.type):
            name = str(field.type).replace("uint", "UInt").replace("int", "Int")
            frame[field.name] = column.to_pandas(types_mapper={field.type: pandas.api.types.pandas_dtype(name)}.get)
        elif types.is_boolean(field.type):
            frame[field.name] = column.to_pandas(types_mapper={field.type: pandas.BooleanDtype()}.get)
    return frame


def _cast(pyarrow: Any, column: Any, field: Any, kind: Any, what: str, where: str) -> Any:
    if kind == field.type:
        return column
    try:
        if pyarrow.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        return column.cast(kind)
    except pyarrow.ArrowException as error:
        raise BadInput(
            f"column {field.name!r} of {what} does not fit {kind} exactly: {error}",
            where=where or field.name,
            fix="cast or round it yourself, so that it is clear what is kept",
        ) from error


def _wide(pyarrow: Any, kind: Any) -> Any:
    if pyarrow.types.is_string(kind):
        return pyarrow.large_string()
    return pyarrow.large_binary() if pyarrow.types.is_binary(kind) else kind
