"""Which rows a model sees: older ones only, of every input that knows time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given as each
from hypothesis import strategies as st

import trimtab as tt
from tests.train.conftest import START, Room, rows
from trimtab.core.errors import BadInput
from trimtab.train.split import Labelled, cut, given, labelled, newer_than, plain, until


def _data(frame: pl.DataFrame, time: str = "at") -> Labelled:
    return Labelled("flown", frame, "y", time, 0, 0, ())


def _model(**spec: Any) -> Any:
    def late(flown: pl.DataFrame) -> None: ...

    return tt.model(label="y", **spec)(late)


@each(
    st.lists(st.integers(0, 30), min_size=2, max_size=60),
    st.one_of(st.floats(0.05, 0.95), st.integers(1, 40).map(lambda hours: f"{hours}h")),
)
def test_every_kept_row_is_newer_than_every_given_one(hours: list[int], holdout: str | float) -> None:
    """Whatever the times, rows of one moment stay together, none is lost, and the kept ones are newer."""
    frame = pl.DataFrame({"at": sorted(START + timedelta(hours=hour) for hour in hours), "y": [True] * len(hours)})
    data = _data(frame)
    try:
        parts = cut(data, holdout)
    except BadInput as error:
        assert "leaves no rows" in error.message
        return
    assert parts.train.height + parts.kept.height == frame.height
    assert parts.train["at"].max() <= parts.until < parts.kept["at"].min()
    assert newer_than(data, until(parts.train, "at")).equals(parts.kept)


def test_a_share_without_times_keeps_the_last_rows_back() -> None:
    """Without a time column rows are in order as they come."""
    parts = cut(_data(pl.DataFrame({"y": list(range(10))}), ""), 0.3)
    assert parts.train["y"].to_list() == list(range(7)) and parts.kept["y"].to_list() == [7, 8, 9]
    assert parts.until is None and until(parts.train, "") is None
    with pytest.raises(BadInput, match="needs a column of times"):
        cut(_data(pl.DataFrame({"y": [1, 2]}), ""), "1d")
    with pytest.raises(BadInput, match="needs a column of times"):
        cut(_data(pl.DataFrame({"y": [1, 2], "at": [1, 2]})), "1d")


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (pl.Datetime("us"), "2024-01-02T12:00:00+00:00"),
        (pl.Datetime("us", "UTC"), "2024-01-02T12:00:00+00:00"),
        (pl.Datetime("us", "America/New_York"), "2024-01-02T12:00:00+00:00"),
        (pl.Date, "2024-01-02"),
    ],
)
def test_times_of_every_type_survive_the_record(dtype: Any, wanted: str) -> None:
    """The newest training time is kept as text in UTC, and rows newer than it are found again exactly."""
    times = pl.Series("at", [START.replace(tzinfo=None) + timedelta(hours=12 * n) for n in range(6)])
    zone = getattr(dtype, "time_zone", None)
    times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else times.cast(dtype)
    data = _data(pl.DataFrame({"at": times}))
    assert plain(times[3]) == wanted
    assert newer_than(data, wanted)["at"].to_list() == [value for value in times.to_list() if value > times[3]]


def test_a_day_as_the_border_lets_its_whole_day_pass() -> None:
    """Rows of the day that a model was trained up to are not newer, now that times are finer."""
    data = _data(rows(4))
    assert newer_than(data, "2024-01-02")["at"].min() == datetime(2024, 1, 3, tzinfo=UTC)
    assert newer_than(data, None).height == data.frame.height
    with pytest.raises(BadInput, match="cannot be compared"):
        newer_than(data, 2024)


def test_the_first_input_with_the_label_is_the_labelled_one(room: Room) -> None:
    """Rows come in order of time, without those that lack a label or a time, and these are counted."""
    frame = rows(2).with_columns(
        y=pl.when(pl.col("id") < 3).then(None).otherwise("y"), at=pl.when(pl.col("id") == 5).then(None).otherwise("at")
    )
    room.give("flown", frame.reverse())
    data = labelled(room.context(_model()))
    assert (data.name, data.label, data.time, data.key) == ("flown", "y", "at", ("id",))
    assert (data.dropped, data.undated, data.frame.height) == (3, 1, 44)
    assert data.frame["at"].is_sorted()


def test_a_label_that_is_not_a_number_counts_as_missing(room: Room) -> None:
    """NaN is no label."""
    room.give("flown", pl.DataFrame({"y": [1.0, float("nan"), None, 2.0]}))
    assert labelled(room.context(_model())).dropped == 2


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"data": "flow"}, "data='flow' is no input; did you mean 'flown'"),
        ({"time": "att"}, "no time column 'att'"),
        ({"group": "dy"}, "no group column 'dy'"),
        ({"time": "c"}, "the time column 'c' of flown is String"),
    ],
)
def test_a_column_that_is_not_there_is_named(room: Room, spec: dict[str, Any], says: str) -> None:
    """What the declaration names and the input lacks is told with the closest name."""
    with pytest.raises(BadInput, match=says) as caught:
        labelled(room.context(_model(**spec)))
    assert "test_split.py" in caught.value.where


def test_a_missing_label_names_the_closest_column(room: Room) -> None:
    """An input without the label column is told, with the column that may have been meant."""

    def late(flown: pl.DataFrame) -> None: ...

    with pytest.raises(BadInput, match=r"no input of late has the label column 'yy'; did you mean 'y'"):
        labelled(room.context(tt.model(label="yy")(late)))
    room.give("flown", rows(1).with_columns(y=pl.lit(None, dtype=pl.Boolean)))
    with pytest.raises(BadInput, match="has no labelled rows"):
        labelled(room.context(_model()))


def test_other_inputs_are_cut_at_the_same_moment(room: Room) -> None:
    """A table of features ends where the training rows end; a list without times is given whole."""

    def late(flown: pl.DataFrame, weather: pl.LazyFrame, airports: pd.DataFrame, daily: pa.Table) -> None: ...

    declared = tt.model(label="y")(late)
    room.give("weather", rows(20).select("at", "x0"))
    room.give("airports", pl.DataFrame({"faa": ["JFK"], "n": [1]}))
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(20)]
    room.give("daily", pl.DataFrame({"day": days}), time="day")
    context = room.context(declared)
    data = labelled(context)
    border = datetime(2024, 1, 10, 12, tzinfo=UTC)
    train = data.frame.filter(pl.col("at") <= border)
    frames = given(context, data, train, border)
    assert frames["flown"]["at"].max() == border
    weather = frames["weather"].collect()
    assert weather["at"].max() == border and weather.height == 9 * 24 + 13
    assert isinstance(frames["airports"], pd.DataFrame) and len(frames["airports"]) == 1
    # The tenth of January is not over at noon: what its row says may have become known later.
    assert frames["daily"].column("day").to_pylist() == days[:9]
    whole = given(context, data, data.frame, None)
    assert whole["daily"].num_rows == 20 and whole["weather"].collect().height == 480


def test_inputs_of_dates_are_cut_by_dates(room: Room) -> None:
    """Where the labelled rows are dated, other dates up to that day are given, and times up to its end."""
    frame = rows(20).with_columns(at=pl.col("at").dt.date())
    room.give("flown", frame)

    def late(flown: pl.DataFrame, weather: pl.DataFrame, daily: pl.DataFrame) -> None: ...

    room.give("weather", rows(20).select("at"))
    room.give("daily", frame.select("at"))
    context = room.context(tt.model(label="y")(late))
    data = labelled(context)
    frames = given(context, data, data.frame.head(1), date(2024, 1, 5))
    assert frames["daily"]["at"].max() == date(2024, 1, 5)
    assert frames["weather"]["at"].max() == datetime(2024, 1, 5, 23, tzinfo=UTC)


def test_times_that_cannot_be_compared_are_refused(room: Room) -> None:
    """A table whose time column is a number cannot be cut at a timestamp, and is not given whole in silence."""

    def late(flown: pl.DataFrame, built: pl.DataFrame) -> None: ...

    room.give("built", pl.DataFrame({"year": [2001]}), time="year")
    context = room.context(tt.model(label="y")(late))
    data = labelled(context)
    with pytest.raises(BadInput, match=r"the times of built .* cannot be compared"):
        given(context, data, data.frame, START)
    frames = given(context, data, data.frame, 2000)
    assert frames["built"].height == 0
