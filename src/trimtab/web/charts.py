"""Small charts as SVG text, made on the server: no script, no request, the same in a mail and in print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from msgspec import Struct

from trimtab.core.errors import WrongUse

PALETTE = ("#1f5fa8", "#c2542d", "#3a8a4f", "#7a52a3", "#8a6d1d", "#50626f")
MUTED = "#50626f"
WIDTH, HEIGHT = 720, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44


class Series(Struct, frozen=True, kw_only=True):
    """One line of a chart.

    Attributes:
        name: for the legend.
        values: one for each label of the axis; None leaves a gap.
        low: lower ends of a band around the line, or empty.
        high: upper ends of a band around the line, or empty.
        dashed: draw the line dashed.
    """

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    dashed: bool = False


class Mark(Struct, frozen=True, kw_only=True):
    """Something that happened at a place of the axis (0 is the first label, fractions lie between)."""

    at: float
    text: str
    color: str = "#b3261e"


def line_chart(
    labels: Sequence[str], series: Sequence[Series], *, title: str, unit: str = "", marks: Sequence[Mark] = ()
) -> str:
    """Return a line chart as SVG.

    Args:
        labels: of the horizontal axis, evenly spaced.
        series: lines, each as long as ``labels``.
        title: read by screen readers and shown above.
        unit: of the vertical axis.
        marks: events, drawn as vertical lines.

    Raises:
        WrongUse: a series is not as long as the labels.
    """
    for one in series:
        if len(one.values) != len(labels):
            raise WrongUse(f"series {one.name!r} has {len(one.values)} values for {len(labels)} labels")
    low, high, ticks = _scale([value for one in series for value in _all(one)])
    plot = _Plot(count=len(labels), low=low, high=high)
    parts = [_open(title), _grid(plot, ticks, unit), _axis(plot, labels)]
    parts.extend(_mark(plot, mark) for mark in marks)
    for index, one in enumerate(series):
        parts.append(_line(plot, one, PALETTE[index % len(PALETTE)]))
    parts.append(_legend(series))
    parts.append("</svg>")
    return "".join(parts)


class _Plot(Struct, frozen=True, kw_only=True):
    count: int
    low: float
    high: float

    def x(self, at: float) -> float:
        span = max(self.count - 1, 1)
        return LEFT + (WIDTH - LEFT - RIGHT) * (at / span if self.count > 1 else 0.5)

    def y(self, value: float) -> float:
        return TOP + 18 + (HEIGHT - TOP - 18 - BOTTOM) * (1 - (value - self.low) / (self.high - self.low))


def _all(one: Series) -> list[float]:
    return [value for part in (one.values, one.low, one.high) for value in part if value is not None and _finite(value)]


def _finite(value: float) -> bool:
    return math.isfinite(value)


def _scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends of the axis and round tick values between them."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    start, stop = math.floor(low / step), math.ceil(high / step)
    ticks = [round(index * step, 12) for index in range(start, stop + 1)]
    return ticks[0], ticks[-1], ticks


def _open(title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">'
        f'<text x="{LEFT}" y="{TOP}" font-weight="600">{escape(title)}</text>'
    )


def _grid(plot: _Plot, ticks: Sequence[float], unit: str) -> str:
    parts = []
    for tick in ticks:
        y = plot.y(tick)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d9dee3"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{MUTED}">'
            f"{tick:g}{escape(unit)}</text>"
        )
    return "".join(parts)


def _axis(plot: _Plot, labels: Sequence[str]) -> str:
    every = max(1, math.ceil(len(labels) / 12))
    return "".join(
        f'<text x="{plot.x(index):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="{MUTED}">'
        f"{escape(label)}</text>"
        for index, label in enumerate(labels)
        if index % every == 0
    )


def _mark(plot: _Plot, mark: Mark) -> str:
    x = plot.x(min(max(mark.at, 0.0), max(plot.count - 1, 0)))
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + 18}" y2="{HEIGHT - BOTTOM}" '
        f'stroke="{escape(mark.color)}" stroke-width="1.5" stroke-dasharray="2 3">'
        f"<title>{escape(mark.text)}</title></line>"
        f'<circle cx="{x:.1f}" cy="{TOP + 18}" r="4" fill="{escape(mark.color)}">'
        f"<title>{escape(mark.text)}</title></circle>"
    )


def _line(plot: _Plot, one: Series, color: str) -> str:
    parts = []
    if one.low and one.high:
        band = [
            (index, low, high)
            for index, (low, high) in enumerate(zip(one.low, one.high, strict=True))
            if low is not None and high is not None
        ]
        edge = [f"{plot.x(i):.1f},{plot.y(high):.1f}" for i, _, high in band]
        edge += [f"{plot.x(i):.1f},{plot.y(low):.1f}" for i, low, _ in reversed(band)]
        parts.append(f'<polygon points="{" ".join(edge)}" fill="{color}" opacity="0.12"/>')
    run: list[str] = []
    dash = ' stroke-dasharray="6 4"' if one.dashed else ""
    for index, value in enumerate([*one.values, None]):
        if value is not None and _finite(value):
            run.append(f"{plot.x(index):.1f},{plot.y(value):.1f}")
            parts.append(
                f'<circle cx="{plot.x(index):.1f}" cy="{plot.y(value):.1f}" r="3" fill="{color}">'
                f"<title>{escape(one.name)}: {value:.4g}</title></circle>"
            )
        elif run:
            parts.append(f'<polyline points="{" ".join(run)}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
            run = []
    return "".join(parts)


def _legend(series: Sequence[Series]) -> str:
    parts, x = [], float(LEFT)
    for index, one in enumerate(series):
        color = PALETTE[index % len(PALETTE)]
        parts.append(
            f'<rect x="{x:.0f}" y="{HEIGHT - 16}" width="12" height="4" fill="{color}"/>'
            f'<text x="{x + 16:.0f}" y="{HEIGHT - 10}">{escape(one.name)}</text>'
        )
        x += 28 + 7 * len(one.name)
    return "".join(parts)
