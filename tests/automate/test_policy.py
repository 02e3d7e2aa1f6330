"""Cooldown and limit hold automations back in event time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trimtab.automate.policy import hold_back

NOW = datetime(2024, 3, 1, tzinfo=UTC)


def _ago(*days: float) -> list[datetime]:
    return [NOW - timedelta(days=number) for number in days]


def test_nothing_holds_a_first_firing_back() -> None:
    """An automation that never fired may fire."""
    assert hold_back([], NOW, cooldown="7d", limit="1/30d") == ""


def test_cooldown_counts_from_the_last_firing() -> None:
    """Within the cooldown the reason names its end; at its end it may fire."""
    reason = hold_back(_ago(20, 3), NOW, cooldown="7d", limit="")
    assert "cooldown of 7d" in reason and (NOW + timedelta(days=4)).isoformat() in reason
    assert hold_back(_ago(7), NOW, cooldown="7d", limit="") == ""


def test_limit_counts_firings_in_a_window() -> None:
    """The limit counts firings of the window and forgets older ones."""
    assert "its limit is 2/30d" in hold_back(_ago(1, 29), NOW, cooldown="0s", limit="2/30d")
    assert hold_back(_ago(1, 30), NOW, cooldown="0s", limit="2/30d") == ""


def test_later_firings_do_not_count() -> None:
    """A firing after the time in question plays no part."""
    assert hold_back([NOW + timedelta(days=1)], NOW, cooldown="7d", limit="1/30d") == ""
