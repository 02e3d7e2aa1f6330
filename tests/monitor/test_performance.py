"""Performance watches: losses, what was accepted, budget, decay that is found, and the band around the live loss."""

from __future__ import annotations

import math
import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.monitor.scene import Scene
from trimtab.check.declare import performance
from trimtab.core.errors import WrongUse
from trimtab.core.nouns import Version
from trimtab.monitor.performance import LARGEST_LOG_LOSS, PerformanceMonitor, PerformanceWatch
from trimtab.monitor.signals import Labelled

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RUNS = int(os.environ.get("TRIMTAB_SIM_RUNS", "0")) // 5 or 60
RISK = {
    "brier": {"mean": 0.22, "variance": 0.02, "n": 20_000},
    "error_rate": {"mean": 0.35, "variance": 0.2275, "n": 20_000},
    "log_loss": {"mean": 0.63, "variance": 0.08, "n": 20_000},
}


def _row(score: float | None, truth: float | None, *, task: str = "binary") -> Labelled:
    correct = None if score is None or truth is None else (score >= 0.5) == (truth > 0.5)
    return Labelled(
        prediction_id="p.0", at=0, arrived_at=0, version_id="v", task=task, score=score, truth=truth, correct=correct
    )


def _version(scene: Scene, risk: Any = None) -> Version:
    meta = {**scene.version.meta, "risk": RISK if risk is None else risk}
    return msgspec.structs.replace(scene.version, meta=meta)


def _monitor(scene: Scene, **options: Any) -> PerformanceMonitor:
    return PerformanceMonitor(performance("api", **options), _version(scene))


def _live(monitor: PerformanceMonitor, days: int, seed: int, wrong: float = 0.0) -> tuple[PerformanceWatch, int]:
    """Return the state after daily looks of 100 labels, and the day of the first alarm or 0."""
    draw, state = random.Random(seed), monitor.start(NOW)
    for day in range(1, days + 1):
        rows = []
        for _ in range(100):
            score = 0.2 + 0.6 * draw.random()
            rows.append(_row(score, float((draw.random() < score) != (draw.random() < wrong))))
        state, verdict = monitor.look(monitor.fold(state, rows), NOW + day * DAY)
        if verdict is not None:
            return state, day
    return state, 0


def test_losses_are_bounded(scene: Scene) -> None:
    """Each loss lies between 0 and 1; a log loss is cut and scaled; what has no loss is counted apart."""
    assert _monitor(scene).loss(_row(0.8, 1.0)) == pytest.approx(0.04)
    assert _monitor(scene, on="error_rate").loss(_row(0.8, 0.0)) == 1.0
    log = _monitor(scene, on="log_loss")
    assert log.loss(_row(0.5, 1.0)) == pytest.approx(math.log(2) / LARGEST_LOG_LOSS) and log.loss(_row(0.0, 1.0)) == 1.0
    for bad in (_row(None, 1.0), _row(0.5, None), _row(3.0, 3.0, task="regression")):
        assert _monitor(scene).loss(bad) is None
    state = _monitor(scene).fold(_monitor(scene).start(NOW), [_row(0.5, None), _row(0.5, 1.0)])
    assert state.carry == (0.25,) and state.unknown == 1


def test_accepted_is_the_bound_of_the_held_back_risk_plus_the_tolerance(scene: Scene) -> None:
    """What is accepted lies above the held-back risk by its uncertainty and the tolerance, in units of the loss."""
    for on, mean in (("brier", 0.22), ("error_rate", 0.35), ("log_loss", 0.63)):
        accepted = _monitor(scene, on=on, material=0.02).accepted
        assert mean + 0.02 < accepted < mean + 0.02 + 0.05


def test_budget_holds_while_the_loss_is_as_accepted(scene: Scene) -> None:
    """Of streams with the accepted loss, at most the promised share alarms within a tenth of the mean time."""
    monitor = _monitor(scene, material=0.0)
    alarms = sum(_live(monitor, 36, seed)[1] > 0 for seed in range(RUNS))
    share = 36 / 365
    assert alarms <= RUNS * share + 3 * (RUNS * share * (1 - share)) ** 0.5


def test_decay_is_found_with_a_band(scene: Scene) -> None:
    """When labels turn against the model the alarm comes within days, with the live loss and its band."""
    monitor = _monitor(scene)
    draw, state, verdict = random.Random(1), monitor.start(NOW), None
    day = 0
    while verdict is None and day < 40:
        day += 1
        rows = [_row(score, float(draw.random() >= score)) for score in (0.2 + 0.6 * draw.random() for _ in range(100))]
        state, verdict = monitor.look(monitor.fold(state, rows), NOW + day * DAY)
    assert verdict is not None and verdict.status == "fail" and day <= 10
    low, high = verdict.evidence["interval"]
    assert low < verdict.evidence["mean"] < high and verdict.evidence["mean"] > monitor.accepted
    assert verdict.evidence["held_back"]["n"] == 20_000 and verdict.evidence["rows"] == 100 * day
    assert "live brier" in verdict.reason and f"{monitor.accepted:.4f}" in verdict.reason
    assert state.process.observations == 0 and state.alarms == 1


def test_status_before_and_after_the_first_look(scene: Scene) -> None:
    """Without a look the check is inconclusive, after one without harm it passes."""
    monitor = _monitor(scene)
    state = monitor.fold(monitor.start(NOW), [_row(0.5, 1.0)] * 40)
    before = monitor.verdict(state, NOW)
    assert before.status == "inconclusive" and "40 labels so far" in before.reason
    state, _ = monitor.look(monitor.fold(state, [_row(0.5, 1.0)] * 60), NOW + DAY)
    assert monitor.verdict(state, NOW + DAY).status == "pass"


def test_a_day_can_be_one_observation(scene: Scene) -> None:
    """With a block the mean of the block's losses is one observation."""
    monitor = _monitor(scene, block="1d")
    state = monitor.fold(monitor.start(NOW), [_row(0.5, 1.0)] * 300)
    state, _ = monitor.look(state, NOW + DAY)
    assert state.process.observations == 1 and state.process.mean == pytest.approx(0.25)


def test_state_survives_the_ledger(scene: Scene) -> None:
    """State that went through plain data goes on as if nothing had happened; another version starts anew."""
    monitor = _monitor(scene)
    state, _ = _live(monitor, 3, 5)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(state)))
    assert monitor.load(kept, NOW) == state
    assert monitor.load({**kept, "version_id": "ver_other"}, NOW) == monitor.start(NOW)


def test_a_version_without_held_back_risk_cannot_be_watched(scene: Scene) -> None:
    """The error names what there is to watch instead."""
    with pytest.raises(WrongUse, match="no held-back brier") as caught:
        PerformanceMonitor(performance("api"), _version(scene, {"error_rate": RISK["error_rate"]}))
    assert "error_rate" in caught.value.fix
