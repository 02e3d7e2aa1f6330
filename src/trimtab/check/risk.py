"""Is one arm's risk higher than the other's? An e-process on bad events, valid however often one looks.

Each request is routed to the candidate ("canary") with a recorded probability ``w`` that was fixed before
its outcome. Given that a bad event happened, it came from the canary with probability
``r*w / (r*w + 1 - w)`` where ``r`` is the risk ratio canary / stable: the base rate cancels, so a rate that
moves with the time of day or an incident that hits both arms costs nothing. Betting on a fixed grid of
ratios above the null ratio ``r0`` gives a non-negative supermartingale that starts at 1; by Ville's
inequality it ever reaches ``1/alpha`` with probability at most ``alpha`` while the null holds.

Sources: Ville (1939); Robbins, "Statistical methods related to the law of the iterated logarithm" (1970),
for mixtures; Johari, Koomen, Pekelis and Walsh, "Always valid inference" (2022); Vovk and Wang, "E-values:
calibration, combination and applications" (2021), for the mean rule.

The unit of evidence is the unit of randomisation: with sticky sessions count at most one event a session.
This module is standard library only, because the process that judges rollouts must stay light.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from trimtab.core.errors import WrongUse

Side = Literal["harm", "non_inferiority"]
Tally = tuple[tuple[float, int, int], ...]

GRID = 40
LOG_RATIOS = tuple(math.log(1.05) + (math.log(20.0) - math.log(1.05)) * index / (GRID - 1) for index in range(GRID))
_RAW = tuple(math.exp(-log_ratio * log_ratio / 2) for log_ratio in LOG_RATIOS)
LOG_PRIOR = tuple(math.log(weight / math.fsum(_RAW)) for weight in _RAW)
LOG_CAP = 690.0
"""Evidence is shown as at most exp(690), so that every number fits in JSON."""

_FARTHEST = math.log(1e6)


class RiskRatioProcess(Struct, frozen=True, kw_only=True):
    """The evidence so far that the canary's risk ratio is above ``r0`` (harm) or below it (non-inferiority).

    The evidence is a function of the tally alone, so it does not depend on the order of the events nor on
    how often the state was stored and read; only ``max_log_e`` remembers the path.

    Attributes:
        r0: the risk ratio canary / stable at the border of the null; the null is "at most ``r0``" for harm
            and "at least ``r0``" for non-inferiority.
        side: which way the evidence points.
        tally: for each routing probability ``w``: (``w``, bad events of the canary, of the stable arm). A
            rollout has one entry a step; time and memory grow with the distinct probabilities.
        max_log_e: the largest natural logarithm of the e-value at any update; at least 0.
    """

    r0: float = 1.0
    side: Side = "harm"
    tally: Tally = ()
    max_log_e: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.r0) and self.r0 > 0):
            raise WrongUse(f"a risk ratio of {self.r0!r} is not positive and finite", where="r0")

    def update(self, w: float, from_canary: bool, count: int = 1) -> RiskRatioProcess:
        """Return the state after ``count`` bad events of one arm.

        Args:
            w: the probability, fixed before the outcome, with which the request was routed to the canary.
                At 0 or 1 there was no choice, so the event says nothing and the state stays as it is.
            from_canary: which arm answered.
            count: events of that kind seen since the last look.

        Raises:
            WrongUse: ``w`` is no probability or ``count`` is negative.
        """
        return self.update_many(w, canary=count if from_canary else 0, stable=0 if from_canary else count)

    def update_many(self, w: float, *, canary: int = 0, stable: int = 0) -> RiskRatioProcess:
        """Return the state after bad events of both arms that were routed with ``w``; one look for all.

        Raises:
            WrongUse: ``w`` is no probability or a count is negative.
        """
        if not 0.0 <= w <= 1.0:
            raise WrongUse(f"a routing probability of {w!r} is not between 0 and 1", where="w")
        if canary < 0 or stable < 0:
            raise WrongUse(f"counts of events cannot be negative: {canary}, {stable}", where="count")
        if w in (0.0, 1.0) or canary + stable == 0:
            return self
        entries = {weight: (of_canary, of_stable) for weight, of_canary, of_stable in self.tally}
        old_canary, old_stable = entries.get(w, (0, 0))
        entries[w] = (old_canary + canary, old_stable + stable)
        tally = tuple((weight, *entries[weight]) for weight in sorted(entries))
        reached = max(self.max_log_e, log_evidence(tally, self.r0, self.side))
        return replace(self, tally=tally, max_log_e=reached)

    @property
    def log_e(self) -> float:
        """The natural logarithm of the e-value now."""
        return log_evidence(self.tally, self.r0, self.side)

    @property
    def e_value(self) -> float:
        """The e-value now: 1 at the start; reaching ``1/alpha`` at any time rejects the null at ``alpha``."""
        return math.exp(min(self.log_e, LOG_CAP))

    @property
    def max_e_value(self) -> float:
        """The largest e-value at any update."""
        return math.exp(min(self.max_log_e, LOG_CAP))

    @property
    def p_value(self) -> float:
        """The always-valid p-value: one over the largest e-value."""
        return math.exp(-self.max_log_e)

    @property
    def events_canary(self) -> int:
        """Bad events of the canary that carried information."""
        return sum(of_canary for _, of_canary, _ in self.tally)

    @property
    def events_stable(self) -> int:
        """Bad events of the stable arm that carried information."""
        return sum(of_stable for _, _, of_stable in self.tally)

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Return the confidence sequence for the risk ratio now; see ``risk_ratio_interval``."""
        return risk_ratio_interval(self.tally, alpha)

    def smallest_detectable_ratio(self, alpha: float = 0.05, power: float = 0.8) -> float:
        """Return the smallest harm that this many bad events had ``power`` to show.

        The events seen are taken for what two equal arms would have had, so this belongs to a verdict that
        found no harm.
        """
        events = [(w, float(of_canary + of_stable)) for w, of_canary, of_stable in self.tally]
        return smallest_detectable_ratio(events, alpha=alpha, power=power)


def harm(r0: float = 1.0) -> RiskRatioProcess:
    """Return the start of a process against "the canary's risk is at most ``r0`` times the stable arm's"."""
    return RiskRatioProcess(r0=r0, side="harm")


def non_inferiority(margin: float) -> RiskRatioProcess:
    """Return the start of a process against "the canary's risk is at least ``1 + margin`` times as high".

    It is the harm process with the arms swapped: reaching ``1/alpha`` proves, at level ``alpha``, that the
    canary is worse by less than ``margin``.

    Raises:
        WrongUse: ``margin`` is not positive; an equal version could then never be proven.
    """
    if not margin > 0:
        raise WrongUse(f"a margin of {margin!r} can never be proven", where="margin", fix="such as 0.5")
    return RiskRatioProcess(r0=1.0 + margin, side="non_inferiority")


def log_evidence(tally: Tally, r0: float, side: Side = "harm") -> float:
    """Return the natural logarithm of the e-value of a tally against the null ratio ``r0``.

    With ``rho_j = r0*r_j`` (harm) or ``r0/r_j`` (non-inferiority) and ``D(rho, w) = rho*w + 1 - w`` the
    evidence of one grid point is ``X*ln(rho_j/r0) - sum_w n_w*ln(D(rho_j, w)/D(r0, w))``, where ``X`` counts
    the canary's events and ``n_w`` all events that were routed with ``w``.
    """
    canary = sum(of_canary for _, of_canary, _ in tally)
    sign = 1.0 if side == "harm" else -1.0
    logs = [prior + sign * canary * log_ratio for prior, log_ratio in zip(LOG_PRIOR, LOG_RATIOS, strict=True)]
    for w, of_canary, of_stable in tally:
        events = of_canary + of_stable
        for index, cost in enumerate(_costs(w, r0, side)):
            logs[index] -= events * cost
    return log_sum_exp(logs)


@lru_cache(maxsize=4096)
def _costs(w: float, r0: float, side: Side) -> tuple[float, ...]:
    sign = 1.0 if side == "harm" else -1.0
    null = r0 * w + 1.0 - w
    return tuple(math.log((r0 * math.exp(sign * log_ratio) * w + 1.0 - w) / null) for log_ratio in LOG_RATIOS)


def log_sum_exp(values: Iterable[float]) -> float:
    """Return ``ln(sum(exp(v)))`` without overflow; minus infinity for nothing."""
    items = list(values)
    top = max(items, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in items))


def risk_ratio_interval(tally: Tally, alpha: float = 0.05) -> tuple[float, float]:
    """Return a confidence sequence for the risk ratio: it covers at all times at once with ``1 - alpha``.

    It is the set of ratios that neither the harm nor the non-inferiority process rejects at ``alpha/2``.
    The log-likelihood is concave in the logarithm of the ratio, so evidence of harm falls and evidence of
    non-inferiority rises with the null ratio, and the set is an interval whose ends bisection finds.

    Returns:
        The lower end (0 where it lies below 1e-6) and the upper end (infinite where it lies above 1e6).

    Raises:
        WrongUse: ``alpha`` is not between 0 and 1.
    """
    limit = math.log(2.0 / _share(alpha, "alpha"))

    def rejected_as_too_small(log_ratio: float) -> bool:
        return log_evidence(tally, math.exp(log_ratio), "harm") >= limit

    def rejected_as_too_large(log_ratio: float) -> bool:
        return log_evidence(tally, math.exp(log_ratio), "non_inferiority") >= limit

    low, high = 0.0, math.inf
    if rejected_as_too_small(-_FARTHEST):
        low = math.exp(_border(rejected_as_too_small, -_FARTHEST, _FARTHEST))
    if rejected_as_too_large(_FARTHEST):
        high = math.exp(_border(rejected_as_too_large, _FARTHEST, -_FARTHEST))
    return low, high


def smallest_detectable_ratio(
    events: Iterable[tuple[float, float]], *, alpha: float = 0.05, power: float = 0.8, r0: float = 1.0
) -> float:
    """Return the smallest risk ratio that the harm process shows with probability ``power`` by its last look.

    Approximation, all closed form: the canary's and the stable arm's bad events are independent Poisson
    counts; the evidence of each grid point is replaced by its ``1 - power`` quantile, taken with the first
    Cornish-Fisher correction for skewness; the grid points, which are nearly comonotone, are mixed after
    that. Crossings before the last look are not counted, so the true power is a little higher.

    Args:
        events: for each routing probability ``w``: (``w``, the bad events that both arms together would have
            if their risks were equal).
        alpha: the level of the process.
        power: the probability of detection asked for.
        r0: the null ratio.

    Returns:
        A ratio above ``r0``, or infinity where not even 1000 times the risk would be seen.

    Raises:
        WrongUse: ``alpha`` or ``power`` is not between 0 and 1, ``w`` is no probability, or a number of
            events is negative.
    """
    limit = -math.log(_share(alpha, "alpha"))
    z = NormalDist().inv_cdf(1.0 - _share(power, "power"))
    pairs = [(w, count) for w, count in events if 0.0 < w < 1.0 and count]
    if any(count < 0 for _, count in pairs):
        raise WrongUse("a number of events cannot be negative", where="events")

    def missed(log_ratio: float) -> bool:
        return _evidence_quantile(pairs, math.exp(log_ratio), z, r0) < limit

    start, end = math.log(r0), math.log(1000.0 * r0)
    if not pairs or missed(end):
        return math.inf
    return math.exp(_border(missed, start, end))


def _evidence_quantile(pairs: list[tuple[float, float]], ratio: float, z: float, r0: float) -> float:
    logs = []
    costs = [_costs(w, r0, "harm") for w, _ in pairs]
    for index, (prior, log_ratio) in enumerate(zip(LOG_PRIOR, LOG_RATIOS, strict=True)):
        mean = variance = third = 0.0
        for (w, count), cost in zip(pairs, costs, strict=True):
            for expected, step in (
                (count * w * ratio, log_ratio - cost[index]),
                (count * (1.0 - w), -cost[index]),
            ):
                mean += expected * step
                variance += expected * step * step
                third += expected * step**3
        shift = z * math.sqrt(variance) + (z * z - 1.0) * third / (6.0 * variance)
        logs.append(prior + mean + shift)
    return log_sum_exp(logs)


def _border(holds: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the point between ``inside`` (where ``holds``) and ``outside`` at which it stops to hold."""
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return outside


class Combination(Struct, frozen=True, kw_only=True):
    """One judgement from several e-values, valid under any dependence between them.

    Attributes:
        e_value: the weighted mean.
        reached: it is at least ``1/alpha``.
        named: those that suffice alone: ``e >= 1/(alpha*weight)``, which for equal weights is ``m/alpha``.
            Such a one makes the mean reach ``1/alpha`` too, so the two rules share one ``alpha``.
    """

    e_value: float
    reached: bool
    named: tuple[str, ...]


def combine(
    e_values: Mapping[str, float], alpha: float = 0.05, weights: Mapping[str, float] | None = None
) -> Combination:
    """Return the weighted mean of e-values and whether it rejects "all nulls hold" at ``alpha``.

    Args:
        e_values: by name, all taken at the same look.
        alpha: the level of the joint judgement.
        weights: by name, not negative; scaled to sum to 1. Equal by default. They must not depend on the
            evidence.

    Raises:
        WrongUse: nothing to combine, a negative e-value, or weights that do not fit.
    """
    share = _share(alpha, "alpha")
    if not e_values:
        raise WrongUse("there is no e-value to combine", where="e_values")
    if any(not value >= 0 for value in e_values.values()):
        raise WrongUse(f"an e-value is never negative: {dict(e_values)!r}", where="e_values")
    chosen = dict.fromkeys(e_values, 1.0) if weights is None else dict(weights)
    total = math.fsum(chosen.values())
    if chosen.keys() != e_values.keys() or min(chosen.values()) < 0 or not total > 0:
        raise WrongUse("give one weight, not negative, for each e-value", where="weights")
    parts = {name: e_values[name] * chosen[name] / total for name in e_values}
    # Compared part by part too: rounding in the sum must not lose what one part alone has shown.
    named = tuple(name for name, part in parts.items() if part * share >= 1.0)
    mean = math.fsum(parts.values())
    return Combination(e_value=mean, reached=mean * share >= 1.0 or bool(named), named=named)


def _share(value: float, name: str) -> float:
    if not 0.0 < value < 1.0:
        raise WrongUse(f"{name}={value!r} is not between 0 and 1", where=name)
    return value
