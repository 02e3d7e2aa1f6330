"""Sources: the files of the landing zone, read as they are."""

from __future__ import annotations


def flights_raw() -> None:
    """Flights that left New York, a file for each day, with what became of them."""


def weather_raw() -> None:
    """Hourly weather at the three airports, a file for each day."""


def planes_raw() -> None:
    """The register of aircraft."""


def airports_raw() -> None:
    """The register of airports."""
