"""Columns as a Delta table keeps them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from trimtab.core.errors import BadInput
from trimtab.core.optional import need
from trimtab.store.columns import conform, has_local_times, keepable, kept_type, merge_schemas, narrow

pa: Any = need("pyarrow")
pl: Any = need("polars")

LOCAL = datetime(2013, 1, 1)  # noqa: DTZ001 - without a zone on purpose


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (pa.uint8(), "int16"),
        (pa.float16(), "float"),
        (pa.large_string(), "string"),
        (pa.string_view(), "string"),
        (pa.dictionary(pa.int8(), pa.int64()), "int64"),
        (pa.timestamp("ns"), "timestamp[us]"),
        (pa.timestamp("ms", "Europe/Paris"), "timestamp[us, tz=UTC]"),
        (pa.date64(), "date32[day]"),
        (pa.decimal256(20, 3), "decimal128(20, 3)"),
        (pa.list_(pa.uint8(), 2), "list<item: int16>"),
        (pa.struct([("a", pa.large_list(pa.uint16()))]), "struct<a: list<item: int32>>"),
        (pa.null(), "string"),
    ],
    ids=str,
)
def test_types_become_what_is_kept(kind: Any, kept: str) -> None:
    """Each type that can be kept has one plain counterpart."""
    assert str(kept_type(kind)) == kept


@pytest.mark.parametrize(
    "kind",
    [
        pa.time64("us"),
        pa.duration("s"),
        pa.decimal256(50, 2),
        pa.map_(pa.string(), pa.int64()),
        pa.struct([]),
        pa.list_(pa.duration("s")),
    ],
    ids=str,
)
def test_types_that_cannot_be_kept_are_refused_by_column(kind: Any) -> None:
    """A type without an exact counterpart is an error that names the column and the type."""
    frame = pa.table({"ok": pa.array([1]), "bad": pa.nulls(1, kind)})
    with pytest.raises(BadInput, match="which a table cannot keep exactly") as caught:
        keepable(frame)
    assert caught.value.where == "bad"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**63], pa.uint64()),
        pa.array([1], pa.timestamp("ns")),
        pa.array([1], pa.date64()),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused_by_column(column: Any) -> None:
    """A value that would change is an error that names the column."""
    with pytest.raises(BadInput, match="does not fit") as caught:
        keepable(pa.table({"x": column}))
    assert caught.value.where == "x"


def test_128_bit_numbers_are_refused() -> None:
    """Polars' widest integers, which Arrow does not know, are refused and do not crash."""
    with pytest.raises(BadInput, match="cannot keep"):
        keepable(pl.DataFrame({"x": pl.Series([1], dtype=pl.Int128)}))


def test_names_are_needed_and_differ() -> None:
    """A frame has at least one column, and no two columns have one name, whatever their case."""
    with pytest.raises(BadInput, match="no columns"):
        keepable(pa.table({}))
    for names in (["a", "a"], ["a", "A"]):
        with pytest.raises(BadInput, match="have one name"):
            keepable(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=names))


def test_a_column_is_one_piece() -> None:
    """However many pieces come in, each column goes out as one, also in 64-bit offsets."""
    table = pa.concat_tables([pa.table({"s": ["a"], "n": [1]}), pa.table({"s": ["b"], "n": [2]})])
    kept = keepable(table)
    assert [column.num_chunks for column in kept.columns] == [1, 1]
    assert str(kept.schema.field("s").type) == "large_string"
    assert str(narrow(kept.schema).field("s").type) == "string"
    assert kept.to_pydict() == table.to_pydict()


def test_schemas_merge_by_name() -> None:
    """Columns of all schemas come together in the order of their first appearance."""
    one, two = pa.schema([("a", pa.int64()), ("b", pa.string())]), pa.schema([("c", pa.int64()), ("a", pa.int64())])
    assert merge_schemas([one, two]).names == ["a", "b", "c"]
    with pytest.raises(BadInput, match="'a' is string here and int64 there"):
        merge_schemas([one, pa.schema([("a", pa.string())])])


def test_a_table_conforms_to_a_schema() -> None:
    """Missing columns are null, others come in the schema's order and types."""
    schema = pa.schema([("b", pa.string()), ("a", pa.int64())])
    assert conform(pa.table({"a": pa.array([1], pa.int32())}), schema).to_pydict() == {"b": [None], "a": [1]}


def test_local_times_are_found_at_any_depth() -> None:
    """Timestamps without a zone are noticed inside lists and structs too."""
    local, zoned = pa.timestamp("us"), pa.timestamp("us", "UTC")
    assert has_local_times(pa.schema([("a", pa.list_(pa.struct([("t", local)])))]))
    assert not has_local_times(pa.schema([("a", pa.list_(pa.struct([("t", zoned)]))), ("b", pa.int64())]))
    assert has_local_times(pl.DataFrame({"t": [LOCAL]}).to_arrow().schema)
