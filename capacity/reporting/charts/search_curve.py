"""The result of a search as a sentence, and as a chart of rate against latency."""

from __future__ import annotations

import math
from collections.abc import Sequence

from capacity.reporting.charts.canvas import DASHES, Chart, Scale, text_at, ticks_across
from capacity.reporting.formatting import PERCENTILES, shown_percentile
from capacity.rundir import Probe, SearchResult
from capacity.statistics import Slo
from worker.wire import format_duration

_LINES = (50.0, 90.0, 99.0)
_MARK = 4.5


def format_rate(rps: float) -> str:
    """Returns a rate with three or four digits: 57.4/s, 1,204/s."""
    return f"{rps:,.{0 if rps >= 1000 else 1 if rps >= 10 else 2}f}/s"


def describe_search(search: SearchResult) -> str:
    """Returns the result of a search, or of steps, in a sentence."""
    rate, parts = search.slo_rate, []
    if search.shape == "slo-search":
        if rate.met_rps is None:
            parts.append(f"no tested rate met {search.slo}")
        else:
            confirmed = "confirmed by a fresh probe" if rate.confirmed else "not confirmed"
            parts.append(f"{format_rate(rate.met_rps)} meets {search.slo} ({confirmed})")
        if rate.missed_rps is not None:
            parts.append(f"{format_rate(rate.missed_rps)} does not")
        if rate.estimate_rps is not None and rate.interval is not None:
            low, high = (format_rate(end) for end in rate.interval)
            parts.append(f"the limit is about {format_rate(rate.estimate_rps)} (95 % interval {low} to {high})")
    full = search.saturation
    if full.rps is not None:
        ends = f" ({format_rate(full.interval[0])} to {format_rate(full.interval[1])})" if full.interval else ""
        parts.append(f"saturated at {format_rate(full.rps)}{ends}")
    elif search.shape == "steps":
        parts.append("no step reached saturation")
    if search.stop_reason not in ("", "confirmed", "all steps are done", "all steps were taken"):
        parts.append(f"stopped: {search.stop_reason}")
    return "; ".join(parts)


def charted_probes(search: SearchResult) -> list[Probe]:
    """Returns the probes that a chart shows, by rate: those that are valid."""
    return sorted((probe for probe in search.probes if probe.valid and probe.due), key=lambda probe: probe.offered_rps)


def search_chart(search: SearchResult, width: int) -> Chart | None:
    """Draws latency against the offered rate: lines of P50, P90 and P99, and a mark with its interval for the SLO's
    percentile. Probes far above the SLO are at the upper edge. None with fewer than two probes."""
    probes = charted_probes(search)
    slo = Slo.parse(search.slo) if search.slo else None
    p, bound_ns = shown_percentile(slo)
    if len(probes) < 2:
        return None
    height, left, top, right = 340, 52, 44, 18
    bottom = height - 46
    highest = _highest(probes, p, bound_ns)
    across = Scale(0, _farthest(search, probes), left, width - right)
    up = Scale(0, highest / 1000, bottom, top, every=45)
    parts = [text_at(0, 14, "Latency, ms", "head")]
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(left - 8, y + 4, f"{value:g}", "soft end"))
    parts.append(ticks_across(across, top, bottom, lambda value: f"{value:g}"))
    parts.append(text_at((left + width) / 2, height - 8, "offered requests a second", "soft mid"))
    parts += _crossing(search, across, top, bottom)
    inside = [probe for probe in probes if probe.offered_rps <= _farthest(search, probes)]
    for number, percentile in enumerate(_LINES):
        points = _points(inside, percentile, highest)
        if len(points) > 1:
            path = " ".join(f"{across(rate):.1f},{up(us / 1000):.1f}" for rate, us in points)
            look = f'style="stroke:var(--s{number})" stroke-dasharray="{DASHES[number]}"'
            parts.append(f'<polyline class="curve" {look} points="{path}"/>')
    if bound_ns:
        y = up(bound_ns / 1e6)
        parts.append(f'<line class="slo" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(left + 4, y - 5, f"SLO P{p:g} {format_duration(bound_ns)}", "slo-text halo"))
    for probe in inside:
        parts.append(_mark(probe, p, across, up, highest))
    return Chart("".join(parts), width, height)


def _farthest(search: SearchResult, probes: Sequence[Probe]) -> float:
    """The right edge in requests a second: past the lowest rate that missed the SLO and past saturation.

    Probes far above both are not drawn.
    """
    ends = [
        search.slo_rate.missed_rps or 0.0,
        1.1 * (search.saturation.rps or 0.0),
        max((probe.offered_rps for probe in probes if not probe.saturated), default=0.0),
    ]
    return 1.05 * max(ends) or 1.05 * probes[-1].offered_rps


def _highest(probes: Sequence[Probe], p: float, bound_ns: int | None) -> float:
    """The upper edge in µs: what the unsaturated probes need, and at least 1.5 times the SLO."""
    unsaturated = [
        value
        for probe in probes
        if not probe.saturated
        for value in (_value(probe, p), probe.latency_us.p50, probe.latency_us.p90)
        if value is not None
    ]
    most = max(unsaturated, default=0.0) or max((probe.latency_us.max or 0.0 for probe in probes), default=1.0)
    return max(1.15 * min(most, 4 * bound_ns / 1000), 1.5 * bound_ns / 1000) if bound_ns else 1.15 * most


def _value(probe: Probe, p: float) -> float | None:
    value = probe.slo_us if probe.slo_us is not None else getattr(probe.latency_us, PERCENTILES[p])
    return None if value is None else float(value)


def _points(probes: Sequence[Probe], p: float, highest: float) -> list[tuple[float, float]]:
    """(rate, µs) of one percentile, up to the first that is over the edge."""
    points = []
    for probe in probes:
        value = getattr(probe.latency_us, PERCENTILES[p])
        if value is None:
            continue
        if value > highest:
            break
        points.append((probe.offered_rps, float(value)))
    return points


def _crossing(search: SearchResult, across: Scale, top: float, bottom: float) -> list[str]:
    """Where the SLO is crossed, as a band, and where it saturates, as a line; with labels."""
    parts, rate = [], search.slo_rate
    if rate.interval is not None and rate.estimate_rps is not None:
        low, high, middle = across(rate.interval[0]), across(rate.interval[1]), across(rate.estimate_rps)
        box = f'x="{low:.1f}" y="{top}" width="{max(high - low, 1):.1f}" height="{bottom - top}"'
        parts.append(f'<rect class="band" {box}/>')
        parts.append(f'<line class="mark" x1="{middle:.1f}" x2="{middle:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(text_at(middle, top - 8, format_rate(rate.estimate_rps), "halo mid"))
    if search.saturation.rps is not None:
        x = across(search.saturation.rps)
        parts.append(f'<line class="full" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(text_at(x - 5, bottom - 8, f"saturated {format_rate(search.saturation.rps)}", "soft halo end"))
    return parts


def _mark(probe: Probe, p: float, across: Scale, up: Scale, highest: float) -> str:
    """A dot where the probe met the SLO or there is none, a ring where it missed it, a cross where inconclusive."""
    value = _value(probe, p)
    over = value is None or value > highest
    x, y = across(probe.offered_rps), up((highest if over or value is None else value) / 1000)
    ends = probe.slo_interval or (probe.latency_us.p90_interval if p == 90 else None)
    whisker = ""
    if ends is not None and not over:
        high = min(ends[1] if ends[1] is not None else math.inf, highest)
        y1, y2 = up(min(ends[0], highest) / 1000), up(high / 1000)
        whisker = f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
    if over:
        # An arrow: the value lies above the chart.
        path = f"M{x - 5:.1f} {y + 9:.1f}L{x:.1f} {y:.1f}L{x + 5:.1f} {y + 9:.1f}Z"
        return f'<path class="{"dot" if probe.verdict in (None, "met") else "miss"}" d="{path}"/>'
    if probe.verdict == "inconclusive":
        path = f"M{x - 4:.1f} {y - 4:.1f}l8 8M{x - 4:.1f} {y + 4:.1f}l8 -8"
        return f'{whisker}<path class="cross" d="{path}"/>'
    kind = "miss" if probe.verdict == "missed" else "dot"
    return f'{whisker}<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{_MARK}"/>'
