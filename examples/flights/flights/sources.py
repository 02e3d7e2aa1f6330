"""Sources: the files of the landing zone, read as they are."""

from __future__ import annotations

import trimtab as tt

NULLS = ("", "NA")


@tt.source(path="landing/flights/*.csv", null=NULLS)
def flights_raw() -> None:
    """Flights that left New York, a file for each day, with what became of them."""


@tt.source(path="landing/weather/*.csv", null=NULLS)
def weather_raw() -> None:
    """Hourly weather at the three airports, a file for each day."""


@tt.source(path="landing/planes/*.csv", null=NULLS)
def planes_raw() -> None:
    """The register of aircraft."""


@tt.source(path="landing/airports/*.csv", null=NULLS)
def airports_raw() -> None:
    """The register of airports."""
