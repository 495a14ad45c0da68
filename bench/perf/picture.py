"""Curves as SVG, without a library: axes, ticks, a line per series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 20, 50, 55
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
STYLE = "font-family:sans-serif;font-size:12px;fill:#333"

Points = Sequence[tuple[float, float]]


def lines(title: str, across: str, up: str, series: Mapping[str, Points], *, logarithmic: bool = False) -> str:
    """A picture of ``series``; with ``logarithmic`` the axis across is one of powers of ten."""
    points = [point for one in series.values() for point in one]
    low, high = _range([x for x, _ in points], logarithmic)
    top = max([y for _, y in points], default=1.0) or 1.0
    step = _step(top)
    top = ceil(top / step) * step

    def place(x: float, y: float) -> str:
        share = (log10(x / low) / log10(high / low)) if logarithmic else (x - low) / (high - low)
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{STYLE};background:#fff">',
        f'<text x="{LEFT}" y="20" style="font-size:14px">{escape(title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">{escape(across)}</text>',
        f'<text x="10" y="40">{escape(up)}</text>',
    ]
    for number in range(round(top / step) + 1):
        x, y = place(low, number * step).split(",")
        parts.append(f'<path d="M{x},{y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" text-anchor="end">{number * step:g}</text>')
    for at in _ticks(low, high, logarithmic):
        x, y = place(at, 0).split(",")
        parts.append(f'<path d="M{x},{TOP}V{y}" stroke="#eee"/>')
        parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="middle">{at:g}</text>')
    for number, (name, one) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in one)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{(p := place(x, y).split(","))[0]}" cy="{p[1]}" r="3" fill="{colour}"/>'
                  for x, y in (one if len(one) < 30 else ())]  # fmt: skip
        parts.append(f'<text x="{LEFT + 12}" y="{TOP + 18 * (number + 1)}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _range(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    if not logarithmic:
        return 0.0, max(values, default=1.0) or 1.0
    low, high = min(values, default=1.0), max(values, default=10.0)
    return 10.0 ** floor(log10(low)), 10.0 ** max(floor(log10(low)) + 1, ceil(log10(high)))


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        return [10.0**power for power in range(round(log10(low)), round(log10(high)) + 1)]
    step = _step(high)
    return [number * step for number in range(int(high / step) + 1)]


def _step(top: float) -> float:
    """A round step that divides ``top`` into four to ten."""
    power = 10.0 ** floor(log10(top))
    return next(power * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if top / (power * part) <= 10)
