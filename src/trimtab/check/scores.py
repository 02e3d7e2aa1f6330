"""Metrics of predictions against truth, each defined once; and the loss of a single row for online monitors.

Arrays are anything that numpy can take. Binary labels are 0 and 1 (or False and True), probabilities are of
the class 1. Multi-class labels are column numbers 0, 1, ... of a probability matrix. A metric that is not
defined for what it is given raises; it never answers NaN. The functions on arrays need numpy; those that
start with ``row_`` and ``scaled`` are standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trimtab.core.errors import BadInput, WrongUse, closest
from trimtab.core.optional import need

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

EPSILON = 1e-15
"""Probabilities are kept this far from 0 and 1 where a logarithm is taken."""


def row_log_loss(probability: float, label: float) -> float:
    """Return ``-ln`` of the probability given to what happened, in nats; at most ``-ln(1e-15)`` = 34.5.

    Args:
        probability: of the class 1.
        label: 0 or 1.
    """
    return -math.log(min(max(probability if label else 1.0 - probability, EPSILON), 1.0))


def row_brier(probability: float, label: float) -> float:
    """Return the squared distance of the probability of class 1 from the label; in [0, 1]."""
    return (probability - label) ** 2


def row_zero_one(prediction: object, label: object) -> float:
    """Return 0.0 where the prediction equals the label and 1.0 where it does not."""
    return float(prediction != label)


def scaled(loss: float, largest: float) -> float:
    """Return a loss cut at ``largest`` and divided by it: what ``check.harm`` takes, in [0, 1]."""
    return min(max(loss, 0.0), largest) / largest


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: P(score of a 1 > score of a 0) + P(equal)/2, by mid-ranks.

    Raises:
        BadInput: lengths differ, something is not finite, or only one class is there.
    """
    truth, values = _binary(labels, scores)
    ones = int(truth.sum())
    zeros = len(truth) - ones
    if not ones or not zeros:
        raise BadInput("auc needs rows of both classes", where="labels", fix="evaluate on more rows")
    ranks = mid_ranks(values)
    return float((ranks[truth].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def mid_ranks(values: Any) -> Any:
    """Return the rank 1..n of each value of an array; equal values share the mean of their ranks."""
    np = need("numpy")
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(times)
    return (last - (times - 1) / 2)[place]


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean negative log-likelihood in nats (clipped at 1e-15); binary or multi-class.

    Raises:
        BadInput: lengths differ, something is not finite or not a probability, or a label has no column.
    """
    return float(row_losses("log_loss", labels, probabilities).mean())


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean squared distance of the probability of class 1 from the label; in [0, 1]."""
    return float(row_losses("brier", labels, probabilities).mean())


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return the share of predictions (classes, not probabilities) that equal their label."""
    return 1.0 - error_rate(labels, predictions)


def error_rate(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return the share of predictions (classes, not probabilities) that differ from their label."""
    return float(row_losses("error_rate", labels, predictions).mean())


def mae(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return the mean absolute error, in the unit of the label."""
    return float(row_losses("mae", labels, predictions).mean())


def rmse(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return the root of the mean squared error, in the unit of the label."""
    truth, values = _pair(labels, predictions)
    return math.sqrt(float(((values - truth) ** 2).mean()))


def r2(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return 1 minus the squared error over that of the labels' mean; at most 1.

    Raises:
        BadInput: lengths differ, something is not finite, or all labels are equal.
    """
    truth, values = _pair(labels, predictions)
    spread = float(((truth - truth.mean()) ** 2).sum())
    if not spread:
        raise BadInput("r2 needs labels that differ", where="labels", fix="evaluate on more rows, or use rmse")
    return 1.0 - float(((values - truth) ** 2).sum()) / spread


def ece(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> float:
    """Return the expected calibration error over equally wide bins of the probability of class 1.

    It is the mean over rows of ``|mean probability - share of ones|`` in the row's bin (Naeini, Cooper and
    Hauskrecht 2015; here of the class 1). Bin ``k`` holds probabilities in ``[k/bins, (k+1)/bins)``, the last
    one also 1.
    """
    np = need("numpy")
    truth, values = _binary(labels, probabilities)
    _in_unit(values)
    place = np.minimum((values * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=values - truth, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def row_losses(name: str, labels: ArrayLike, predictions: ArrayLike) -> NDArray[Any]:
    """Return the loss (or gain) of each row for a metric that is a mean over rows.

    Args:
        name: ``log_loss``, ``brier``, ``mae``, ``error_rate`` or ``accuracy`` (1.0 where right).
        labels: the truth.
        predictions: probabilities for ``log_loss`` and ``brier``, classes for ``error_rate`` and
            ``accuracy``, numbers for ``mae``.

    Raises:
        BadInput: lengths differ, something is not finite, or a probability is not one.
        WrongUse: the metric is not a mean over rows.
    """
    if name not in ROW_METRICS:
        raise WrongUse(
            f"{name} is not a mean over rows{closest(name, ROW_METRICS)}",
            fix=f"one of {', '.join(ROW_METRICS)}",
        )
    return ROW_METRICS[name](labels, predictions)


def score(name: str, labels: ArrayLike, predictions: ArrayLike) -> float:
    """Return the metric called ``name``; ``predictions`` are what that metric takes.

    Raises:
        BadInput: the metric is not defined for these arrays.
        WrongUse: there is no such metric.
    """
    if name not in METRIC_FUNCTIONS:
        raise WrongUse(
            f"no metric is called {name!r}{closest(name, METRIC_FUNCTIONS)}",
            fix=f"one of {', '.join(METRIC_FUNCTIONS)}",
        )
    return METRIC_FUNCTIONS[name](labels, predictions)


def _log_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[Any]:
    np = need("numpy")
    matrix = np.asarray(probabilities, dtype=np.float64)
    if matrix.ndim == 2:
        given = _column_of(labels, matrix)
    else:
        truth, values = _binary(labels, matrix)
        given = np.where(truth, values, 1.0 - values)
    _in_unit(matrix)
    return -np.log(np.clip(given, EPSILON, 1.0))  # type: ignore[no-any-return]


def _column_of(labels: ArrayLike, matrix: Any) -> Any:
    np = need("numpy")
    classes = np.asarray(labels)
    if classes.shape != matrix.shape[:1] or not len(classes):
        raise BadInput(f"{classes.shape} labels for {matrix.shape} probabilities", where="labels")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= matrix.shape[1]:
        raise BadInput(f"labels must be column numbers below {matrix.shape[1]}", where="labels")
    return matrix[np.arange(len(classes)), classes]


def _brier_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[Any]:
    truth, values = _binary(labels, probabilities)
    _in_unit(values)
    return (values - truth) ** 2  # type: ignore[no-any-return]


def _errors(labels: ArrayLike, predictions: ArrayLike) -> NDArray[Any]:
    np = need("numpy")
    truth, values = np.asarray(labels), np.asarray(predictions)
    _same_length(truth, values)
    return (truth != values).astype(np.float64)  # type: ignore[no-any-return]


def _absolute_errors(labels: ArrayLike, predictions: ArrayLike) -> NDArray[Any]:
    truth, values = _pair(labels, predictions)
    return abs(values - truth)


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[Any, Any]:
    np = need("numpy")
    try:
        truth, values = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"labels and predictions must be numbers: {error}", where="predictions") from error
    _same_length(truth, values)
    for where, array in (("labels", truth), ("predictions", values)):
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise BadInput(f"{len(bad)} of {len(array)} numbers are not finite", where=f"{where}[{bad[0]}]")
    return truth, values


def _binary(labels: ArrayLike, values: ArrayLike) -> tuple[Any, Any]:
    truth, numbers = _pair(labels, values)
    if not ((truth == 0) | (truth == 1)).all():
        raise BadInput("binary labels are 0 and 1", where="labels", fix="map the positive class to 1")
    return truth == 1, numbers


def _same_length(truth: Any, values: Any) -> None:
    if truth.ndim != 1 or truth.shape != values.shape or not len(truth):
        raise BadInput(
            f"labels of shape {truth.shape} and predictions of shape {values.shape} are not two columns of "
            "the same rows",
            where="predictions",
        )


def _in_unit(values: Any) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise BadInput("probabilities lie between 0 and 1", where="predictions", fix="pass probabilities, not logits")


ROW_METRICS: dict[str, Callable[[ArrayLike, ArrayLike], NDArray[Any]]] = {
    "log_loss": _log_losses,
    "brier": _brier_losses,
    "mae": _absolute_errors,
    "error_rate": _errors,
    "accuracy": lambda labels, predictions: 1.0 - _errors(labels, predictions),
}
METRIC_FUNCTIONS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "auc": auc,
    "log_loss": log_loss,
    "brier": brier,
    "accuracy": accuracy,
    "error_rate": error_rate,
    "mae": mae,
    "rmse": rmse,
    "r2": r2,
    "ece": ece,
}
