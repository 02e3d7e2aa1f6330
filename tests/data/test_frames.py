"""Frames: told by annotation or by what they are; types kept exactly or refused by name."""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import trimtab as tt
from tests.data.conftest import Bench
from trimtab.core.declare import declaration_of
from trimtab.core.decorators import table
from trimtab.core.errors import BadInput, NotFound
from trimtab.data.frames import from_arrow, kind_of, load, to_arrow, wanted_kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "polars"), ("pl.DataFrame", "polars"), ("polars.DataFrame", "polars"), ("'pl.DataFrame'", "polars"),
        ("polars.dataframe.frame.DataFrame", "polars"), ("pl.LazyFrame", "lazy"), ("LazyFrame", "lazy"),
        ("pd.DataFrame", "pandas"), ("pandas.DataFrame", "pandas"), ("pandas.core.frame.DataFrame", "pandas"),
        ("pa.Table", "arrow"), ("pyarrow.lib.Table", "arrow"), ("Table", "arrow"),
        ("duckdb.DuckDBPyRelation", "relation"), ("duckdb.duckdb.DuckDBPyRelation", "relation"),
        ("_duckdb.DuckDBPyRelation", "relation"), ("typing.Any", "polars"), ("Any", "polars"),
    ],
)  # fmt: skip
def test_annotations_of_every_spelling(text: str, kind: str) -> None:
    """However a library is called, its frame is meant."""
    assert wanted_kind(text) == kind


@pytest.mark.parametrize("text", ["DataFrame", "list", "dict[str, int]", "np.ndarray", "pl.Series", "pa.RecordBatch"])
def test_other_annotations_are_refused(text: str) -> None:
    """A frame that nobody can make is an error that lists those that can be made."""
    with pytest.raises(BadInput, match=r"not a frame that a step can ask for") as caught:
        wanted_kind(text, where="raw")
    assert "pl.DataFrame" in caught.value.fix


def test_annotations_as_the_decorator_records_them() -> None:
    """Real classes and texts in annotations give the frames that they name."""

    def step(a: pl.DataFrame, b: pl.LazyFrame, c: pd.DataFrame, d: pa.Table, e: duckdb.DuckDBPyRelation, f): ...  # type: ignore[no-untyped-def]

    texts = declaration_of(table(step)).frames
    assert [wanted_kind(text) for text in texts.values()] == ["polars", "lazy", "pandas", "arrow", "relation", "polars"]
    step.__annotations__.update(typing.get_type_hints(step))
    texts = declaration_of(table(step)).frames
    assert [wanted_kind(text) for text in texts.values()] == ["polars", "lazy", "pandas", "arrow", "relation", "polars"]


def test_frames_are_known_by_what_they_are() -> None:
    """Every kind, subclasses too, and nothing else."""
    frame = pl.DataFrame({"a": [1]})

    class Own(pd.DataFrame):
        """A subclass, as other libraries make them."""

    arrow = frame.to_arrow()
    frames: list[Any] = [frame, frame.lazy(), Own({"a": [1]}), arrow, arrow.to_batches()[0], arrow.to_reader()]
    assert [kind_of(item) for item in frames] == ["polars", "lazy", "pandas", "arrow", "arrow", "arrow"]
    assert kind_of(duckdb.from_arrow(arrow)) == "relation"
    assert kind_of([1]) is None and kind_of(None) is None
    for item in [*frames[:4], arrow.to_batches()[0], arrow.to_reader(), duckdb.from_arrow(arrow)]:
        assert to_arrow(item).to_pydict() == {"a": [1]}


def test_pandas_keeps_whole_numbers_whole(bench: Bench) -> None:
    """A missing value makes no whole number a float on its way to pandas and back."""

    @tt.table
    def numbers() -> pl.DataFrame:
        return pl.DataFrame(
            {"big": [2**53 + 1, None], "flag": [True, None], "plain": [1, 2], "f": [1.5, None], "t": ["a", None]}
        )

    version = bench.run(numbers)
    frame = load(bench.store, version, "pd.DataFrame")
    assert [str(kind) for kind in frame.dtypes] == ["Int64", "boolean", "int64", "float64", "str"]
    assert frame["big"][0] == 2**53 + 1
    assert to_arrow(frame).to_pydict() == load(bench.store, version, "pa.Table").to_pydict()


def test_zones_and_units_become_microseconds_in_utc() -> None:
    """The instant is kept; what finer units cannot keep is refused."""
    noon = datetime(2024, 7, 1, 12, tzinfo=UTC)
    frame = pl.DataFrame({"z": [noon], "ms": [noon], "ns": [noon]}).with_columns(
        pl.col("z").dt.convert_time_zone("Asia/Tokyo"),
        pl.col("ms").dt.cast_time_unit("ms"),
        pl.col("ns").dt.cast_time_unit("ns"),
    )
    made = to_arrow(frame)
    assert {str(kind) for kind in made.schema.types} == {"timestamp[us, tz=UTC]"}
    assert set(made.to_pylist()[0].values()) == {noon}
    fine = pa.table({"t": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(BadInput, match="column 't' of the frame does not fit"):
        to_arrow(fine)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (pa.array([1], pa.time64("us")), "time64"),
        (pa.array([1], pa.duration("us")), "duration"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "map"),
        (pa.array([{}], pa.struct([])), "struct"),
        (pa.array([[1]], pa.list_(pa.duration("s"))), "list"),
    ],
)
def test_types_without_a_counterpart_are_refused(array: pa.Array, says: str) -> None:
    """The column and its type are named, nested ones too."""
    with pytest.raises(BadInput, match=rf"column 'x' of the frame is {says}"):
        to_arrow(pa.table({"x": array}))


def test_pandas_frames_that_would_lose_something_are_refused() -> None:
    """An index with names, mixed values and columns without text names."""
    for frame, says in (
        (pd.DataFrame({"x": [1]}, index=pd.Index(["a"])), "index"),
        (pd.DataFrame({"x": [1]}).set_index(pd.Index([5], name="n")), r"index \(n\)"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns called 'a'"),
        (pd.DataFrame([[1]]), "column named 0"),
        (pd.DataFrame({"x": [1, "a"]}), "column 'x'"),
    ):
        with pytest.raises(BadInput, match=says):
            to_arrow(frame)
    assert to_arrow(pd.DataFrame({"x": [1, 2, 3]}).query("x > 1")).to_pydict() == {"x": [2, 3]}


def test_polars_types_that_arrow_lacks_are_refused() -> None:
    """An object column and 128-bit numbers are named."""
    for series in (pl.Series("x", [object()], dtype=pl.Object), pl.Series("x", [1], dtype=pl.Int128)):
        with pytest.raises(BadInput, match="column 'x' of the frame"):
            to_arrow(pl.DataFrame([series]))


def test_round_trip_through_every_kind() -> None:
    """Arrow to any kind and back is the same table."""
    made = to_arrow(pl.DataFrame({"a": [1, None], "b": ["x", None], "c": [1.5, 2.5], "d": [True, None]}))
    for kind in ("polars", "lazy", "pandas", "arrow", "relation"):
        assert to_arrow(from_arrow(made, kind)).equals(made)


def test_a_version_without_rows_is_told(bench: Bench) -> None:
    """A refused version cannot be loaded; the error says where its rows are."""

    @tt.table(checks=[tt.check.row_count(5)])
    def small() -> pl.DataFrame:
        return pl.DataFrame({"a": [1]})

    with pytest.raises(NotFound, match=r"failed its gate") as caught:
        load(bench.store, bench.run(small))
    assert "small.quarantine" in caught.value.fix
