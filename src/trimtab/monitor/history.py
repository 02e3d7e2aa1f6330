"""Realised performance by period of event time: what the answers that were served turned out to be worth.

Pure Python on purpose: the control process draws these series and imports no array library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from trimtab.core.clock import from_micros, to_micros
from trimtab.core.nouns import Data
from trimtab.monitor.signals import Labelled, labelled_rows
from trimtab.store.ledger import Reader

Length = Literal["month", "week", "day"]
CLIP = 1e-15


class Period(Struct, frozen=True, kw_only=True):
    """What the labelled answers of one period were worth; a metric that cannot be told is None.

    Attributes:
        period: ``YYYY-MM``, ``YYYY-Www`` (ISO week) or ``YYYY-MM-DD``, by the time of the call in UTC.
        rows: labelled rows.
        rate: share of positive labels.
        mean_prediction: mean score of the positive class (or mean prediction of a regression).
        versions: labelled rows for each version id that answered.
        unknown: rows whose label is not of the model's classes; they are in no metric.
    """

    period: str
    rows: int
    rate: float | None
    mean_prediction: float | None
    auc: float | None
    log_loss: float | None
    brier: float | None
    error_rate: float | None
    mae: float | None = None
    versions: dict[str, int] = {}
    unknown: int = 0

    def as_data(self) -> Data:
        """Return the period as plain data."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


def history(
    reader: Reader,
    endpoint_id: str,
    *,
    length: Length = "month",
    since: datetime | None = None,
    until: datetime | None = None,
    version_id: str = "",
) -> list[Period]:
    """Return the realised metrics of an endpoint's labelled answers, one entry for each period that has any.

    Args:
        reader: the ledger.
        endpoint_id: whose answers.
        length: of a period; boundaries are in UTC.
        since: the first call time that counts.
        until: the call time before which a call must lie to count.
        version_id: only answers of this version.
    """
    low = to_micros(since) if since else None
    high = to_micros(until) if until else None
    groups: dict[str, list[Labelled]] = {}
    for row in labelled_rows(reader, endpoint_id, since=low, until=high):
        if not version_id or row.version_id == version_id:
            groups.setdefault(period_of(row.at, length), []).append(row)
    return [summarise(name, rows) for name, rows in sorted(groups.items())]


def period_of(at: int, length: Length) -> str:
    """Return the name of the period that the call time ``at`` (microseconds) falls in."""
    moment = from_micros(at)
    if length == "month":
        return f"{moment:%Y-%m}"
    if length == "day":
        return f"{moment:%Y-%m-%d}"
    year, week, _ = moment.isocalendar()
    return f"{year:04d}-W{week:02d}"


def summarise(name: str, rows: Sequence[Labelled]) -> Period:
    """Return one period's metrics over its labelled rows."""
    versions: dict[str, int] = {}
    for row in rows:
        versions[row.version_id] = versions.get(row.version_id, 0) + 1
    known = [row for row in rows if row.truth is not None and row.score is not None]
    scores = [float(row.score) for row in known if row.score is not None]
    truths = [float(row.truth) for row in known if row.truth is not None]
    binary = bool(known) and all(row.task == "binary" for row in known)
    numeric = bool(known) and all(row.task == "regression" for row in known)
    judged = [row.correct for row in rows if row.correct is not None]
    return Period(
        period=name,
        rows=len(rows),
        rate=_mean(truths) if binary else None,
        mean_prediction=_mean(scores),
        auc=auc(scores, truths) if binary else None,
        log_loss=log_loss(scores, truths) if binary else None,
        brier=_mean([(p - y) ** 2 for p, y in zip(scores, truths, strict=True)]) if binary else None,
        error_rate=1.0 - sum(judged) / len(judged) if judged else None,
        mae=_mean([abs(p - y) for p, y in zip(scores, truths, strict=True)]) if numeric else None,
        versions=versions,
        unknown=sum(1 for row in rows if row.truth is None and row.correct is None),
    )


def auc(scores: Sequence[float], truths: Sequence[float]) -> float | None:
    """Return the area under the ROC curve by ranks, ties counted half (Mann and Whitney 1947).

    Returns:
        None when all truths are equal: then there is nothing to rank.
    """
    positives = sum(1 for truth in truths if truth > 0.5)
    negatives = len(truths) - positives
    if not positives or not negatives:
        return None
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        rank = (start + 1 + end) / 2
        rank_sum += rank * sum(1 for index in order[start:end] if truths[index] > 0.5)
        start = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def log_loss(scores: Sequence[float], truths: Sequence[float]) -> float | None:
    """Return the mean negative log-likelihood in nats; scores are kept ``CLIP`` away from 0 and 1."""
    losses = (
        -math.log(min(max(score if truth > 0.5 else 1.0 - score, CLIP), 1.0))
        for score, truth in zip(scores, truths, strict=True)
    )
    return _mean(list(losses))


def _mean(values: Iterable[float]) -> float | None:
    items = list(values)
    return math.fsum(items) / len(items) if items else None
