"""The drift process: laws, twin, false-alarm budgets over many kinds of features, and power."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from trimtab import check
from trimtab.check.harm import Budget
from trimtab.check.histogram import Reference, build_reference, merge
from trimtab.check.shift import DriftProcess, DriftState, e_bh, share_bound
from trimtab.core.errors import WrongUse

EVER = Budget(alpha=0.05)
RATE = Budget(run_length=1000.0)
SAMPLES = st.lists(st.one_of(st.integers(-3, 3), st.floats(-3, 3), st.none()), min_size=1, max_size=80).filter(
    lambda sample: any(value is not None for value in sample)
)


def references() -> list[Reference]:
    """Return a numeric and a categorical reference."""
    random = np.random.default_rng(1)
    letters = random.choice(list("abcd"), 4000, p=[0.5, 0.3, 0.15, 0.05])
    return [
        build_reference("amount", random.standard_normal(4000)),
        build_reference("colour", letters.tolist()),
    ]


def batches(
    number: int, rows: int = 200, *, shift: float = 0.0, colours: str = "abcd", seed: int = 2
) -> list[dict[str, Any]]:
    """Return counted batches of both features."""
    random = np.random.default_rng(seed)
    amount, colour = references()
    return [
        {
            "amount": amount.count((random.standard_normal(rows) + shift).tolist()),
            "colour": colour.count(random.choice(list(colours), rows, p=[0.5, 0.3, 0.15, 0.05]).tolist()),
        }
        for _ in range(number)
    ]


def follow(process: DriftProcess, counted: list[dict[str, Any]], state: DriftState | None = None) -> DriftState:
    """Return the state after the batches."""
    state = state or process.start()
    for counts in counted:
        state = process.update(state, counts)
    return state


@settings(deadline=None)
@given(SAMPLES, st.sampled_from([0.0, 0.05]))
def test_the_reference_itself_gives_no_evidence(sample: list[Any], material: float) -> None:
    """Rows drawn from the reference's own shares never gain on average, whatever the ties and gaps."""
    reference = build_reference("x", sample)
    process = DriftProcess([reference], budget=RATE, material=material)
    present = [count for count in reference.counts]
    growth = []
    for cell, count in enumerate(present):
        if count:
            one = tuple(int(cell == other) for other in range(len(present)))
            growth.append((count / len(sample), process.update(process.start(), {"x": one}).stakes["x"]))
    for bet in range(len(growth[0][1])):
        assert math.fsum(share * stakes[bet] for share, stakes in growth) <= 1 + 1e-9


@settings(deadline=None, max_examples=60)
@given(SAMPLES, st.data())
def test_any_distribution_near_the_reference_gives_no_evidence(sample: list[Any], data: Any) -> None:
    """Rows from any distribution whose function lies within the DKW bound of the reference's never gain."""
    reference = build_reference("x", [value for value in sample if value is not None])
    n = reference.n
    slack = math.sqrt(math.log(4 / 0.01) / (2 * n))
    cells = reference.cells
    weights = data.draw(st.lists(st.floats(0.0, 1.0), min_size=cells, max_size=cells).filter(sum))
    old = np.array(reference.counts[:-1]) / n
    new = np.array(weights) / sum(weights)
    gap = float(np.abs(np.cumsum(new - old)).max())
    mixed = old + (new - old) * min(1.0, slack / gap if gap else 1.0)
    process = DriftProcess([reference], budget=RATE, material=0.0)
    total = np.zeros(len(process.start().stakes["x"]))
    for cell, share in enumerate(mixed):
        one = tuple(int(cell == other) for other in range(cells + 1))
        total += share * np.array(process.update(process.start(), {"x": one}).stakes["x"])
    assert total.max() <= 1 + 1e-9


@pytest.mark.parametrize("budget", [EVER, RATE], ids=["ever", "rate"])
@pytest.mark.parametrize("form", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_resumes_where_it_was_stored(budget: Budget, form: Any) -> None:
    """Storing and reading the state between batches changes nothing, to the bit."""
    process, counted = DriftProcess(references(), budget=budget), batches(12, shift=0.3)
    half = form.decode(form.encode(follow(process, counted[:5])), type=DriftState)
    again = DriftProcess(references(), budget=budget)
    assert follow(again, counted[5:], half) == follow(process, counted)


def test_order_of_rows_and_of_parts_does_not_matter() -> None:
    """A batch is its counts: counted in parts by several workers it gives the same state."""
    process = DriftProcess(references(), budget=RATE)
    first, second = batches(2)
    together = {name: merge(first[name], second[name]) for name in first}
    swapped = {name: merge(second[name], first[name]) for name in first}
    assert process.update(process.start(), together) == process.update(process.start(), swapped)


def test_evidence_is_the_mean_over_features() -> None:
    """The alarm's evidence is the mean of what the features have alone, apart from the shared delta."""
    process = DriftProcess(references(), budget=EVER)
    state = follow(process, batches(10, shift=0.2))
    parts = process.findings(state)
    assert process.evidence(state) == pytest.approx(sum(part.e_value for part in parts) / 2)
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    assert process.features == ("amount", "colour")


def test_alarm_is_dated_and_names_the_feature() -> None:
    """The alarm is dated to its batch and stays; e-BH names the feature that moved and says how."""
    process = DriftProcess(references(), budget=RATE, material=0.0)
    calm = follow(process, batches(20))
    assert calm.alarm_at == 0 and not any(part.named for part in process.findings(calm))
    moved = follow(process, batches(12, shift=0.5, seed=3), calm)
    assert 21 <= moved.alarm_at <= 24 and moved.batches == 32 and moved.rows == 32 * 200
    first = process.findings(moved)[0]
    assert (first.feature, first.change, first.named) == ("amount", "higher", True)
    assert moved.peak >= process.evidence(moved)
    assert follow(process, batches(2), moved).alarm_at == moved.alarm_at
    assert process.start().alarm_at == 0


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ("higher", lambda random: random.standard_normal(300) + 0.5),
        ("lower", lambda random: random.standard_normal(300) - 0.5),
        ("wider", lambda random: random.standard_normal(300) * 3),
        ("narrower", lambda random: random.standard_normal(300) * 0.3),
        ("more missing", lambda random: np.where(random.random(300) < 0.5, np.nan, random.standard_normal(300))),
        ("higher", lambda random: np.full(300, np.inf)),
    ],
)
def test_every_kind_of_change_is_found_and_told(change: str, values: Any) -> None:
    """Moves, spreads, shrinks and missing values each raise the alarm under their own name."""
    random, reference = np.random.default_rng(4), references()[0]
    process = DriftProcess([reference], budget=RATE)
    state = process.start()
    for _ in range(8):
        state = process.update(state, {"amount": reference.count(values(random).tolist())})
    assert state.alarm_at > 0
    assert process.findings(state)[0].change == change


@pytest.mark.parametrize(("letters", "change"), [("abdc", "more d"), ("abce", "more other values")])
def test_categories_that_grow_are_told(letters: str, change: str) -> None:
    """A category that takes another's share, or one never seen, is found and named."""
    process = DriftProcess(references(), budget=Budget(run_length=100.0), material=0.0)
    state = follow(process, batches(30, rows=400, colours=letters))
    assert state.alarm_at > 0
    finding = process.findings(state)[0]
    assert (finding.feature, finding.change) == ("colour", change)


def test_an_immaterial_shift_stays_silent() -> None:
    """However many rows come, a shift within the tolerance raises no alarm."""
    process = DriftProcess(references(), budget=RATE, material=0.05)
    assert follow(process, batches(40, rows=2000, shift=0.1)).alarm_at == 0


def test_huge_evidence_stays_a_number() -> None:
    """Evidence that no float can hold is cut, so the state can always be stored."""
    process = DriftProcess(references(), budget=RATE)
    state = follow(process, batches(30, rows=5000, shift=3.0))
    assert math.isfinite(process.evidence(state)) and process.evidence(state) > 1e270
    assert msgspec.json.decode(msgspec.json.encode(state), type=DriftState) == state
    assert follow(process, batches(400), state).alarm_at == state.alarm_at


def test_exposure_is_the_unit_of_the_run_length() -> None:
    """Twice the exposure of every batch is twice the evidence of a run-length budget."""
    process, counted = DriftProcess(references(), budget=RATE), batches(6)
    one, two = process.start(), process.start()
    for counts in counted:
        one = process.update(one, counts, exposure=1.0)
        two = process.update(two, counts, exposure=2.0)
    assert process.evidence(two) == pytest.approx(2 * process.evidence(one))
    assert two.exposure == 12.0


def test_wrong_use_is_told() -> None:
    """Counts, states and references that do not belong together are refused with the feature's name."""
    process, counted = DriftProcess(references(), budget=EVER), batches(1)[0]
    start = process.start()
    with pytest.raises(WrongUse, match="colour"):
        process.update(start, {"amount": counted["amount"]})
    with pytest.raises(WrongUse, match="amount"):
        process.update(start, {**counted, "amount": (1, 2)})
    with pytest.raises(WrongUse, match="state"):
        process.update(DriftState(stakes={"amount": (0.0,)}), counted)
    for act in (
        lambda: process.update(start, counted, exposure=-1.0),
        lambda: DriftProcess([], budget=EVER),
        lambda: DriftProcess([references()[0], references()[0]], budget=EVER),
        lambda: DriftProcess(references(), budget=EVER, material=1.0),
        lambda: DriftProcess(references(), budget=EVER, delta=0.0),
        lambda: DriftProcess([Reference(name="x", kind="numeric", counts=(0, 3))], budget=EVER),
        lambda: e_bh({"a": 1.0}, level=0.0),
    ):
        with pytest.raises(WrongUse):
            act()


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.001, 0.5))
def test_share_bound_inverts_chernoff(n: int, part: float, delta: float) -> None:
    """The bound lies between the share and Hoeffding's bound, and is exact where nothing was seen."""
    successes = round(part * n)
    bound = share_bound(successes, n, delta)
    assert successes / n <= bound <= min(1.0, successes / n + math.sqrt(math.log(1 / delta) / (2 * n))) + 1e-9
    assert share_bound(0, n, delta) == pytest.approx(1 - delta ** (1 / n), rel=1e-6, abs=1e-12)
    assert share_bound(n, n, delta) == 1.0


def test_share_bound_is_wrong_at_most_with_delta() -> None:
    """Over many samples the true share lies above the bound at most with delta."""
    counts = np.random.default_rng(6).binomial(500, 0.02, 4000)
    wrong = np.mean([share_bound(int(count), 500, 0.05) < 0.02 for count in counts])
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e4), max_size=8), st.floats(0.01, 0.5))
def test_e_bh_names_the_largest(e_values: dict[str, float], level: float) -> None:
    """The named are the k largest for the largest k whose smallest e-value reaches F/(level*k)."""
    named = e_bh(e_values, level)
    ordered = sorted(e_values.values(), reverse=True)
    sizes = [k for k in range(1, len(ordered) + 1) if ordered[k - 1] * level * k >= len(ordered)]
    assert len(named) == max(sizes, default=0)
    assert sorted((e_values[name] for name in named), reverse=True) == ordered[: len(named)]


def test_loading_the_statistics_is_light_and_leaves_the_constructors() -> None:
    """No statistics module brings in numpy, and none takes the place of a constructor such as ck.drift."""
    code = (
        "import sys\n"
        "import trimtab.check.risk, trimtab.check.harm, trimtab.check.histogram, trimtab.check.shift\n"
        "import trimtab.check.intervals, trimtab.check.scores\n"
        "from trimtab import check\n"
        "assert 'numpy' not in sys.modules\n"
        "assert all(callable(getattr(check, name)) for name in check.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(check.drift)


# --- simulation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [EVER, RATE], ids=["ever", "rate"])
@pytest.mark.parametrize("family", ["normal", "discrete (Poisson 3)", "missing (10 %)"])
def test_the_twin_equals_the_product(evidence: Any, budget: Budget, family: str) -> None:
    """The vectorised twin of the simulations computes what the product computes."""
    random, sample = np.random.default_rng(5), evidence.FAMILIES[family]
    known = [build_reference(name, sample(random, 1000)) for name in ("a", "b")]
    values = [sample(random, 1500).reshape(30, 50) + 0.2 for _ in known]
    process = DriftProcess(known, budget=budget, material=0.02)
    counted = [evidence.count_windows(one, window) for one, window in zip(known, values, strict=True)]
    alarm, found = evidence.drift_twin(known, counted, budget, material=0.02)
    state = process.start()
    for index in range(30):
        counts = {one.name: one.count(window[index].tolist()) for one, window in zip(known, values, strict=True)}
        state = process.update(state, counts)
        assert process.evidence(state) == pytest.approx(float(found[index]), rel=1e-9)
    assert state.alarm_at == alarm


@pytest.mark.parametrize(
    "family",
    [
        "normal", "skewed (lognormal)", "discrete (Poisson 3)", "tied (70 % zeros)", "binary (5 %)",
        "missing (10 %)",
    ],
)  # fmt: skip
def test_no_drift_rarely_alarms(evidence: Any, runs: int, family: str) -> None:
    """Without drift and without tolerance, any alarm in 50 windows stays within the budget."""
    sample = evidence.FAMILIES[family]
    for budget, bound in ((EVER, 0.06), (RATE, 0.06)):
        alarms = evidence.drift_runs(sample, runs, budget, seed=31, material=0.0, windows=50, rows=100, n_ref=1000)
        assert (alarms > 0).mean() <= evidence.tolerance(bound, runs)


def test_a_perfectly_known_reference_uses_the_budget(evidence: Any, runs: int) -> None:
    """With hardly any allowance for the reference, false alarms come and still stay within the budget."""
    alarms = evidence.drift_runs(
        evidence.FAMILIES["normal"], max(runs // 4, 50), Budget(run_length=50.0), seed=32, material=0.0,
        windows=40, rows=50, n_ref=200_000,
    )  # fmt: skip
    share = (alarms > 0).mean()
    assert 0.0 < share <= evidence.tolerance(40 / 50, max(runs // 4, 50))


@pytest.mark.parametrize("budget", [EVER, RATE], ids=["ever", "rate"])
def test_many_correlated_features_have_one_budget(evidence: Any, runs: int, budget: Budget) -> None:
    """Twenty correlated features together keep the budget of one alarm."""
    few = max(runs // 5, 20)
    alarms = evidence.correlated_runs(few, budget, seed=33, material=0.0, windows=30, rows=100, n_ref=1000)
    assert (alarms > 0).mean() <= evidence.tolerance(0.06, few)


def test_categories_keep_the_budget(evidence: Any, runs: int) -> None:
    """Fifty categories whose order and cells come from the sample itself keep the budget."""
    few = max(runs // 5, 20)
    alarms = evidence.category_runs(few, EVER, seed=34, material=0.0, windows=30, rows=100, n_ref=1000)
    assert (alarms > 0).mean() <= evidence.tolerance(0.06, few)


def test_autocorrelation_is_a_known_limit_that_material_covers(evidence: Any, runs: int) -> None:
    """Rows that depend on their predecessors break the null; the default tolerance keeps the budget."""

    def autoregressive(random: np.random.Generator, n: int) -> Any:
        return lfilter([math.sqrt(0.75)], [1.0, -0.5], random.standard_normal(n))

    few = max(runs // 2, 50)
    alarms = evidence.drift_runs(autoregressive, few, EVER, seed=37, material=0.05, windows=50, rows=100, n_ref=1000)
    assert (alarms > 0).mean() <= evidence.tolerance(0.06, few)


def test_shuffled_real_order_is_silent() -> None:
    """Rows of one skewed, tied table, shuffled and cut into reference and batches, raise no alarm."""
    random = np.random.default_rng(35)
    table = np.round(random.gamma(0.7, 30.0, 20_000) * (random.random(20_000) < 0.8))
    random.shuffle(table)
    reference = build_reference("delay", table[:10_000])
    process = DriftProcess([reference], budget=RATE, material=0.0)
    state = process.start()
    for start in range(10_000, 20_000, 200):
        state = process.update(state, {"delay": reference.count(table[start : start + 200].tolist())})
    assert state.alarm_at == 0


def test_power_table(evidence: Any, runs: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A shift beyond the tolerance is found about as soon as when the rule was chosen."""
    few = max(min(runs, 300) // 10, 10)
    lines = ["shift  material  early  found  median delay in rows"]
    for shift, material, bound in ((0.25, 0.0, 1500), (0.5, 0.0, 500), (0.25, 0.03, 5000), (0.5, 0.05, 1500)):
        alarms = evidence.drift_runs(
            evidence.FAMILIES["normal"], few, RATE, seed=36, material=material,
            windows=50, rows=500, n_ref=20_000, shift=shift, change=25,
        )  # fmt: skip
        late = alarms > 25
        delay = float(np.median((alarms[late] - 25) * 500))
        lines.append(f"{shift:5g} {material:9g} {((alarms > 0) & ~late).mean():6.2f} {late.mean():6.2f} {delay:12.0f}")
        assert late.mean() >= 0.95 and delay <= bound
    with capsys.disabled():
        print("\n" + "\n".join(lines))


# --- blocks: a day whose rows are alike is one observation, and keeps the budget as rows do not ------------------

ROWS, DAYS, MATERIAL = 60, 200, 0.02
YEARS = Budget(run_length=2000.0)
_LETTERS = np.array(list("abc"))


def _days(random: np.random.Generator, days: int, shift: float = 0.0) -> Any:
    """Return numbers by day and row; half of their variance is a day's own."""
    own = random.standard_normal((days, 1))
    return (own + random.standard_normal((days, ROWS))) / math.sqrt(2) + shift


def _letters(random: np.random.Generator, days: int, shift: float = 0.0) -> Any:
    """Return categories by day and row; each day has shares of its own, and ``shift`` moves them all to ``c``."""
    shares = random.dirichlet((2.5, 1.5, 1.0), days)
    shares = (1 - shift) * shares + shift * np.array([0.0, 0.0, 1.0])
    edges = shares.cumsum(axis=1)[:, None, :2]
    return _LETTERS[(random.random((days, ROWS, 1)) > edges).sum(axis=2)]


DAILY = {"numbers": _days, "categories": _letters}


@pytest.fixture(scope="module")
def known() -> dict[str, Reference]:
    """References from so many days that their own error is small beside the tolerance (see ``shift`` on that)."""
    random = np.random.default_rng(40)
    return {name: build_reference(name, draw(random, 4000).ravel()) for name, draw in DAILY.items()}


def _alarm(
    process: DriftProcess, reference: Reference, days: Any, *, block: bool, exposure: float = 1.0
) -> tuple[int, DriftState]:
    state = process.start()
    for day in days:
        state = process.update(state, {reference.name: reference.count(day)}, exposure, block=block)
    return state.alarm_at, state


def _share(
    known: Reference, draw: Any, budget: Budget, runs: int, *, block: bool, seed: int, shift: float = 0.0
) -> Any:
    """Return the day of the alarm in each run, 0 for none."""
    process = DriftProcess([known], budget=budget, material=MATERIAL)
    random = np.random.default_rng(seed)
    return np.array([_alarm(process, known, draw(random, DAYS, shift), block=block)[0] for _ in range(runs)])


def _tolerance(share: float, runs: int) -> float:
    """Return what a share may be seen as in so many runs, four standard errors above it."""
    return share + 4 * math.sqrt(share * (1 - share) / runs)


@pytest.mark.parametrize("family", list(DAILY))
@pytest.mark.parametrize("budget", [EVER, YEARS], ids=["ever", "rate"])
def test_days_without_drift_keep_the_budget(
    known: dict[str, Reference], runs: int, family: str, budget: Budget
) -> None:
    """Alarms in 200 days of which each is of its own kind stay within the budget: 5 %, or 200 of 2,000 days."""
    few = max(runs // 2, 60)
    alarms = _share(known[family], DAILY[family], budget, few, block=True, seed=41)
    allowed = 0.05 + 0.01 if budget.alpha else DAYS / 2000 + 0.01
    assert (alarms > 0).mean() <= _tolerance(allowed, few)


@pytest.mark.parametrize("family", list(DAILY))
def test_the_same_days_by_rows_misfire(known: dict[str, Reference], family: str) -> None:
    """Why there are blocks: row by row the same days without drift nearly always raise an alarm."""
    alarms = _share(known[family], DAILY[family], EVER, 20, block=False, seed=41)
    assert (alarms > 0).mean() >= 0.9


@pytest.mark.parametrize("family", list(DAILY))
def test_a_block_is_a_fair_bet(known: dict[str, Reference], family: str) -> None:
    """Under the null the mean of a day's bets is at most one on average, whatever its rows have in common."""
    process = DriftProcess([known[family]], budget=YEARS, material=MATERIAL)
    random = np.random.default_rng(42)
    start = process.start()
    days = DAILY[family](random, 2000)
    # After the first block a stake is the block's own bet, for with exposure 1 it begins at one.
    bets = np.array(
        [process.update(start, {family: known[family].count(day)}, block=True).stakes[family] for day in days]
    )
    error = bets.std(axis=0, ddof=1) / math.sqrt(len(bets))
    assert (bets.mean(axis=0) <= 1 + 4 * error).all()


@pytest.mark.parametrize(
    ("family", "shift", "within"), [("numbers", 1.5, 40), ("numbers", 1.0, 80), ("categories", 0.5, 60)]
)
def test_a_shift_is_found_within_so_many_days(
    known: dict[str, Reference], family: str, shift: float, within: int
) -> None:
    """Power: nine of ten shifts of this size are found in that many days."""
    alarms = _share(known[family], DAILY[family], YEARS, 40, block=True, seed=43, shift=shift)
    found = (alarms > 0) & (alarms <= within)
    assert found.mean() >= 0.9


def test_the_size_of_a_block_does_not_matter(known: dict[str, Reference]) -> None:
    """A day counts once, however often its rows are repeated; a block of one row is that row."""
    reference = known["numbers"]
    process = DriftProcess([reference], budget=EVER, material=MATERIAL)
    day = np.random.default_rng(44).standard_normal(ROWS)
    once, often = (
        process.update(process.start(), {"numbers": reference.count(np.tile(day, times))}, block=True)
        for times in (1, 7)
    )
    assert once.stakes["numbers"] == pytest.approx(often.stakes["numbers"])
    row = {"numbers": reference.count(day[:1])}
    alone, plain = (process.update(process.start(), row, block=block) for block in (True, False))
    assert alone.stakes["numbers"] == pytest.approx(plain.stakes["numbers"])


@pytest.mark.parametrize("values", [[], [None] * 5, [math.nan] * 5], ids=["empty", "null", "nan"])
def test_a_day_without_values_is_no_evidence_of_a_shift(known: dict[str, Reference], values: list[Any]) -> None:
    """An empty day changes no stake; one of missing values speaks of missing values alone."""
    reference = known["numbers"]
    process = DriftProcess([reference], budget=YEARS, material=MATERIAL)
    state = process.update(process.start(), {"numbers": reference.count(values)}, block=True)
    assert not state.alarm_at and all(math.isfinite(stake) for stake in state.stakes["numbers"])
    if not values:
        assert set(state.stakes["numbers"]) == {1.0}
    else:
        assert process.findings(state)[0].change == "more missing"


def test_a_constant_feature_and_its_state_are_kept(known: dict[str, Reference]) -> None:
    """A feature with one value can be watched by blocks, and the state goes on from where it was stored."""
    reference = build_reference("flat", [3.0] * 500)
    process = DriftProcess([reference], budget=EVER, material=MATERIAL)
    state = process.start()
    for _ in range(5):
        state = process.update(state, {"flat": reference.count([3.0] * 10)}, block=True)
    assert not state.alarm_at
    stored = msgspec.json.decode(msgspec.json.encode(state), type=DriftState)
    counts = {"flat": reference.count([9.0] * 10)}
    assert process.update(stored, counts, block=True) == process.update(state, counts, block=True)
