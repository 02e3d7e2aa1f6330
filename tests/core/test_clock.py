"""Clocks and durations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.clock import (
    RealClock,
    SimulatedClock,
    from_micros,
    parse_duration,
    parse_time,
    to_micros,
)
from trimtab.core.errors import WrongUse


@given(st.datetimes(timezones=st.just(UTC)))
def test_micros_are_exact(moment: datetime) -> None:
    """Event time survives its stored form to the microsecond."""
    assert from_micros(to_micros(moment)) == moment


def test_simulated_time_only_moves_forward() -> None:
    """A simulated clock stands still, advances and never goes back."""
    clock = SimulatedClock(datetime(2013, 4, 1, tzinfo=UTC))
    assert clock.now() == clock.now() == datetime(2013, 4, 1, tzinfo=UTC)
    clock.advance(datetime(2013, 4, 2, tzinfo=UTC))
    with pytest.raises(WrongUse, match="cannot go back"):
        clock.advance(datetime(2013, 4, 1, tzinfo=UTC))
    assert RealClock().now().tzinfo is UTC


def test_durations() -> None:
    """A duration is a number and a unit."""
    assert parse_duration("90s") == timedelta(seconds=90)
    assert parse_duration("1.5h") == timedelta(minutes=90)
    assert parse_duration("2w") == timedelta(days=14)
    assert parse_duration("250ms") == timedelta(milliseconds=250)
    for text in ("", "5", "d", "-1d", "1 fortnight", "nan d", "infs"):
        with pytest.raises(WrongUse, match="not a duration"):
            parse_duration(text)


def test_times() -> None:
    """Times are ISO 8601 and come out in UTC."""
    assert parse_time("2013-04-01T06:00:00+02:00") == datetime(2013, 4, 1, 4, tzinfo=UTC)
    assert parse_time("2013-04-01") == datetime(2013, 4, 1, tzinfo=UTC)
    with pytest.raises(WrongUse, match="ISO 8601"):
        parse_time("yesterday")
