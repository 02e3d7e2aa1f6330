"""When an automation may fire: cooldown and limit, both in event time, so that nothing storms (R64)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from trimtab.core.clock import parse_duration


def hold_back(fired: Iterable[datetime], now: datetime, *, cooldown: str, limit: str) -> str:
    """Return why an automation must not fire now, or an empty string when it may.

    Args:
        fired: the event times of its earlier firings, however they ended: one that failed counts too.
        now: event time.
        cooldown: the least event time between two firings, such as ``7d``.
        limit: the most firings in a length of event time, such as ``4/30d``; empty means no limit.
    """
    past = sorted(moment for moment in fired if moment <= now)
    if not past:
        return ""
    pause = parse_duration(cooldown or "0s")
    if now - past[-1] < pause:
        until = past[-1] + pause
        return f"it fired at {past[-1].isoformat()} and its cooldown of {cooldown} ends at {until.isoformat()}"
    if limit:
        count, _, length = limit.partition("/")
        window = parse_duration(length)
        recent = sum(1 for moment in past if now - moment < window)
        if recent >= int(count):
            return f"it fired {recent} times within {length}, and its limit is {limit}"
    return ""
