"""Points on their way."""

from __future__ import annotations

import math
import random

from trimtab.migrate.spool import Digest, Spool
from trimtab.store.points import Point

POINTS = [Point("m", value, step, step * 1000) for step, value in enumerate((0.5, -0.0, 0.0, math.nan, math.inf))]


def test_pages_come_back_as_often_as_they_are_asked_for() -> None:
    """What was put in comes out in order, NaN, the infinities and minus zero too."""
    with Spool() as spool:
        spool.add(POINTS[:2])
        spool.add(POINTS[2:])
        for _ in range(2):
            found = [point for page in spool.pages() for point in page]
            assert [str(point) for point in found] == [str(point) for point in POINTS]
        assert spool.digest.count == 5


def test_a_digest_does_not_depend_on_order_and_tells_points_apart() -> None:
    """The sum is the same however points come, and another for each change of one."""

    def of(points: list[Point]) -> str:
        digest = Digest()
        digest.add(points)
        return str(digest)

    mixed = random.Random(1).sample(POINTS, len(POINTS))
    assert of(mixed) == of(POINTS) and of(POINTS + POINTS[:1]) != of(POINTS)
    others = [Point("n", 0.5, 0, 0), Point("m", 0.25, 0, 0), Point("m", 0.5, 1, 0), Point("m", 0.5, 0, 1)]
    assert len({of([point]) for point in [POINTS[0], *others]}) == 5
    assert of([POINTS[1]]) != of([Point("m", 0.0, 1, 1000)])
