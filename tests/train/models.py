"""Predictors of tests; their classes live in a module, as those of a project do."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import trimtab as tt


class Tally(tt.Predictor):
    """Answers with the share of the positive class by category, in plain numpy: any framework is used like this."""

    def __init__(self, shares: Mapping[str, float], usual: float) -> None:
        self.shares = dict(shares)
        self.usual = usual

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return a probability for each row."""
        return np.array([self.shares.get(value, self.usual) for value in columns["c"]])


class Fixed(tt.Predictor):
    """Answers what it is told to, as often as rows come, or in a wrong way."""

    def __init__(self, answer: Any, way: str = "each") -> None:
        self.answer = answer
        self.way = way
        self.asked = 0

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return the answer."""
        rows = len(next(iter(columns.values())))
        self.asked += 1
        match self.way:
            case "few":
                return [self.answer] * (rows - 1)
            case "matrix":
                return np.full((rows, 2), self.answer)
            case "whole":
                return self.answer
            case "cycle":
                return [self.answer[row % len(self.answer)] for row in range(rows)]
            case "chance":
                return [random.random() for _ in range(rows)]
            case "batch":
                return [row / rows for row in range(rows)]
            case "counts":
                return [min(1.0, self.asked / 100)] * rows
            case "missing":
                return [math.nan if value is None else 0.5 for value in columns["x1"]]
            case "picky":
                return [{"a": 0.1, "b": 0.2, "d": 0.3}[value] for value in columns["c"]]
        return [self.answer] * rows
