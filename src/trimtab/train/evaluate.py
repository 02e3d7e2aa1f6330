"""Metrics of a model on labelled rows, and the loss that monitoring compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.check import intervals, scores
from trimtab.core.errors import BadInput, WrongUse
from trimtab.core.nouns import Data
from trimtab.core.optional import need

METRICS_OF = {
    "binary": ("auc", "log_loss", "brier", "accuracy", "ece"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
}
_CLASSES = frozenset({"accuracy", "error_rate"})


class Answers:
    """What a model said about labelled rows.

    Args:
        truth: labels.
        output: from ``Scorer.predict``.
        meta: task, classes and positive class.
    """

    def __init__(self, truth: Sequence[Any], output: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        self.task = meta["task"]
        self._truth = list(truth)
        self._predictions = output["predictions"]
        self._scores = output["scores"]
        self._classes = list(meta.get("classes") or ())
        self._positive = meta.get("positive")

    def labels(self, metric: str) -> Any:
        """Return the truth as ``metric`` takes it: 0 and 1 for a binary probability, codes for classes."""
        np = need("numpy")
        if self.task == "regression":
            return np.asarray(self._truth, dtype="float64")
        if self.task == "binary":
            return np.asarray([1.0 if value == self._positive else 0.0 for value in self._truth])
        codes = {value: index for index, value in enumerate(self._classes)}
        return np.asarray([codes.get(value, -1) for value in self._truth])

    def values(self, metric: str) -> Any:
        """Return what the model said as ``metric`` takes it.

        Raises:
            WrongUse: the metric needs probabilities and the model gives none.
        """
        np = need("numpy")
        if metric in _CLASSES:
            if self.task == "binary":
                return np.asarray([1.0 if value == self._positive else 0.0 for value in self._predictions])
            codes = {value: index for index, value in enumerate(self._classes)}
            return np.asarray([codes.get(value, -2) for value in self._predictions])
        if self._scores is None:
            raise WrongUse(f"{metric} needs probabilities, and the model gives none", fix="use accuracy")
        return np.asarray(self._scores, dtype="float64")


def metrics_on(answers: Answers) -> dict[str, float]:
    """Return the task's metrics; one that is not defined on these rows is left out."""
    found = {}
    for name in METRICS_OF[answers.task]:
        try:
            found[name] = float(scores.score(name, answers.labels(name), answers.values(name)))
        except (BadInput, WrongUse):
            continue
    return found


def risk_on(answers: Answers) -> Data:
    """Return mean, variance and count of row losses: what live performance is compared with."""
    names = {"binary": ("brier", "error_rate", "log_loss"), "multiclass": ("error_rate",), "regression": ("mae",)}
    risk: Data = {}
    for name in names[answers.task]:
        try:
            losses = scores.row_losses(name, answers.labels(name), answers.values(name))
        except (BadInput, WrongUse):
            continue
        if len(losses):
            risk[name] = {
                "mean": float(losses.mean()),
                "variance": float(losses.var(ddof=1)) if len(losses) > 1 else 0.0,
                "n": len(losses),
            }
    return risk


def value_interval(name: str, answers: Answers, groups: Sequence[Any] | None, level: float) -> intervals.Interval:
    """Return a metric with its interval."""
    return intervals.metric_interval(name, answers.labels(name), answers.values(name), level=level, groups=groups)


def difference(
    name: str, candidate: Answers, champion: Answers, groups: Sequence[Any] | None, level: float
) -> intervals.Interval:
    """Return metric(candidate) - metric(champion) on the same rows, with its interval."""
    return intervals.paired_difference(
        name,
        candidate.labels(name),
        candidate.values(name),
        champion.values(name),
        level=level,
        groups=groups,
    )
