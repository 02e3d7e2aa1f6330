"""Drift watches: batches, budget, shifts that are found, and the evidence that an alarm brings."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.monitor.scene import Row, Scene, shifted, usual
from trimtab.check.declare import drift
from trimtab.core.clock import to_micros
from trimtab.core.errors import Corrupt, WrongUse
from trimtab.monitor.drift import DriftMonitor, DriftWatch, references_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RUNS = int(os.environ.get("TRIMTAB_SIM_RUNS", "0")) // 10 or 12


def _monitor(scene: Scene, **options: Any) -> DriftMonitor:
    return DriftMonitor(drift("api.calls", **options), scene.version, references_of(scene.store.blobs, scene.version))


def _fold(monitor: DriftMonitor, state: DriftWatch, rows: list[Row]) -> DriftWatch:
    columns = {name: [row[name] for row, _ in rows] for name in ("x", "c")}
    return monitor.fold(state, columns, [score for _, score in rows])


def _live(
    monitor: DriftMonitor, kind: Callable[[random.Random], Row], days: int, seed: int, state: DriftWatch | None = None
) -> tuple[DriftWatch, int]:
    """Return the state after so many daily looks of 100 rows, and the day of the first alarm or 0."""
    draw = random.Random(seed)
    state = state or monitor.start(NOW)
    for day in range(1, days + 1):
        state = _fold(monitor, state, [kind(draw) for _ in range(100)])
        state, verdict = monitor.look(state, NOW + day * DAY)
        if verdict is not None:
            return state, day
    return state, 0


def test_a_look_takes_a_batch(scene: Scene) -> None:
    """Fewer rows than a batch are carried over; with enough of them one look takes all."""
    monitor, draw = _monitor(scene, batch=150), random.Random(1)
    state = _fold(monitor, monitor.start(NOW), [usual(draw) for _ in range(100)])
    state, _ = monitor.look(state, NOW + DAY)
    assert (state.carry.rows, state.process.batches, state.looked) == (100, 0, to_micros(NOW))
    state, _ = monitor.look(_fold(monitor, state, [usual(draw) for _ in range(100)]), NOW + 2 * DAY)
    assert (state.carry.rows, state.process.batches, state.process.rows) == (0, 1, 200)
    assert state.process.exposure == 2 * 86400 and state.looked == to_micros(NOW + 2 * DAY)


def test_order_and_parts_do_not_matter(scene: Scene) -> None:
    """The same rows in another order and in other parts leave the same state."""
    monitor, draw = _monitor(scene), random.Random(1)
    rows = [usual(draw) for _ in range(200)]
    whole = _fold(monitor, monitor.start(NOW), rows)
    parts = monitor.start(NOW)
    for start in range(150, -1, -50):
        parts = _fold(monitor, parts, rows[start : start + 50])
    assert monitor.look(whole, NOW + DAY) == monitor.look(parts, NOW + DAY)


def test_budget_holds_without_drift(scene: Scene) -> None:
    """Of streams that do not drift, at most the promised share alarms within a tenth of the mean time."""
    monitor = _monitor(scene, false_alarms="1/year", material=0.0)
    alarms = sum(_live(monitor, usual, 36, seed)[1] > 0 for seed in range(RUNS))
    share = 36 / 365
    assert alarms <= RUNS * share + 3 * (RUNS * share * (1 - share)) ** 0.5


def test_a_shift_is_found_and_named(scene: Scene) -> None:
    """A shift of one feature is found within days; the verdict names it, how it moved, and shows distances."""
    monitor = _monitor(scene)
    state, _ = _live(monitor, usual, 10, 1)
    draw, verdict = random.Random(2), None
    for day in range(11, 31):
        state, verdict = monitor.look(_fold(monitor, state, [shifted(draw) for _ in range(100)]), NOW + day * DAY)
        if verdict is not None:
            break
    assert verdict is not None and verdict.status == "fail" and day < 20
    first, *others = verdict.evidence["features"]
    assert (first["feature"], first["change"], first["named"]) == ("x", "higher", True)
    assert not any(other["named"] for other in others)
    assert verdict.evidence["evidence"] >= verdict.evidence["limit"] == 365 * 86400
    assert first["psi"] > 0.1 and first["ks"] > 0.1 and first["wasserstein"] > 0.1 and 0 < first["js"] < 1
    assert verdict.reason.endswith("of line:1: x (x has higher)")
    assert state.process.batches == 0 and state.alarms == 1 and state.since == to_micros(NOW + day * DAY)


def test_an_immaterial_shift_is_tolerated(scene: Scene) -> None:
    """A shift within the tolerance raises nothing, however many rows there are."""
    monitor = _monitor(scene, material=0.3)
    assert _live(monitor, shifted, 60, 3)[1] == 0


def test_gone_columns_count_as_missing(scene: Scene) -> None:
    """A column that requests no longer bring, and a number that comes as text, show up as missing values."""
    monitor = _monitor(scene, columns=["x"])
    state = monitor.fold(monitor.start(NOW), {"x": [None] * 60 + ["1.5"] * 40}, [0.5] * 100)
    _, verdict = monitor.look(state, NOW + DAY)
    assert verdict is not None
    shown = verdict.evidence["features"][0]
    assert (
        shown["change"] == "more missing"
        and shown["feature"] == "x"
        and shown["missing"] == 1.0
        and shown["missing_reference"] == 0.0
    )


def test_a_probability_can_be_the_budget(scene: Scene) -> None:
    """With a probability the limit is its inverse and time plays no part."""
    monitor = _monitor(scene, false_alarms=0.05)
    state, day = _live(monitor, shifted, 30, 4)
    assert day > 0 and monitor.evidence(state, NOW)["limit"] == pytest.approx(20)


def test_state_survives_the_ledger(scene: Scene) -> None:
    """State that went through plain data goes on as if nothing had happened; another version starts anew."""
    monitor = _monitor(scene)
    state, _ = _live(monitor, usual, 3, 5)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(state)))
    assert monitor.load(kept, NOW) == state
    assert monitor.load({**kept, "version_id": "ver_other"}, NOW) == monitor.start(NOW)
    assert monitor.load(None, NOW) == monitor.start(NOW)


def test_a_day_can_be_one_observation(scene: Scene) -> None:
    """With a block a look comes at the block's end only, however many rows there are, and counts once."""
    monitor, draw = _monitor(scene, block="1d"), random.Random(6)
    state = _fold(monitor, monitor.start(NOW), [shifted(draw) for _ in range(500)])
    assert monitor.look(state, NOW + DAY / 2) == (state, None)
    state, verdict = monitor.look(state, NOW + DAY)
    assert state.process.batches == 1 and verdict is None


def test_unknown_columns_and_broken_references_are_told(scene: Scene) -> None:
    """A check on a column that training never saw names the known ones; a broken blob is no silence."""
    with pytest.raises(WrongUse, match="was not trained on"):
        _monitor(scene, columns=["nonsense"])
    broken = msgspec.structs.replace(
        scene.version, meta={**scene.version.meta, "reference": scene.store.blobs.put(b'{"a": 1}')}
    )
    with pytest.raises(Corrupt):
        references_of(scene.store.blobs, broken)
    assert references_of(scene.store.blobs, msgspec.structs.replace(scene.version, meta={})) == ()
