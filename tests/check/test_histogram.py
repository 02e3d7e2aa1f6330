"""Reference histograms: counting, merging, ties, and the distances against their oracles."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import spatial, stats

from trimtab.check import histogram
from trimtab.check.histogram import Reference, build_reference, distances, merge, same_class
from trimtab.core.errors import BadInput, WrongUse

NUMBERS = st.lists(st.one_of(st.none(), st.floats(), st.integers(-5, 5)), max_size=60)
TIED = st.lists(st.one_of(st.integers(-3, 3), st.floats(-3, 3)), min_size=1, max_size=200)
LABELS = st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), min_size=60, max_size=120)


def normal(n: int = 5000, seed: int = 0) -> Any:
    """Return a normal sample."""
    return np.random.default_rng(seed).standard_normal(n)


@given(TIED, NUMBERS, NUMBERS)
def test_merging_is_counting_together(sample: list[Any], one: list[Any], other: list[Any]) -> None:
    """Counts of two batches add up to the counts of the two together, in any order."""
    reference = build_reference("x", sample)
    together = reference.count([*other, *one])
    assert merge(reference.count(one), reference.count(other)) == together
    assert sum(together) == len(one) + len(other)
    assert merge(reference.empty(), together) == together


@given(TIED, st.integers(2, 100))
def test_counting_the_sample_gives_the_reference(sample: list[Any], bins: int) -> None:
    """The reference's own counts are what counting its sample gives, ties or not."""
    reference = build_reference("x", sample, bins=bins)
    assert reference.count(sample) == reference.counts
    assert list(reference.edges) == sorted(set(reference.edges))
    assert len(reference.counts) == len(reference.edges) + 2 == len(reference.centres) + 1
    assert list(reference.centres) == sorted(reference.centres)


@given(TIED)
def test_the_mean_mid_rank_is_a_half(sample: list[Any]) -> None:
    """Averaged over the reference the mid-rank is exactly 1/2, whatever the ties."""
    shares = [count / len(sample) for count in build_reference("x", sample).counts[:-1]]
    below, mean = 0.0, 0.0
    for share in shares:
        mean += share * (below + share / 2)
        below += share
    assert mean == pytest.approx(0.5)


@given(TIED, st.floats(-10, 10))
def test_heavy_values_have_a_bin_of_their_own(sample: list[Any], other: float) -> None:
    """No other value shares the bin of a value that holds a bin's share of the reference."""
    reference = build_reference("x", sample, bins=10)
    for value in set(sample):
        if sample.count(value) * 10 >= len(sample) and other != value:
            assert reference.count([value]) != reference.count([other])


def test_discrete_features_are_counted_level_by_level() -> None:
    """A feature with few levels has one cell a level, empty cells between, and one beyond each end."""
    reference = build_reference("x", [0, 0, 1, 1, 1, 7])
    assert reference.counts == (0, 2, 0, 3, 0, 1, 0, 0)
    assert reference.count([-1, 0, 0.5, 1, 3, 7, 8, None]) == (1, 1, 1, 1, 1, 1, 1, 1)


def test_bins_hold_equal_shares_of_a_continuous_sample() -> None:
    """Without ties the bins are quantile bins."""
    reference = build_reference("x", normal(6400))
    inner = [count for count in reference.counts[:-1] if count]
    assert inner == [100] * 64


def test_values_beyond_the_range_are_told_apart() -> None:
    """A constant feature that changes its unit does not look the same."""
    reference = build_reference("x", [5.0] * 50)
    assert reference.count([5000.0]) != reference.count([5.0]) != reference.count([-5.0])
    assert distances(reference, reference.count([5000.0] * 20)).psi > 1


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30), st.lists(st.floats(), max_size=30))
@example([1.3e293, 1.7976931348623157e308], [])
@example([-math.inf, 0.0, math.inf], [math.nan, math.inf])
def test_any_float_is_counted_and_stored(sample: list[float], batch: list[float]) -> None:
    """Infinite, tiny and huge values are counted, and the reference survives JSON."""
    reference = build_reference("x", sample)
    stored = msgspec.json.decode(msgspec.json.encode(reference), type=Reference)
    assert stored == reference
    assert reference.count(sample) == reference.counts
    assert sum(stored.count(batch)) == len(batch)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, None, 3],
        [1.0, 2.0, math.nan, 3.0],
        [Decimal(1), Decimal(2), None, Decimal(3)],
        np.array([1, 2, np.nan, 3]),
        pl.Series([1, 2, None, 3]),
        pd.Series([1, 2, None, 3]),
        pd.Series([1, 2, None, 3], dtype="Int64"),
        (value for value in [1, 2, None, 3]),
    ],
    ids=["list", "nan", "decimal", "numpy", "polars", "pandas", "pandas-nullable", "generator"],
)
def test_any_sequence_of_numbers_will_do(values: Any) -> None:
    """Lists, arrays and series give the same reference."""
    assert build_reference("x", values) == build_reference("x", [1, 2, None, 3])


def test_pandas_missing_values_are_missing_in_a_batch() -> None:
    """pandas.NA, which does not compare, counts as missing."""
    reference = build_reference("x", [1, 2, 3])
    assert reference.count(pd.Series([1, None], dtype="Int64"))[-1] == 1
    labels = build_reference("c", ["a", "b"] * 20)
    assert labels.count(pd.Series(["a", None], dtype="string"))[-1] == 1


def test_booleans_are_numbers() -> None:
    """True and False are counted as two levels."""
    reference = build_reference("x", [True, False, False])
    assert reference.kind == "numeric"
    assert reference.count([True, 1, False]) == reference.count([1.0, True, 0])


@settings(max_examples=40)
@given(LABELS, LABELS)
def test_categories_merge_and_cover(sample: list[Any], batch: list[Any]) -> None:
    """Every value falls into its category, "other" or missing; merging is counting together."""
    try:
        reference = build_reference("c", sample, kind="categorical", top=3)
    except BadInput:
        return  # too few values that are not missing
    assert len(reference.categories) <= 3
    counts = reference.count(batch)
    assert sum(counts) == len(batch) and counts[-1] == batch.count(None)
    for category, count in zip(reference.categories, counts, strict=False):
        assert count == batch.count(category)
    assert merge(reference.count(batch[:9]), reference.count(batch[9:])) == counts
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference) == reference


def test_categories_are_ordered_by_rows_that_are_not_counted() -> None:
    """A fifth of the rows orders the categories, the others are counted."""
    reference = build_reference("c", (["a"] * 6 + ["b"] * 3 + ["c"]) * 100, top=2)
    assert reference.categories == ("a", "b")
    assert 780 <= reference.n <= 820
    assert reference.counts[2] == pytest.approx(80, abs=15)


def test_one_category_has_one_text() -> None:
    """The same category is recognised whatever type carried it."""
    for same in (["1", 1, 1.0, np.int64(1)], ["true", True, np.bool_(True), "True"]):
        assert len({histogram.category_of(value) for value in same}) == 1
    assert histogram.category_of("a") == "a" and histogram.category_of(1.5) == "1.5"
    assert histogram.category_of(None) is None and histogram.category_of(math.nan) is None


def test_bad_values_are_told() -> None:
    """Text in a numeric feature names feature and row; a sample without values is refused."""
    reference = build_reference("price", [1.0, 2.0])
    with pytest.raises(BadInput, match=r"price\[1\].*'cheap'"):
        reference.count([1.0, "cheap"])
    for sample in ([], [None, math.nan], [None] * 50):
        with pytest.raises(BadInput, match="price"):
            build_reference("price", sample)
    with pytest.raises(BadInput, match="price"):
        build_reference("price", ["a", "b"], kind="numeric")
    with pytest.raises(BadInput, match="too small"):
        build_reference("price", ["a"])
    with pytest.raises(WrongUse):
        merge((1, 2), (1, 2, 3))
    with pytest.raises(WrongUse):
        distances(reference, reference.empty())
    with pytest.raises(WrongUse):
        distances(reference, (1, 2))


def test_distances_agree_with_their_oracles() -> None:
    """KS and Wasserstein come close to the exact ones; JS and chi-square equal scipy's on the groups."""
    old, new = normal(20_000, 1), normal(20_000, 2) + 0.25
    reference = build_reference("x", old)
    counts = reference.count(new.tolist())
    found = distances(reference, counts)
    assert found.ks == pytest.approx(stats.ks_2samp(old, new).statistic, abs=0.01)
    exact = stats.wasserstein_distance(old, new) / old.std()
    assert found.wasserstein == pytest.approx(exact, rel=0.05)
    cuts = np.quantile(old, np.linspace(0.1, 0.9, 9))
    a, b = (np.bincount(np.searchsorted(cuts, x), minlength=10) / 20_000 for x in (old, new))
    assert found.psi == pytest.approx(float(((b - a) * np.log(b / a)).sum()), rel=0.03)
    categories = build_reference("c", [*"aaabbc"] * 400)
    batch = categories.count([*"aabbbcz"] * 100)
    table = np.array([categories.counts, batch])[:, :-1]
    shown = distances(categories, batch)
    oracle = stats.chi2_contingency(table, correction=False)
    assert shown.chi2 == pytest.approx(oracle.statistic)
    assert shown.chi2_p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert shown.js == pytest.approx(spatial.distance.jensenshannon(table[0], table[1], base=2))
    assert shown.ks is None and shown.wasserstein is None


@given(TIED)
def test_the_distance_to_itself_is_zero(sample: list[Any]) -> None:
    """A batch with the reference's own counts has no distance from it."""
    reference = build_reference("x", sample)
    found = distances(reference, reference.counts)
    assert found.psi == found.js == found.chi2 == found.ks == 0.0
    assert found.chi2_p == 1.0 and found.wasserstein in (0.0, None)
    assert found.rows == len(sample)


def test_a_batch_of_missing_values_has_no_curve() -> None:
    """Where nothing but missing values came, KS and Wasserstein cannot be told and the others can."""
    reference = build_reference("x", normal())
    found = distances(reference, reference.count([None] * 10))
    assert found.ks is None and found.wasserstein is None
    assert found.missing == 1.0 and found.missing_reference == 0.0 and found.psi > 1


@pytest.mark.parametrize("freedom", [1, 2, 7, 60, 200])
@pytest.mark.parametrize("statistic", [0.0, 0.01, 1.0, 6.0, 50.0, 300.0])
def test_chi_square_tail_equals_scipy(freedom: int, statistic: float) -> None:
    """The tail probability is right over the whole range."""
    oracle = float(stats.chi2.sf(statistic, freedom))
    assert histogram.chi_square_tail(statistic, freedom) == pytest.approx(oracle, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("label", "other", "equal"),
    [
        (True, 1, True),
        ("true", True, True),
        ("1", 1, True),
        (1.0, 1, True),
        ("no", "yes", False),
        (None, "None", False),
    ],
)
def test_one_label_is_written_in_several_ways(label: Any, other: Any, equal: bool) -> None:
    """JSON, files and frames write the same class differently; it stays the same class."""
    assert same_class(label, other) is equal
