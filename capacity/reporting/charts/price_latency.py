"""The article's chart of price and latency, and latency by percentile, as SVG. Colours come from CSS."""

from __future__ import annotations

import math
from collections.abc import Sequence

from capacity.pricing import LabeledRow, format_axis_price, format_money
from capacity.reporting.charts.canvas import DASHES, Chart, Scale, shorten, text_at, ticks_across
from capacity.reporting.formatting import PERCENTILES, format_ms, shown_percentile
from capacity.statistics import Histogram, Slo
from worker.wire import format_duration

_COLOURS = ("cpu", "cuda", "eia")


def colour(kind: str) -> str:
    """The CSS variable of a kind's colour."""
    return f"var(--{kind if kind in _COLOURS else 'other'})"


def cost_latency_chart(entries: Sequence[LabeledRow], slo: Slo | None, width: int) -> Chart:
    """Draws the article's chart with horizontal bars of cost per 100,000, a line of P90, and a rule for the SLO.

    Where the SLO has another percentile, it replaces P90. A filled dot is a row that met the SLO, a ring one that
    missed it or is inconclusive; a hatched bar is simulated. Without any price there are no bars.
    """
    p, bound_ns = shown_percentile(slo)
    costs = [entry.row.cost_per_100k.sequential for entry in entries]
    latencies = [getattr(entry.row.latency_us, PERCENTILES[p]) for entry in entries]
    priced = any(cost is not None for cost in costs)
    wide = width >= 640
    names = round(0.255 * width) if wide else 0
    band, top, gap = (44, 46, 36) if wide else (66, 46, 22)
    space = width - names
    share = (space - gap) / 2 if priced else space
    height = top + band * len(entries) + 30
    bottom = height - 30
    hatch = f"hatch-{width}"
    parts = [_hatches(hatch)]

    bars = Scale(0, max((cost for cost in costs if cost), default=1), names, names + share - 58)
    left = names + share + gap if priced else names
    ends = [entry.row.latency_us.p90_interval for entry in entries] if p == 90 else []
    tallest = [value for value in latencies if value is not None] + [end[1] for end in ends if end and end[1]]
    if bound_ns:
        tallest.append(bound_ns / 1000)
    dots = Scale(0, max(tallest, default=1) / 1000, left + 8, width - 58)

    if priced:
        currency = next(entry.row.currency for entry in entries if entry.row.cost_per_100k.sequential is not None)
        parts.append(
            text_at(names, 14, "Cost per 100,000, one at a time" if width > 800 else "Cost per 100,000", "head")
        )
        parts.append(ticks_across(bars, top - 6, bottom, lambda value: format_axis_price(value, currency)))
    parts.append(text_at(left + 8, 14, f"P{p:g} latency, ms", "head"))
    parts.append(ticks_across(dots, top - 6, bottom, lambda value: f"{value:g}"))
    if bound_ns:
        x = dots(bound_ns / 1e6)
        parts.append(f'<line class="slo" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{bottom}"/>')
        side = "end" if x > (left + width) / 2 else ""
        parts.append(
            text_at(x + (-5 if side else 5), top - 14, f"SLO {format_duration(bound_ns)}", f"slo-text halo {side}")
        )

    points = []
    for index, entry in enumerate(entries):
        y = top + band * index + (band / 2 if wide else 46)
        if wide:
            parts.append(_label(names - 14, y, entry, "end"))
        else:
            parts.append(_label(0, y - 25, entry, ""))
        if priced:
            parts.append(_bar(bars, y, entry, costs[index], hatch))
        latency = latencies[index]
        if latency is None:
            parts.append(text_at(left + 12, y + 4, "not enough samples", "soft"))
            continue
        x, above = dots(latency / 1000), 0
        points.append(f"{x:.1f},{y:.1f}")
        end = entry.row.latency_us.p90_interval if p == 90 else None
        if end and end[1] is not None:
            ends_x = (dots(end[0] / 1000), dots(end[1] / 1000))
            parts.append(f'<line class="whisker" x1="{ends_x[0]:.1f}" x2="{ends_x[1]:.1f}" y1="{y}" y2="{y}"/>')
            # Beside the dot, or above it where the interval is in the way.
            above = 11 if ends_x[1] > x + 8 else 0
        fill = "dot" if slo is None or entry.row.verdict == "met" else "miss"
        parts.append(f'<circle class="{fill}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(text_at(x + 10, y + 4 - above, format_ms(latency), "halo"))
    # The line goes beneath the dots, so it is drawn first.
    parts.insert(1, f'<polyline class="line" points="{" ".join(points)}"/>' if len(points) > 1 else "")
    return Chart("".join(parts), width, height)


def percentile_chart(curves: Sequence[tuple[str, Histogram, int]], slo: Slo | None, width: int) -> Chart | None:
    """Latency up to each percentile on a 1/(1 - p) axis; a curve is (name, histogram, requests beyond it).

    A curve ends where fewer than ten samples are left above it, or where errors begin.
    """
    drawn = [(name, _curve(histogram, beyond)) for name, histogram, beyond in curves]
    drawn = [(name, points) for name, points in drawn if len(points) > 1]
    if not drawn:
        return None
    height, left, top, right = 330, 52, 36, 16
    bottom = height - 46
    last = max(points[-1][0] for _name, points in drawn)
    highest = max(points[-1][1] for _name, points in drawn) / 1000
    bound = next((bound / 1e6 for p, bound in slo.bounds), None) if slo else None
    across = Scale(0, max(last, math.log10(2)), left, width - right)
    up = Scale(0, max(highest, bound or 0), bottom, top, every=45)
    parts = [text_at(0, 14, "Latency, ms", "head")]
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(left - 8, y + 4, f"{value:g}", "soft end"))
    for p in (0, 50, 90, 99, 99.9, 99.99, 99.999):
        at = -math.log10(1 - p / 100)
        if at <= last + 1e-9:
            x = across(at)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            parts.append(text_at(x, bottom + 18, f"{p:g} %", "soft mid"))
    parts.append(text_at((left + width) / 2, height - 8, "of requests were at least this fast", "soft mid"))
    for index, (_name, points) in enumerate(drawn):
        path = " ".join(f"{across(x):.1f},{up(us / 1000):.1f}" for x, us in points)
        number = index % len(DASHES)
        look = f'style="stroke:var(--s{number})" stroke-dasharray="{DASHES[number]}"'
        parts.append(f'<polyline class="curve" {look} points="{path}"/>')
    if slo:
        for p, bound_ns in slo.bounds:
            y, end = up(bound_ns / 1e6), across(min(-math.log10(1 - p / 100), last))
            parts.append(f'<line class="slo" x1="{left}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(text_at(left + 4, y - 5, f"SLO P{p:g} {format_duration(bound_ns)}", "slo-text halo"))
    return Chart("".join(parts), width, height)


def _curve(histogram: Histogram, beyond: int) -> list[tuple[float, float]]:
    """Points (-log10 of the share above, latency in µs)."""
    total = histogram.count + beyond
    end = math.log10(total / 10) if total >= 20 else 0.0
    points = []
    for step in range(121):
        at = end * step / 120
        value = histogram.percentile_us(100 * (1 - 10**-at), beyond)
        if value is None:
            break
        points.append((at, value))
    return points


def _label(x: float, y: float, entry: LabeledRow, side: str) -> str:
    if side:
        under = f"{entry.kind}, simulated" if entry.row.simulated else entry.kind
        return text_at(x, y - 2, shorten(entry.label, int(x / 7.8)), side) + text_at(x, y + 14, under, f"soft {side}")
    return text_at(x, y, shorten(entry.label, 50), "halo")


def _bar(scale: Scale, y: float, entry: LabeledRow, cost: float | None, hatch: str) -> str:
    if cost is None:
        return text_at(scale(0), y + 4, "price not known", "soft")
    start, end = scale(0), scale(cost)
    box = f'x="{start:.1f}" y="{y - 9:.1f}" width="{max(end - start, 1):.1f}" height="18" rx="2"'
    parts = [f'<rect {box} fill="{colour(entry.row.kind)}"/>']
    if entry.row.simulated:
        parts.append(f'<rect {box} fill="url(#{hatch})"/>')
    parts.append(text_at(end + 7, y + 4, format_money(cost, entry.row.currency), ""))
    return "".join(parts)


def _hatches(name: str) -> str:
    # Under a name of its own for each width: a pattern inside the picture that the page hides is not drawn.
    return (
        f'<defs><pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="2" height="6" fill="#fff" opacity=".45"/></pattern></defs>'
    )
