"""Feature sets and the training set: what was known two hours before a flight's scheduled hour.

An hour's weather counts from one hour after it was observed, so it is three hours old at departure. The late
rates of carriers, routes and airports are counted over whole days of the airport's local time; a day counts
from one day after it ended, because its file arrives during the next day. The destination is described by
its place and not by its name: a new destination is no unknown category.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

import trimtab as tt
from flights.tables import LOCAL
from trimtab import check as ck

AHEAD = timedelta(hours=2)
KEYS = ["flight_id", "predicted_at", "flight_date"]
CATEGORIES = ["carrier", "origin"]
NUMBERS = [
    "hour",
    "minute",
    "weekday",
    "scheduled_minutes",
    "distance",
    "plane_age",
    "seats",
    "dest_lat",
    "dest_lon",
    "temp",
    "humid",
    "wind_speed",
    "wind_gust",
    "precip",
    "precip_6h",
    "pressure",
    "pressure_change",
    "visib",
    "visib_low",
    "carrier_late_1d",
    "carrier_late_7d",
    "carrier_late_28d",
    "route_late_7d",
    "route_late_28d",
    "origin_late_1d",
    "origin_late_7d",
    "origin_late_28d",
]
FEATURES = [*CATEGORIES, *NUMBERS]
LABEL = "late"


@tt.features(entity="origin", time="observed_at")
def weather_hourly(weather: pl.DataFrame) -> pl.DataFrame:
    """Weather at an airport, and what it did in the hours before."""
    rows = weather.sort("origin", "observed_at")
    past = rows.rolling("observed_at", period="6h", group_by="origin").agg(
        precip_6h=pl.col("precip").sum().round(2),
        visib_low=pl.col("visib").min(),
        pressure_change=(pl.col("pressure").last() - pl.col("pressure").first()).round(1),
    )
    now = ["temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    return rows.select("origin", "observed_at", *now).join(past, on=["origin", "observed_at"], how="left")


@tt.features(entity="carrier", time="day_end")
def carrier_delays(flights: pl.DataFrame) -> pl.DataFrame:
    """Share of a carrier's flights that came late, over the days up to ``day_end``."""
    return _late_rates(flights, ["carrier"], "carrier", [1, 7, 28])


@tt.features(entity=["origin", "dest"], time="day_end")
def route_delays(flights: pl.DataFrame) -> pl.DataFrame:
    """Share of a route's flights that came late, over the days up to ``day_end``."""
    return _late_rates(flights, ["origin", "dest"], "route", [7, 28])


@tt.features(entity="origin", time="day_end")
def origin_delays(flights: pl.DataFrame) -> pl.DataFrame:
    """Share of an airport's flights that came late, over the days up to ``day_end``."""
    return _late_rates(flights, ["origin"], "origin", [1, 7, 28])


def flight_features(
    flights: pl.DataFrame,
    planes: pl.DataFrame,
    airports: pl.DataFrame,
    weather_hourly: pl.DataFrame,
    carrier_delays: pl.DataFrame,
    route_delays: pl.DataFrame,
    origin_delays: pl.DataFrame,
) -> pl.DataFrame:
    """Return keys, features and label of every flight, as of ``predicted_at``; one row for each flight."""
    local = pl.col("scheduled_departure").dt.convert_time_zone(LOCAL)
    rows: pl.DataFrame = flights.with_columns(
        predicted_at=pl.col("scheduled_hour") - AHEAD,
        hour=local.dt.hour(),
        minute=local.dt.minute(),
        weekday=local.dt.weekday(),
    )
    rows = rows.join(planes.select("tailnum", "built", "seats"), on="tailnum", how="left", maintain_order="left")
    places = airports.select(dest="faa", dest_lat="lat", dest_lon="lon")
    rows = rows.join(places, on="dest", how="left", maintain_order="left")
    rows = rows.with_columns(plane_age=pl.col("flight_date").dt.year() - pl.col("built"))
    rows = tt.point_in_time(
        rows,
        weather_hourly,
        entity="origin",
        label_time="predicted_at",
        feature_time="observed_at",
        lookback="8h",
        delay="1h",
    )
    for rates, entity in (
        (carrier_delays, ["carrier"]),
        (route_delays, ["origin", "dest"]),
        (origin_delays, ["origin"]),
    ):
        rows = tt.point_in_time(
            rows,
            rates,
            entity=entity,
            label_time="predicted_at",
            feature_time="day_end",
            lookback="10d",
            delay="1d",
        )
    numbers = [pl.col(name).cast(pl.Float64) for name in NUMBERS]
    return rows.select(*KEYS, *CATEGORIES, *numbers, LABEL)


@tt.table(
    layer="gold", key="flight_id", time="predicted_at", fresh="4d", checks=[ck.unique("flight_id"), ck.missing("late")]
)
def training_set(
    flights: pl.DataFrame,
    planes: pl.DataFrame,
    airports: pl.DataFrame,
    weather_hourly: pl.DataFrame,
    carrier_delays: pl.DataFrame,
    route_delays: pl.DataFrame,
    origin_delays: pl.DataFrame,
) -> pl.DataFrame:
    """Flights that arrived, with what was known two hours before their scheduled hour."""
    rows = flight_features(flights, planes, airports, weather_hourly, carrier_delays, route_delays, origin_delays)
    return rows.filter(pl.col(LABEL).is_not_null())


def _late_rates(flights: pl.DataFrame, entity: list[str], name: str, days: list[int]) -> pl.DataFrame:
    daily = (
        flights.filter(pl.col("late").is_not_null())
        .group_by(*entity, "flight_date")
        .agg(flown=pl.len(), late=pl.col("late").sum())
        .sort(*entity, "flight_date")
    )
    rows = daily.select(*entity, "flight_date")
    for span in days:
        rate = (pl.col("late").sum() / pl.col("flown").sum()).round(4)
        window = daily.rolling("flight_date", period=f"{span}d", group_by=entity).agg(
            rate.alias(f"{name}_late_{span}d")
        )
        rows = rows.join(window, on=[*entity, "flight_date"], how="left", maintain_order="left")
    midnight = pl.col("flight_date").cast(pl.Datetime("us")) + pl.duration(days=1)
    day_end = midnight.dt.replace_time_zone(LOCAL).dt.convert_time_zone("UTC")
    return rows.select(*entity, day_end.alias("day_end"), *[f"{name}_late_{span}d" for span in days])
