"""Charts over time: latency, rates, errors and telemetry in panels on one axis of seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.reporting.charts.canvas import DASHES, Chart, Scale, text_at
from capacity.rundir import WindowStatistics
from capacity.statistics import Slo
from worker.wire import format_duration

_PANEL, _GAP, _LEFT, _RIGHT = 118, 40, 52, 16


@dataclass(frozen=True)
class Curve:
    """Points (seconds, value) of one line; NaN breaks it. `number` picks its colour and dashes."""

    number: int
    points: Sequence[tuple[float, float]]
    thin: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot: its heading, its curves, and rules across it (value, words)."""

    heading: str
    curves: Sequence[Curve]
    rules: Sequence[tuple[float, str]] = ()


def run_panels(lines: Sequence[WindowStatistics], slo: Slo | None, offered: Sequence[float | None]) -> list[Panel]:
    """Returns panels of latency, rates and, where there are any, errors and unsent requests over time.

    `offered` has the mean offered rate of each line, for a log without due times; None: the rate is not drawn.
    """
    panels = [Panel(*_latency(lines, slo))]
    rates, errors, unsent = [], [], []
    for number, line in enumerate(lines):
        rates.append(Curve(number, list(zip(line.seconds, line.answered, strict=True))))
        planned = offered[number]
        if planned is not None:
            due = [planned] * line.seconds.size if line.offered is None else line.offered
            rates.append(Curve(number, list(zip(line.seconds, due, strict=True)), thin=True))
        errors.append(Curve(number, list(zip(line.seconds, line.failed, strict=True))))
        unsent.append(Curve(number, list(zip(line.seconds, line.unsent, strict=True))))
    heading = "Answered a second" + (", and offered (thin)" if any(rate is not None for rate in offered) else "")
    panels.append(Panel(heading, rates))
    if any(line.failed.any() for line in lines):
        panels.append(Panel("Errors a second", errors))
    if any(line.unsent.any() for line in lines):
        panels.append(Panel("Unsent a second", unsent))
    return panels


def _latency(lines: Sequence[WindowStatistics], slo: Slo | None) -> tuple[str, list[Curve], list[tuple[float, str]]]:
    curves = []
    for number, line in enumerate(lines):
        for p, thin in ((90.0, False), (50.0, True)):
            points = [(s, us / 1000) for s, us in zip(line.seconds, line.percentiles_us[p], strict=True)]
            curves.append(Curve(number, points, thin))
    bounds = [(bound / 1e6, f"SLO P{p:g} {format_duration(bound)}") for p, bound in slo.bounds] if slo else []
    return "P90 latency, ms, and P50 (thin)", curves, bounds[:1]


def draw_over_time(panels: Sequence[Panel], width: int, marks: Sequence[tuple[float, bool]] = ()) -> Chart | None:
    """The panels under one another; None without a single line to draw. `marks` are times (seconds) at which a target
    went down (true) or came back up (false)."""
    ends = [s for panel in panels for curve in panel.curves for s, value in curve.points if math.isfinite(value)]
    if not ends or max(ends) <= 0:
        return None
    across = Scale(0, max(ends), _LEFT, width - _RIGHT)
    parts, y = [], 0
    for panel in panels:
        parts.append(_panel(panel, across, y, width))
        y += _PANEL + _GAP
    bottom = y - _GAP
    for at_s, down in marks:
        if 0 <= at_s <= max(ends):
            x, colour = across(at_s), "var(--slo)" if down else "var(--s0)"
            parts.append(
                f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="22" y2="{bottom}" style="stroke:{colour}" '
                f'stroke-dasharray="{"none" if down else "2 3"}"/>'
            )
    for value in across.ticks():
        parts.append(text_at(across(value), bottom + 18, f"{value:g}", "soft mid"))
    parts.append(text_at(width - _RIGHT, bottom + 34, "seconds since measuring began", "soft end"))
    return Chart("".join(parts), width, bottom + 42)


def _panel(panel: Panel, across: Scale, y: int, width: int) -> str:
    top, bottom = y + 24, y + _PANEL
    values = [v for curve in panel.curves for _s, v in curve.points if math.isfinite(v)]
    values += [value for value, _words in panel.rules]
    up = Scale(0, 1.05 * max(values, default=1.0), bottom, top, every=34)
    parts = [text_at(0, y + 13, panel.heading, "head")]
    for value in up.ticks():
        at = up(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text_at(_LEFT - 8, at + 4, f"{value:g}", "soft end"))
    for curve in panel.curves:
        colour, dash = f"stroke:var(--s{curve.number % len(DASHES)})", DASHES[curve.number % len(DASHES)]
        for piece in _pieces(curve.points):
            path = " ".join(f"{across(s):.1f},{up(value):.1f}" for s, value in piece)
            look = f'class="{"thin" if curve.thin else "curve"}" style="{colour}" stroke-dasharray="{dash}"'
            parts.append(f'<polyline {look} points="{path}"/>')
            if len(piece) == 1:
                s, value = piece[0]
                fill = colour.replace("stroke", "fill")
                parts.append(f'<circle cx="{across(s):.1f}" cy="{up(value):.1f}" r="2.5" style="{fill}"/>')
    for value, words in panel.rules:
        at = up(value)
        parts.append(f'<line class="slo" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text_at(_LEFT + 4, at + 14 if at < top + 12 else at - 5, words, "slo-text halo"))
    return "".join(parts)


def _pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The line between its gaps."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for s, value in points:
        if math.isfinite(value):
            pieces[-1].append((float(s), float(value)))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]
