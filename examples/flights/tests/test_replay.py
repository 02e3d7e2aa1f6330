"""The replay asks about the same flights in the same requests each time."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
from flights import features
from replay import Replay

DAY = date(2013, 4, 1)


def flights(count: int, day: date = DAY) -> pl.DataFrame:
    """Return features of ``count`` flights of two airports in two hours; every fifth did not arrive."""
    rows = [
        {
            "flight_id": f"{day}-UA{number}-EWR-IAH",
            "predicted_at": datetime(day.year, day.month, day.day, 10 + number % 2, tzinfo=UTC),
            "flight_date": day,
            "carrier": "UA",
            "origin": ("EWR", "JFK")[number // 2 % 2],
            **{name: None if number % 3 else 1.0 for name in features.NUMBERS},
            "late": None if number % 5 == 0 else number % 2 == 0,
        }
        for number in range(count)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def test_one_request_for_each_hour_and_airport_in_time_order() -> None:
    """Requests come in time order, and all rows of one have its hour and airport."""
    requests = Replay(flights(40), share=1.0).requests_of(DAY)
    assert [(request.at.hour, request.key) for request in requests] == [
        (10, "EWR"),
        (10, "JFK"),
        (11, "EWR"),
        (11, "JFK"),
    ]
    assert all(row["origin"] == request.key for request in requests for row in request.rows)
    assert sum(len(request.rows) for request in requests) == 40


def test_rows_are_plain_json_with_the_models_columns() -> None:
    """A row is text, numbers and nulls under the names of the model's inputs."""
    request = Replay(flights(8), share=1.0).requests_of(DAY)[0]
    assert list(request.rows[0]) == features.FEATURES
    assert json.loads(json.dumps(request.rows, allow_nan=False)) == list(request.rows)
    assert request.prediction_ids == tuple(f"{request.request_id}.{row}" for row in range(len(request.rows)))
    assert len(request.request_id) == 32


def test_the_sample_depends_on_the_flights_ids_alone() -> None:
    """Other flights, other days and another order change neither the sample nor the requests."""
    rows = flights(600)
    alone = Replay(rows).requests_of(DAY)
    more = pl.concat([flights(600, DAY + timedelta(days=1)), rows.reverse()])
    assert Replay(more).requests_of(DAY) == alone
    assert 60 < sum(len(request.rows) for request in alone) < 140


def test_labels_name_predictions_of_flights_that_arrived() -> None:
    """Each label belongs to a row that was asked about, says what became of it, and comes a day later."""
    replay = Replay(flights(40), share=1.0)
    flight_of = {
        prediction: flight
        for request in replay.requests_of(DAY)
        for prediction, flight in zip(request.prediction_ids, request.flight_ids, strict=True)
    }
    labels = replay.labels_of(DAY)
    numbers = {int(flight_of[label.prediction_id].split("-")[3][2:]): label.label for label in labels}
    assert numbers == {number: number % 2 == 0 for number in range(40) if number % 5}
    assert {label.at for label in labels} == {datetime(2013, 4, 3, 4, tzinfo=UTC)}


def test_a_day_without_flights_has_no_requests() -> None:
    """A day outside the data is empty, not an error."""
    replay = Replay(flights(4), share=1.0)
    assert replay.requests_of(date(2014, 1, 1)) == []
    assert replay.labels_of(date(2014, 1, 1)) == []
