"""Metrics: direction belongs to the definition, and values are exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import WrongUse
from trimtab.core.metric import join_value, metric, split_value


@given(st.floats())
def test_values_come_back_exactly(value: float) -> None:
    """Every float, also those that SQL cannot keep, comes back bit for bit."""
    back = join_value(*split_value(value))
    assert (back != back and value != value) or (back == value and math.copysign(1, back) == math.copysign(1, value))


def test_gain_knows_the_direction() -> None:
    """A gain is positive when it is an improvement."""
    assert metric("auc").gain(0.8, over=0.7) > 0
    assert metric("log_loss").gain(0.4, over=0.5) > 0


def test_unknown_metric_names_the_closest() -> None:
    """A misspelt metric is refused with the one that was meant."""
    with pytest.raises(WrongUse, match="did you mean 'log_loss'"):
        metric("logloss")
