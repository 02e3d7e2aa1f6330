"""Event time of a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.store.builders import START, at, write
from trimtab.core.errors import WrongUse
from trimtab.store.calls import CallRow, record_calls
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


def test_simulated_time_does_not_begin_where_real_calls_were_answered(ledger: Ledger) -> None:
    """It never ends, so it is chosen for a store that has nothing real to lose."""
    call = CallRow(
        prediction_id="a.0", request_id="a", row=0, endpoint_id="end_1", deployment_id="dep_1", version_id="ver_1",
        at=1, candidate=False, weight=1.0, candidate_weight=0.0, status=200, latency_us=1, prediction=True, score=0.5,
    )  # fmt: skip
    write(ledger, record_calls, [call])
    with pytest.raises(WrongUse, match="answered calls in real time") as caught:
        write(ledger, put_clock, "simulated", START)
    assert "--dir NEW" in caught.value.fix and read_clock(ledger) is None
    with Ledger.open(ledger.where, environment="prod") as prod:
        write(prod, put_clock, "simulated", START)


def test_each_environment_has_its_own_clock(ledger: Ledger) -> None:
    """Simulated time in one environment leaves another's alone."""
    write(ledger, put_clock, "simulated", START)
    with Ledger.open(ledger.where, environment="prod") as prod:
        assert read_clock(prod) is None
        write(prod, put_clock, "real", START)
        assert event_time(prod) > START
