"""The risk-ratio process: its laws, its oracle, and its error rates by simulation."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.check import risk
from trimtab.check.risk import RiskRatioProcess
from trimtab.core.errors import WrongUse

WEIGHTS = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5, 0.9])
EVENTS = st.lists(st.tuples(WEIGHTS, st.booleans()), max_size=60)
RATIOS = st.floats(0.2, 5.0)


def feed(process: RiskRatioProcess, events: list[tuple[float, bool]]) -> RiskRatioProcess:
    """Return the process after the events, one update each."""
    for w, from_canary in events:
        process = process.update(w, from_canary)
    return process


def by_the_book(events: list[tuple[float, bool]], r0: float) -> float:
    """Return the e-value as the product that defines it."""
    grid = np.exp(np.linspace(math.log(1.05), math.log(20.0), 40))
    prior = np.exp(-(np.log(grid) ** 2) / 2)
    value = prior / prior.sum()
    for w, from_canary in events:
        null = r0 * w / (r0 * w + 1 - w)
        theta = r0 * grid * w / (r0 * grid * w + 1 - w)
        value = value * (theta / null if from_canary else (1 - theta) / (1 - null))
    return float(value.sum())


@given(EVENTS, RATIOS)
def test_is_the_product_of_likelihood_ratios(events: list[tuple[float, bool]], r0: float) -> None:
    """The e-value from the tally is the mixture of products that defines it."""
    assert feed(risk.harm(r0), events).e_value == pytest.approx(by_the_book(events, r0), rel=1e-9)


@given(EVENTS, RATIOS, WEIGHTS, st.sampled_from(["harm", "non_inferiority"]))
def test_is_a_martingale_at_the_border_of_the_null(
    events: list[tuple[float, bool]], r0: float, w: float, side: Any
) -> None:
    """After any past the expected next e-value is the present one at ratio r0, and less inside the null."""
    now = feed(RiskRatioProcess(r0=r0, side=side), events)
    if_canary, if_stable = now.update(w, True).e_value, now.update(w, False).e_value

    def expected(ratio: float) -> float:
        share = ratio * w / (ratio * w + 1 - w)
        return share * if_canary + (1 - share) * if_stable

    assert expected(r0) == pytest.approx(now.e_value, rel=1e-9)
    inside = r0 / 1.5 if side == "harm" else r0 * 1.5
    assert expected(inside) <= now.e_value * (1 + 1e-9)


@given(EVENTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(events: list[tuple[float, bool]], random: Any) -> None:
    """The evidence is the same, to the bit, in whatever order the events came."""
    shuffled = list(events)
    random.shuffle(shuffled)
    one, other = feed(risk.harm(), events), feed(risk.harm(), shuffled)
    assert one.tally == other.tally
    assert one.log_e == other.log_e


@given(EVENTS, st.integers(0, 60), st.sampled_from([msgspec.json, msgspec.msgpack]))
def test_resumes_where_it_was_stored(events: list[tuple[float, bool]], cut: int, form: Any) -> None:
    """Storing and reading the state in the middle changes nothing, to the bit."""
    whole = feed(risk.non_inferiority(0.25), events)
    half = feed(risk.non_inferiority(0.25), events[:cut])
    stored = form.encode(half)
    assert feed(form.decode(stored, type=RiskRatioProcess), events[cut:]) == whole
    plain = msgspec.convert(msgspec.to_builtins(half), RiskRatioProcess)
    assert plain == half


@given(EVENTS)
def test_counts_and_peak(events: list[tuple[float, bool]]) -> None:
    """Counts are exact, the peak is the largest value on the way, and p is one over the peak."""
    process, peak = risk.harm(), 1.0
    for w, from_canary in events:
        process = process.update(w, from_canary)
        peak = max(peak, process.e_value)
    assert process.events_canary == sum(from_canary for _, from_canary in events)
    assert process.events_stable == len(events) - process.events_canary
    assert process.max_e_value == pytest.approx(peak, rel=1e-12)
    assert process.p_value == pytest.approx(1 / peak, rel=1e-12)


def test_counts_at_once_equal_one_by_one() -> None:
    """Several events between two looks give the evidence of the same events one at a time."""
    single = feed(risk.harm(), [(0.1, True)] * 3 + [(0.1, False)] * 5)
    assert risk.harm().update_many(0.1, canary=3, stable=5).log_e == single.log_e
    assert risk.harm().update(0.1, True, count=3).update(0.1, False, count=5).tally == single.tally


@given(EVENTS)
def test_events_without_a_choice_say_nothing(events: list[tuple[float, bool]]) -> None:
    """An event that could only have come from one arm leaves the state as it was."""
    process = feed(risk.harm(), events)
    assert process.update(0.0, False) is process
    assert process.update(1.0, True) is process


@given(EVENTS, st.floats(0.05, 2.0))
def test_non_inferiority_is_harm_with_the_arms_swapped(events: list[tuple[float, bool]], margin: float) -> None:
    """Proving "not worse by the margin" is proving harm of the stable arm at one over the ratio."""
    tally = feed(risk.harm(), events).tally
    swapped = tuple(sorted((1 - w, stable, canary) for w, canary, stable in tally))
    one = risk.log_evidence(tally, 1 + margin, "non_inferiority")
    assert one == pytest.approx(risk.log_evidence(swapped, 1 / (1 + margin), "harm"), abs=1e-8)


def test_huge_evidence_stays_a_number() -> None:
    """Evidence beyond what a float can hold is shown as a large number, not as infinity."""
    process = risk.harm().update(0.01, True, count=100_000)
    assert math.isfinite(process.e_value) and process.e_value > 1e290
    assert process.p_value == 0.0
    assert b"null" not in msgspec.json.encode(process)


@settings(max_examples=30)
@given(EVENTS)
def test_interval_is_what_is_not_rejected(events: list[tuple[float, bool]]) -> None:
    """The interval holds the best estimate, grows with confidence, and ends where evidence is 2/alpha."""
    process = feed(risk.harm(), events)
    low, high = process.interval(0.1)
    wide_low, wide_high = process.interval(0.01)
    assert wide_low <= low <= high <= wide_high
    if low > 0:
        assert risk.log_evidence(process.tally, low, "harm") == pytest.approx(math.log(20), abs=1e-6)
    if math.isfinite(high):
        assert risk.log_evidence(process.tally, high, "non_inferiority") == pytest.approx(math.log(20), abs=1e-6)


def test_interval_of_nothing_is_everything() -> None:
    """Without events any ratio is possible."""
    assert risk.harm().interval() == (0.0, math.inf)


def test_interval_finds_the_ratio() -> None:
    """With many events the interval is narrow around the ratio of the rates."""
    process = risk.harm().update_many(0.2, canary=2000, stable=4000)
    low, high = process.interval()
    assert 1.8 < low < 2.0 < high < 2.25


def test_combine_mean_and_single_rule() -> None:
    """The mean decides; a metric that suffices alone is named."""
    calm = risk.combine({"errors": 10.0, "slow": 20.0}, alpha=0.05)
    assert (calm.e_value, calm.reached, calm.named) == (15.0, False, ())
    together = risk.combine({"errors": 25.0, "slow": 20.0}, alpha=0.05)
    assert together.reached and together.named == ()
    alone = risk.combine({"errors": 40.0, "slow": 0.0}, alpha=0.05)
    assert alone.reached and alone.named == ("errors",)
    weighted = risk.combine({"errors": 25.0, "slow": 0.0}, alpha=0.05, weights={"errors": 4, "slow": 1})
    assert weighted.reached and weighted.named == ("errors",)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e6), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_combine_never_names_without_reaching(e_values: dict[str, float], alpha: float) -> None:
    """Whatever is named has also made the mean reach 1/alpha, so one alpha is spent."""
    found = risk.combine(e_values, alpha)
    assert found.reached or not found.named
    if found.named:
        assert found.e_value >= (1 / alpha) * (1 - 1e-12)


def test_wrong_use_is_told() -> None:
    """Numbers that make no sense are refused with their name."""
    for act in (
        lambda: risk.harm(0.0),
        lambda: risk.harm(math.nan),
        lambda: risk.non_inferiority(0.0),
        lambda: risk.harm().update(1.5, True),
        lambda: risk.harm().update(math.nan, True),
        lambda: risk.harm().update(0.5, True, count=-1),
        lambda: risk.combine({}),
        lambda: risk.combine({"a": -1.0}),
        lambda: risk.combine({"a": math.nan}),
        lambda: risk.combine({"a": 1.0}, weights={"b": 1.0}),
        lambda: risk.combine({"a": 1.0}, alpha=0.0),
        lambda: risk.smallest_detectable_ratio([(0.5, -1.0)]),
        lambda: risk.smallest_detectable_ratio([(0.5, 10.0)], power=1.0),
        lambda: risk.harm().interval(2.0),
    ):
        with pytest.raises(WrongUse):
            act()


def test_smallest_detectable_ratio_shrinks_with_evidence() -> None:
    """More bad events let smaller ratios be seen; without any, none can be."""
    ratios = [risk.smallest_detectable_ratio([(0.1, count)]) for count in (5.0, 50.0, 500.0, 5000.0)]
    assert ratios == sorted(ratios, reverse=True)
    assert 1.0 < ratios[-1] < 1.5
    assert risk.harm().smallest_detectable_ratio() == math.inf
    assert risk.smallest_detectable_ratio([(1.0, 100.0), (0.0, 50.0)]) == math.inf
    assert risk.smallest_detectable_ratio([(0.1, 0.5)]) == math.inf or ratios[0] > 2


# --- simulation ---------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(EVENTS, st.sampled_from([("harm", 1.0), ("harm", 1.3), ("non_inferiority", 1.25)]))
def test_the_twin_equals_the_product(evidence: Any, events: list[tuple[float, bool]], kind: tuple[Any, float]) -> None:
    """The vectorised twin of the simulations computes what the product computes."""
    side, r0 = kind
    process = feed(RiskRatioProcess(r0=r0, side=side), events)
    weights = [w for w, _, _ in process.tally]
    counts = np.array([[a + b for _, a, b in process.tally]], dtype=np.int64).reshape(1, len(weights))
    found = evidence.evidence_twin(np.array([process.events_canary]), counts, weights, r0, side)
    assert float(found[0]) == pytest.approx(process.log_e, abs=1e-9)


@pytest.mark.parametrize(
    "situation",
    [
        "steady 0.1 %", "steady 1 %", "steady 30 %", "rising 1 -> 3 %", "falling 3 -> 1 %",
        "shared 5-minute incident (20 %)", "minute jitter (lognormal 0.5)",
    ],
)  # fmt: skip
def test_equal_arms_are_rolled_back_at_most_alpha(evidence: Any, runs: int, situation: str) -> None:
    """With equal arms, looks every minute and a moving base rate, false rollbacks stay within alpha."""
    rates = evidence.null_rates(runs)[situation]
    found = evidence.simulate_rollouts(rates, seed=11)
    assert (found.reached_at >= 0).mean() <= evidence.tolerance(0.05, runs)


@pytest.mark.parametrize("margin", [0.25, 0.5])
def test_a_version_at_the_margin_is_rarely_promoted(evidence: Any, runs: int, margin: float) -> None:
    """A canary that is worse by exactly the margin is proven non-inferior at most with alpha."""
    rates = np.full((runs, evidence.MINUTES), 0.01)
    found = evidence.simulate_rollouts(rates, seed=12, ratio=1 + margin, r0=1 + margin, side="non_inferiority")
    assert (found.reached_at >= 0).mean() <= evidence.tolerance(0.05, runs)


def test_power_table(evidence: Any, runs: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Harm is found about as fast as when the rule was chosen (98 %, 100 %, 100 % at base rate 1 %)."""
    lines = ["ratio  found  median minute  canary events"]
    for ratio, share, minute in ((1.5, 0.93, 75), (2.0, 0.99, 45), (5.0, 0.99, 20)):
        found = evidence.simulate_rollouts(np.full((runs, evidence.MINUTES), 0.01), seed=13, ratio=ratio)
        hit = found.reached_at >= 0
        middle = float(np.median(found.reached_at[hit] + 1))
        events = float(np.median(found.canary_events[hit]))
        lines.append(f"{ratio:5g} {hit.mean():6.3f} {middle:14.0f} {events:14.0f}")
        assert hit.mean() >= share and middle <= minute
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def test_smallest_detectable_ratio_has_the_power_it_names(evidence: Any, runs: int) -> None:
    """A harm of the named size is shown by the last look with the power asked for, within a few percent."""
    for rate, requests in ((0.01, 1000), (0.002, 300)):
        events = [(w, rate * requests * minutes) for w, minutes in evidence.RAMP]
        ratio = risk.smallest_detectable_ratio(events)
        many = max(runs, 500)
        found = evidence.simulate_rollouts(
            np.full((many, evidence.MINUTES), rate), seed=14, ratio=ratio, requests=requests
        )
        at_end = (found.log_e >= math.log(20)).mean()
        error = 3 * math.sqrt(0.8 * 0.2 / many)
        assert 0.76 - error <= at_end <= 0.86 + error
        assert (found.reached_at >= 0).mean() >= 0.8 - error


def test_interval_covers_at_all_times(evidence: Any, runs: int) -> None:
    """The confidence sequence misses the true ratio at its end at most with alpha."""
    found = evidence.simulate_rollouts(np.full((runs, evidence.MINUTES), 0.01), seed=15, ratio=1.5)
    missed = [not low <= 1.5 <= high for low, high in map(risk.risk_ratio_interval, found.tallies)]
    assert np.mean(missed) <= evidence.tolerance(0.05, runs)
