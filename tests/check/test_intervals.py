"""Intervals for gates: oracles, laws and coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trimtab.check import intervals, scores
from trimtab.check.intervals import (
    metric_interval,
    paired_auc_difference,
    paired_bootstrap,
    paired_difference,
    paired_mean_difference,
    wilson,
)
from trimtab.core.errors import BadInput, WrongUse


def rows(n: int = 600, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return labels and the probabilities of a better and a worse model."""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.3).astype(int)
    good = 1 / (1 + np.exp(-(2.0 * labels - 1.0 + random.standard_normal(n))))
    poor = 1 / (1 + np.exp(-(1.0 * labels - 1.0 + random.standard_normal(n))))
    return labels, good, poor


def delong_by_pairs(labels: Any, a: Any, b: Any) -> tuple[float, float]:
    """Return the AUC difference and its standard error from all pairs, as DeLong defined them."""
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def kernel(x: Any) -> Any:
        one, zero = x[ones][:, None], x[zeros][None, :]
        return (one > zero) + (one == zero) / 2

    gap = kernel(a) - kernel(b)
    variance = gap.mean(axis=1).var(ddof=1) / len(ones) + gap.mean(axis=0).var(ddof=1) / len(zeros)
    return float(gap.mean()), math.sqrt(variance)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_delong_equals_its_definition(seed: int, levels: int) -> None:
    """The fast algorithm gives the estimate and the width of the definition over all pairs, ties included."""
    random = np.random.default_rng(seed)
    labels = np.r_[0, 0, 1, 1, random.integers(0, 2, 40)]
    a, b = (random.integers(0, levels + 1, 44) / levels for _ in range(2))
    found = paired_auc_difference(labels, a, b, 0.9)
    estimate, error = delong_by_pairs(labels, a, b)
    assert found.estimate == pytest.approx(estimate, abs=1e-12)
    assert found.high - found.low == pytest.approx(2 * stats.norm.ppf(0.95) * error, abs=1e-12)
    assert (found.method, found.rows, found.groups) == ("delong", 44, 0)


def test_mean_difference_equals_the_paired_t_test() -> None:
    """Without groups the interval is that of the paired t-test."""
    random = np.random.default_rng(1)
    a, b = random.random(50), random.random(50)
    found = paired_mean_difference(a, b, 0.95)
    oracle = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))
    assert found.method == "t"


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0.5, 0.99))
def test_wilson_equals_scipy(successes: int, more: int, level: float) -> None:
    """The score interval is scipy's."""
    n = successes + more
    found = wilson(successes, n, level)
    oracle = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


@given(st.floats(0.001, 0.999), st.integers(1, 5000))
def test_t_quantile_equals_scipy(probability: float, freedom: int) -> None:
    """The quantile of Student's t is right from one degree of freedom on."""
    oracle = float(stats.t.ppf(probability, freedom))
    assert intervals.t_quantile(probability, freedom) == pytest.approx(oracle, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", ["auc", "log_loss", "brier", "ece", "rmse", "r2", "mae"])
@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_swapping_the_models_turns_the_interval(name: str, grouped: bool) -> None:
    """The estimate is the difference of the two metrics; swapping the models negates the interval."""
    labels, good, poor = rows()
    groups = [index // 20 for index in range(len(labels))] if grouped else None
    found = paired_difference(name, labels, good, poor, groups=groups)
    swapped = paired_difference(name, labels, poor, good, groups=groups).negated()
    expected = scores.score(name, labels, good) - scores.score(name, labels, poor)
    assert found.estimate == pytest.approx(expected)
    assert found.low < found.estimate < found.high
    assert (swapped.low, swapped.high) == pytest.approx((found.low, found.high), abs=2e-3)
    assert found.groups == (30 if grouped else 0) and found.rows == 600


@pytest.mark.parametrize("name", ["auc", "log_loss", "ece"])
def test_bootstraps_repeat_with_their_seed(name: str) -> None:
    """The same seed gives the same interval, another seed another one that hardly differs."""
    labels, good, poor = rows()
    groups = [f"day {index % 25}" for index in range(len(labels))]
    one, two, other = (paired_difference(name, labels, good, poor, groups=groups, seed=seed) for seed in (0, 0, 1))
    assert one == two != other
    assert other.low == pytest.approx(one.low, abs=0.15 * (one.high - one.low))


def test_special_bootstraps_equal_the_general_one() -> None:
    """The quick paths for AUC and means agree with resampling rows and calling the metric."""
    labels, good, poor = rows()
    groups = [index // 20 for index in range(len(labels))]
    for name in ("auc", "log_loss"):

        def metric(truth: Any, given_scores: Any, name: str = name) -> float:
            return scores.score(name, truth, given_scores)

        quick = paired_difference(name, labels, good, poor, groups=groups)
        slow = paired_bootstrap(metric, labels, good, poor, groups=groups, resamples=800, seed=5)
        width = quick.high - quick.low
        assert slow.estimate == pytest.approx(quick.estimate)
        assert slow.low == pytest.approx(quick.low, abs=0.15 * width)
        assert slow.high == pytest.approx(quick.high, abs=0.15 * width)
        assert quick.method == slow.method == "cluster bootstrap"


@pytest.mark.parametrize("name", ["auc", "log_loss", "accuracy", "error_rate", "ece"])
@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_one_model_has_an_interval_too(name: str, grouped: bool) -> None:
    """A single model's metric lies inside its interval."""
    labels, good, _ = rows()
    answers = (good >= 0.5).astype(int) if name in ("accuracy", "error_rate") else good
    groups = [index // 20 for index in range(len(labels))] if grouped else None
    found = metric_interval(name, labels, answers, groups=groups)
    assert found.estimate == pytest.approx(scores.score(name, labels, answers))
    assert found.low < found.estimate < found.high


def test_identical_models_differ_by_nothing() -> None:
    """The same predictions twice give an interval of no width at zero."""
    labels, good, _ = rows()
    groups = [index // 20 for index in range(len(labels))]
    for name in ("auc", "brier", "ece"):
        for given_groups in (None, groups):
            found = paired_difference(name, labels, good, good, groups=given_groups)
            assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_higher_level_is_wider() -> None:
    """More confidence needs a wider interval, whatever the method."""
    labels, good, poor = rows()
    groups = [index // 20 for index in range(len(labels))]
    for name in ("auc", "brier", "ece"):
        for given_groups in (None, groups):
            narrow, wide = (
                paired_difference(name, labels, good, poor, level=level, groups=given_groups) for level in (0.8, 0.99)
            )
            assert wide.low < narrow.low and narrow.high < wide.high


def test_what_cannot_be_told_is_refused() -> None:
    """Too few rows, groups or classes, and arrays that do not belong together, are errors."""
    labels, good, poor = rows(50)
    undefined: list[Callable[[], object]] = [
        lambda: paired_auc_difference([1, 1], [0.1, 0.2], [0.1, 0.2]),
        lambda: paired_auc_difference([0, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]),
        lambda: paired_auc_difference(labels, good, poor, groups=[1] * 50),
        lambda: paired_auc_difference(labels, good, poor, groups=[1, 2, 3, 4, 5]),
        lambda: paired_mean_difference([0.1], [0.2]),
        lambda: paired_mean_difference([0.1, 0.2], [0.2]),
        lambda: paired_mean_difference([0.1, math.nan], [0.2, 0.2]),
        lambda: paired_bootstrap(scores.auc, [0, 1], [0.1], [0.2]),
        lambda: paired_bootstrap(scores.auc, [0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
    ]
    for act in undefined:
        with pytest.raises(BadInput):
            act()
    wrong: list[Callable[[], object]] = [
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
        lambda: wilson(1, 2, 1.0),
        lambda: paired_mean_difference([0.1, 0.2], [0.2, 0.1], 0.0),
        lambda: paired_difference("acc", labels, good, poor),
    ]
    for act in wrong:
        with pytest.raises(WrongUse):
            act()


def test_delong_covers(runs: int) -> None:
    """Between two models of equal skill the 90 % interval misses zero in about a tenth of the samples."""
    many = max(runs, 300)
    random = np.random.default_rng(9)
    missed = 0
    for _ in range(many):
        labels = np.r_[0, 0, 1, 1, random.integers(0, 2, 150)]
        a, b = (labels + 1.5 * random.standard_normal(len(labels)) for _ in range(2))
        found = paired_auc_difference(labels, a, b, 0.9)
        missed += not found.low <= 0.0 <= found.high
    error = 3 * math.sqrt(0.1 * 0.9 / many)
    assert 0.07 - error <= missed / many <= 0.13 + error


def test_groups_restore_coverage_that_rows_lose(evidence: Any, runs: int) -> None:
    """Where rows of a day are alike, resampling days covers about as asked and the row-wise t does not."""
    many = min(max(runs // 2, 80), 400)
    by_day, _ = evidence.day_effect_coverage(many, clustered=True, seed=3)
    by_row, _ = evidence.day_effect_coverage(many, clustered=False, seed=3)
    error = 3 * math.sqrt(0.95 * 0.05 / many)
    assert np.mean(by_day) >= 0.93 - error
    assert np.mean(by_row) <= 0.8
