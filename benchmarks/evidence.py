"""Simulate the sequential statistics and print false-alarm shares, power, coverage and cost as Markdown.

    python benchmarks/evidence.py --runs 1500 > benchmarks/results/evidence.md

Every figure is made from fixed seeds, so the same versions and the same number of runs print the same tables
(all but the last, which holds times). The simulations use vectorised numpy twins of the product's updates;
``tests/check`` shows that the twins and the product agree on random streams, and runs the same functions.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.check import harm, histogram, intervals, risk, shift

Floats = NDArray[np.float64]
ALPHA = 0.05
RAMP = ((0.01, 20), (0.05, 20), (0.10, 20), (0.25, 20), (0.50, 20))
"""Routing probability of the canary and how many minutes it holds; one look a minute."""
MINUTES = sum(minutes for _, minutes in RAMP)


def tolerance(share: float, runs: int) -> float:
    """Return ``share`` plus three standard errors of a simulated share: what a valid rule may show."""
    return share + 3.0 * math.sqrt(share * (1.0 - share) / runs)


# --- rollouts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollouts:
    """What simulated rollouts did; one entry for each run."""

    log_e: Floats
    peak_log_e: Floats
    reached_at: NDArray[np.int64]
    canary_events: NDArray[np.int64]
    z_test: NDArray[np.bool_]
    tallies: list[risk.Tally]


def evidence_twin(
    canary: NDArray[np.int64], events: NDArray[np.int64], weights: Sequence[float], r0: float, side: str
) -> Floats:
    """Return ``log E`` of many runs from the canary's events and all events for each routing probability.

    Args:
        canary: shape (runs,).
        events: shape (runs, len(weights)).
        weights: routing probabilities.
        r0: the null ratio.
        side: ``harm`` or ``non_inferiority``.
    """
    ratios = np.exp(np.linspace(math.log(1.05), math.log(20.0), 40))
    prior = np.exp(-(np.log(ratios) ** 2) / 2)
    rho = r0 * ratios if side == "harm" else r0 / ratios
    logs = np.log(prior / prior.sum()) + canary[:, None] * np.log(rho / r0)
    for column, w in enumerate(weights):
        theta_gap = np.log((rho * w + 1 - w) / (r0 * w + 1 - w))
        logs = logs - events[:, column, None] * theta_gap
    top = logs.max(axis=1)
    return np.asarray(top + np.log(np.exp(logs - top[:, None]).sum(axis=1)), dtype=np.float64)


def simulate_rollouts(
    rates: Floats,
    *,
    seed: int,
    ratio: float = 1.0,
    requests: int = 1000,
    r0: float = 1.0,
    side: str = "harm",
    alpha: float = ALPHA,
) -> Rollouts:
    """Simulate rollouts along ``RAMP`` and look at them every minute.

    Args:
        rates: the stable arm's rate of bad events, shape (runs, MINUTES).
        seed: of the draws.
        ratio: the true risk ratio canary / stable.
        requests: a minute.
        r0: the null ratio.
        side: of the process.
        alpha: its level, and that of the naive z-test beside it (pooled, one-sided, every minute).
    """
    random = np.random.default_rng(seed)
    runs = len(rates)
    weights = [w for w, _ in RAMP]
    step_of = [step for step, (_, minutes) in enumerate(RAMP) for _ in range(minutes)]
    canary = np.zeros((runs, len(RAMP)), dtype=np.int64)
    stable = np.zeros((runs, len(RAMP)), dtype=np.int64)
    sent = np.zeros((runs, 2), dtype=np.int64)
    peak = np.zeros(runs)
    log_e = np.zeros(runs)
    reached = np.full(runs, -1)
    at_reach = np.zeros(runs, dtype=np.int64)
    z_test = np.zeros(runs, dtype=bool)
    critical = 1.6448536269514722
    for minute, step in enumerate(step_of):
        to_canary = random.binomial(requests, weights[step], runs)
        canary[:, step] += random.binomial(to_canary, np.minimum(rates[:, minute] * ratio, 1.0))
        stable[:, step] += random.binomial(requests - to_canary, rates[:, minute])
        sent += np.stack([to_canary, requests - to_canary], axis=1)
        log_e = evidence_twin(canary.sum(axis=1), canary + stable, weights, r0, side)
        peak = np.maximum(peak, log_e)
        fresh = (reached < 0) & (log_e >= -math.log(alpha))
        reached[fresh] = minute
        at_reach[fresh] = canary.sum(axis=1)[fresh]
        bad = np.stack([canary.sum(axis=1), stable.sum(axis=1)], axis=1)
        share = bad.sum(axis=1) / sent.sum(axis=1)
        spread = np.sqrt(np.maximum(share * (1 - share), 1e-12) * (1 / np.maximum(sent, 1)).sum(axis=1))
        gap = bad[:, 0] / np.maximum(sent[:, 0], 1) - bad[:, 1] / np.maximum(sent[:, 1], 1)
        z_test |= (gap > critical * spread) & (bad.sum(axis=1) > 0)
    tallies = [
        tuple((w, int(a), int(b)) for w, a, b in zip(weights, row_c, row_s, strict=True))
        for row_c, row_s in zip(canary, stable, strict=True)
    ]
    return Rollouts(log_e, peak, reached, at_reach, z_test, tallies)


def null_rates(runs: int, seed: int = 0) -> dict[str, Floats]:
    """Return the base rates under which both arms are equal, by situation; each of shape (runs, MINUTES)."""
    random = np.random.default_rng(seed)
    flat = np.ones((runs, MINUTES))
    incident = flat * 0.01
    start = random.integers(0, MINUTES - 5, runs)
    for run in range(runs):
        incident[run, start[run] : start[run] + 5] = 0.2
    jitter = 0.01 * np.exp(0.5 * random.standard_normal((runs, MINUTES)) - 0.125)
    return {
        "steady 0.1 %": flat * 0.001,
        "steady 1 %": flat * 0.01,
        "steady 30 %": flat * 0.30,
        "rising 1 -> 3 %": flat * np.linspace(0.01, 0.03, MINUTES),
        "falling 3 -> 1 %": flat * np.linspace(0.03, 0.01, MINUTES),
        "shared 5-minute incident (20 %)": incident,
        "minute jitter (lognormal 0.5)": np.minimum(jitter, 1.0),
    }


# --- losses -------------------------------------------------------------------------------------------------


def harm_twin(losses: Floats, nulls: Floats, budget: harm.Budget) -> tuple[NDArray[np.int64], Floats]:
    """Return for each run the observation of the first alarm (0: none) and the evidence at the end.

    Args:
        losses: shape (runs, observations).
        nulls: the null mean of each run, shape (runs,).
        budget: of false alarms.
    """
    grid = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    allowed = grid < 0.9 / nulls[:, None]
    stakes = np.zeros((len(losses), len(grid)))
    alarm = np.zeros(len(losses), dtype=np.int64)
    evidence = np.zeros(len(losses))
    for t in range(1, losses.shape[1] + 1):
        fresh = 1.0 / (t * (t + 1)) if budget.alpha is not None else 1.0
        gain = 1.0 + grid * (losses[:, t - 1] - nulls)[:, None]
        stakes = np.minimum((stakes + fresh) * np.where(allowed, gain, 0.0), 1e280)
        evidence = stakes.sum(axis=1) / allowed.sum(axis=1)
        alarm[(alarm == 0) & (evidence >= budget.limit)] = t
    return alarm, evidence


def bernoulli_losses(runs: int, before: float, after: float, *, seed: int, change: int, length: int) -> Floats:
    """Return 0/1 losses of shape (runs, length) whose mean moves at observation ``change``."""
    random = np.random.default_rng(seed)
    means = np.where(np.arange(length) < change, before, after)
    return (random.random((runs, length)) < means).astype(np.float64)


def estimated_nulls(runs: int, rate: float, held_back: int, *, seed: int, rise: float = 0.0) -> Floats:
    """Return null means estimated on ``held_back`` rows each, as a monitor would after training."""
    random = np.random.default_rng(seed)
    shares = random.binomial(held_back, rate, runs) / held_back
    variances = shares * (1 - shares) * held_back / (held_back - 1)
    return np.array(
        [
            harm.null_mean(float(mean), held_back, float(variance), tolerance=rise)
            for mean, variance in zip(shares, variances, strict=True)
        ]
    )


# --- drift --------------------------------------------------------------------------------------------------

Sampler = Callable[[np.random.Generator, int], Floats]
FAMILIES: dict[str, Sampler] = {
    "normal": lambda random, n: random.standard_normal(n),
    "skewed (lognormal)": lambda random, n: random.lognormal(0.0, 1.0, n),
    "discrete (Poisson 3)": lambda random, n: random.poisson(3.0, n).astype(np.float64),
    "tied (70 % zeros)": lambda random, n: np.where(random.random(n) < 0.7, 0.0, random.exponential(1.0, n)),
    "binary (5 %)": lambda random, n: (random.random(n) < 0.05).astype(np.float64),
    "missing (10 %)": lambda random, n: np.where(random.random(n) < 0.1, np.nan, random.standard_normal(n)),
}


def count_windows(reference: histogram.Reference, values: Floats) -> NDArray[np.int64]:
    """Return the counts of each row of ``values`` (windows, rows) against a numeric reference."""
    cells = np.searchsorted(np.asarray(reference.edges), values, side="left")
    cells = np.where(np.isnan(values), reference.cells, cells)
    width = len(reference.counts)
    flat = (cells + np.arange(len(values))[:, None] * width).ravel()
    return np.bincount(flat, minlength=len(values) * width).reshape(len(values), width)


def drift_twin(
    references: Sequence[histogram.Reference],
    counts: Sequence[NDArray[np.int64]],
    budget: harm.Budget,
    *,
    material: float,
    delta: float = 0.01,
) -> tuple[int, Floats]:
    """Return the window (1, 2, ...) of the first alarm (0: none) and the evidence after each window.

    Args:
        references: numeric, one for each feature.
        counts: for each feature (windows, cells + 1).
        budget: of false alarms, in windows.
        material: the tolerated shift.
        delta: as in ``DriftProcess``.
    """
    parts = [
        _feature_twin(reference, counted, budget, material, delta / len(references))
        for reference, counted in zip(references, counts, strict=True)
    ]
    evidence = np.mean(parts, axis=0)
    above = np.flatnonzero(evidence >= budget.limit)
    return (int(above[0]) + 1 if len(above) else 0), evidence


def _feature_twin(
    reference: histogram.Reference,
    counts: NDArray[np.int64],
    budget: harm.Budget,
    material: float,
    delta: float,
) -> Floats:
    whole = np.asarray(reference.counts, dtype=np.float64)
    present = whole[:-1].sum()
    shares = whole[:-1] / present
    u = np.cumsum(shares) - shares / 2
    centred = np.abs(2 * u - 1)
    slack = math.sqrt(math.log(4 / delta) / (2 * present))
    logs, weights = [], []
    for g in (u, 1 - u, centred, 1 - centred):
        null = shares @ g + np.abs(np.diff(g)).sum() * slack + material
        for part in (0.04, 0.1, 0.2, 0.4, 0.8):
            logs.append(counts[:, :-1] @ np.log1p(part * (g / null - 1)))
            weights.append(0.8 / 20)
    null = shift.share_bound(reference.missing, reference.n, delta / 2) + material
    for part in (0.1, 0.3, 0.8):
        table = np.append(np.full(len(u), math.log1p(-part)), math.log1p(part * (1 / null - 1)))
        logs.append(counts @ table)
        weights.append(0.2 / 3)
    growth = np.exp(np.minimum(np.stack(logs, axis=1), 700.0))
    stakes = np.zeros(growth.shape[1])
    out = np.zeros(len(counts))
    for index, row in enumerate(growth):
        fresh = 1.0 / ((index + 1) * (index + 2)) if budget.alpha is not None else 1.0
        with np.errstate(over="ignore"):
            stakes = np.minimum((stakes + fresh) * row, 1e280)
        out[index] = float(np.asarray(weights) @ stakes)
    return out


def drift_runs(
    sample: Sampler,
    runs: int,
    budget: harm.Budget,
    *,
    seed: int,
    material: float,
    windows: int = 100,
    rows: int = 200,
    n_ref: int = 5000,
    shift: float = 0.0,
    change: int = 0,
) -> NDArray[np.int64]:
    """Return the window of the first alarm in each run on one feature; each run draws its own reference.

    Rows of the windows from ``change`` on are moved by ``shift``.
    """
    random = np.random.default_rng(seed)
    alarms = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        reference = histogram.build_reference("x", sample(random, n_ref))
        values = sample(random, windows * rows).reshape(windows, rows)
        if shift:
            values[change:] += shift
        alarms[run], _ = drift_twin([reference], [count_windows(reference, values)], budget, material=material)
    return alarms


def correlated_runs(
    runs: int,
    budget: harm.Budget,
    *,
    seed: int,
    material: float,
    features: int = 20,
    windows: int = 40,
    rows: int = 200,
    n_ref: int = 5000,
) -> NDArray[np.int64]:
    """Return the window of the first alarm on equally correlated (0.6) normal features that do not drift."""
    random = np.random.default_rng(seed)

    def draw(n: int) -> Floats:
        shared = math.sqrt(0.6) * random.standard_normal((n, 1))
        return np.asarray(shared + math.sqrt(0.4) * random.standard_normal((n, features)))

    alarms = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        sample = draw(n_ref)
        references = [histogram.build_reference(f"x{k}", sample[:, k]) for k in range(features)]
        values = draw(windows * rows)
        counts = [
            count_windows(reference, values[:, k].reshape(windows, rows)) for k, reference in enumerate(references)
        ]
        alarms[run], _ = drift_twin(references, counts, budget, material=material)
    return alarms


def category_runs(
    runs: int,
    budget: harm.Budget,
    *,
    seed: int,
    material: float,
    windows: int = 40,
    rows: int = 200,
    n_ref: int = 5000,
) -> NDArray[np.int64]:
    """Return the window of the first alarm on a Zipf feature of 50 categories (product code, no twin)."""
    random = np.random.default_rng(seed)
    names = np.array([f"c{k}" for k in range(50)])
    chances = 1.0 / np.arange(1, 51)
    chances /= chances.sum()
    alarms = np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        reference = histogram.build_reference("x", random.choice(names, n_ref, p=chances))
        process = shift.DriftProcess([reference], budget=budget, material=material)
        state = process.start()
        for _ in range(windows):
            batch = random.choice(names, rows, p=chances).tolist()
            state = process.update(state, {"x": reference.count(batch)})
        alarms[run] = state.alarm_at
    return alarms


# --- tables -------------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(values: Any) -> str:
    """Return the mean of yes/no values as a percentage."""
    return f"{100 * float(np.mean(values)):.1f} %"


def median(values: Any) -> str:
    """Return the median as text, or a dash for nothing."""
    return f"{float(np.median(values)):.0f}" if len(values) else "-"


def rollout_tables(runs: int) -> Iterator[str]:
    """Yield the tables of the rollout judge."""
    yield f"## Rollouts: {MINUTES} minutes, weights 1-5-10-25-50 %, one look a minute, alpha = {ALPHA}\n"
    yield f"No true difference, {runs} runs: share that is rolled back. A valid rule shows at most "
    yield f"{100 * tolerance(ALPHA, runs):.1f} % (alpha plus three standard errors).\n"
    rows = []
    for index, (name, rates) in enumerate(null_rates(runs).items()):
        found = simulate_rollouts(rates, seed=100 + index)
        rows.append([name, percent(found.reached_at >= 0), percent(found.z_test)])
    yield table(["situation", "e-process", "z-test at each look"], rows)
    yield "A true difference, 1,000 requests a minute:\n"
    rows = []
    for index, (rate, ratio) in enumerate([(0.01, 1.5), (0.01, 2.0), (0.01, 5.0), (0.001, 2.0)]):
        found = simulate_rollouts(np.full((runs, MINUTES), rate), seed=200 + index, ratio=ratio)
        hit = found.reached_at >= 0
        rows.append(
            [
                f"{100 * rate:g} %", f"{ratio:g}", percent(hit), median(found.reached_at[hit] + 1),
                median(found.canary_events[hit]),
            ]
        )  # fmt: skip
    yield table(["base rate", "risk ratio", "rolled back", "median minute", "bad canary events by then"], rows)
    yield "Promotion by non-inferiority (proof that the risk ratio is below 1 + margin):\n"
    rows = []
    for index, (rate, ratio, margin) in enumerate(
        [(0.01, 1.25, 0.25), (0.01, 1.5, 0.5), (0.01, 1.0, 0.25), (0.01, 1.0, 0.5), (0.05, 1.0, 0.25)]
    ):
        found = simulate_rollouts(
            np.full((runs, MINUTES), rate),
            seed=300 + index,
            ratio=ratio,
            r0=1 + margin,
            side="non_inferiority",
        )
        rows.append([f"{100 * rate:g} %", f"{ratio:g}", f"{margin:g}", percent(found.reached_at >= 0)])
    yield table(["base rate", "true ratio", "margin", "promoted"], rows)
    yield "Smallest detectable ratio (asked for 80 % power), checked by simulating that ratio:\n"
    rows = []
    for index, (rate, requests) in enumerate([(0.001, 1000), (0.01, 1000), (0.05, 1000), (0.01, 100)]):
        events = [(w, rate * requests * minutes) for w, minutes in RAMP]
        ratio = risk.smallest_detectable_ratio(events, alpha=ALPHA)
        found = simulate_rollouts(np.full((runs, MINUTES), rate), seed=400 + index, ratio=ratio, requests=requests)
        rows.append(
            [
                f"{100 * rate:g} %", f"{requests}", f"{ratio:.2f}",
                percent(found.log_e >= -math.log(ALPHA)), percent(found.reached_at >= 0),
            ]
        )  # fmt: skip
    yield table(["base rate", "requests/min", "ratio", "power at the last look", "power at any look"], rows)


def harm_tables(runs: int) -> Iterator[str]:
    """Yield the tables of the labelled-loss monitor."""
    length, change = 10_000, 5_000
    budgets = {
        "P(ever) <= 0.05": (harm.Budget(alpha=0.05), 0.05),
        "P(ever) <= 0.01": (harm.Budget(alpha=0.01), 0.01),
        "run length >= 100,000": (harm.Budget(run_length=1e5), length / 1e5),
    }
    yield f"## Losses: 0/1 stream of {length:,} labels, rate 0.10, a look at each; change after {change:,}\n"
    yield f"{runs} runs. Delay: median labels from the change to the alarm, without runs alarmed earlier.\n"
    null = bernoulli_losses(runs, 0.1, 0.1, seed=1, change=change, length=length)
    streams = {
        rate: bernoulli_losses(runs, 0.1, rate, seed=2 + index, change=change, length=length)
        for index, rate in enumerate((0.15, 0.20))
    }
    rows = []
    for known, nulls in (
        ("known", np.full(runs, 0.1)),
        ("estimated on 5,000 rows", estimated_nulls(runs, 0.1, 5000, seed=9)),
    ):
        for name, (budget, bound) in budgets.items():
            alarm, _ = harm_twin(null, nulls, budget)
            cells = [name, known, percent(alarm > 0), f"{100 * bound:g} %"]
            for stream in streams.values():
                at, _ = harm_twin(stream, nulls, budget)
                clean = (at == 0) | (at > change)
                cells.append(f"{median(at[at > change] - change)} ({percent(at[clean] > 0)} found)")
            rows.append(cells)
    rows.append(["alarm every 1,000 labels", "-", "100.0 %", "-", "500 (100.0 % found)", "500 (100.0 % found)"])
    rows.append(["never alarm", "-", "0.0 %", "-", "- (0.0 % found)", "- (0.0 % found)"])
    yield table(["budget", "null mean", "any false alarm", "bound", "0.10 -> 0.15", "0.10 -> 0.20"], rows)


def drift_tables(runs: int) -> Iterator[str]:
    """Yield the tables of the drift monitor."""
    windows, rows_each = 100, 200
    ever, rate = harm.Budget(alpha=ALPHA), harm.Budget(run_length=1000.0)
    yield f"## Drift: windows of {rows_each} rows, a reference of 5,000 rows of its own for each of {runs} runs\n"
    yield f"No drift, {windows} windows, material = 0: share of runs with any false alarm. Bounds: "
    yield f"{100 * (ALPHA + 0.01):g} % (alpha + delta) and "
    yield f"{100 * (windows / 1000 + 0.01):g} % (windows / run length + delta).\n"
    rows = []
    for index, (name, sample) in enumerate(FAMILIES.items()):
        cells = [name]
        for budget in (ever, rate):
            alarms = drift_runs(sample, runs, budget, seed=500 + index, material=0.0, windows=windows)
            cells.append(percent(alarms > 0))
        rows.append(cells)
    few = max(runs // 5, 20)
    rows.append(
        [f"20 correlated features (40 windows, {few} runs)"]
        + [percent(correlated_runs(few, budget, seed=550, material=0.0) > 0) for budget in (ever, rate)]
    )
    rows.append(
        [f"50 categories, Zipf (40 windows, {few} runs)"]
        + [percent(category_runs(few, budget, seed=560, material=0.0) > 0) for budget in (ever, rate)]
    )
    yield table(["feature", "P(ever) <= 0.05", "run length >= 1,000"], rows)
    yield "A normal feature moves after 50 windows of 500, reference of 20,000 rows, run length 1,000. "
    yield "Delay: median rows to the alarm.\n"
    rows = []
    some = max(runs // 5, 20)
    for index, (move, material) in enumerate(
        [
            (0.1, 0.0),
            (0.25, 0.0),
            (0.5, 0.0),
            (0.25, 0.03),
            (0.5, 0.03),
            (0.25, 0.05),
            (0.5, 0.05),
            (0.1, 0.05),
        ]
    ):
        alarms = drift_runs(
            FAMILIES["normal"], some, rate, seed=600 + index, material=material,
            windows=100, rows=500, n_ref=20_000, shift=move, change=50,
        )  # fmt: skip
        late = alarms > 50
        rows.append(
            [
                f"{move:g} sd", f"{material:g}", percent((alarms > 0) & ~late),
                f"{median((alarms[late] - 50) * 500)} ({percent(late)} found within 25,000)",
            ]
        )  # fmt: skip
    yield table(["shift", "material", "false alarm before", "delay"], rows)


def coverage_tables(runs: int) -> Iterator[str]:
    """Yield coverage of confidence sequences and of the gates' intervals."""
    yield f"## Coverage, {runs} runs, asked for 95 %\n"
    found = simulate_rollouts(np.full((runs, MINUTES), 0.01), seed=700, ratio=1.5)
    bands = [risk.risk_ratio_interval(tally) for tally in found.tallies]
    rows = [
        [
            "risk ratio 1.5, confidence sequence at its end",
            percent([low <= 1.5 <= high for low, high in bands]),
            f"{np.mean([high - low for low, high in bands]):.2f}",
        ]
    ]
    random = np.random.default_rng(701)
    for name, draw in (
        ("mean of 0/1 losses", lambda: (random.random(2000) < 0.1).astype(float)),
        ("mean of Beta(1, 9) losses", lambda: random.beta(1.0, 9.0, 2000)),
    ):
        ends = [harm.MeanSequence().update_many(draw().tolist()).interval() for _ in range(runs)]
        rows.append(
            [
                f"{name} (0.1), 2,000 rows, confidence sequence at its end",
                percent([low <= 0.1 <= high for low, high in ends]),
                f"{np.mean([high - low for low, high in ends]):.3f}",
            ]
        )
    for clustered in (False, True):
        hits, widths = day_effect_coverage(max(runs // 3, 50), clustered=clustered, seed=702)
        name = "cluster bootstrap over days" if clustered else "rows taken as independent (t)"
        rows.append([f"loss difference, 30 days that differ, {name}", percent(hits), f"{np.mean(widths):.3f}"])
    yield table(["quantity", "covered", "mean width"], rows)


def day_effect_coverage(runs: int, *, clustered: bool, seed: int) -> tuple[list[bool], list[float]]:
    """Return hits and widths of intervals for a mean difference of 0.1 when rows of one day are alike."""
    random = np.random.default_rng(seed)
    days = np.repeat(np.arange(30), 40)
    hits, widths = [], []
    for _ in range(runs):
        gaps = 0.1 + 0.3 * random.standard_normal(30)[days] + random.standard_normal(len(days))
        interval = intervals.paired_mean_difference(
            gaps, np.zeros(len(gaps)), groups=days.tolist() if clustered else None
        )
        hits.append(interval.low <= 0.1 <= interval.high)
        widths.append(interval.high - interval.low)
    return hits, widths


def cost_table() -> Iterator[str]:
    """Yield what one update of the product code costs here (processor time, so it differs by machine)."""
    random = np.random.default_rng(0)
    process = risk.harm()
    losses = (random.random(20_000) < 0.1).astype(float).tolist()
    references = [histogram.build_reference(f"x{k}", random.standard_normal(5000)) for k in range(20)]
    batch = random.standard_normal(500).tolist()
    watch = shift.DriftProcess(references, budget=harm.Budget(run_length=1000.0))
    state, counts = watch.start(), {name: references[0].count(batch) for name in watch.features}
    timed: list[tuple[str, Callable[[], Any], int]] = [
        ("one bad event of a rollout", lambda: process.update(0.1, True), 1),
        (
            "one labelled loss",
            lambda: harm.HarmProcess(null=0.12, budget=harm.Budget(alpha=0.05)).update_many(losses),
            len(losses),
        ),
        ("counting one value of a numeric feature", lambda: references[0].count(batch), len(batch)),
        ("one batch of 20 numeric features", lambda: watch.update(state, counts), 1),
    ]
    rows = []
    for name, act, units in timed:
        best = math.inf
        for _ in range(20):
            begin = time.process_time()
            act()
            best = min(best, time.process_time() - begin)
        rows.append([name, f"{1e6 * best / units:.2f}"])
    yield "## Cost of the product code\n"
    yield table(["update", "CPU us"], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="replicates of each simulation")
    runs = parser.parse_args().runs
    print(f"# Evidence for the sequential statistics\n\n`python benchmarks/evidence.py --runs {runs}`\n")
    for part in (rollout_tables, harm_tables, drift_tables, coverage_tables):
        print("\n".join(part(runs)), flush=True)
    print("\n".join(cost_table()))


if __name__ == "__main__":
    main()
