"""Budgets of false alarms in seconds of event time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trimtab.core.clock import to_micros
from trimtab.core.errors import WrongUse
from trimtab.monitor.budget import budget_of, exposure

DAY = 86400.0


@pytest.mark.parametrize(("text", "seconds"), [("1/year", 365 * DAY), ("2/month", 15 * DAY), ("0.5/week", 14 * DAY)])
def test_rate_becomes_a_mean_time(text: str, seconds: float) -> None:
    """N alarms in a period stand for a mean time of period/N between two."""
    budget = budget_of(text)
    assert budget.run_length == pytest.approx(seconds) and budget.alpha is None


def test_number_is_a_probability() -> None:
    """A number bounds the probability of ever raising a false alarm."""
    assert budget_of(0.05).alpha == 0.05


@pytest.mark.parametrize("bad", ["often", "1/eon", "x/year", "0/year", True, 1.5])
def test_other_forms_are_refused(bad: str | float) -> None:
    """Anything else is wrong use, not a silent default."""
    with pytest.raises(WrongUse):
        budget_of(bad)


def test_exposure_is_event_time() -> None:
    """Exposure is the event time that passed, never negative."""
    now = datetime(2024, 1, 2, tzinfo=UTC)
    assert exposure(to_micros(now - timedelta(days=1)), now) == DAY
    assert exposure(to_micros(now + timedelta(days=1)), now) == 0.0
