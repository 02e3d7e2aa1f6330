"""Event time, which may be simulated, and monotonic time, which never is (DESIGN decision 7)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from trimtab.core.errors import WrongUse

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31557600.0}


class Clock(Protocol):
    """Tells event time: schedules, label arrival, cooldown, soak and false-alarm rates live on it."""

    def now(self) -> datetime:
        """Return the current event time, aware, in UTC."""
        ...


class RealClock:
    """Event time is the time of day."""

    def now(self) -> datetime:
        """Return the time of day in UTC."""
        return datetime.now(UTC)


class SimulatedClock:
    """Event time stands still until somebody advances it."""

    def __init__(self, start: datetime) -> None:
        self._now = as_utc(start)

    def now(self) -> datetime:
        """Return the time that the clock was last set to."""
        return self._now

    def advance(self, to: datetime) -> None:
        """Move the clock forward to ``to``.

        Raises:
            WrongUse: ``to`` lies before the current event time.
        """
        target = as_utc(to)
        if target < self._now:
            raise WrongUse(
                f"the clock stands at {self._now.isoformat()} and cannot go back to {target.isoformat()}",
                fix="advance it to a later time",
            )
        self._now = target


def monotonic() -> float:
    """Return seconds on a clock that only runs forward; for leases, timeouts and latency."""
    return time.monotonic()


def wall_seconds() -> float:
    """Return real seconds since the epoch; for ids, leases shared by machines and file times."""
    return time.time()


def as_utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC; a naive one is taken to be UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def to_micros(moment: datetime) -> int:
    """Return microseconds since the epoch, exactly (the ledger's form of event time)."""
    return (as_utc(moment) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return the aware UTC time ``micros`` microseconds after the epoch."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def parse_time(text: str) -> datetime:
    """Return the ISO 8601 time in ``text`` as aware UTC.

    Raises:
        WrongUse: ``text`` is not an ISO 8601 date or time.
    """
    try:
        return as_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise WrongUse(
            f"{text[:80]!r} is not an ISO 8601 time that a calendar has", fix="write it like 2013-04-01T06:00:00Z"
        ) from error


def parse_duration(text: str | timedelta) -> timedelta:
    """Return the length that ``text`` names: a number and one of ms, s, m, h, d, w, y.

    Raises:
        WrongUse: ``text`` has another form, or is negative.
    """
    if isinstance(text, timedelta):
        return text
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text.strip()[len(number) :]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0.0 <= seconds < 1e12:
        raise WrongUse(f"{text!r} is not a duration", fix="write it like '90s', '15m', '6h', '7d' or '2w'")
    return timedelta(seconds=seconds)
