"""Metrics whose direction is part of their definition, and values that are stored exactly."""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

from trimtab.core.errors import WrongUse, closest

Direction = Literal["higher", "lower"]
_KINDS = {"nan": math.nan, "+inf": math.inf, "-inf": -math.inf, "-0.0": -0.0}


class Metric(Struct, frozen=True, kw_only=True):
    """What a number means: which way is better, its bounds, and whether it is a mean over rows.

    Attributes:
        name: as it is logged and named in gates.
        better: ``higher`` or ``lower``.
        low: the smallest possible value.
        high: the largest possible value.
        per_row: it is a mean of a loss or gain that each row has by itself.
        task: the task it belongs to (``binary``, ``multiclass``, ``regression`` or ``any``).
    """

    name: str
    better: Direction
    low: float = -math.inf
    high: float = math.inf
    per_row: bool = False
    task: Literal["binary", "multiclass", "regression", "any"] = "any"

    def gain(self, value: float, over: float) -> float:
        """Return how much better ``value`` is than ``over``: positive is better, whatever the direction."""
        return value - over if self.better == "higher" else over - value


METRICS = {
    metric.name: metric
    for metric in (
        Metric(name="auc", better="higher", low=0.0, high=1.0, task="binary"),
        Metric(name="log_loss", better="lower", low=0.0, per_row=True, task="any"),
        Metric(name="brier", better="lower", low=0.0, high=1.0, per_row=True, task="binary"),
        Metric(name="accuracy", better="higher", low=0.0, high=1.0, per_row=True),
        Metric(name="error_rate", better="lower", low=0.0, high=1.0, per_row=True),
        Metric(name="ece", better="lower", low=0.0, high=1.0, task="binary"),
        Metric(name="rmse", better="lower", low=0.0, task="regression"),
        Metric(name="mae", better="lower", low=0.0, per_row=True, task="regression"),
        Metric(name="r2", better="higher", high=1.0, task="regression"),
    )
}


def metric(name: str) -> Metric:
    """Return the definition of the metric called ``name``.

    Raises:
        WrongUse: no metric has that name; the message names the closest.
    """
    if name not in METRICS:
        raise WrongUse(
            f"{name!r} is not a metric with a known direction{closest(name, METRICS)}",
            fix=f"one of {', '.join(sorted(METRICS))}",
        )
    return METRICS[name]


def split_value(value: float) -> tuple[float | None, str]:
    """Return ``value`` as a number and a kind, exactly: ``(None, 'nan')`` for what SQL cannot keep."""
    if value != value:
        return None, "nan"
    if math.isinf(value):
        return None, "+inf" if value > 0 else "-inf"
    if value == 0.0 and math.copysign(1.0, value) < 0:
        return None, "-0.0"
    return float(value), ""


def join_value(value: float | None, kind: str) -> float:
    """Return the number that ``split_value`` took apart."""
    if kind:
        return _KINDS[kind]
    assert value is not None
    return value
