"""Histograms anchored on a reference: bins are cut once, where the reference has its mass, and then counted.

A batch of a feature becomes one short list of counts; lists add up, so batches, workers and hours merge
exactly. Alarms (``check.shift``) and the distances that are shown both need nothing but these counts. The
distances are for people: their size depends on the number of rows, and no threshold on them bounds false
alarms.

Ties and discrete features. A value's rank is the *mid-rank* of its bin in the reference: the share of the
reference below the bin plus half the share inside it. Any value that alone holds at least one bin's share
gets a bin of its own, so a feature with few levels is counted level by level. Averaged over the reference
itself the mid-rank is exactly 1/2 whatever the ties, and its mean over a batch minus 1/2 is exactly
``P(new > reference) + P(equal)/2 - 1/2`` as far as the bins can tell: AUC units.

Values outside the reference's range have bins of their own, which are empty in the reference; missing values
are counted apart and have no rank. Categories are ordered by their frequency in a fifth of the reference
rows, and only the other rows are counted: an order chosen from the counted rows themselves would make the
sampling bounds of ``check.shift`` wrong.

Counting is standard library only; building a reference uses numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate, pairwise
from numbers import Real
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from trimtab.core.errors import BadInput, WrongUse
from trimtab.core.optional import need

_LARGEST = 1e150  # sums and squares of what is clipped to this stay finite

BINS = 64
TOP = 32
SELECT_EVERY = 5
Counts = tuple[int, ...]
"""One number for each bin or category, and the number of missing values last."""


class Reference(Struct, frozen=True, kw_only=True):
    """One feature of the reference sample: how to count a batch of it, and the reference's own counts.

    Attributes:
        name: of the feature.
        kind: ``numeric`` or ``categorical``.
        edges: numeric: cell ``k`` holds the values above ``edges[k-1]`` and up to ``edges[k]``.
        categories: categorical: cell ``k`` holds this category; the cell after the last holds all others.
        counts: the reference's counts, missing values last.
        centres: numeric: the mean of the reference in each cell (for a cell that is empty there, the point
            of the cell nearest to the reference).
        spread: numeric: the reference's standard deviation.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    counts: Counts
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    centres: tuple[float, ...] = ()
    spread: float = 0.0

    @property
    def cells(self) -> int:
        """How many cells hold values; missing values are not among them."""
        return len(self.counts) - 1

    @property
    def n(self) -> int:
        """Reference rows counted, missing ones included."""
        return sum(self.counts)

    @property
    def missing(self) -> int:
        """Missing values among the reference rows counted."""
        return self.counts[-1]

    def empty(self) -> Counts:
        """Return the counts of no rows."""
        return (0,) * len(self.counts)

    def count(self, values: Iterable[Any]) -> Counts:
        """Return the counts of a batch; None and NaN are missing.

        Args:
            values: any iterable; items are numbers (numeric) or anything with a text (categorical).

        Raises:
            BadInput: a value of a numeric feature is not a number; the message names feature and row.
        """
        return self._count_numbers(values) if self.kind == "numeric" else self._count_labels(values)

    def _count_numbers(self, values: Iterable[Any]) -> Counts:
        counts = [0] * len(self.counts)
        edges = self.edges
        for row, value in enumerate(values):
            try:
                counts[-1 if value is None or value != value else bisect_left(edges, value)] += 1
            except TypeError as error:
                if not _absent(value):
                    raise BadInput(
                        f"{value!r} is not a number, and {self.name} is numeric in the reference",
                        where=f"{self.name}[{row}]",
                        fix="send a number or null",
                    ) from error
                counts[-1] += 1
        return tuple(counts)

    def _count_labels(self, values: Iterable[Any]) -> Counts:
        place = {category: index for index, category in enumerate(self.categories)}
        other = len(self.categories)
        counts = [0] * len(self.counts)
        for value, times in Counter(map(category_of, values)).items():
            counts[-1 if value is None else place.get(value, other)] += times
        return tuple(counts)


def category_of(value: Any) -> str | None:
    """Return the text under which a categorical value is counted, or None where it is missing.

    1, 1.0, numpy's 1 and ``"1"`` are one category; so are True, ``"True"`` and ``"true"``.
    """
    if isinstance(value, str):
        return "true" if value == "True" else "false" if value == "False" else str(value)
    plain = value.item() if hasattr(value, "item") else value
    if _absent(plain):
        return None
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, float) and plain.is_integer():
        return str(int(plain))
    return str(plain)


def same_class(label: object, other: object) -> bool:
    """Say whether two class labels mean the same: JSON, files and frames write one label in several ways."""
    return label == other or (label is not None and category_of(label) == category_of(other))


def _absent(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True  # pandas.NA does not say whether it equals itself


def merge(first: Sequence[int], second: Sequence[int]) -> Counts:
    """Return the counts of two batches together.

    Raises:
        WrongUse: they were not counted against the same reference.
    """
    if len(first) != len(second):
        raise WrongUse(
            f"counts of {len(first)} and of {len(second)} cells do not belong to one reference",
            where="counts",
        )
    return tuple(map(sum, zip(first, second, strict=True)))


def build_reference(
    name: str,
    values: Iterable[Any],
    *,
    kind: Literal["numeric", "categorical"] | None = None,
    bins: int = BINS,
    top: int = TOP,
) -> Reference:
    """Return the reference of one feature from its reference sample.

    Args:
        name: of the feature; errors name it.
        values: a list, a numpy array, a polars or pandas series; None and NaN are missing.
        kind: by default numeric where every value that is not missing is a number (bool included).
        bins: numeric: quantile bins aimed at; ties make fewer, values with a bin of their own make more.
        top: categorical: how many categories keep a cell of their own.

    Raises:
        BadInput: no value is there, or a value of a numeric feature is not a number.
    """
    array = _floats(values) if kind != "categorical" else None
    if array is not None:
        np = need("numpy")
        numbers = array[~np.isnan(array)]
        if len(numbers):
            return _numeric(name, numbers, len(array) - len(numbers), max(2, bins))
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    present = [value for value in items if not _absent(value)]
    if not present:
        raise BadInput(
            f"the reference sample of {name} has no value that is not missing",
            where=name,
            fix="drop the column",
        )
    if kind == "categorical" or (kind is None and not all(isinstance(v, Real | Decimal) for v in present)):
        return _categorical(name, items, max(1, top))
    try:
        numbers = need("numpy").asarray(present, dtype="float64")
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} has values that are not numbers: {error}", where=name) from error
    return _numeric(name, numbers, len(items) - len(present), max(2, bins))


def _floats(values: Any) -> Any:
    """Return a typed array or series of numbers as float64 with NaN where missing; None for anything else."""
    if not hasattr(values, "dtype"):
        return None
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    return array.astype("float64") if array.dtype.kind in "iufb" and array.ndim == 1 else None


def _numeric(name: str, numbers: Any, missing: int, bins: int) -> Reference:
    np = need("numpy")
    ordered = np.sort(numbers)
    edges = _edges(ordered, bins)
    cell = np.searchsorted(np.asarray(edges), ordered, side="left")
    counts = np.bincount(cell, minlength=len(edges) + 1)
    # The clip keeps infinite values out of the sums, the shift keeps the digits of a feature far from zero.
    finite = np.clip(ordered, -_LARGEST, _LARGEST)
    middle = float(finite[len(finite) // 2])
    sums = np.bincount(cell, weights=finite - middle, minlength=len(edges) + 1)
    bounds = [float(bound) for bound in np.clip([finite[0], *edges, finite[-1]], -_LARGEST, _LARGEST)]
    centres = (
        middle + float(total) / int(count) if count else (low + high) / 2
        for total, count, low, high in zip(sums, counts, bounds, bounds[1:], strict=False)
    )
    return Reference(
        name=name,
        kind="numeric",
        counts=(*map(int, counts), missing),
        edges=tuple(edges),
        centres=tuple(accumulate(centres, max)),  # rounding must not turn their order
        spread=float(np.std(finite - middle)),
    )


def _edges(ordered: Any, bins: int) -> list[float]:
    np = need("numpy")
    size = len(ordered)
    places = [math.ceil(size * step / bins) - 1 for step in range(1, bins)]
    edges = {float(ordered[place]) for place in places if place >= 0}
    distinct, times = np.unique(ordered, return_counts=True)
    for value in distinct[times * bins >= size].tolist():
        edges |= {value, math.nextafter(value, -math.inf)}
    edges |= {math.nextafter(float(ordered[0]), -math.inf), float(ordered[-1])}
    # JSON has no infinity; values beyond the last finite edge share the outermost cell.
    return sorted(edge for edge in edges if math.isfinite(edge))


def _categorical(name: str, items: list[Any], top: int) -> Reference:
    labels = [category_of(value) for value in items]
    chooses = [_chooses(row) for row in range(len(labels))]
    votes = Counter(label for label, yes in zip(labels, chooses, strict=True) if yes and label is not None)
    counted = [label for label, yes in zip(labels, chooses, strict=True) if not yes]
    if not votes or not any(label is not None for label in counted):
        raise BadInput(
            f"the reference sample of {name} is too small to order categories and to count them",
            where=name,
            fix="give at least 20 rows that are not missing",
        )
    ranked = sorted(votes, key=lambda label: (-votes[label], label))[:top]
    bare = Reference(name=name, kind="categorical", categories=tuple(ranked), counts=(0,) * (len(ranked) + 2))
    return replace(bare, counts=bare.count(counted))


def _chooses(row: int) -> bool:
    """Say whether a reference row takes part in ordering the categories: a fifth does, without a period."""
    return ((row * 2654435761 & 0xFFFFFFFF) >> 16) % SELECT_EVERY == 0


class Distances(Struct, frozen=True, kw_only=True):
    """How far a batch lies from its reference, for people to look at.

    Attributes:
        psi: population stability index in nats, shares below 1e-4 counted as 1e-4.
        js: Jensen-Shannon distance: the square root of the divergence to base 2; in [0, 1].
        chi2: Pearson's statistic of the two-sample test of homogeneity.
        chi2_p: its p-value for this one batch; not valid under repeated looks.
        ks: numeric: largest difference of the distribution functions at the bins' edges.
        wasserstein: numeric: the first Wasserstein distance in reference standard deviations; values outside
            the reference's range count as lying at its end. None for a constant reference.
        missing: share of missing values in the batch.
        missing_reference: the same in the reference.
        rows: of the batch.
    """

    psi: float
    js: float
    chi2: float
    chi2_p: float
    ks: float | None
    wasserstein: float | None
    missing: float
    missing_reference: float
    rows: int


def distances(reference: Reference, counts: Sequence[int]) -> Distances:
    """Return the distances of a batch from its reference, all from the counts.

    PSI, JS and chi-square are taken over about ten groups of neighbouring bins (numeric with more than twenty
    bins), as their customary limits assume, else over bins or categories; missing values are one more group.
    KS and Wasserstein are taken over all bins and leave missing values out.

    Raises:
        WrongUse: the counts are of another reference or of no rows.
    """
    rows, total = sum(counts), reference.n
    if len(counts) != len(reference.counts) or not rows:
        raise WrongUse(f"{len(counts)} counts of {rows} rows cannot be compared", where=reference.name)
    groups = _groups(reference)
    old, new = [0] * (max(groups) + 1), [0] * (max(groups) + 1)
    for group, in_reference, in_batch in zip(groups, reference.counts, counts, strict=True):
        old[group] += in_reference
        new[group] += in_batch
    shares = [(a / total, b / rows) for a, b in zip(old, new, strict=True)]
    statistic, freedom = _chi_square(old, new)
    curves = _curves(reference, counts) if reference.kind == "numeric" else None
    return Distances(
        psi=math.fsum((b - a) * math.log(b / a) for a, b in ((max(a, 1e-4), max(b, 1e-4)) for a, b in shares)),
        js=math.sqrt(max(0.0, math.fsum(_js_term(a, b) for a, b in shares))),
        chi2=statistic,
        chi2_p=chi_square_tail(statistic, freedom),
        ks=max(map(abs, curves), default=0.0) if curves is not None else None,
        wasserstein=_wasserstein(reference, curves) if curves is not None else None,
        missing=counts[-1] / rows,
        missing_reference=reference.missing / total,
        rows=rows,
    )


def _groups(reference: Reference, wanted: int = 10) -> list[int]:
    """Return the display group of each cell, missing values last."""
    if reference.kind == "categorical" or reference.cells <= 2 * wanted:
        return list(range(len(reference.counts)))
    groups, group, inside = [], 0, 0
    enough = (reference.n - reference.missing) / wanted
    for count in reference.counts[:-1]:
        if inside and inside + count / 2 > enough:
            group, inside = group + 1, 0
        groups.append(group)
        inside += count
    return [*groups, group + 1]


def _js_term(a: float, b: float) -> float:
    middle = (a + b) / 2
    return sum(share * math.log2(share / middle) / 2 for share in (a, b) if share)


def _chi_square(old: list[int], new: list[int]) -> tuple[float, int]:
    n_old, n_new = sum(old), sum(new)
    both = [(a, b) for a, b in zip(old, new, strict=True) if a + b]
    statistic = math.fsum((a * n_new - b * n_old) ** 2 / (a + b) for a, b in both) / (n_old * n_new)
    return statistic, len(both) - 1


def _curves(reference: Reference, counts: Sequence[int]) -> list[float] | None:
    """Return the difference of the two distribution functions after each cell; None for no values."""
    n_old, n_new = sum(reference.counts[:-1]), sum(counts[:-1])
    if not n_new:
        return None
    sums = zip(accumulate(reference.counts[:-1]), accumulate(counts[:-1]), strict=True)
    return [new / n_new - old / n_old for old, new in sums]


def _wasserstein(reference: Reference, curves: list[float]) -> float | None:
    if not reference.spread:
        return None
    gaps = (high - low for low, high in pairwise(reference.centres))
    return math.fsum(abs(d) * gap for d, gap in zip(curves, gaps, strict=False)) / reference.spread


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the probability that a chi-square variable exceeds ``statistic`` (DLMF 8.7.1 and 8.9.2)."""
    if freedom < 1 or statistic <= 0:
        return 1.0
    a, x = freedom / 2, statistic / 2
    front = a * math.log(x) - x - math.lgamma(a)
    if x < a + 1:
        term = total = 1.0 / a
        step = a
        while term > total * 1e-16:
            step += 1
            term *= x / step
            total += term
        return max(0.0, 1.0 - total * math.exp(front))
    b = x + 1 - a
    c, d = math.inf, 1.0 / b
    fraction = d
    for step in range(1, 1000):
        factor = -step * (step - a)
        b += 2
        d = 1.0 / (factor * d + b)
        c = b + factor / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return fraction * math.exp(front)
