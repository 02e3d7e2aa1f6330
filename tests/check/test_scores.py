"""Metrics against scikit-learn, their laws, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from trimtab.check import scores
from trimtab.core.errors import BadInput, WrongUse
from trimtab.core.metric import METRICS

# Few distinct probabilities, so that ties are common.
BINARY = st.lists(
    st.tuples(st.integers(0, 1), st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
    min_size=2,
    max_size=60,
).filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))
NUMBERS = st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=60)


def columns(rows: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Return the two columns of the rows."""
    return [label for label, _ in rows], [value for _, value in rows]


@settings(max_examples=30)
@given(BINARY)
def test_binary_metrics_equal_sklearn(rows: list[tuple[int, float]]) -> None:
    """AUC (with ties), log loss and Brier score are scikit-learn's."""
    labels, given_scores = columns(rows)
    assert scores.auc(labels, given_scores) == pytest.approx(metrics.roc_auc_score(labels, given_scores))
    clipped = np.clip(given_scores, 1e-15, 1 - 1e-15)
    expected = metrics.log_loss(labels, clipped, labels=[0, 1])
    assert scores.log_loss(labels, given_scores) == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert scores.brier(labels, given_scores) == pytest.approx(metrics.brier_score_loss(labels, given_scores))
    classes = [int(value >= 0.5) for value in given_scores]
    assert scores.accuracy(labels, classes) == pytest.approx(metrics.accuracy_score(labels, classes))


@settings(max_examples=30)
@given(NUMBERS.filter(lambda rows: np.var([label for label, _ in rows]) > 1e-6))
def test_regression_metrics_equal_sklearn(rows: list[tuple[float, float]]) -> None:
    """Errors of numbers are scikit-learn's."""
    truth, values = columns(rows)
    assert scores.mae(truth, values) == pytest.approx(metrics.mean_absolute_error(truth, values))
    assert scores.rmse(truth, values) == pytest.approx(metrics.root_mean_squared_error(truth, values))
    assert scores.r2(truth, values) == pytest.approx(metrics.r2_score(truth, values), rel=1e-6, abs=1e-9)


def test_multiclass_log_loss_equals_sklearn() -> None:
    """A probability matrix gives the mean of minus the logarithm of the true class's column."""
    random = np.random.default_rng(0)
    matrix = random.dirichlet([1.0, 2.0, 3.0], 200)
    labels = random.integers(0, 3, 200)
    assert scores.log_loss(labels, matrix) == pytest.approx(metrics.log_loss(labels, matrix, labels=[0, 1, 2]))


@given(BINARY)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, float]]) -> None:
    """AUC counts pairs of a one and a zero in the right order, ties half; turning scores turns it."""
    ones = [value for label, value in rows if label]
    zeros = [value for label, value in rows if not label]
    pairs = sum((one > zero) + (one == zero) / 2 for one in ones for zero in zeros)
    labels, given_scores = columns(rows)
    area = scores.auc(labels, given_scores)
    assert area == pytest.approx(pairs / (len(ones) * len(zeros)))
    assert scores.auc(labels, [-value for value in given_scores]) == pytest.approx(1 - area)


@given(BINARY)
def test_row_losses_average_to_the_metric(rows: list[tuple[int, float]]) -> None:
    """The loss of single rows, in plain Python, averages to the metric on arrays."""
    labels, given_scores = columns(rows)
    logs = [scores.row_log_loss(value, label) for label, value in rows]
    squares = [scores.row_brier(value, label) for label, value in rows]
    assert scores.log_loss(labels, given_scores) == pytest.approx(sum(logs) / len(rows), rel=1e-9, abs=1e-12)
    assert scores.brier(labels, given_scores) == pytest.approx(sum(squares) / len(rows))
    wrong = [scores.row_zero_one(round(value), label) for label, value in rows]
    assert scores.error_rate(labels, [round(v) for v in given_scores]) == pytest.approx(sum(wrong) / len(rows))


@given(BINARY)
def test_ece_is_between_zero_and_one(rows: list[tuple[int, float]]) -> None:
    """Calibration error lies in [0, 1], is 0 for certain right answers and equals its definition."""
    labels, given_scores = columns(rows)
    bins: dict[int, list[float]] = {}
    for label, value in rows:
        bins.setdefault(min(int(value * 10), 9), []).append(value - label)
    expected = sum(abs(sum(gaps)) for gaps in bins.values()) / len(rows)
    assert scores.ece(labels, given_scores) == pytest.approx(expected) and 0 <= expected <= 1
    assert scores.ece(labels, labels) == 0.0


def test_one_row_losses() -> None:
    """Losses of one row have the values that their definitions give."""
    assert scores.row_log_loss(0.25, 1) == pytest.approx(math.log(4))
    assert scores.row_log_loss(0.0, 1) == pytest.approx(-math.log(1e-15))
    assert scores.row_log_loss(0.0, 0) == 0.0
    assert scores.row_brier(0.25, True) == pytest.approx(0.5625)
    assert scores.row_zero_one("late", "late") == 0.0 and scores.row_zero_one("late", "early") == 1.0
    assert scores.scaled(1.0, 4.0) == 0.25 and scores.scaled(9.0, 4.0) == 1.0 and scores.scaled(-1.0, 4.0) == 0.0


def test_every_named_metric_can_be_computed() -> None:
    """Every metric whose direction is defined has a function here, and means over rows are marked so."""
    assert set(scores.METRIC_FUNCTIONS) == set(METRICS)
    assert set(scores.ROW_METRICS) == {name for name, metric in METRICS.items() if metric.per_row}
    for name in METRICS:
        assert math.isfinite(scores.score(name, [0, 1, 1, 0], [0.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    "act",
    [
        lambda: scores.auc([1, 1], [0.1, 0.2]),
        lambda: scores.auc([0, 2], [0.1, 0.2]),
        lambda: scores.auc([0, 1, 1], [0.1, 0.2]),
        lambda: scores.auc([], []),
        lambda: scores.auc([0, 1], [math.nan, 0.2]),
        lambda: scores.auc(["no", "yes"], [0.1, 0.2]),
        lambda: scores.log_loss([0, 1], [1.2, 0.2]),
        lambda: scores.log_loss([0, 3], [[0.5, 0.5], [0.5, 0.5]]),
        lambda: scores.log_loss([0.5, 1.0], [[0.5, 0.5], [0.5, 0.5]]),
        lambda: scores.log_loss([0], [[0.5, 0.5], [0.5, 0.5]]),
        lambda: scores.brier([0, 1], [-0.1, 0.2]),
        lambda: scores.ece([0, 1], [2.0, 0.2]),
        lambda: scores.r2([1.0, 1.0], [1.0, 2.0]),
        lambda: scores.mae([1.0], [math.inf]),
        lambda: scores.accuracy([1, 2], [1]),
    ],
)
def test_undefined_metrics_raise(act: Callable[[], float]) -> None:
    """What has no value is refused instead of answered with NaN."""
    with pytest.raises(BadInput):
        act()


def test_unknown_metrics_name_the_closest() -> None:
    """A misspelt metric is told with what was probably meant."""
    with pytest.raises(WrongUse, match="log_loss"):
        scores.score("logloss", [0, 1], [0.1, 0.9])
    with pytest.raises(WrongUse, match="mean over rows"):
        scores.row_losses("auc", [0, 1], [0.1, 0.9])
