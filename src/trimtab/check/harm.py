"""Has the mean loss risen above what was promised? Betting on losses as their labels arrive.

Losses lie in [0, 1]. The null says that the expected loss, given the past, is at most ``m`` at every step;
``m`` is an upper confidence bound of the risk on held-back rows plus the rise that is tolerated. Each bet
multiplies its stake by ``e = 1 + lam*(loss - m)``, which has mean at most 1 under the null.

* Budget ``ever``: ``M_t = e_t*(M_{t-1} + w_t)`` with ``w_t = 1/(t*(t+1))`` is a mixture over the unknown time
  of the change; ``M_t`` plus the stakes not yet placed is a non-negative supermartingale that starts at 1, so
  ``M`` ever reaches ``1/alpha`` with probability at most ``alpha`` (Ville 1939).
* Budget ``run length``: ``R_t = e_t*(R_{t-1} + x_t)`` (Shiryaev-Roberts) where ``x_t`` is the exposure: one
  observation, say, or the part of a year that passed. ``R`` minus the exposure so far is a supermartingale,
  so the mean exposure until a false alarm at ``R >= A`` is at least ``A``, and one falls into the first ``x``
  with probability at most ``x/A``. It finds a change sooner.

Sources: Podkopaev and Ramdas, "Tracking the risk of a deployed model and detecting harmful distribution
shifts" (2022, arXiv 2110.06177); Shin, Ramdas and Rinaldo, "E-detectors" (2023, arXiv 2203.03532);
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024, arXiv 2010.09686);
Maurer and Pontil, "Empirical Bernstein bounds" (2009, theorem 4).

This module is standard library only, because the processes that watch must stay light.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from trimtab.core.errors import BadInput, WrongUse

LAMBDAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
CAP = 1e280
"""A stake grows no further than this: far beyond any limit, and still a number after the next step."""


class Budget(Struct, frozen=True, kw_only=True):
    """How many false alarms are allowed: a probability of ever raising one, or a mean exposure between two.

    Attributes:
        alpha: the probability of ever raising a false alarm, or None.
        run_length: the mean exposure until a false alarm, in the unit of the updates' exposure, or None.
    """

    alpha: float | None = None
    run_length: float | None = None

    def __post_init__(self) -> None:
        if (self.alpha is None) == (self.run_length is None):
            raise WrongUse("a budget has either alpha or run_length", where="false_alarms")
        if self.alpha is not None and not 0.0 < self.alpha < 1.0:
            raise WrongUse(f"alpha={self.alpha!r} is not between 0 and 1", where="false_alarms")
        if self.run_length is not None and not 0.0 < self.run_length < math.inf:
            raise WrongUse(f"run_length={self.run_length!r} is not positive", where="false_alarms")

    @property
    def limit(self) -> float:
        """The evidence at which the alarm is raised."""
        if self.alpha is not None:
            return 1.0 / self.alpha
        assert self.run_length is not None
        return self.run_length


class HarmProcess(Struct, frozen=True, kw_only=True):
    """The evidence so far that the mean loss has risen above ``null``, since some unknown time.

    Attributes:
        null: ``m``: the largest mean loss that is no harm; above 0, at most 1 (at 1 nothing is ever found).
        budget: of false alarms.
        observations: losses seen since the start or the last ``restart``.
        exposure: the exposure so far, in the unit of ``budget.run_length``.
        total: sum of the losses seen.
        stakes: one for each bet; empty before the first loss.
        peak: the largest evidence at any observation.
        alarm_at: the observation (1, 2, ...) at which the evidence first reached the limit; 0 before.
    """

    null: float
    budget: Budget
    observations: int = 0
    exposure: float = 0.0
    total: float = 0.0
    stakes: tuple[float, ...] = ()
    peak: float = 0.0
    alarm_at: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.null <= 1.0:
            raise WrongUse(f"a null mean of {self.null!r} is not above 0 and at most 1", where="null")

    def update(self, loss: float, exposure: float = 1.0) -> HarmProcess:
        """Return the state after one loss; ``exposure`` as in ``update_many``."""
        return self.update_many((loss,), exposure)

    def update_many(self, losses: Sequence[float], exposure: float | None = None) -> HarmProcess:
        """Return the state after losses in their order; every one of them is a look.

        Args:
            losses: each in [0, 1].
            exposure: what passed since the last update, in the unit of ``budget.run_length``; it is spread
                evenly over the losses and must not depend on them. By default 1 for each loss. The ``ever``
                budget does not use it.

        Raises:
            BadInput: a loss is not in [0, 1]; the message names its place. Nothing of the batch counts then.
            WrongUse: the exposure is negative.
        """
        items = [float(loss) for loss in losses]
        for index, loss in enumerate(items):
            if not 0.0 <= loss <= 1.0:
                raise BadInput(f"loss {loss!r} is not in [0, 1]", where=f"losses[{index}]", fix="clip and scale")
        passed = float(len(items)) if exposure is None else exposure
        if not 0.0 <= passed < math.inf:
            raise WrongUse(f"an exposure of {passed!r} is not zero or more", where="exposure")
        if not items:
            return replace(self, exposure=self.exposure + passed)
        return self._after(items, passed / len(items))

    def _after(self, items: list[float], each: float) -> HarmProcess:
        bets = bet_sizes(self.null)
        stakes = list(self.stakes) or [0.0] * len(bets)
        ever, limit = self.budget.alpha is not None, self.budget.limit
        seen, peak, alarm_at = self.observations, self.peak, self.alarm_at
        for loss in items:
            seen += 1
            fresh = 1.0 / (seen * (seen + 1.0)) if ever else each
            gain = loss - self.null
            evidence = 0.0
            for index, lam in enumerate(bets):
                stake = (stakes[index] + fresh) * (1.0 + lam * gain)
                stakes[index] = stake if stake < CAP else CAP
                evidence += stakes[index]
            evidence /= len(bets)
            if evidence > peak:
                peak = evidence
                if not alarm_at and evidence >= limit:
                    alarm_at = seen
        return replace(
            self,
            observations=seen,
            exposure=self.exposure + each * len(items),
            total=self.total + math.fsum(items),
            stakes=tuple(stakes),
            peak=peak,
            alarm_at=alarm_at,
        )

    @property
    def evidence(self) -> float:
        """The mean stake now; the alarm is raised where it reaches ``budget.limit``."""
        return math.fsum(self.stakes) / len(self.stakes) if self.stakes else 0.0

    @property
    def alarmed(self) -> bool:
        """The evidence has reached the limit at some observation since the last restart."""
        return self.alarm_at > 0

    @property
    def mean(self) -> float | None:
        """The mean loss since the last restart, or None before the first loss."""
        return self.total / self.observations if self.observations else None

    def restart(self, null: float | None = None) -> HarmProcess:
        """Return the state at the start again, as after an alarm or a new version; ``null`` may be new.

        With the budget ``ever`` each restart spends ``alpha`` again.
        """
        return HarmProcess(null=self.null if null is None else null, budget=self.budget)


def bet_sizes(null: float) -> tuple[float, ...]:
    """Return the bets of the fixed grid that can lose at most nine tenths of the stake at this null mean."""
    return tuple(lam for lam in LAMBDAS if lam < 0.9 / null)


def source_risk_bound(mean: float, n: int, variance: float | None = None, delta: float = 0.01) -> float:
    """Return an upper bound of the true risk from ``n`` held-back losses in [0, 1], wrong with ``delta``.

    Hoeffding's bound and the empirical Bernstein bound (Maurer and Pontil 2009, theorem 4) with ``delta/2``
    each; the smaller one, at most 1. It takes the rows to be independent: where rows of one day are alike
    the bound is too small, and the tolerance has to cover that.

    Args:
        mean: of the losses.
        n: how many there are.
        variance: their sample variance (divisor ``n - 1``); without it only Hoeffding's bound, with the whole
            ``delta``.
        delta: the probability of being too small.

    Raises:
        WrongUse: ``mean`` is not in [0, 1], ``n`` is not positive, ``variance`` is negative or ``delta`` is
            not between 0 and 1.
    """
    if not (0.0 <= mean <= 1.0 and n >= 1 and 0.0 < delta < 1.0):
        raise WrongUse(f"mean={mean!r}, n={n!r}, delta={delta!r} describe no held-back losses", where="mean")
    if variance is None or n < 2:
        return min(1.0, mean + math.sqrt(math.log(1.0 / delta) / (2 * n)))
    if not variance >= 0:
        raise WrongUse(f"a variance of {variance!r} is negative", where="variance")
    hoeffding = math.sqrt(math.log(2.0 / delta) / (2 * n))
    spread = math.log(4.0 / delta)
    bernstein = math.sqrt(2.0 * variance * spread / n) + 7.0 * spread / (3.0 * (n - 1))
    return min(1.0, mean + min(hoeffding, bernstein))


def null_mean(mean: float, n: int, variance: float | None = None, *, tolerance: float, delta: float = 0.01) -> float:
    """Return ``m`` for ``HarmProcess``: the risk's upper bound plus the tolerated rise, at most 1.

    False alarms are then within the budget with probability ``1 - delta`` over the held-back rows; with the
    budget ``ever`` that adds up to ``alpha + delta``.
    """
    if not 0.0 <= tolerance <= 1.0:
        raise WrongUse(f"tolerance={tolerance!r} is not between 0 and 1", where="tolerance")
    return min(1.0, max(source_risk_bound(mean, n, variance, delta) + tolerance, 1e-6))


BINS = 256
_FRACTIONS = tuple(0.9 * 2.0**-step for step in range(12))


class MeanSequence(Struct, frozen=True, kw_only=True):
    """A confidence sequence for the mean of losses in [0, 1]: its band covers at all times at once.

    The state is a tally, so it does not depend on order and two of them can be merged. A loss between two
    of the 256 marks counts as the lower one where the lower end of the band is made and as the upper one
    where the upper end is made: the band stays valid and grows by at most 1/256 (by nothing for 0/1 losses).

    Attributes:
        floors: how many losses fell to each mark when rounded down.
        ceilings: the same, rounded up.
        total: sum of the losses.
    """

    floors: tuple[int, ...] = (0,) * (BINS + 1)
    ceilings: tuple[int, ...] = (0,) * (BINS + 1)
    total: float = 0.0

    def update_many(self, losses: Iterable[float]) -> MeanSequence:
        """Return the state after more losses.

        Raises:
            BadInput: a loss is not in [0, 1].
        """
        items = [float(loss) for loss in losses]
        floors, ceilings = list(self.floors), list(self.ceilings)
        for index, loss in enumerate(items):
            if not 0.0 <= loss <= 1.0:
                raise BadInput(f"loss {loss!r} is not in [0, 1]", where=f"losses[{index}]", fix="clip and scale")
            floors[math.floor(loss * BINS)] += 1
            ceilings[math.ceil(loss * BINS)] += 1
        return MeanSequence(floors=tuple(floors), ceilings=tuple(ceilings), total=self.total + math.fsum(items))

    def merge(self, other: MeanSequence) -> MeanSequence:
        """Return the state of both streams together."""
        return MeanSequence(
            floors=tuple(map(sum, zip(self.floors, other.floors, strict=True))),
            ceilings=tuple(map(sum, zip(self.ceilings, other.ceilings, strict=True))),
            total=self.total + other.total,
        )

    @property
    def n(self) -> int:
        """Losses seen."""
        return sum(self.floors)

    @property
    def mean(self) -> float | None:
        """The mean loss, or None before the first."""
        return self.total / self.n if self.n else None

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Return the band now: all means that no one-sided bet from the start rejects at ``alpha/2``.

        Bets of the size ``c/m`` are used, ``c`` on a fixed grid, so that the evidence against "the mean is at
        most m" falls as ``m`` rises and bisection finds where it passes ``2/alpha``.

        Raises:
            WrongUse: ``alpha`` is not between 0 and 1.
        """
        if not 0.0 < alpha < 1.0:
            raise WrongUse(f"alpha={alpha!r} is not between 0 and 1", where="alpha")
        low = _lower_end(self.floors, 2.0 / alpha)
        high = 1.0 - _lower_end(self.ceilings[::-1], 2.0 / alpha)
        return low, high


def _lower_end(tally: Sequence[int], limit: float) -> float:
    """Return the largest mean ``m`` such that "the mean is at most m" is rejected; 0 where none is."""
    cells = [(mark / BINS, count) for mark, count in enumerate(tally) if count]
    threshold = math.log(limit * len(_FRACTIONS))

    def rejected(mean: float) -> bool:
        logs = [
            math.fsum(count * math.log1p(part * (value / mean - 1.0)) for value, count in cells) for part in _FRACTIONS
        ]
        top = max(logs)
        return top + math.log(math.fsum(math.exp(log - top) for log in logs)) >= threshold

    low, high = 0.0, 1.0
    for _ in range(26):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
