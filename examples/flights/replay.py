"""The year as its callers saw it: which requests a day brings, and which labels become known for it.

Requests carry the features of a fixed sample of flights, computed by the project's own feature functions as
of the moment of the request. All ids are made from the flights, so that a replay that is cut off and started
again sends the very same requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from io import BytesIO

import polars as pl
from flights import features, tables
from landing import lands_at, source

SHARE = 1 / 6
NULLS = ["", "NA"]


@dataclass(frozen=True)
class ReplayRequest:
    """One call: the sampled flights that one airport schedules for one hour.

    Attributes:
        at: event time of the call, two hours before the scheduled hour.
        request_id: 32 hex digits.
        key: the airport, for an endpoint that keeps callers on one deployment.
        rows: one for each flight: feature name -> text, number or None.
        prediction_ids: one for each row.
        flight_ids: one for each row.
    """

    at: datetime
    request_id: str
    key: str
    rows: tuple[dict[str, str | float | None], ...]
    prediction_ids: tuple[str, ...]
    flight_ids: tuple[str, ...]


@dataclass(frozen=True)
class ReplayLabel:
    """What became of one prediction, and when that is known."""

    prediction_id: str
    label: bool
    at: datetime


class Replay:
    """A year's requests and labels.

    Args:
        rows: what ``flights.features.flight_features`` returns, in any order.
        share: of the flights that are asked about; which ones depends on their ids alone.
    """

    def __init__(self, rows: pl.DataFrame, share: float = SHARE) -> None:
        chosen = [_draw(flight_id) < share for flight_id in rows["flight_id"]]
        sample = rows.filter(pl.Series(chosen, dtype=pl.Boolean)).sort("predicted_at", "origin", "flight_id")
        self._days = {key[0]: part for key, part in sample.partition_by("flight_date", as_dict=True).items()}

    def requests_of(self, day: date) -> list[ReplayRequest]:
        """Return the requests about the flights of ``day`` in time order."""
        return [_request(group) for group in self._groups(day)]

    def labels_of(self, day: date) -> list[ReplayLabel]:
        """Return the labels of the day's predictions; a flight that did not arrive has none."""
        at = lands_at(day)
        return [
            ReplayLabel(prediction_id, late, at)
            for group in self._groups(day)
            for prediction_id, late in zip(
                _prediction_ids(_request_id(group), group.height), group[features.LABEL], strict=True
            )
            if late is not None
        ]

    def _groups(self, day: date) -> list[pl.DataFrame]:
        rows = self._days.get(day)
        return [] if rows is None else rows.partition_by("predicted_at", "origin", maintain_order=True)


def whole_year() -> pl.DataFrame:
    """Return the features of every flight of the year, each as of its own moment; takes a few seconds."""
    raw = {kind: read_raw(source(kind)) for kind in ("flights", "weather", "planes", "airports")}
    flights = tables.flights(raw["flights"])
    return features.flight_features(
        flights,
        tables.planes(raw["planes"]),
        tables.airports(raw["airports"]),
        features.weather_hourly(tables.weather(raw["weather"])),
        features.carrier_delays(flights),
        features.route_delays(flights),
        features.origin_delays(flights),
    )


def read_raw(text: bytes) -> pl.DataFrame:
    """Return the rows of a raw file as texts, missing values as null."""
    return pl.read_csv(BytesIO(text), infer_schema=False, null_values=NULLS)


def _request(group: pl.DataFrame) -> ReplayRequest:
    request_id = _request_id(group)
    return ReplayRequest(
        at=group["predicted_at"][0],
        request_id=request_id,
        key=group["origin"][0],
        rows=tuple(group.select(features.FEATURES).to_dicts()),
        prediction_ids=_prediction_ids(request_id, group.height),
        flight_ids=tuple(group["flight_id"]),
    )


def _request_id(group: pl.DataFrame) -> str:
    name = f"{group['predicted_at'][0].isoformat()} {group['origin'][0]}"
    return sha256(name.encode()).hexdigest()[:32]


def _prediction_ids(request_id: str, rows: int) -> tuple[str, ...]:
    return tuple(f"{request_id}.{row}" for row in range(rows))


def _draw(flight_id: str) -> float:
    return int.from_bytes(sha256(flight_id.encode()).digest()[:4], "big") / 2**32
