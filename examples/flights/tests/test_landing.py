"""Raw files arrive day by day, complete and once."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

from landing import land, lands_at, rows_by_day, source


def test_each_day_lands_once_and_complete(tmp_path: Path) -> None:
    """Landing again, or landing more, writes only what is not there yet."""
    first = land(tmp_path, date(2013, 1, 2))
    assert [path.relative_to(tmp_path).as_posix() for path in first] == [
        "planes/planes.csv",
        "airports/airports.csv",
        "flights/2013-01-01.csv",
        "flights/2013-01-02.csv",
        "weather/2013-01-01.csv",
        "weather/2013-01-02.csv",
    ]
    assert land(tmp_path, date(2013, 1, 2)) == []
    more = land(tmp_path, date(2013, 1, 3))
    assert [path.name for path in more] == ["2013-01-03.csv", "2013-01-03.csv"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_landed_is_left_alone(tmp_path: Path) -> None:
    """What a file holds once it has landed is its own affair, so that a damaged one is found and not hidden."""
    land(tmp_path, date(2013, 1, 1))
    path = tmp_path / "flights" / "2013-01-01.csv"
    path.write_bytes(b"damaged")
    land(tmp_path, date(2013, 1, 1))
    assert path.read_bytes() == b"damaged"


def test_raw_rows_are_the_sources_own_lines() -> None:
    """All days together hold every line of the source once, under the source's header."""
    header, *lines = source("weather").splitlines(keepends=True)
    found = [part.splitlines(keepends=True) for part in rows_by_day("weather").values()]
    assert all(part[0] == header for part in found)
    assert sorted(line for part in found for line in part[1:]) == sorted(lines)


def test_a_day_is_known_at_the_end_of_the_next_one_in_new_york() -> None:
    """The clock change in March makes no difference to local midnight."""
    assert lands_at(date(2013, 3, 8)) == datetime(2013, 3, 10, 5, tzinfo=UTC)
    assert lands_at(date(2013, 3, 9)) == datetime(2013, 3, 11, 4, tzinfo=UTC)
