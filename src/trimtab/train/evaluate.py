"""Metrics of a model on labelled rows, and the loss that monitoring compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.check import intervals
from trimtab.check import scores as formulas
from trimtab.core.errors import BadInput, WrongUse
from trimtab.core.metric import metric
from trimtab.core.nouns import Data
from trimtab.core.optional import need
from trimtab.train.load import Scorer
from trimtab.train.signature import columns_from

METRICS_OF = {
    "binary": ("auc", "log_loss", "brier", "accuracy", "ece"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
}
RISKS_OF = {
    "binary": ("brier", "error_rate", "log_loss"),
    "multiclass": ("error_rate", "log_loss"),
    "regression": ("mae",),
}
BATCH = 50_000
_OF_CLASSES = frozenset({"accuracy", "error_rate"})


def ask(scorer: Scorer, frame: Any, signature: Mapping[str, Any]) -> Data:
    """Return what a model says about the rows of a Polars frame, asked batch by batch.

    Raises:
        BadInput: an input is not there, or of another type.
    """
    predictions: list[Any] = []
    scores: list[Any] | None = []
    for batch in frame.iter_slices(BATCH):
        made = scorer.predict(columns_from(batch, signature))
        predictions += made["predictions"]
        if made["scores"] is None:
            scores = None
        elif scores is not None:
            scores += made["scores"]
    return {"predictions": predictions, "scores": scores}


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
        self._positive = meta.get("positive")
        self._codes = {value: code for code, value in enumerate(meta.get("classes") or ())}

    def labels(self) -> Any:
        """Return the truth: numbers, 1 for the positive class, or codes of classes (-1: the model knows it not)."""
        np = need("numpy")
        if self.task == "regression":
            return np.asarray(self._truth, dtype="float64")
        return self._coded(self._truth, unknown=-1)

    def values(self, metric: str) -> Any:
        """Return what the model said as ``metric`` takes it: classes, probabilities or numbers.

        Raises:
            WrongUse: the metric needs probabilities and the model gives none.
        """
        if metric in _OF_CLASSES and self.task != "regression":
            return self._coded(self._predictions, unknown=-2)
        if self._scores is None:
            raise WrongUse(f"{metric} needs probabilities, and the model gives none", fix="use accuracy")
        return need("numpy").asarray(self._scores, dtype="float64")

    def _coded(self, values: Sequence[Any], *, unknown: int) -> Any:
        np = need("numpy")
        if self.task == "binary":
            return np.asarray([1.0 if value == self._positive else 0.0 for value in values])
        return np.asarray([self._codes.get(value, unknown) for value in values])


def metric_on(name: str, answers: Answers) -> float:
    """Return a metric.

    Raises:
        BadInput: it is not defined on these rows.
        WrongUse: it is not defined for this task, or for what the model answers.
    """
    return float(formulas.score(name, answers.labels(), _said(name, answers)))


def metrics_on(answers: Answers) -> dict[str, float]:
    """Return the task's metrics; one that is not defined on these rows is left out."""
    found = {}
    for name in METRICS_OF[answers.task]:
        try:
            found[name] = metric_on(name, answers)
        except (BadInput, WrongUse):
            continue
    return found


def risk_on(answers: Answers) -> Data:
    """Return mean, variance and count of row losses: what live performance is compared with."""
    risk: Data = {}
    for name in RISKS_OF[answers.task]:
        try:
            losses = formulas.row_losses(name, answers.labels(), answers.values(name))
        except (BadInput, WrongUse):
            continue
        risk[name] = {
            "mean": float(losses.mean()),
            "variance": float(losses.var(ddof=1)) if len(losses) > 1 else 0.0,
            "n": len(losses),
        }
    return risk


def value_interval(name: str, answers: Answers, groups: Sequence[Any] | None, level: float) -> intervals.Interval:
    """Return a metric with its interval; errors as in ``metric_on``."""
    return intervals.metric_interval(name, answers.labels(), _said(name, answers), level=level, groups=groups)


def difference(
    name: str, candidate: Answers, champion: Answers, groups: Sequence[Any] | None, level: float
) -> intervals.Interval:
    """Return metric(candidate) - metric(champion) on the same rows, with its interval; errors as in ``metric_on``."""
    return intervals.paired_difference(
        name,
        candidate.labels(),
        _said(name, candidate),
        _said(name, champion),
        level=level,
        groups=groups,
    )


def _said(name: str, answers: Answers) -> Any:
    task = metric(name).task
    if task not in ("any", answers.task) or (answers.task == "regression" and name in _OF_CLASSES | {"log_loss"}):
        raise WrongUse(
            f"{name} is no metric of a {answers.task} model", fix=f"one of {', '.join(METRICS_OF[answers.task])}"
        )
    return answers.values(name)
