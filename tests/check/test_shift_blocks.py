"""Blocks of the drift process: a day whose rows are alike is one observation, and keeps the budget as rows do not."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from trimtab.check.harm import Budget
from trimtab.check.histogram import Reference, build_reference
from trimtab.check.shift import DriftProcess, DriftState

ROWS, DAYS, MATERIAL = 60, 200, 0.02
EVER, RATE = Budget(alpha=0.05), Budget(run_length=2000.0)
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


FAMILIES = {"numbers": _days, "categories": _letters}


@pytest.fixture(scope="module")
def known() -> dict[str, Reference]:
    """References from so many days that their own error is small beside the tolerance (see ``shift`` on that)."""
    random = np.random.default_rng(40)
    return {name: build_reference(name, draw(random, 4000).ravel()) for name, draw in FAMILIES.items()}


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


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("budget", [EVER, RATE], ids=["ever", "rate"])
def test_days_without_drift_keep_the_budget(
    known: dict[str, Reference], runs: int, family: str, budget: Budget
) -> None:
    """Alarms in 200 days of which each is of its own kind stay within the budget: 5 %, or 200 of 2,000 days."""
    few = max(runs // 2, 60)
    alarms = _share(known[family], FAMILIES[family], budget, few, block=True, seed=41)
    allowed = 0.05 + 0.01 if budget.alpha else DAYS / 2000 + 0.01
    assert (alarms > 0).mean() <= _tolerance(allowed, few)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_same_days_by_rows_misfire(known: dict[str, Reference], family: str) -> None:
    """Why there are blocks: row by row the same days without drift nearly always raise an alarm."""
    alarms = _share(known[family], FAMILIES[family], EVER, 20, block=False, seed=41)
    assert (alarms > 0).mean() >= 0.9


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_block_is_a_fair_bet(known: dict[str, Reference], family: str) -> None:
    """Under the null the mean of a day's bets is at most one on average, whatever its rows have in common."""
    process = DriftProcess([known[family]], budget=RATE, material=MATERIAL)
    random = np.random.default_rng(42)
    start = process.start()
    days = FAMILIES[family](random, 2000)
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
    alarms = _share(known[family], FAMILIES[family], RATE, 40, block=True, seed=43, shift=shift)
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
    process = DriftProcess([reference], budget=RATE, material=MATERIAL)
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
