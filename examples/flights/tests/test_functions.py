"""The project's functions, called directly on frames small enough to check by eye."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from flights import features, tables
from flights.model import delays
from sklearn.pipeline import Pipeline

Raw = dict[str, str | None]
NEW_YORK = ZoneInfo("America/New_York")
FIRST = date(2013, 3, 1)
PLANE: Raw = {
    "tailnum": "N1",
    "year": "1999",
    "manufacturer": "M",
    "model": "X",
    "engines": "2",
    "seats": "90",
}
AIRPORT: Raw = {"faa": "IAH", "name": "Houston", "lat": "29.9", "lon": "-95.3", "alt": "97"}


def flight(day: date, hour: int, number: int, arr_delay: str | None, **other: str | None) -> Raw:
    """Return a raw row of a flight that is scheduled for half past ``hour`` in New York."""
    at = datetime(day.year, day.month, day.day, hour, tzinfo=NEW_YORK).astimezone(UTC)
    row: Raw = {
        "dep_time": f"{hour}35",
        "sched_dep_time": f"{hour}30",
        "dep_delay": "5",
        "sched_arr_time": "2130",
        "arr_delay": arr_delay,
        "carrier": "UA",
        "flight": str(number),
        "tailnum": "N1",
        "origin": "EWR",
        "dest": "IAH",
        "distance": "1400",
        "time_hour": at.strftime(tables.STAMP),
    }
    return {**row, **other}


def observation(day: date, hour: int, **other: str | None) -> Raw:
    """Return a raw row of the weather at EWR at ``hour`` in New York."""
    at = datetime(day.year, day.month, day.day, hour, tzinfo=NEW_YORK).astimezone(UTC)
    row: Raw = dict.fromkeys(tables.OBSERVED, "1")
    return {**row, "origin": "EWR", "time_hour": at.strftime(tables.STAMP), **other}


def raw(rows: list[Raw]) -> pl.DataFrame:
    """Return rows as a source gives them: texts and nulls."""
    return pl.DataFrame(rows, schema=dict.fromkeys(rows[0], pl.String))


def inputs(flights_raw: list[Raw], weather_raw: list[Raw]) -> list[pl.DataFrame]:
    """Return what ``training_set`` is made of, made from raw rows by the project's functions."""
    flights = tables.flights(raw(flights_raw))
    return [
        flights,
        tables.planes(raw([PLANE])),
        tables.airports(raw([AIRPORT])),
        features.weather_hourly(tables.weather(raw(weather_raw))),
        features.carrier_delays(flights),
        features.route_delays(flights),
        features.origin_delays(flights),
    ]


def everything(flights_raw: list[Raw], weather_raw: list[Raw]) -> pl.DataFrame:
    """Return the features of every flight."""
    return features.flight_features(*inputs(flights_raw, weather_raw))


def some_days(count: int) -> tuple[list[Raw], list[Raw]]:
    """Return raw flights and weather of some days; every third flight is late."""
    days = [FIRST + timedelta(days=n) for n in range(count)]
    hours = (8, 12, 20)
    late = iter(range(len(days) * len(hours)))
    flights = [flight(day, hour, hour, "40" if next(late) % 3 == 0 else "-4") for day in days for hour in hours]
    weather = [observation(day, hour, temp=str(hour), precip="0.1") for day in days for hour in range(24)]
    return flights, weather


@pytest.mark.parametrize(
    ("arr_delay", "dep_time", "late", "status"),
    [
        ("15", "801", False, "arrived"),
        ("16", "801", True, "arrived"),
        (None, "801", None, "diverted"),
        (None, None, None, "cancelled"),
    ],
)
def test_late_is_more_than_15_minutes_and_unknown_for_flights_that_did_not_arrive(
    arr_delay: str | None, dep_time: str | None, late: bool | None, status: str
) -> None:
    """A flight is late from the 16th minute on, and has no label when it was cancelled or diverted."""
    row = tables.flights(raw([flight(FIRST, 8, 1, arr_delay, dep_time=dep_time)])).row(0, named=True)
    assert (row["late"], row["status"]) == (late, status)


def test_flights_have_a_key_and_their_departure_in_utc() -> None:
    """A flight is named by its day, number and route, and its scheduled departure is a UTC timestamp."""
    row = tables.flights(raw([flight(FIRST, 20, 7, "0")])).row(0, named=True)
    assert row["flight_id"] == "2013-03-01-UA7-EWR-IAH"
    assert row["scheduled_departure"] == datetime(2013, 3, 2, 1, 30, tzinfo=UTC)
    assert (row["flight_date"], row["scheduled_minutes"]) == (FIRST, 60)


def test_a_flight_that_was_received_twice_is_kept_once_as_received_last() -> None:
    """A day's file that comes again replaces what the first one said."""
    table = tables.flights(raw([flight(FIRST, 8, 1, "90"), flight(FIRST, 8, 2, "0"), flight(FIRST, 8, 1, "3")]))
    assert table.select("flight", "arr_delay").rows() == [("1", 3.0), ("2", 0.0)]


def test_a_malformed_value_costs_its_row_and_names_its_column() -> None:
    """Texts that are no numbers or times become null and are named, and the other rows stay whole."""
    bad = flight(FIRST, 8, 1, "soon", distance="far")
    timeless = [flight(FIRST, 9, n, "0", time_hour="yesterday") for n in (2, 3)]
    table = tables.flights(raw([bad, *timeless, flight(FIRST, 10, 4, "0")])).sort("flight")
    assert table["malformed"].to_list() == ["arr_delay distance", "time_hour", "time_hour", ""]
    assert table["flight_id"].null_count() == 2


def test_registers_are_typed_and_keyed() -> None:
    """Planes and airports have one row for each key, the last received, with numbers as numbers."""
    planes = tables.planes(raw([{**PLANE, "year": None}, PLANE]))
    assert planes.select("tailnum", "built", "seats").rows() == [("N1", 1999, 90)]
    assert tables.airports(raw([AIRPORT])).row(0) == ("IAH", "Houston", 29.9, -95.3, 97.0, "")


def test_weather_looks_back_six_hours_and_never_ahead() -> None:
    """Rain adds up over the last six hours, visibility is the lowest of them."""
    hours = [
        observation(FIRST, hour, precip="0.1", visib=str(10 - hour), pressure=str(1000 + hour)) for hour in range(10)
    ]
    table = features.weather_hourly(tables.weather(raw(hours)))
    assert table["precip_6h"].to_list() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6]
    assert table["visib_low"].to_list() == [float(10 - hour) for hour in range(10)]
    assert table["pressure_change"].to_list() == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5]


def test_late_rates_count_days_up_to_their_end_and_leave_out_flights_that_did_not_arrive() -> None:
    """A day's rate is the share of its arrived flights, and it is stamped with the day's end in New York."""
    rows = [
        flight(FIRST, 8, 1, "60"),
        flight(FIRST, 9, 2, "0"),
        flight(FIRST, 10, 3, None),
        flight(FIRST + timedelta(days=3), 8, 1, "0"),
        flight(FIRST + timedelta(days=8), 8, 1, "0"),
    ]
    table = features.carrier_delays(tables.flights(raw(rows)))
    assert table["carrier_late_1d"].to_list() == [0.5, 0.0, 0.0]
    assert table["carrier_late_7d"].to_list() == [0.5, 0.3333, 0.0]
    assert table["carrier_late_28d"].to_list() == [0.5, 0.3333, 0.25]
    assert table["day_end"][0] == datetime(2013, 3, 2, 5, tzinfo=UTC)


def test_features_are_what_was_known_two_hours_before_the_scheduled_hour() -> None:
    """Weather is three hours old, and the newest outcomes are those of the day before yesterday."""
    flights, weather = some_days(4)
    rows = everything(flights, weather).filter(pl.col("flight_date") == date(2013, 3, 4))
    assert rows["predicted_at"][0] == datetime(2013, 3, 4, 11, tzinfo=UTC)
    assert rows["temp"].to_list() == [5.0, 9.0, 17.0]
    before_yesterday = features.origin_delays(tables.flights(raw(flights))).row(1, named=True)
    assert before_yesterday["day_end"] == datetime(2013, 3, 3, 5, tzinfo=UTC)
    assert rows["origin_late_7d"].to_list() == [before_yesterday["origin_late_7d"]] * 3
    assert rows["plane_age"].to_list() == [14.0] * 3


@pytest.mark.parametrize("day", [2, 4, 6])
def test_later_rows_change_no_earlier_feature(day: int) -> None:
    """Whatever lands or is observed later, what was known before stays the same to the last digit."""
    flights, weather = some_days(8)
    cut = FIRST + timedelta(days=day)
    known = datetime(cut.year, cut.month, cut.day, 8, tzinfo=NEW_YORK).astimezone(UTC) - timedelta(hours=2)
    landed = known - timedelta(days=1)

    def other(row: Raw, moment: datetime, **change: str | None) -> Raw:
        at = datetime.strptime(row["time_hour"] or "", tables.STAMP).replace(tzinfo=UTC)
        return {**row, **change} if at >= moment else row

    future = [other(row, landed - timedelta(hours=6), arr_delay="999", dep_time=None) for row in flights]
    storm = [other(row, known, precip="9", temp="-9", pressure="900") for row in weather]
    before, after = everything(flights, weather), everything(future, storm)
    early = pl.col("predicted_at") <= known
    assert 0 < before.filter(early).height < before.height
    assert before.filter(early).drop("late").equals(after.filter(early).drop("late"))
    assert not before.filter(~early).drop("late").equals(after.filter(~early).drop("late"))
    last = (known + timedelta(hours=2)).strftime(tables.STAMP)
    cut_off = everything(
        [row for row in flights if (row["time_hour"] or "") <= last],
        [row for row in weather if (row["time_hour"] or "") <= last],
    )
    assert before.filter(early).equals(cut_off.filter(early))


def test_the_training_set_has_labels_and_nothing_that_tells_them() -> None:
    """Flights that did not arrive are left out, and so is every column that is filled in after departure."""
    flights, weather = some_days(3)
    flights.append(flight(FIRST, 21, 99, None))
    made = everything(flights, weather)
    kept = features.training_set(*inputs(flights, weather))
    assert kept.equals(made.filter(pl.col("late").is_not_null()))
    assert (made.height, kept.height) == (10, 9)
    leaks = {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "status", "tailnum"}
    assert not leaks & set(kept.columns)
    assert {kept.schema[name] for name in features.FEATURES} == {pl.String(), pl.Float64()}


def tiny_training_set(rows: int = 400) -> pl.DataFrame:
    """Return rows in which evening flights are late, with missing values in every number but the hour."""
    hours = [float(row % 20) for row in range(rows)]
    data: dict[str, list[str] | list[float] | list[float | None] | list[bool]] = {
        "carrier": [("UA", "DL")[row % 2] for row in range(rows)],
        "origin": ["EWR"] * rows,
        **{name: [None if row % 7 == 0 else float(row % 5) for row in range(rows)] for name in features.NUMBERS},
        "hour": hours,
        "late": [hour > 12 for hour in hours],
    }
    return pl.DataFrame(data)


def test_the_model_is_one_fitted_pipeline_over_plain_values() -> None:
    """It answers a request's rows with None and an unknown carrier in them, and tells evening from morning."""
    model = delays(tiny_training_set(), iterations=20, smallest_leaf=5)
    assert isinstance(model, Pipeline)
    values = {name: None for name in features.NUMBERS}
    rows = [{"carrier": "ZZ", "origin": None, **values, "hour": hour} for hour in (3, 18)]
    inputs = np.array([[row[name] for name in features.FEATURES] for row in rows], dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        morning, evening = model.predict_proba(inputs)[:, 1]
    assert morning < 0.2 < 0.8 < evening
    assert model.classes_.tolist() == [False, True]


def test_the_model_is_the_same_each_time_and_takes_rows_from_the_whole_span() -> None:
    """The same rows give the same answers, and thinning is even and by count, not by chance."""
    rows = tiny_training_set()
    inputs = rows.select(features.FEATURES).to_numpy()
    first, again, thin = (
        delays(rows, iterations=5, smallest_leaf=5, rows=most).predict_proba(inputs) for most in (400, 400, 100)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, thin)
