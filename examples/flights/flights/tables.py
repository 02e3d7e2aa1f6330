"""Silver tables: typed rows of the raw files, each thing once.

Raw rows are texts, as received; missing values are null. A text that cannot be read as its column's type
becomes null and the column is named in ``malformed``, so that one bad value costs its row and not the table.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

import trimtab as tt
from trimtab import check as ck

LOCAL = "America/New_York"
LATE_AFTER = 15.0
STAMP = "%Y-%m-%dT%H:%M:%SZ"

_FLIGHT_NUMBERS: Mapping[str, type[pl.DataType]] = {
    "dep_time": pl.Int32,
    "sched_dep_time": pl.Int32,
    "sched_arr_time": pl.Int32,
    "dep_delay": pl.Float64,
    "arr_delay": pl.Float64,
    "distance": pl.Float64,
}
OBSERVED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


@tt.table(
    layer="silver",
    key="flight_id",
    time="scheduled_departure",
    bar=0.99,
    checks=[
        ck.row_count(1),
        ck.unique("flight_id"),
        ck.where("malformed = ''", name="every column could be read"),
        ck.one_of("origin", ["EWR", "JFK", "LGA"]),
        ck.between("distance", 50, 6000, at_most=0.001),
        ck.missing("tailnum", at_most=0.02),
        ck.missing("late", at_most=0.06),
    ],
)
def flights(flights_raw: pl.DataFrame) -> pl.DataFrame:
    """One row for each scheduled flight, with what became of it.

    ``late`` says that it arrived more than 15 minutes after its time. It is null for a flight that did not
    arrive where it was bound for; ``status`` tells why (``cancelled`` or ``diverted``). Such flights stay in
    the table and are predicted like all others, for nobody knows it before; they are neither trained on nor
    judged.
    """
    typed = _typed(flights_raw, _FLIGHT_NUMBERS, stamp="time_hour")
    date = pl.col("time_hour").dt.convert_time_zone(LOCAL).dt.date()
    departure, arrival = _minutes("sched_dep_time"), _minutes("sched_arr_time")
    rows = typed.select(
        flight_id=pl.format("{}-{}{}-{}-{}", date.dt.to_string("%Y-%m-%d"), "carrier", "flight", "origin", "dest"),
        flight_date=date,
        scheduled_hour="time_hour",
        scheduled_departure=pl.col("time_hour") + pl.duration(minutes=departure % 60),
        scheduled_minutes=(arrival - departure) % 1440,
        carrier="carrier",
        flight="flight",
        tailnum="tailnum",
        origin="origin",
        dest="dest",
        distance="distance",
        status=pl.when(pl.col("dep_time").is_null())
        .then(pl.lit("cancelled"))
        .when(pl.col("arr_delay").is_null())
        .then(pl.lit("diverted"))
        .otherwise(pl.lit("arrived")),
        dep_delay="dep_delay",
        arr_delay="arr_delay",
        late=pl.col("arr_delay") > LATE_AFTER,
        malformed="malformed",
    )
    return _newest(rows, ["flight_id"]).sort("scheduled_departure", "flight_id")


@tt.table(
    layer="silver",
    key=["origin", "observed_at"],
    time="observed_at",
    bar=0.99,
    checks=[
        ck.unique("origin", "observed_at"),
        ck.where("malformed = ''", name="every column could be read"),
        ck.between("wind_speed", 0, 200, at_most=0.001),
        ck.between("temp", -40, 130),
        ck.missing("pressure", at_most=0.15),
    ],
)
def weather(weather_raw: pl.DataFrame) -> pl.DataFrame:
    """One row for each airport and hour: what was observed there (°F, %, mph, inches, millibar, miles)."""
    typed = _typed(weather_raw, dict.fromkeys(OBSERVED, pl.Float64), stamp="time_hour")
    rows = typed.select("origin", *OBSERVED, "malformed", observed_at="time_hour")
    return _newest(rows, ["origin", "observed_at"]).sort("observed_at", "origin")


@tt.table(layer="silver", key="tailnum", checks=[ck.unique("tailnum"), ck.where("malformed = ''")])
def planes(planes_raw: pl.DataFrame) -> pl.DataFrame:
    """One row for each registered aircraft; some carriers report tail numbers that are not registered."""
    typed = _typed(planes_raw, {"year": pl.Int32, "engines": pl.Int32, "seats": pl.Int32})
    rows = typed.select("tailnum", "manufacturer", "model", "engines", "seats", "malformed", built="year")
    return _newest(rows, ["tailnum"]).sort("tailnum")


@tt.table(layer="silver", key="faa", checks=[ck.unique("faa"), ck.between("lat", -90, 90)])
def airports(airports_raw: pl.DataFrame) -> pl.DataFrame:
    """One row for each airport; four in Puerto Rico and the Virgin Islands are not in the register."""
    typed = _typed(airports_raw, {"lat": pl.Float64, "lon": pl.Float64, "alt": pl.Float64})
    return _newest(typed.select("faa", "name", "lat", "lon", "alt", "malformed"), ["faa"]).sort("faa")


def _typed(raw: pl.DataFrame, numbers: Mapping[str, type[pl.DataType]], stamp: str = "") -> pl.DataFrame:
    casts = {name: pl.col(name).cast(kind, strict=False) for name, kind in numbers.items()}
    if stamp:
        casts[stamp] = pl.col(stamp).str.to_datetime(STAMP, time_zone="UTC", time_unit="us", strict=False)
    unread = [pl.when(pl.col(name).is_not_null() & cast.is_null()).then(pl.lit(name)) for name, cast in casts.items()]
    return raw.with_columns(**casts, malformed=pl.concat_str(unread, separator=" ", ignore_nulls=True))


def _minutes(clock: str) -> pl.Expr:
    return pl.col(clock) // 100 * 60 + pl.col(clock) % 100


def _newest(rows: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Return the last row of each key; rows without a key all stay, for a check to find them."""
    known = pl.all_horizontal(pl.col(key).is_not_null())
    return pl.concat([rows.filter(known).unique(key, keep="last"), rows.filter(~known)])
