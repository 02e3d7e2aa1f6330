"""What ``false_alarms=`` says, in the unit in which monitors count: seconds of event time."""

from __future__ import annotations

from datetime import datetime

from trimtab.check.declare import PERIODS
from trimtab.check.harm import Budget
from trimtab.core.clock import from_micros, parse_duration, to_micros
from trimtab.core.errors import WrongUse
from trimtab.core.nouns import Check


def budget_of(false_alarms: str | float) -> Budget:
    """Return the budget behind ``1/year``, ``2/month`` or a probability.

    ``N/period`` bounds the mean event time until a false alarm from below by ``period / N``: the exposure of
    each look is the event time that passed since the last one, however many rows or looks fall into it.

    Raises:
        WrongUse: it has neither form.
    """
    if isinstance(false_alarms, int | float) and not isinstance(false_alarms, bool):
        return Budget(alpha=float(false_alarms))
    count, _, period = str(false_alarms).partition("/")
    try:
        length = parse_duration(PERIODS[period]).total_seconds() / float(count)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise WrongUse(
            f"false_alarms={false_alarms!r} is no budget", where="false_alarms", fix="such as '1/year' or 0.05"
        ) from error
    return Budget(run_length=length)


def exposure(since: int, now: datetime) -> float:
    """Return the seconds of event time from ``since`` (microseconds) to ``now``, at least 0."""
    return max(0.0, (to_micros(now) - since) / 1e6)


def is_due(check: Check, rows: int, looked: int, now: datetime) -> bool:
    """Say whether a look is due: enough rows, or with a block the end of a block that has rows.

    Args:
        check: a monitor check; its ``batch`` counts rows, its ``block`` is a length of event time.
        rows: that came together since the last look.
        looked: event time of the last look in microseconds.
        now: event time.
    """
    block = check.params.get("block")
    if not block:
        return rows >= int(check.params["batch"])
    return rows > 0 and now - from_micros(looked) >= parse_duration(block)
