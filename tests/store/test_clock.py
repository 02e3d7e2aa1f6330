"""Event time of a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.store.builders import START, at, write
from trimtab.core.errors import WrongUse
from trimtab.store.clock import event_time, put_clock, read_clock
from trimtab.store.ledger import Ledger


def test_time_is_real_until_somebody_chooses(ledger: Ledger) -> None:
    """Without a choice event time is the time of day."""
    assert read_clock(ledger) is None
    assert abs(event_time(ledger) - datetime.now(UTC)) < timedelta(seconds=5)


def test_simulated_time_stands_still_and_goes_forward(ledger: Ledger) -> None:
    """Simulated time is exactly what it was set to, never goes back, and never becomes real."""
    for day in (0.0, 0.0, 1.000001):
        write(ledger, put_clock, "simulated", at(day))
        assert event_time(ledger) == at(day)
    with pytest.raises(WrongUse, match="cannot go back"):
        write(ledger, put_clock, "simulated", START)
    with pytest.raises(WrongUse, match="lives on simulated time"):
        write(ledger, put_clock, "real", at(2))
    assert read_clock(ledger) == ("simulated", at(1.000001))


def test_each_environment_has_its_own_clock(ledger: Ledger) -> None:
    """Simulated time in one environment leaves another's alone."""
    write(ledger, put_clock, "simulated", START)
    with Ledger.open(ledger.where, environment="prod") as prod:
        assert read_clock(prod) is None
        write(prod, put_clock, "real", START)
        assert event_time(prod) > START
