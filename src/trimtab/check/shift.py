"""Have inputs or predictions moved away from the reference? Betting on ranks, from batch histograms alone.

Every row has a mid-rank ``u`` in the reference (``check.histogram``). Bets watch ``u`` and ``1 - u`` (higher,
lower), for numbers also ``|2u - 1|`` and ``1 - |2u - 1|`` (wider, narrower). A bet for missing values, and
for categories one bet for each cell, watch shares. The null of a bet ``g`` says that its mean, given the
past, is at most

    m = (mean of g over the reference) + V*eps + material

where ``V`` is the total variation of ``g`` along the cells (1, 1, 2, 2) and ``eps`` bounds how far the
reference's distribution function lies from the true one (Dvoretzky-Kiefer-Wolfowitz with Massart's constant).
By Abel summation the mean of ``g`` under any distribution within ``eps`` of the reference is at most
``m - material``, ties or not. For a share, Chernoff's upper bound of the true share takes the place of the
first two terms. ``material`` is in AUC units for ranks and in share for shares, so that a large number of
rows does not turn a trifle into an alarm.

``e = 1 + c*(g/m - 1)``, for each ``c`` of a fixed grid, has mean at most 1 under the null, and the logarithm
of its product over a batch is ``counts . ln(e of the cells)``: only the batch's histogram is needed. The
stakes then run as in ``check.harm``, once a batch. The mean over features is again such a process under any
dependence, so a model has one alarm; e-BH (Wang and Ramdas 2022, "False discovery rate control with
e-values") names the features.

Compare Shaer, Bar, Prinster and Romano, arXiv 2602.13848 (fixed reference, robust to reference error). A
known limit: the null is conditional on the past, so rows that are alike over time (seasons, autocorrelation)
need a reference that covers them or a larger ``material``.

Updating is standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import mul

from msgspec import Struct
from msgspec.structs import replace

from trimtab.check.harm import CAP, Budget
from trimtab.check.histogram import Reference
from trimtab.core.errors import WrongUse

RANK_FRACTIONS = (0.04, 0.1, 0.2, 0.4, 0.8)
SHARE_FRACTIONS = (0.1, 0.3, 0.8)


class DriftState(Struct, frozen=True, kw_only=True):
    """The evidence of drift so far.

    Attributes:
        batches: looks since the start.
        rows: rows in them (of the feature with most).
        exposure: in the unit of the budget's run length.
        stakes: for each feature, one stake for each bet.
        peak: the largest evidence at any look.
        alarm_at: the batch (1, 2, ...) at which the evidence first reached the limit; 0 before.
    """

    stakes: dict[str, tuple[float, ...]]
    batches: int = 0
    rows: int = 0
    exposure: float = 0.0
    peak: float = 0.0
    alarm_at: int = 0


class FeatureEvidence(Struct, frozen=True, kw_only=True):
    """What one feature contributes.

    Attributes:
        feature: its name.
        e_value: its own e-value.
        share: of the evidence of all features together.
        change: the bet that gained most: ``higher``, ``lower``, ``wider``, ``narrower``, ``more missing`` or
            ``more CATEGORY``.
        named: e-BH names it.
    """

    feature: str
    e_value: float
    share: float
    change: str
    named: bool


class DriftProcess:
    """Watches all features of one model against their references with one budget of false alarms.

    It holds tables computed from the references and nothing that changes; what changes is the ``DriftState``
    that ``start`` returns and ``update`` replaces.

    Args:
        references: one for each feature (and for the prediction).
        budget: ``alpha``, or ``run_length`` in the unit of the updates' exposure (by default batches).
        material: the tolerated shift, in AUC units (ranks) or as a share.
        delta: the probability that a reference sample misleads about its own population by more than is
            allowed for; shared by all features. With the budget ``alpha`` a false alarm is ever raised with
            probability at most ``alpha + delta``.

    Raises:
        WrongUse: no references, two of one name, one without values, or a number out of range.
    """

    def __init__(
        self, references: Sequence[Reference], *, budget: Budget, material: float = 0.05, delta: float = 0.01
    ) -> None:
        if not references or len({reference.name for reference in references}) < len(references):
            raise WrongUse("drift needs at least one reference and one name for each", where="references")
        if not (0.0 <= material < 1.0 and 0.0 < delta < 1.0):
            raise WrongUse(f"material={material!r} or delta={delta!r} is not between 0 and 1", where="material")
        self.budget = budget
        self._cells = {reference.name: len(reference.counts) for reference in references}
        share = delta / len(references)
        self._bets = {reference.name: list(_bets(reference, material, share)) for reference in references}

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features, in the order of the references."""
        return tuple(self._bets)

    def start(self) -> DriftState:
        """Return the state before the first batch; also the state to go on with after an alarm."""
        return DriftState(stakes={name: (0.0,) * sum(map(len, bets)) for name, bets in self._bets.items()})

    def update(
        self,
        state: DriftState,
        counts: Mapping[str, Sequence[int]],
        exposure: float = 1.0,
        *,
        block: bool = False,
    ) -> DriftState:
        """Return the state after one batch.

        Args:
            state: of this process, as ``start`` or ``update`` returned it.
            counts: for each feature the batch's counts against its reference.
            exposure: what passed since the last batch, in the unit of the run length; it must not depend on
                the batch's values. The budget ``alpha`` does not use it.
            block: the rows of this batch are alike (one day, say) and count as a single observation: the mean of
                their bets, which is a bet itself whatever the rows have to do with each other.

        Raises:
            WrongUse: a feature's counts are missing or of another reference, the state is of another process
                or the exposure is negative.
        """
        if not 0.0 <= exposure < math.inf:
            raise WrongUse(f"an exposure of {exposure!r} is not zero or more", where="exposure")
        batch = state.batches + 1
        fresh = 1.0 / (batch * (batch + 1.0)) if self.budget.alpha is not None else exposure
        stakes = {
            name: self._after(name, state.stakes.get(name, ()), counts.get(name, ()), fresh, block)
            for name in self._bets
        }
        after = replace(
            state,
            stakes=stakes,
            batches=batch,
            rows=state.rows + max(sum(counts[name]) for name in self._bets),
            exposure=state.exposure + exposure,
        )
        evidence = self.evidence(after)
        reached = not state.alarm_at and evidence >= self.budget.limit
        return replace(after, peak=max(state.peak, evidence), alarm_at=batch if reached else state.alarm_at)

    def _after(
        self, name: str, stakes: Sequence[float], counts: Sequence[int], fresh: float, block: bool
    ) -> tuple[float, ...]:
        bets = self._bets[name]
        if len(counts) != self._cells[name]:
            raise WrongUse(f"{len(counts)} counts, but the reference of {name} has {self._cells[name]}", where=name)
        if len(stakes) != sum(map(len, bets)):
            raise WrongUse(f"the state is not of this process: {len(stakes)} stakes for {name}", where=name)
        measure = _log_of_mean if block else _log_of_product
        logs = (measure(counts, table) for bet in bets for table in bet.tables)
        return tuple(
            min((stake + fresh) * math.exp(min(log, 700.0)), CAP) for stake, log in zip(stakes, logs, strict=True)
        )

    def evidence(self, state: DriftState) -> float:
        """Return the evidence of all features together; the alarm is raised where it reaches the limit."""
        return math.fsum(self._feature(state, name) for name in self._bets) / len(self._bets)

    def _feature(self, state: DriftState, name: str) -> float:
        weights = (bet.weight / len(bet) for bet in self._bets[name] for _ in bet.tables)
        return math.fsum(map(mul, weights, state.stakes[name]))

    def findings(self, state: DriftState, level: float = 0.1) -> list[FeatureEvidence]:
        """Return what each feature contributes, the strongest first.

        With the budget ``alpha`` the e-values hold at any time; with ``run_length`` they are the evidence
        divided by the run length and hold within one run length of the start.

        Args:
            state: of this process.
            level: e-BH keeps the expected share of wrongly named features at or below this.
        """
        evidence = {name: self._feature(state, name) for name in self._bets}
        scale = self.budget.run_length or 1.0
        e_values = {name: value / scale for name, value in evidence.items()}
        named = set(e_bh(e_values, level))
        total = math.fsum(evidence.values())
        order = sorted(evidence, key=lambda name: -evidence[name])
        return [
            FeatureEvidence(
                feature=name,
                e_value=e_values[name],
                share=evidence[name] / total if total else 0.0,
                change=self._change(state, name),
                named=name in named,
            )
            for name in order
        ]

    def _change(self, state: DriftState, name: str) -> str:
        labels = (bet.label for bet in self._bets[name] for _ in bet.tables)
        return max(zip(state.stakes[name], labels, strict=True), key=lambda pair: pair[0])[1]


def e_bh(e_values: Mapping[str, float], level: float = 0.1) -> tuple[str, ...]:
    """Return the names with the ``k`` largest e-values, for the largest ``k`` with ``e_(k) >= F/(level*k)``.

    The expected share of wrong names is at most ``level`` under any dependence (Wang and Ramdas 2022).
    """
    if not 0.0 < level < 1.0:
        raise WrongUse(f"level={level!r} is not between 0 and 1", where="level")
    order = sorted(e_values, key=lambda name: -e_values[name])
    passing = [k for k, name in enumerate(order, 1) if e_values[name] * level * k >= len(order)]
    return tuple(order[: max(passing, default=0)])


class _Bet(Struct, frozen=True):
    """One watched quantity of a feature: for each stake size the logarithm of ``e`` in every cell."""

    label: str
    weight: float
    tables: tuple[tuple[float, ...], ...]

    def __len__(self) -> int:
        return len(self.tables)


def _bets(reference: Reference, material: float, delta: float) -> Iterator[_Bet]:
    """Yield the bets of one feature; their weights sum to 1.

    Half of ``delta`` pays for the distribution function, half for the shares.
    """
    present = reference.n - reference.missing
    if not present:
        raise WrongUse(f"the reference of {reference.name} has no values", where=reference.name)
    shares = [count / present for count in reference.counts[:-1]]
    categorical = reference.kind == "categorical"
    ranks = _mid_ranks(shares)
    watched = {
        "rarer values" if categorical else "higher": ranks,
        "commoner values" if categorical else "lower": [1.0 - rank for rank in ranks],
    }
    if not categorical:
        watched["wider"] = [abs(2.0 * rank - 1.0) for rank in ranks]
        watched["narrower"] = [1.0 - abs(2.0 * rank - 1.0) for rank in ranks]
    slack = math.sqrt(math.log(4.0 / delta) / (2 * present))
    for label, gains in watched.items():
        mean = math.fsum(map(mul, shares, gains))
        variation = math.fsum(abs(after - before) for before, after in pairwise(gains))
        null = mean + variation * slack + material
        # A missing value has no rank: it neither wins nor loses.
        tables = tuple((*(math.log1p(part * (gain / null - 1.0)) for gain in gains), 0.0) for part in RANK_FRACTIONS)
        yield _Bet(label, (0.5 if categorical else 0.8) / len(watched), tables)
    names = [*reference.categories, "other values"] if categorical else []
    each = delta / 2 / (len(names) + 1)
    weight = (0.5 if categorical else 0.2) / (len(names) + 1)
    for cell, name in enumerate(names):
        null = share_bound(reference.counts[cell], present, each) + material
        yield _Bet(f"more {name}", weight, _share_tables(cell, null, len(shares), 0.0))
    null = share_bound(reference.missing, reference.n, each) + material
    yield _Bet("more missing", weight, _share_tables(len(shares), null, len(shares), None))


def _log_of_product(counts: Sequence[int], table: Sequence[float]) -> float:
    """Return the logarithm of what a stake becomes when each row is bet on by itself."""
    return math.fsum(map(mul, counts, table))


def _log_of_mean(counts: Sequence[int], table: Sequence[float]) -> float:
    """Return the logarithm of what a stake becomes when the mean of the rows' bets is one bet."""
    rows = sum(counts)
    return math.log(math.fsum(map(mul, counts, map(math.exp, table))) / rows) if rows else 0.0


def _share_tables(cell: int, null: float, missing: int, of_missing: float | None) -> tuple[tuple[float, ...], ...]:
    """Return the tables of a bet on the share of one cell, which is at most ``null`` under the null."""
    tables = []
    for part in SHARE_FRACTIONS:
        table = [math.log1p(-part)] * (missing + 1)
        if of_missing is not None:
            table[missing] = of_missing
        table[cell] = math.log1p(part * (1.0 / null - 1.0))
        tables.append(tuple(table))
    return tuple(tables)


def share_bound(successes: int, n: int, delta: float) -> float:
    """Return an upper bound of the probability behind ``successes`` of ``n``, too small at most with ``delta``.

    It is the largest p with ``n*kl(successes/n, p) <= ln(1/delta)`` (Chernoff's inequality inverted): far
    tighter than Hoeffding's bound for what is rare.
    """
    share, limit = successes / n, -math.log(delta) / n

    def distance(p: float) -> float:
        hit = share * math.log(share / p) if share else 0.0
        return hit + ((1.0 - share) * math.log((1.0 - share) / (1.0 - p)) if share < 1.0 else 0.0)

    low, high = share, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if middle >= 1.0:
            break
        low, high = (middle, high) if distance(middle) <= limit else (low, middle)
    return high


def _mid_ranks(shares: Sequence[float]) -> list[float]:
    ranks, below = [], 0.0
    for share in shares:
        ranks.append(min(below + share / 2, 1.0))
        below += share
    return ranks
