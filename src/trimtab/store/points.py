"""Points of metrics: each kept once and exactly, and beside them the latest of each metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from trimtab.core.metric import join_value, split_value
from trimtab.store.ledger import Reader, Tx


class Point(Struct, frozen=True):
    """One value of a metric.

    Attributes:
        at: microseconds since 1970 of a run's own clock.
    """

    name: str
    value: float
    step: int
    at: int

    @classmethod
    def joined(cls, name: str, value: float | None, kind: str, step: int, at: int) -> Point:
        """Return a point from the columns of a row."""
        return cls(name, join_value(value, kind), step, at)


Rank = Callable[[Point], Any]


def by_step(point: Point) -> tuple[int, int, float]:
    """Rank points as tracking clients do: the latest has the highest step, then time, then value."""
    return point.step, point.at, _comparable(point.value)


def add_points(tx: Tx, run_id: str, points: Sequence[Point], rank: Rank = by_step) -> None:
    """Record points; one that is there already is kept once.

    Args:
        tx: the transaction.
        run_id: whose they are.
        points: in the order in which they were measured.
        rank: which of a metric's points is its latest; of equals the later one.
    """
    tx.execute_many(
        "INSERT OR IGNORE INTO metric(run_id, workspace, environment, name, at, step, value, kind)"
        " VALUES (?,?,?,?,?,?,?,?)",
        [
            (run_id, tx.workspace, tx.environment, point.name, point.at, point.step, _kept(point.value) or 0.0, kind)
            for point in points
            for kind in (split_value(point.value)[1],)
        ],
    )
    newest: dict[str, Point] = {}
    for point in points:
        known = newest.get(point.name)
        if known is None or rank(point) >= rank(known):
            newest[point.name] = point
    for name, point in _latest(tx, run_id, newest).items():
        if rank(point) > rank(newest[name]):
            del newest[name]
    tx.execute_many(
        "INSERT OR REPLACE INTO latest(subject, workspace, environment, name, value, kind, step, at)"
        " VALUES (?,?,?,?,?,?,?,?)",
        [
            (run_id, tx.workspace, tx.environment, point.name, _kept(point.value), kind, point.step, point.at)
            for point in newest.values()
            for kind in (split_value(point.value)[1],)
        ],
    )


def _latest(reader: Reader, subject: str, names: Sequence[str] | dict[str, Point]) -> dict[str, Point]:
    """Return the latest points of some metrics of a subject, by name."""
    if len(names) > 200:
        rows = reader.query("SELECT name, value, kind, step, at FROM latest WHERE subject=?", (subject,))
        rows = [row for row in rows if row[0] in names]
    else:
        marks = ",".join("?" * len(names))
        sql = f"SELECT name, value, kind, step, at FROM latest WHERE subject=? AND name IN ({marks})"
        rows = reader.query(sql, (subject, *names)) if names else []
    return {row[0]: Point.joined(*row) for row in rows}


def _kept(value: float) -> float | None:
    """Return the number that SQL compares: zero for -0.0, nothing for NaN; the kind says what it stands for."""
    return None if value != value else value + 0.0


def _comparable(value: float) -> float:
    return float("-inf") if value != value else value
