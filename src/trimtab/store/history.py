"""Histories of metrics: whole, by steps, and down to as many points as a plot can show."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from trimtab.core.errors import NotFound
from trimtab.core.metric import join_value
from trimtab.store.engine import ALL, Value
from trimtab.store.ledger import Reader
from trimtab.store.points import Point
from trimtab.store.tracking import need_run, parts

Place = tuple[int, int, float, str]
"""Time, step, value and kind of a point, by which a history is sorted."""
_COLUMNS, _ORDER = "name, value, kind, step, at", "ORDER BY at, step, value, kind"


class Bucket(Struct, frozen=True, kw_only=True):
    """What a metric was over a range of steps.

    Attributes:
        first, last_step: the lowest and the highest step that it has.
        count: how many points, NaN among them.
        low, high: the least and the greatest number, None if there is none but NaN.
        last: the value of its latest point, by step, then time.
    """

    first: int
    last_step: int
    count: int
    low: float | None
    high: float | None
    last: float


def history(reader: Reader, ident: str, name: str, *, after: Place | None = None, most: int = ALL) -> list[Point]:
    """Return the points of a run's metric by time, step and value.

    Args:
        reader: the ledger.
        ident: the run.
        name: the metric.
        after: where the page before ended (``place_of``).
        most: how many at most.

    Raises:
        NotFound: there is no such run.
    """
    run_id = need_run(reader, ident, active=False)
    sql, params = f"SELECT {_COLUMNS} FROM metric WHERE run_id=? AND name=?", list[Value]((run_id, name))
    if after is not None:
        sql += " AND (at, step, value, kind) > (?,?,?,?)"
        params += after
    return [
        Point.joined(*row) for row in reader.query(f"{sql} ORDER BY at, step, value, kind LIMIT ?", [*params, most])
    ]


def histories(reader: Reader, idents: Sequence[str], name: str, *, most: int) -> list[tuple[str, Point]]:
    """Return points of one metric of several runs, by run, time, step and value; a run that is not there has none."""
    found: list[tuple[str, Point]] = []
    for ident in sorted(set(idents)):
        sql = f"SELECT {_COLUMNS} FROM metric WHERE run_id=? AND name=? AND workspace=? {_ORDER} LIMIT ?"
        rows = reader.query(sql, (f"run_{ident}", name, reader.workspace, most - len(found)))
        found += [(ident, Point.joined(*row)) for row in rows]
        if len(found) >= most:
            break
    return found


def sampled(
    reader: Reader, idents: Sequence[str], name: str, *, most: int, steps: tuple[int, int] | None = None
) -> list[tuple[str, Point]]:
    """Return the points at evenly chosen steps that the runs share, with the first and last step of each run.

    Args:
        reader: the ledger.
        idents: the runs.
        name: the metric.
        most: of how many steps, ends aside.
        steps: only from the first to the second of these.

    Raises:
        NotFound: there is no such run.
    """
    run_ids = [need_run(reader, ident, active=False) for ident in idents]
    known, ends = set[int](), set[int]()
    for run_id in run_ids:
        rows = reader.query("SELECT DISTINCT step FROM metric WHERE run_id=? AND name=?", (run_id, name))
        own = [row[0] for row in rows]
        known.update(own)
        ends.update((min(own), max(own)) if own else ())
    chosen = _evenly(sorted(known), ends, most, steps)
    return [
        (run_id.removeprefix("run_"), point) for run_id in run_ids for point in _at_steps(reader, run_id, name, chosen)
    ]


def _evenly(known: list[int], ends: set[int], most: int, steps: tuple[int, int] | None) -> list[int]:
    if not known:
        return []
    low, high = steps or (min(0, known[0]), known[-1])
    inside = known[bisect.bisect_left(known, low) : bisect.bisect_right(known, high)]
    if len(inside) > most:
        width = len(inside) / most
        inside = [inside[int(place * width)] for place in range(most)] + inside[-1:]
    return sorted({*inside, *(step for step in ends if low <= step <= high)})


def _at_steps(reader: Reader, run_id: str, name: str, steps: Sequence[int]) -> list[Point]:
    found: list[Point] = []
    for part in parts(steps):
        sql = f"SELECT {_COLUMNS} FROM metric WHERE run_id=? AND name=? AND step IN ({','.join('?' * len(part))})"
        found += [Point.joined(*row) for row in reader.query(sql, [run_id, name, *part])]
    return sorted(found, key=lambda point: (point.step, point.at, point.value))


def buckets(reader: Reader, run_id: str, name: str, *, most: int, steps: tuple[int, int] | None = None) -> list[Bucket]:
    """Return a metric's history as ranges of steps of one width, each with its least, greatest and last value.

    Nothing that a plot of ``most`` points across could show is lost: a peak of one step is some range's greatest.

    Args:
        reader: the ledger.
        run_id: any run, by the ledger's id.
        name: the metric.
        most: how many ranges; those without points are left out.
        steps: only from the first to the second of these.

    Raises:
        NotFound: there is no such run.
    """
    if not reader.query("SELECT 1 FROM run WHERE id=? AND workspace=?", (run_id, reader.workspace)):
        raise NotFound(f"there is no run {run_id[:60]!r}", where="run", fix="`trimtab runs` lists them")
    among, params = "FROM metric WHERE run_id=? AND name=?", list[Value]((run_id, name))
    if steps is not None:
        among, params = f"{among} AND step>=? AND step<=?", [*params, *steps]
    low, high = reader.query(f"SELECT min(step), max(step) {among}", params)[0]
    if low is None:
        return []
    # In floating point: the difference of two steps need not fit into 64 bits.
    width = max((float(high) - float(low)) / most, 1e-9)
    bucket = "CAST(floor((CAST(step AS DOUBLE PRECISION) - ?) / ?) AS BIGINT)"
    sql = (
        f"SELECT place, min(step), max(step), count(*), min(number), max(number), max(CASE WHEN late=1 THEN value END),"
        f" max(CASE WHEN late=1 THEN kind END) FROM (SELECT place, step, value, kind, CASE kind WHEN '' THEN value"
        " WHEN 'nan' THEN NULL WHEN '-0.0' THEN 0.0 WHEN '-inf' THEN ? ELSE ? END AS number, row_number() OVER"
        " (PARTITION BY place ORDER BY step DESC, at DESC, value DESC, kind DESC) AS late FROM"
        f" (SELECT {bucket} AS place, step, at, value, kind {among}) AS placed) AS ranked GROUP BY place ORDER BY place"
    )
    rows = reader.query(sql, [-math.inf, math.inf, float(low), width, *params])
    return _merged([_bucket(*row[1:]) for row in rows], most)


def _bucket(first: int, last: int, count: int, low: Any, high: Any, value: float | None, kind: str) -> Bucket:
    return Bucket(first=first, last_step=last, count=count, low=low, high=high, last=join_value(value, kind))


def _merged(found: list[Bucket], most: int) -> list[Bucket]:
    """Return the ranges without the one more that the highest step falls into."""
    if len(found) <= most:
        return found
    one, other = found[-2:]
    lows = [value for value in (one.low, other.low) if value is not None]
    highs = [value for value in (one.high, other.high) if value is not None]
    both = Bucket(
        first=one.first, last_step=other.last_step, count=one.count + other.count,
        low=min(lows, default=None), high=max(highs, default=None), last=other.last,
    )  # fmt: skip
    return [*found[:-2], both]
