"""Intervals for gates: how much better is one model than another on the same rows, and how sure is that?

A gate looks once at rows newer than every row that either model was trained on, so these are intervals for
one look, not confidence sequences. Rows of one day (one client, one aircraft) are alike; where ``groups``
are given whole groups are resampled, and the interval is as wide as the number of groups deserves.

Everything here needs numpy but ``wilson`` and the quantiles, and runs in job workers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from trimtab.check import scores
from trimtab.core.errors import BadInput, WrongUse
from trimtab.core.optional import need

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MIN_GROUPS = 5
RESAMPLES = 2000
MOST_UNDEFINED = 0.05


class Interval(Struct, frozen=True, kw_only=True):
    """An estimate with the two-sided interval that covers the truth with probability ``level``.

    Attributes:
        estimate: the difference (first minus second model) or the value.
        low: the lower end.
        high: the upper end.
        level: of confidence, such as 0.95.
        method: ``delong``, ``t``, ``wilson``, ``bootstrap`` (of rows) or ``cluster bootstrap`` (of groups).
        rows: that were compared.
        groups: among them; 0 where rows count as independent.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str
    rows: int
    groups: int = 0

    def negated(self) -> Interval:
        """Return the interval of minus the quantity: a gain, where lower is better."""
        return replace(self, estimate=-self.estimate, low=-self.high, high=-self.low)


def paired_difference(
    name: str,
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = 0.95,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Interval:
    """Return metric(first) - metric(second) on the same rows, by the method that fits the metric.

    AUC: DeLong. Means over rows: t. Everything else, and everything with ``groups``: bootstrap.

    Args:
        name: of the metric, see ``check.scores``.
        labels: the truth, one for each row.
        first: what the metric takes of the first model (probabilities, classes or numbers).
        second: the same of the second model.
        level: of confidence.
        groups: the group of each row, such as its day; at least 5 different ones.
        seed: of the bootstrap.

    Raises:
        BadInput: the metric is not defined on these rows, or there are too few rows or groups.
        WrongUse: there is no such metric, or ``level`` is not between 0 and 1.
    """
    if name == "auc":
        return paired_auc_difference(labels, first, second, level, groups=groups, seed=seed)
    if name in scores.ROW_METRICS:
        a, b = (scores.row_losses(name, labels, given) for given in (first, second))
        return paired_mean_difference(a, b, level, groups=groups, seed=seed)

    def metric(truth: Any, given: Any) -> float:
        return scores.score(name, truth, given)

    return paired_bootstrap(metric, labels, first, second, level, groups=groups, seed=seed)


def metric_interval(
    name: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    *,
    level: float = 0.95,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Interval:
    """Return one model's metric with its interval; arguments and errors as in ``paired_difference``."""
    np = need("numpy")
    if name in ("accuracy", "error_rate") and groups is None:
        hits = scores.row_losses(name, labels, predictions)
        return wilson(round(float(hits.sum())), len(hits), level)
    if name == "auc":
        return _auc_interval(labels, (predictions,), level, groups, seed)
    if name in scores.ROW_METRICS:
        losses = scores.row_losses(name, labels, predictions)
        return paired_mean_difference(losses, np.zeros(len(losses)), level, groups=groups, seed=seed)

    def metric(truth: Any, given: Any) -> float:
        return scores.score(name, truth, given)

    return _bootstrap(metric, labels, (predictions,), level, groups, RESAMPLES, seed)


def paired_auc_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    level: float = 0.95,
    *,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Interval:
    """Return AUC(a) - AUC(b) on the same rows.

    Without groups by DeLong, DeLong and Clarke-Pearson (1988) in the fast form of Sun and Xu (2014), normal
    quantiles; with groups by cluster bootstrap.

    Raises:
        BadInput: fewer than two rows of a class, unequal lengths, or fewer than 5 groups.
    """
    return _auc_interval(labels, (scores_a, scores_b), level, groups, seed)


def paired_mean_difference(
    losses_a: ArrayLike,
    losses_b: ArrayLike,
    level: float = 0.95,
    *,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Interval:
    """Return mean(a) - mean(b) of the rows' losses.

    Without groups by Student's t of the rows' differences; with groups by cluster bootstrap.

    Raises:
        BadInput: fewer than two rows, unequal lengths, a loss that is not finite, or fewer than 5 groups.
    """
    np = need("numpy")
    a, b = np.asarray(losses_a, dtype=np.float64), np.asarray(losses_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise BadInput(f"losses of shape {a.shape} and {b.shape} are not two columns", where="losses")
    gaps = a - b
    if not np.isfinite(gaps).all():
        raise BadInput("a loss is not finite", where=f"losses[{int(np.flatnonzero(~np.isfinite(gaps))[0])}]")
    estimate = float(gaps.mean())
    if groups is not None:
        member, count = _members(groups, len(gaps))
        sums, sizes = np.bincount(member, gaps, count), np.bincount(member, minlength=count)
        means = [float(times @ sums) / float(times @ sizes) for times in _draws(count, seed)]
        return _percentile(estimate, np.asarray(means), level, len(gaps), count, clustered=True)
    half = t_quantile(0.5 + _level(level) / 2, len(gaps) - 1) * float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    return Interval(
        estimate=estimate, low=estimate - half, high=estimate + half, level=level, method="t", rows=len(gaps)
    )


def paired_bootstrap(
    metric: Callable[[Any, Any], float],
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    level: float = 0.95,
    *,
    groups: Sequence[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return metric(labels, first) - metric(labels, second) with a bootstrap over rows, or over groups.

    Percentile interval with Hesterberg's expansion for few units (2015, "What teachers should know about the
    bootstrap", section 5.3). The same seed gives the same interval.

    Args:
        metric: called with the resampled labels and predictions; may raise BadInput where it is undefined.
        labels: the truth.
        first: of the first model, one for each row (a matrix has a line for each row).
        second: of the second model.
        level: of confidence.
        groups: the group of each row; whole groups are drawn.
        resamples: how many.
        seed: of the draws.

    Raises:
        BadInput: the metric is undefined on the rows or on more than 5 % of the resamples, or there are too
            few groups.
    """
    return _bootstrap(metric, labels, (first, second), level, groups, resamples, seed)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the share ``successes / n`` with Wilson's score interval (1927).

    Raises:
        WrongUse: ``n`` is not positive or ``successes`` not between 0 and ``n``.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise WrongUse(f"{successes} of {n} is no share", where="successes")
    z = NormalDist().inv_cdf(0.5 + _level(level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(
        estimate=share,
        low=0.0 if successes == 0 else low,
        high=1.0 if successes == n else high,
        level=level,
        method="wilson",
        rows=n,
    )


def t_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's t distribution, by bisection on its distribution function."""
    if probability < 0.5:
        return -t_quantile(1.0 - probability, freedom)
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < probability and high < 1e12:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _t_cdf(value: float, freedom: float) -> float:
    """Return P(T <= value) for value >= 0 through the incomplete beta function (DLMF 8.17.22)."""
    square = value * value
    a, b, x, rest = freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)
    if rest == 0.0:
        return 0.5
    swap = x > (a + 1) / (a + b + 2)
    if swap:
        a, b, x, rest = b, a, rest, x
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 500):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + factor * d)
            c = 1.0 + factor / c
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    tail = math.exp(front) * fraction / a
    return 0.5 + tail / 2 if swap else 1.0 - tail / 2


def _auc_interval(
    labels: ArrayLike,
    given: tuple[ArrayLike, ...],
    level: float,
    groups: Sequence[Any] | None,
    seed: int,
) -> Interval:
    """Return the AUC of one array of scores, or the difference of two."""
    np = need("numpy")
    values = [scores.auc(labels, array) for array in given]
    estimate = values[0] - (values[1] if len(values) == 2 else 0.0)
    truth = np.asarray(labels, dtype=np.float64) == 1
    columns = [np.asarray(array, dtype=np.float64) for array in given]
    if groups is not None:
        member, count = _members(groups, len(truth))
        areas = [_weighted_aucs(truth, column, member, _draws(count, seed)) for column in columns]
        found = areas[0] - (areas[1] if len(areas) == 2 else 0.0)
        return _percentile(estimate, found, level, len(truth), count, clustered=True)
    ones, zeros = int(truth.sum()), int((~truth).sum())
    if min(ones, zeros) < 2:
        raise BadInput("an interval of the AUC needs two rows of each class", where="labels")
    parts = [_delong_parts(truth, column) for column in columns]
    if len(parts) == 2:
        parts = [(parts[0][0] - parts[1][0], parts[0][1] - parts[1][1])]
    variance = float(parts[0][0].var(ddof=1)) / ones + float(parts[0][1].var(ddof=1)) / zeros
    half = NormalDist().inv_cdf(0.5 + _level(level) / 2) * math.sqrt(variance)
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        level=level,
        method="delong",
        rows=len(truth),
    )


def _delong_parts(truth: Any, column: Any) -> tuple[Any, Any]:
    """Return each positive row's and each negative row's share of the AUC (Sun and Xu 2014, eq. 5 to 8)."""
    ranks = scores.mid_ranks(column)
    ones, zeros = int(truth.sum()), int((~truth).sum())
    of_ones = (ranks[truth] - scores.mid_ranks(column[truth])) / zeros
    of_zeros = 1.0 - (ranks[~truth] - scores.mid_ranks(column[~truth])) / ones
    return of_ones, of_zeros


def _weighted_aucs(truth: Any, column: Any, member: Any, draws: Iterator[Any]) -> Any:
    """Return the AUC of each resample, NaN where a class is missing; rows weigh as their group was drawn."""
    np = need("numpy")
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    of, positive = member[order], truth[order]
    areas = []
    for times in draws:
        weights = times[of]
        ones = np.add.reduceat(weights * positive, starts)
        zeros = np.add.reduceat(weights * ~positive, starts)
        total = float(ones.sum() * zeros.sum())
        areas.append(float((ones * (np.cumsum(zeros) - zeros / 2)).sum()) / total if total else math.nan)
    return np.asarray(areas)


def _bootstrap(
    metric: Callable[[Any, Any], float],
    labels: ArrayLike,
    given: tuple[ArrayLike, ...],
    level: float,
    groups: Sequence[Any] | None,
    resamples: int,
    seed: int,
) -> Interval:
    np = need("numpy")
    truth, columns = np.asarray(labels), [np.asarray(array) for array in given]
    if len(truth) < 2 or any(len(column) != len(truth) for column in columns):
        raise BadInput(f"{[len(column) for column in columns]} predictions for {len(truth)} labels", where="labels")

    def value(rows: Any) -> float:
        found = [metric(truth[rows], column[rows]) for column in columns]
        return found[0] - (found[1] if len(found) == 2 else 0.0)

    estimate = value(np.arange(len(truth)))
    member, count = _members(groups, len(truth)) if groups is not None else (np.arange(len(truth)), len(truth))
    by_group = np.argsort(member, kind="stable")
    pieces = np.split(by_group, np.cumsum(np.bincount(member))[:-1]) if groups is not None else None
    random = np.random.Generator(np.random.PCG64(seed))
    found = np.full(resamples, np.nan)
    for index in range(resamples):
        chosen = random.integers(0, count, count)
        rows = np.concatenate([pieces[unit] for unit in chosen]) if pieces is not None else chosen
        try:
            found[index] = value(rows)
        except BadInput:
            continue  # undefined on this resample, such as one class only; counted below
    return _percentile(estimate, found, level, len(truth), count, clustered=groups is not None)


def _members(groups: Sequence[Any], rows: int) -> tuple[Any, int]:
    """Return the group number of each row and how many groups there are."""
    np = need("numpy")
    numbers: dict[Any, int] = {}
    member = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups])
    if len(member) != rows:
        raise BadInput(f"{len(member)} groups for {rows} rows", where="groups")
    if len(numbers) < MIN_GROUPS:
        raise BadInput(
            f"{len(numbers)} groups tell too little about how groups differ",
            where="groups",
            fix=f"wait for rows of at least {MIN_GROUPS} groups, or compare without groups",
        )
    return member, len(numbers)


def _draws(count: int, seed: int) -> Iterator[Any]:
    """Yield for each resample how often each group is drawn; the same seed yields the same."""
    np = need("numpy")
    random = np.random.Generator(np.random.PCG64(seed))
    for _ in range(RESAMPLES):
        yield np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)


def _percentile(estimate: float, found: Any, level: float, rows: int, units: int, *, clustered: bool) -> Interval:
    np = need("numpy")
    defined = found[~np.isnan(found)]
    if len(defined) < (1.0 - MOST_UNDEFINED) * len(found):
        raise BadInput(
            f"the metric is undefined on {len(found) - len(defined)} of {len(found)} resamples",
            where="labels",
            fix="evaluate on more rows",
        )
    wide = math.sqrt(units / (units - 1)) * t_quantile(0.5 + _level(level) / 2, units - 1)
    tail = NormalDist().cdf(-wide)
    low, high = (float(end) for end in np.quantile(defined, [tail, 1.0 - tail]))
    return Interval(
        estimate=estimate,
        low=min(low, estimate),
        high=max(high, estimate),
        level=level,
        method="cluster bootstrap" if clustered else "bootstrap",
        rows=rows,
        groups=units if clustered else 0,
    )


def _level(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise WrongUse(f"level={level!r} is not between 0 and 1", where="level")
    return level
