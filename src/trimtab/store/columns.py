"""Arrow columns as a Delta table keeps them: exactly, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadInput
from trimtab.core.optional import need

if TYPE_CHECKING:
    import polars
    import pyarrow

_WIDER = {"uint8": "int16", "uint16": "int32", "uint32": "int64", "uint64": "int64", "halffloat": "float32"}


def keepable(frame: polars.DataFrame | pyarrow.Table, known: Any = None) -> pyarrow.Table:
    """Return a frame as an Arrow table in one piece, with types that a Delta table keeps exactly.

    Unsigned and half-precision numbers widen, categories become text, times become microseconds (with a zone: in
    UTC), and a column without any value takes the type that it has in the table already, or text.

    Args:
        frame: the rows.
        known: the Arrow schema that the table has so far, if it has one.

    Raises:
        BadInput: there is no column, two have one name (whatever their case), or a type or value cannot be kept;
            ``where`` names the column.
    """
    pyarrow: Any = need("pyarrow")
    table = _arrow(frame)
    _check_names(table.schema.names)
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        have = known.field(field.name).type if known is not None and field.name in known.names else None
        kind = have if have is not None and pyarrow.types.is_null(field.type) else kept_type(field.type)
        if kind is None:
            raise BadInput(
                f"column {field.name!r} is {field.type}, which a table cannot keep exactly",
                where=field.name,
                fix="cast it, such as to a number, text or timestamp",
            )
        fields.append(pyarrow.field(field.name, kind))
        columns.append(_cast(pyarrow, field, column, kind))
    # One piece for each column: how rows were cut into pieces must not show in the bytes of the file.
    return pyarrow.table(columns, schema=_wide(pyarrow, fields)).combine_chunks()


def narrow(schema: Any) -> Any:
    """Return an Arrow schema with the plain types by which columns are told: ``string``, not ``large_string``."""
    pyarrow: Any = need("pyarrow")
    return pyarrow.schema([pyarrow.field(field.name, kept_type(field.type)) for field in schema])


def merge_schemas(schemas: Sequence[Any]) -> Any:
    """Return one Arrow schema for files that lie in one version.

    Raises:
        BadInput: they disagree about a column's type; ``where`` names the column.
    """
    fields: dict[str, Any] = {}
    for schema in schemas:
        for field in schema:
            have = fields.setdefault(field.name, field)
            if have.type != field.type:
                raise BadInput(
                    f"column {field.name!r} is {field.type} here and {have.type} there",
                    where=field.name,
                    fix="cast it to one type",
                )
    return need("pyarrow").schema(list(fields.values()))


def conform(table: pyarrow.Table, schema: Any) -> pyarrow.Table:
    """Return a table with the columns and types of ``schema``; a column that it lacks is null."""
    pyarrow: Any = need("pyarrow")
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pyarrow.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pyarrow.table(columns, schema=schema)


def has_local_times(schema: Any) -> bool:
    """Say whether an Arrow schema has timestamps without a zone, at any depth."""
    types: Any = need("pyarrow.types")

    def local(kind: Any) -> bool:
        if types.is_timestamp(kind):
            return kind.tz is None
        return any(local(kind.field(index).type) for index in range(kind.num_fields))

    return any(local(field.type) for field in schema)


def _arrow(frame: Any) -> Any:
    pyarrow: Any = need("pyarrow")
    if isinstance(frame, pyarrow.Table):
        return frame
    try:
        return frame.to_arrow()
    except pyarrow.ArrowInvalid as error:  # Polars' 128-bit integers have no Arrow type
        raise BadInput(f"a column has a type that a table cannot keep: {error}", fix="cast it") from error


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise BadInput("the frame has no columns", fix="give it at least one")
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            other = seen[name.lower()]
            raise BadInput(f"columns {other!r} and {name!r} have one name", where=name, fix="rename one")
        seen[name.lower()] = name


def _cast(pyarrow: Any, field: Any, column: Any, kind: Any) -> Any:
    target = _wide_type(pyarrow, kind)
    try:
        if pyarrow.types.is_dictionary(field.type) and column.type.value_type != target:
            column = pyarrow.compute.dictionary_decode(column)
        return column if column.type == target else column.cast(target)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise BadInput(
            f"column {field.name!r} does not fit {kind} exactly: {error}", where=field.name, fix="cast it"
        ) from error


def kept_type(kind: Any) -> Any:
    """Return the Arrow type that stands for ``kind`` in a Delta table; None when there is no exact one."""
    pyarrow: Any = need("pyarrow")
    types, text = pyarrow.types, str(kind)
    if text in _WIDER:
        return getattr(pyarrow, _WIDER[text])()
    if types.is_dictionary(kind):
        return kept_type(kind.value_type)
    if types.is_null(kind) or text in ("string", "large_string", "string_view"):
        return pyarrow.string()
    if types.is_fixed_size_binary(kind) or text in ("binary", "large_binary", "binary_view"):
        return pyarrow.binary()
    if types.is_timestamp(kind):
        return pyarrow.timestamp("us", tz="UTC" if kind.tz else None)
    if types.is_date(kind):
        return pyarrow.date32()
    if types.is_decimal(kind):
        fits = kind.precision <= 38 and 0 <= kind.scale <= kind.precision
        return pyarrow.decimal128(kind.precision, kind.scale) if fits else None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kept_type(kind.value_type)
        return None if inner is None else pyarrow.list_(inner)
    if types.is_struct(kind):
        inside = [(field.name, kept_type(field.type)) for field in kind]
        return pyarrow.struct(inside) if inside and all(part is not None for _, part in inside) else None
    return kind if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) else None


def _wide(pyarrow: Any, fields: Sequence[Any]) -> Any:
    return pyarrow.schema([pyarrow.field(field.name, _wide_type(pyarrow, field.type)) for field in fields])


def _wide_type(pyarrow: Any, kind: Any) -> Any:
    """Return the type with 64-bit offsets, in which a column of any size is one piece; Parquet has only one."""
    if pyarrow.types.is_string(kind):
        return pyarrow.large_string()
    return pyarrow.large_binary() if pyarrow.types.is_binary(kind) else kind
