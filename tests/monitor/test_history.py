"""Realised metrics by period, against definitions written out."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest

from tests.monitor.scene import Scene
from tests.serve.stand import START
from trimtab.check import scores as arrays
from trimtab.core.clock import to_micros
from trimtab.monitor.history import auc, history, log_loss, period_of


def test_metrics_agree_with_those_of_the_gates() -> None:
    """AUC with ties and log loss with certainties equal what the gates compute with numpy."""
    draw = random.Random(3)
    for _ in range(20):
        said = [round(draw.random(), 1) for _ in range(50)]
        truth = [float(draw.random() < score) for score in said]
        assert auc(said, truth) == pytest.approx(arrays.auc(truth, said))
        assert log_loss(said, truth) == pytest.approx(arrays.log_loss(truth, said))
    assert auc([0.1, 0.2], [1.0, 1.0]) is None and log_loss([], []) is None


@pytest.mark.parametrize(("length", "name"), [("month", "2024-12"), ("week", "2025-W01"), ("day", "2024-12-31")])
def test_periods_are_named_in_utc(length: str, name: str) -> None:
    """A month, an ISO week and a day have their usual names."""
    at = to_micros(datetime(2024, 12, 31, 23, 59, tzinfo=UTC))
    assert period_of(at, length) == name  # type: ignore[arg-type]


def test_history_tells_each_period_of_the_calls(scene: Scene) -> None:
    """Rows fall into the period of their call, however late the label; unknown labels are counted apart."""
    row = {"x": 0.0, "c": "a"}
    first = scene.send([(row, 0.9), (row, 0.2), (row, 0.6)], START + timedelta(days=30))
    second = scene.send([(row, 0.7)], START + timedelta(days=31))
    later = START + timedelta(days=60)
    scene.label([first[0], first[1], second[0]], [True, False, True], later)
    scene.keep_label(first[2], "perhaps", later)
    january, february = history(scene.store.ledger, scene.endpoint_id)
    assert (january.period, january.rows, january.unknown, january.rate) == ("2026-01", 3, 1, 0.5)
    assert january.auc == 1.0 and january.mean_prediction == pytest.approx(0.55)
    assert january.brier == pytest.approx((0.1**2 + 0.2**2) / 2) and january.error_rate == 0.0
    assert january.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert (february.rows, february.auc, february.versions) == (1, None, {scene.version.id: 1})
    since = history(scene.store.ledger, scene.endpoint_id, since=START + timedelta(days=31), version_id="ver_other")
    assert since == []
