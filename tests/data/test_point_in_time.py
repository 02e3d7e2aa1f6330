"""Point-in-time joins: rows out are the labels in, nothing from the future, in every kind of frame."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trimtab as tt
from trimtab.core.errors import BadInput, WrongUse


def day(number: int, hour: int = 0) -> datetime:
    """Return a time in January 2024."""
    return datetime(2024, 1, number, hour, tzinfo=UTC)


LABELS = pl.DataFrame(
    {"k": ["a", "b", "a", None, "c", "a"], "t": [day(5), day(5), day(1), day(5), day(5), None], "y": range(6)}
)
FEATURES = pl.DataFrame(
    {
        "k": ["a", "c", "a", "b", None, "a"],
        "at": [day(4), day(6), day(2), day(5), day(1), None],
        "v": [40, 60, 20, 50, 0, 9],
        "w": ["x", "c", None, "b", "n", "q"],
    }
)


def join(labels: Any = LABELS, features: Any = FEATURES, **options: Any) -> Any:
    """Join with the usual names."""
    return tt.point_in_time(labels, features, **{"entity": "k", "label_time": "t", "feature_time": "at", **options})


def test_each_label_gets_the_newest_row_that_was_known() -> None:
    """A row at the very time counts; missing entities and times, and what lies ahead, give nulls."""
    found = join()
    assert found.columns == ["k", "t", "y", "v", "w"]
    assert found["v"].to_list() == [40, 50, None, None, None, None]
    assert found["w"].to_list() == ["x", "b", None, None, None, None]
    assert found.select("k", "t", "y").equals(LABELS)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"delay": "1d"}, [40, None, None]),
        ({"delay": "25h"}, [20, None, None]),
        ({"delay": "1d", "lookback": "0s"}, [40, None, None]),
        ({"delay": "3d", "lookback": "0s"}, [20, None, None]),
        ({"delay": "2d", "lookback": "12h"}, [None, None, None]),
        ({"delay": "2d", "lookback": "1d"}, [20, None, None]),
        ({"lookback": "23h"}, [None, 50, None]),
        ({"lookback": timedelta(days=1)}, [40, 50, None]),
    ],
)
def test_delay_and_lookback(options: dict[str, Any], values: list[int | None]) -> None:
    """A row is known from its time plus the delay on, and counts while it is no older than the lookback then."""
    assert join(**options)["v"].to_list()[:3] == values


def test_columns_suffix_and_other_names() -> None:
    """Chosen columns come under their names and the suffix; entities may be called otherwise on each side."""
    found = join(features=FEATURES.rename({"k": "key"}), entity={"k": "key"}, columns=["w", "at"], suffix="_then")
    assert found.columns == ["k", "t", "y", "w_then", "at_then"]
    assert found["at_then"].to_list()[0] == day(4)
    assert join(columns=[]).equals(LABELS)


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "arrow", "batch", "relation"])
@pytest.mark.parametrize("other", ["polars", "lazy", "pandas", "arrow", "relation"])
def test_any_frame_in_the_labels_kind_out(kind: str, other: str) -> None:
    """Labels and features may be of any kinds; the answer is of the labels' kind, with the same values."""
    to: dict[str, Callable[[pl.DataFrame], Any]] = {
        "polars": lambda frame: frame,
        "lazy": lambda frame: frame.lazy(),
        "pandas": lambda frame: frame.to_pandas(),
        "arrow": lambda frame: frame.to_arrow(),
        "batch": lambda frame: frame.to_arrow().combine_chunks().to_batches()[0],
        "relation": lambda frame: duckdb.from_arrow(frame.to_arrow()),
    }
    labels = to[kind](LABELS)
    found = join(labels, to[other](FEATURES))
    assert type(found) is type(labels)
    back: dict[str, Callable[[], Any]] = {
        "lazy": lambda: found.collect(),
        "pandas": lambda: pl.from_pandas(found),
        "arrow": lambda: pl.from_arrow(found),
        "batch": lambda: pl.from_arrow(pa.Table.from_batches([found])),
        "relation": lambda: pl.from_arrow(found.to_arrow_table()),
        "polars": lambda: found,
    }
    made = back[kind]()
    assert made["v"].to_list() == [40, 50, None, None, None, None]
    assert made["y"].to_list() == list(range(6))


def test_pandas_labels_keep_index_and_types() -> None:
    """An index of any kind stays, and whole numbers stay whole beside missing values."""
    labels = LABELS.to_pandas().set_index(pd.Index(list("uvwxyz"), name="n"))
    found = join(labels, FEATURES.to_pandas())
    assert list(found.index) == list("uvwxyz") and found.index.name == "n"
    assert str(found["v"].dtype) == "Int64" and list(labels.columns) == ["k", "t", "y"]


def test_types_come_through_as_they_are() -> None:
    """Categories, durations and nested values of either side are not touched."""
    labels = LABELS.with_columns(c=pl.lit("x").cast(pl.Categorical), s=pl.struct("y"), o=pl.lit(timedelta(1)))
    features = FEATURES.with_columns(d=pl.lit(timedelta(2)), l=pl.concat_list("v"), n=pl.col("v").cast(pl.Int8))
    found = join(labels, features)
    for name in labels.columns:
        assert found.schema[name] == labels.schema[name]
    assert found.schema["d"] == pl.Duration("us") and found.schema["n"] == pl.Int8
    assert found["l"].to_list()[0] == [40]


@pytest.mark.parametrize(
    ("label_type", "feature_type"),
    [
        (pl.Datetime("ms", "UTC"), pl.Datetime("ns", "Asia/Tokyo")),
        (pl.Datetime("ns", "America/New_York"), pl.Datetime("ms", "UTC")),
        (pl.Datetime("us"), pl.Datetime("ns")),
        (pl.Datetime("us"), pl.Date()),
        (pl.Date(), pl.Datetime("ns")),
        (pl.Date(), pl.Date()),
        (pl.Int32(), pl.UInt64()),
    ],
)
def test_times_of_every_unit_are_compared_exactly(label_type: Any, feature_type: Any) -> None:
    """Units and zones may differ, dates are their midnight, and whole numbers are compared as such."""

    def cast(frame: pl.DataFrame, name: str, kind: Any) -> pl.DataFrame:
        if kind.is_integer():
            return frame.with_columns(pl.col(name).dt.day().cast(kind))
        zone = getattr(kind, "time_zone", None)
        column = pl.col(name).dt.convert_time_zone(zone) if zone else pl.col(name).dt.replace_time_zone(None)
        return frame.with_columns(column.cast(kind))

    labels, features = cast(LABELS, "t", label_type), cast(FEATURES, "at", feature_type)
    assert join(labels, features)["v"].to_list()[:3] == [40, 50, None]
    limit: Any = 0 if label_type.is_integer() else "0s"
    assert join(labels, features, lookback=limit)["v"].to_list()[:3] == [None, 50, None]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (pl.String(), pl.Categorical()),
        (pl.Enum(["1", "2", "3"]), pl.String()),
        (pl.Int8(), pl.UInt32()),
        (pl.UInt64(), pl.Int16()),
        (pl.Float64(), pl.Float64()),
        (pl.Boolean(), pl.Boolean()),
    ],
)
def test_entities_of_kindred_types_are_compared(mine: Any, theirs: Any) -> None:
    """Texts with categories, and whole numbers of any width."""
    plain = {"1": "1", "2": "2"}
    labels = pl.DataFrame({"k": list(plain), "t": [day(5), day(5)]})
    features = pl.DataFrame({"k": ["2", "1"], "at": [day(1), day(2)], "v": [2, 1]})

    def cast(frame: pl.DataFrame, kind: Any) -> pl.DataFrame:
        column = pl.col("k")
        if kind == pl.Boolean:
            return frame.with_columns(column == "1")
        return frame.with_columns((column.cast(pl.Int64) if kind.is_numeric() else column).cast(kind))

    assert join(cast(labels, mine), cast(features, theirs))["v"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("labels", "features", "options", "says"),
    [
        (LABELS.drop("k"), FEATURES, {}, "labels have no column 'k'"),
        (LABELS, FEATURES.rename({"at": "att"}), {}, "features have no column 'at'; did you mean 'att'"),
        (LABELS, FEATURES, {"columns": ["vv"]}, "features have no column 'vv'"),
        (LABELS.with_columns(V=1), FEATURES, {}, "labels have a column 'V' already, and features bring 'v'"),
        (LABELS.with_columns(pl.col("t").dt.replace_time_zone(None)), FEATURES, {}, "'t' has none"),
        (LABELS.with_columns(pl.col("t").cast(pl.String)), FEATURES, {}, "'t' is String"),
        (LABELS.with_columns(pl.col("t").dt.day()), FEATURES, {}, "times cannot be compared"),
        (LABELS.with_columns(k=1), FEATURES, {}, "entity 'k' of labels is Int32 and 'k' of features is String"),
        (LABELS.with_columns(k=pl.concat_list("y")), FEATURES, {}, "entity 'k'"),
        (LABELS, pl.concat([FEATURES, FEATURES.head(1)]), {}, r"2 rows for k='a' at one 'at' \(rows 1, 7\)"),
        ([1], FEATURES, {}, "labels is a list, not a frame"),
        (LABELS, None, {}, "features is None, not a frame"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_told(labels: Any, features: Any, options: dict[str, Any], says: str) -> None:
    """The column, its type and the fix are named."""
    with pytest.raises(BadInput, match=says) as caught:
        join(labels, features, **options)
    assert caught.value.fix


@pytest.mark.parametrize(
    "options", [{"delay": 3}, {"lookback": "7"}, {"lookback": 1.5}, {"entity": []}, {"delay": True}]
)
def test_wrong_durations_are_told(options: dict[str, Any]) -> None:
    """Durations are texts for timestamps and whole numbers for whole numbers."""
    with pytest.raises(WrongUse):
        join(**options)
    numbers = LABELS.with_columns(t=1), FEATURES.with_columns(at=1, k=pl.col("k") + pl.col("v").cast(pl.String))
    with pytest.raises(WrongUse, match="whole number"):
        join(*numbers, delay="1d")


def test_times_that_do_not_fit_are_refused() -> None:
    """A far date beside nanoseconds is refused, not wrapped around."""
    labels = pl.DataFrame({"k": ["a"], "t": [datetime(9999, 12, 31, tzinfo=UTC)]})
    features = FEATURES.with_columns(pl.col("at").dt.cast_time_unit("ns"))
    with pytest.raises(BadInput, match="do not fit the other side's unit"):
        join(labels, features)
    assert join(labels, FEATURES)["v"].to_list() == [40]
    far = LABELS.with_columns(t=pl.lit(date(9999, 12, 31)))
    with pytest.raises(BadInput, match="do not fit"):
        join(far, features.with_columns(pl.col("at").dt.replace_time_zone(None)))


@pytest.mark.parametrize("kind", [pl.Int64, pl.UInt64, pl.Float64, pl.Datetime("us"), pl.Decimal(20, 2)])
def test_entities_far_apart(kind: Any) -> None:
    """Values of any size and kind name entities."""
    far = [0, 1, 1 << 52]
    labels = pl.DataFrame({"k": [*far, 5], "t": [day(5)] * 4}).with_columns(pl.col("k").cast(kind))
    features = pl.DataFrame({"k": far[::-1], "at": [day(1)] * 3, "v": [3, 2, 1]}).with_columns(pl.col("k").cast(kind))
    assert join(labels, features)["v"].to_list() == [1, 2, 3, None]
    if kind == pl.Float64:
        odd = labels.with_columns(k=pl.Series([-0.0, float("nan"), 1.0, None]))
        assert join(odd, features)["v"].to_list() == [1, None, 2, None]


def test_no_labels_and_no_features() -> None:
    """Empty sides are no special case."""
    assert join(LABELS.clear()).shape == (0, 5)
    found = join(LABELS, FEATURES.clear())
    assert found["v"].to_list() == [None] * 6 and found.schema["v"] == pl.Int64


KEYS = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]))
TIMES = st.one_of(st.none(), st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.tuples(KEYS, st.sampled_from([1, 2]), TIMES), max_size=15),
    features=st.lists(st.tuples(KEYS, st.sampled_from([1, 2]), TIMES), max_size=20, unique=True),
    delay=st.one_of(st.none(), st.integers(0, 4)),
    lookback=st.one_of(st.none(), st.integers(0, 6)),
    whole=st.booleans(),
    largest=st.sampled_from([1 << 62, 40]),
)
def test_it_is_what_looking_at_every_pair_gives(
    labels: list[Any], features: list[Any], delay: int | None, lookback: int | None, whole: bool, largest: int
) -> None:
    """For every label: of all feature rows of its entity that were known and not too old, the newest.

    With a small ``largest``, entities and times are numbered without gaps, as it is for sparse and long data.
    """

    def frame(rows: list[Any], time: str) -> pl.DataFrame:
        schema = {"k": pl.String, "n": pl.Int64, time: pl.Int64}
        made = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row")
        return made if whole else made.with_columns(pl.from_epoch(pl.col(time) * 3600))

    # Rows without a key or time may be there twice: they match nothing.
    doubled = [*features, *[row for row in features if None in row]]
    left, right = frame(labels, "t"), frame(doubled, "at").rename({"row": "found"})
    form: Callable[[int | None], Any] = lambda value: value if whole or value is None else f"{value}h"  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimtab.data.point_in_time._LARGEST", largest)
        answer = join(left, right, entity=["k", "n"], delay=form(delay), lookback=form(lookback))
    expected = []
    for key, number, time in labels:
        best: tuple[int, int] | None = None
        for row, (other, kind, at) in enumerate(features):
            if None in (key, time, other, at) or (key, number) != (other, kind):
                continue
            age = time - (delay or 0) - at
            if age >= 0 and (lookback is None or age <= lookback) and (best is None or at > best[0]):
                best = (at, row)
        expected.append(best[1] if best else None)
    assert answer["found"].to_list() == expected
    assert answer.drop("found").equals(left)


def test_the_module_is_light() -> None:
    """The front door brings no engine with it."""
    code = "import sys, trimtab.data.point_in_time; print(sorted({'polars', 'duckdb', 'pyarrow'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
