"""The harm process and the confidence sequence for a mean: laws, oracles and error rates by simulation."""

from __future__ import annotations

import math
import random as random_module
import statistics
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.check import harm
from trimtab.check.harm import Budget, HarmProcess, MeanSequence
from trimtab.core.errors import BadInput, WrongUse

LOSSES = st.lists(st.floats(0.0, 1.0), max_size=50)
NULLS = st.floats(0.01, 1.0)
BUDGETS = st.sampled_from([Budget(alpha=0.05), Budget(run_length=200.0)])


def by_the_book(losses: list[float], null: float, budget: Budget) -> float:
    """Return the evidence as the sum over change points that defines it."""
    bets = [lam for lam in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2) if lam < 0.9 / null]
    total = 0.0
    for lam in bets:
        for start in range(len(losses)):
            stake = 1.0 / ((start + 1) * (start + 2)) if budget.alpha is not None else 1.0
            total += stake * math.prod(1 + lam * (loss - null) for loss in losses[start:])
    return total / len(bets)


@given(LOSSES, NULLS, BUDGETS)
def test_is_a_mixture_over_change_points(losses: list[float], null: float, budget: Budget) -> None:
    """The recursion is the sum, over when the change may have begun, of the bets from then on."""
    process = HarmProcess(null=null, budget=budget).update_many(losses)
    assert process.evidence == pytest.approx(by_the_book(losses, null, budget), rel=1e-9)


@given(LOSSES, NULLS)
def test_is_a_supermartingale_under_the_null(losses: list[float], null: float) -> None:
    """With the stakes that wait for later changes the expected evidence does not grow at the null mean."""
    process = HarmProcess(null=null, budget=Budget(alpha=0.05)).update_many(losses)
    waiting = 1.0 / (process.observations + 1)
    after = 1.0 / (process.observations + 2)
    expected = null * process.update(1.0).evidence + (1 - null) * process.update(0.0).evidence
    assert expected + after <= (process.evidence + waiting) * (1 + 1e-9)


@given(LOSSES, st.integers(0, 50), NULLS, BUDGETS, st.sampled_from([msgspec.json, msgspec.msgpack]))
def test_batches_and_storage_change_nothing(
    losses: list[float], cut: int, null: float, budget: Budget, form: Any
) -> None:
    """One batch, two batches with the state stored between, and one loss at a time agree to the bit."""
    start = HarmProcess(null=null, budget=budget)
    whole = start.update_many(losses)
    half = form.decode(form.encode(start.update_many(losses[:cut])), type=HarmProcess)
    single = start
    for loss in losses:
        single = single.update(loss)
    for other in (half.update_many(losses[cut:]), single):
        assert (other.stakes, other.peak, other.alarm_at) == (whole.stakes, whole.peak, whole.alarm_at)
        assert other.observations == whole.observations
        assert other.total == pytest.approx(whole.total)


def test_alarm_names_the_first_observation() -> None:
    """The alarm is dated to the observation inside the batch and stays when the evidence falls again."""
    process = HarmProcess(null=0.1, budget=Budget(run_length=100.0))
    quiet = process.update_many([0.0] * 20)
    assert not quiet.alarmed and quiet.mean == 0.0
    loud = quiet.update_many([1.0] * 10)
    single = next(n for n in range(1, 11) if quiet.update_many([1.0] * n).alarmed)
    assert loud.alarm_at == 20 + single
    calm = loud.update_many([0.0] * 500)
    assert calm.alarm_at == loud.alarm_at and calm.evidence < 100 < calm.peak
    fresh = calm.restart(null=0.2)
    assert fresh == HarmProcess(null=0.2, budget=process.budget)


def test_exposure_spreads_the_run_length_over_time() -> None:
    """With exposure in days the run length is in days, however many losses a day brings."""
    process = HarmProcess(null=0.5, budget=Budget(run_length=30.0))
    by_day = process.update_many([0.5, 0.5, 0.5, 0.5], exposure=1.0)
    assert by_day.exposure == pytest.approx(1.0)
    assert by_day.evidence == pytest.approx(1.0)
    idle = by_day.update_many([], exposure=2.0)
    assert idle.exposure == pytest.approx(3.0) and idle.evidence == by_day.evidence


def test_nothing_overflows_or_dies_in_a_long_life() -> None:
    """Endless harm stays finite, endless calm stays alive, and both still answer afterwards."""
    for budget in (Budget(alpha=0.01), Budget(run_length=1e6)):
        bad = HarmProcess(null=0.01, budget=budget).update_many([1.0] * 5000)
        assert math.isfinite(bad.evidence) and bad.evidence > 1e200
        assert msgspec.json.decode(msgspec.json.encode(bad), type=HarmProcess) == bad
        calm = HarmProcess(null=0.5, budget=budget).update_many([0.0] * 50_000)
        assert not calm.alarmed
        assert calm.update_many([1.0] * 100).alarmed


def test_bets_cannot_lose_everything() -> None:
    """Every bet keeps a tenth of its stake at a loss of zero; at a null mean of 1 nothing is ever found."""
    for null in (0.001, 0.1, 0.3, 0.9, 1.0):
        assert all(1 - lam * null > 0.1 - 1e-12 for lam in harm.bet_sizes(null))
        assert harm.bet_sizes(null)
    assert not HarmProcess(null=1.0, budget=Budget(run_length=10.0)).update_many([1.0] * 5).alarmed


def test_bad_losses_are_told_and_nothing_counts() -> None:
    """A loss outside [0, 1] is refused with its place."""
    process = HarmProcess(null=0.1, budget=Budget(alpha=0.05))
    for bad in (1.5, -0.1, math.nan, math.inf):
        with pytest.raises(BadInput, match=r"losses\[1\]"):
            process.update_many([0.0, bad])
        with pytest.raises(BadInput, match=r"losses\[1\]"):
            MeanSequence().update_many([0.0, bad])


def test_wrong_use_is_told() -> None:
    """Numbers that make no sense are refused with their name."""
    budget = Budget(alpha=0.05)
    for act in (
        lambda: Budget(),
        lambda: Budget(alpha=0.1, run_length=10.0),
        lambda: Budget(alpha=1.0),
        lambda: Budget(run_length=0.0),
        lambda: Budget(run_length=math.nan),
        lambda: HarmProcess(null=0.0, budget=budget),
        lambda: HarmProcess(null=1.1, budget=budget),
        lambda: HarmProcess(null=0.1, budget=budget).update(0.0, exposure=-1.0),
        lambda: harm.source_risk_bound(1.2, 10),
        lambda: harm.source_risk_bound(0.2, 0),
        lambda: harm.source_risk_bound(0.2, 10, -1.0),
        lambda: harm.null_mean(0.2, 10, 0.1, tolerance=-0.1),
        lambda: MeanSequence().interval(0.0),
    ):
        with pytest.raises(WrongUse):
            act()


@given(st.floats(0, 1), st.integers(1, 10**6), st.floats(0, 0.25), st.floats(0.001, 0.5))
def test_source_bound_is_above_the_mean(mean: float, n: int, variance: float, delta: float) -> None:
    """The bound lies between the mean and 1 and is never worse than Hoeffding's with half of delta."""
    bound = harm.source_risk_bound(mean, n, variance, delta)
    assert mean <= bound <= 1.0
    assert bound <= min(1.0, mean + math.sqrt(math.log(2 / delta) / (2 * n))) + 1e-12
    assert harm.null_mean(mean, n, variance, tolerance=0.1, delta=delta) >= min(1.0, bound + 0.1) - 1e-12


def test_source_bound_uses_a_small_variance() -> None:
    """Losses that hardly vary give a far tighter bound than Hoeffding's."""
    tight = harm.source_risk_bound(0.05, 10_000, 0.001, 0.01) - 0.05
    assert tight < 0.4 * (harm.source_risk_bound(0.05, 10_000, None, 0.01) - 0.05)


def test_source_bound_is_wrong_at_most_with_delta() -> None:
    """Over many held-back samples the true risk lies above the bound at most with delta."""
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(2000):
        losses = random.beta(0.5, 4.5, 300)
        wrong += harm.source_risk_bound(losses.mean(), 300, losses.var(ddof=1), 0.05) < 0.1
    assert wrong / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


# --- confidence sequence for the mean -----------------------------------------------------------------------


@given(LOSSES, LOSSES)
def test_mean_sequences_merge(one: list[float], other: list[float]) -> None:
    """Merging two tallies is counting the two streams together, in any order, stored or not."""
    merged = MeanSequence().update_many(one).merge(MeanSequence().update_many(other))
    whole = MeanSequence().update_many([*other, *one])
    assert (merged.floors, merged.ceilings) == (whole.floors, whole.ceilings)
    assert merged.interval() == whole.interval()
    stored = msgspec.json.decode(msgspec.json.encode(merged), type=MeanSequence)
    assert stored == merged
    assert merged.n == len(one) + len(other)


@settings(max_examples=50)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50))
def test_mean_interval_holds_the_mean(losses: list[float]) -> None:
    """The band holds the mean of what was seen (to a mark's width) and grows with confidence."""
    sequence = MeanSequence().update_many(losses)
    low, high = sequence.interval(0.1)
    wide = sequence.interval(0.01)
    mean = statistics.fmean(losses)
    assert wide[0] <= low <= mean + 1e-9 and mean - 1e-9 <= high <= wide[1]
    assert sequence.mean == pytest.approx(mean)


def test_mean_interval_shrinks() -> None:
    """The band narrows as labels come, and is everything before the first."""
    assert MeanSequence().interval() == (0.0, 1.0)
    assert MeanSequence().mean is None
    source = random_module.Random(5)
    losses = [float(source.random() < 0.1) for _ in range(20_000)]
    widths = []
    for n in (100, 1000, 20_000):
        low, high = MeanSequence().update_many(losses[:n]).interval()
        widths.append(high - low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2] and widths[2] < 0.02


def test_mean_interval_covers_at_every_look(runs: int) -> None:
    """Looked at again and again, the band ever misses the true mean at most with alpha."""
    random = np.random.default_rng(8)
    for binary in (True, False):
        looks = (20, 50, 100, 200, 400, 800) if binary else (50, 200, 800)
        many = runs if binary else runs // 4
        missed = 0
        for _ in range(many):
            drawn = random.random(looks[-1]) < 0.1 if binary else random.beta(1.0, 9.0, looks[-1])
            losses = drawn.astype(float).tolist()
            sequence, before, bad = MeanSequence(), 0, False
            for look in looks:
                sequence = sequence.update_many(losses[before:look])
                before = look
                low, high = sequence.interval(0.1)
                bad |= not low <= 0.1 <= high
            missed += bad
        assert missed / many <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / many)


# --- simulation ---------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=80), st.floats(0.01, 1.0), BUDGETS)
def test_the_twin_equals_the_product(evidence: Any, losses: list[float], null: float, budget: Budget) -> None:
    """The vectorised twin of the simulations computes what the product computes."""
    process = HarmProcess(null=null, budget=budget).update_many(losses)
    alarm, found = evidence.harm_twin(np.array([losses]), np.array([null]), budget)
    assert float(found[0]) == pytest.approx(process.evidence, rel=1e-9)
    assert int(alarm[0]) == process.alarm_at


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("known", [True, False], ids=["known", "estimated"])
def test_no_change_rarely_alarms(evidence: Any, runs: int, alpha: float, known: bool) -> None:
    """In 10,000 labels without a change the share of runs with any alarm stays within alpha (plus delta)."""
    losses = evidence.bernoulli_losses(runs, 0.1, 0.1, seed=21, change=0, length=10_000)
    nulls = np.full(runs, 0.1) if known else evidence.estimated_nulls(runs, 0.1, 2000, seed=22)
    alarm, _ = evidence.harm_twin(losses, nulls, Budget(alpha=alpha))
    assert (alarm > 0).mean() <= evidence.tolerance(alpha if known else alpha + 0.01, runs)


def test_run_length_bounds_false_alarms(evidence: Any, runs: int) -> None:
    """With a mean run length of 100,000 at most a tenth of the runs alarms in 10,000 labels."""
    losses = evidence.bernoulli_losses(runs, 0.1, 0.1, seed=23, change=0, length=10_000)
    alarm, _ = evidence.harm_twin(losses, np.full(runs, 0.1), Budget(run_length=1e5))
    assert (alarm > 0).mean() <= evidence.tolerance(0.1, runs)


def test_mean_run_length_is_kept(evidence: Any, runs: int) -> None:
    """The mean number of labels until a false alarm is at least the run length asked for."""
    losses = evidence.bernoulli_losses(runs, 0.1, 0.1, seed=24, change=0, length=6000)
    alarm, _ = evidence.harm_twin(losses, np.full(runs, 0.1), Budget(run_length=500.0))
    lengths = np.where(alarm > 0, alarm, 6000)
    assert lengths.mean() + 3 * lengths.std() / math.sqrt(runs) >= 500


def test_power_table(evidence: Any, runs: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A rise of the error rate is found about as soon as when the rule was chosen."""
    few = min(runs, 300)
    lines = ["budget               0.10 ->  found  median delay"]
    bounds = {
        ("alpha 0.05", 0.15): 1600, ("alpha 0.05", 0.20): 550,
        ("run length 1e5", 0.15): 750, ("run length 1e5", 0.20): 260,
    }  # fmt: skip
    budgets = {"alpha 0.05": Budget(alpha=0.05), "run length 1e5": Budget(run_length=1e5)}
    for (name, rate), bound in bounds.items():
        losses = evidence.bernoulli_losses(few, 0.1, rate, seed=25, change=5000, length=10_000)
        alarm, _ = evidence.harm_twin(losses, np.full(few, 0.1), budgets[name])
        found = alarm > 5000
        delay = float(np.median(alarm[found] - 5000))
        lines.append(f"{name:20s} {rate:7g} {found.mean():6.3f} {delay:13.0f}")
        assert (alarm > 0).all() and delay <= bound
    with capsys.disabled():
        print("\n" + "\n".join(lines))
