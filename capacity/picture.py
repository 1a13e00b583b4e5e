"""Pictures as SVG: the article's chart of price and latency, and latency by percentile. Colours come from CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from capacity.cost import money
from capacity.histogram import Histogram
from capacity.slo import Slo, format_duration
from capacity.view import PERCENTILES, Entry, judged_percentile, ms

# Okabe and Ito's palette, which the colour-blind tell apart; the article's dark grey, green and blue for three kinds.
STYLE = """
.pic{--bg:#fcfcfb;--ink:#1c2127;--soft:#626b76;--rule:#d9dde2;--cpu:#0072b2;--cuda:#00875f;--eia:#4b535d;--other:#c65a00;
--slo:#b3261e;--s0:#0072b2;--s1:#c65a00;--s2:#00875f;--s3:#a8487f;--s4:#8a6d00;--s5:#3d4650;--s6:#2a93c9;--s7:#e08a2e;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
@media screen and (prefers-color-scheme:dark){
.pic{--bg:#14171b;--ink:#e8eaed;--soft:#9aa4b0;--rule:#363d46;--cpu:#5db7ef;
--cuda:#35c99a;--eia:#b3bcc8;--other:#ff9f57;--slo:#ff8a80;--s0:#5db7ef;--s1:#ff9f57;--s2:#35c99a;--s3:#e59ac4;
--s4:#e3c04a;--s5:#c3cbd5;--s6:#2f8fd0;--s7:#d97a2b}}
.pic text{fill:var(--ink);font-size:13px}.pic text.soft{fill:var(--soft);font-size:12px}
.pic .head{font-weight:600}
.pic .halo{paint-order:stroke;stroke:var(--bg);stroke-width:5px;stroke-linejoin:round}
.pic .mid{text-anchor:middle}.pic .end{text-anchor:end}
.pic .grid{stroke:var(--rule);stroke-width:1}
.pic .slo{stroke:var(--slo);stroke-width:1.5;stroke-dasharray:5 4}.pic text.slo-text{fill:var(--slo);font-size:12px}
.pic .line{fill:none;stroke:var(--ink);stroke-width:1.5}.pic .whisker{stroke:var(--ink);stroke-width:3;opacity:.35}
.pic .dot{fill:var(--ink)}.pic .miss{fill:none;stroke:var(--ink);stroke-width:2}
.pic .curve{fill:none;stroke-width:2;stroke-linejoin:round}
"""
_COLOURS = ("cpu", "cuda", "eia")
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "none", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Picture:
    """SVG elements without their frame, and how large that is in px."""

    body: str
    width: int
    height: int

    def svg(self, label: str, variant: str = "", style: bool = False) -> str:
        """The framed picture; with `style` it stands alone as a file."""
        head = f"<style>{STYLE}</style>" if style else ""
        spaces = ' xmlns="http://www.w3.org/2000/svg"' if style else ""
        return (
            f'<svg{spaces} class="pic {variant}" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-label="{escape(label)}">{head}{self.body}</svg>'
        )


def colour(kind: str) -> str:
    """The CSS variable of a kind's colour."""
    return f"var(--{kind if kind in _COLOURS else 'other'})"


def stacked(pictures: Sequence[tuple[str, Picture]]) -> Picture:
    """Pictures under one another, each under its title."""
    parts, y, width = [], 0, max(picture.width for _title, picture in pictures)
    for heading, picture in pictures:
        parts.append(f'<g transform="translate(0 {y})">{_text(0, 18, heading, "head")}')
        parts.append(f'<g transform="translate(0 28)">{picture.body}</g></g>')
        y += picture.height + 44
    return Picture("".join(parts), width, y)


def cost_and_latency(entries: Sequence[Entry], slo: Slo | None, width: int) -> Picture:
    """The article's chart, turned so that long names fit: bars of cost per 100,000, a line of P90, the SLO as a rule.

    The SLO's percentile takes P90's place where it has another. A filled dot meets the SLO, a ring does not or cannot
    be told; a hatched bar is simulated. Without any price the bars stay out, which the report says in words.
    """
    p, bound_ns = judged_percentile(slo)
    costs = [entry.row.cost_per_100k.sequential for entry in entries]
    latencies = [getattr(entry.row.latency_us, PERCENTILES[p]) for entry in entries]
    priced = any(cost is not None for cost in costs)
    wide = width >= 640
    names = round(0.255 * width) if wide else 0
    band, top, gap = (44, 46, 36) if wide else (66, 46, 22)
    room = width - names
    share = (room - gap) / 2 if priced else room
    height = top + band * len(entries) + 30
    bottom = height - 30
    hatch = f"hatch-{width}"
    parts = [_hatches(hatch)]

    bars = _Scale(0, max((cost for cost in costs if cost), default=1), names, names + share - 58)
    left = names + share + gap if priced else names
    ends = [entry.row.latency_us.p90_interval for entry in entries] if p == 90 else []
    tallest = [value for value in latencies if value is not None] + [end[1] for end in ends if end and end[1]]
    if bound_ns:
        tallest.append(bound_ns / 1000)
    dots = _Scale(0, max(tallest, default=1) / 1000, left + 8, width - 58)

    if priced:
        currency = next(entry.row.currency for entry in entries if entry.row.cost_per_100k.sequential is not None)
        parts.append(_text(names, 14, "Cost per 100,000, one at a time" if width > 800 else "Cost per 100,000", "head"))
        parts.append(_ticks(bars, top - 6, bottom, lambda value: money(value, currency)))
    parts.append(_text(left + 8, 14, f"P{p:g} latency, ms", "head"))
    parts.append(_ticks(dots, top - 6, bottom, lambda value: f"{value:g}"))
    if bound_ns:
        x = dots(bound_ns / 1e6)
        parts.append(f'<line class="slo" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{bottom}"/>')
        side = "end" if x > (left + width) / 2 else ""
        parts.append(
            _text(x + (-5 if side else 5), top - 14, f"SLO {format_duration(bound_ns)}", f"slo-text halo {side}")
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
            parts.append(_text(left + 12, y + 4, "not enough samples", "soft"))
            continue
        x, above = dots(latency / 1000), 0
        points.append(f"{x:.1f},{y:.1f}")
        end = entry.row.latency_us.p90_interval if p == 90 else None
        if end and end[1] is not None:
            ends_x = (dots(end[0] / 1000), dots(end[1] / 1000))
            parts.append(f'<line class="whisker" x1="{ends_x[0]:.1f}" x2="{ends_x[1]:.1f}" y1="{y}" y2="{y}"/>')
            # Beside the dot, or above it where the interval is in the way.
            above = 11 if ends_x[1] > x + 8 else 0
        fill = "dot" if slo is None or entry.row.meets_slo else "miss"
        parts.append(f'<circle class="{fill}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(_text(x + 10, y + 4 - above, ms(latency), "halo"))
    # The line goes beneath the dots, so it is drawn first.
    parts.insert(1, f'<polyline class="line" points="{" ".join(points)}"/>' if len(points) > 1 else "")
    return Picture("".join(parts), width, height)


def by_percentile(curves: Sequence[tuple[str, Histogram, int]], slo: Slo | None, width: int) -> Picture | None:
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
    across = _Scale(0, max(last, math.log10(2)), left, width - right)
    up = _Scale(0, max(highest, bound or 0), bottom, top, every=45)
    parts = [_text(0, 14, "Latency, ms", "head")]
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, f"{value:g}", "soft end"))
    for p in (0, 50, 90, 99, 99.9, 99.99, 99.999):
        at = -math.log10(1 - p / 100)
        if at <= last + 1e-9:
            x = across(at)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            parts.append(_text(x, bottom + 18, f"{p:g} %", "soft mid"))
    parts.append(_text((left + width) / 2, height - 8, "of requests were at least this fast", "soft mid"))
    for index, (_name, points) in enumerate(drawn):
        path = " ".join(f"{across(x):.1f},{up(us / 1000):.1f}" for x, us in points)
        number = index % len(DASHES)
        look = f'style="stroke:var(--s{number})" stroke-dasharray="{DASHES[number]}"'
        parts.append(f'<polyline class="curve" {look} points="{path}"/>')
    if slo:
        for p, bound_ns in slo.bounds:
            y, end = up(bound_ns / 1e6), across(min(-math.log10(1 - p / 100), last))
            parts.append(f'<line class="slo" x1="{left}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_text(left + 4, y - 5, f"SLO P{p:g} {format_duration(bound_ns)}", "slo-text halo"))
    return Picture("".join(parts), width, height)


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


class _Scale:
    """Linear from (low, high) to px; `ticks` are round numbers within it, one for each `every` px at most."""

    def __init__(self, low: float, high: float, start: float, end: float, every: int = 70) -> None:
        self._low, self._high, self._start, self._end, self._every = low, high or 1.0, start, end, every

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """A few round numbers."""
        rough = (self._high - self._low) / max(min(abs(self._end - self._start) / self._every, 6), 2)
        size = 10 ** math.floor(math.log10(rough))
        step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
        return [round(step * number, 12) for number in range(math.floor(self._high / step + 1e-9) + 1)]


def _ticks(scale: _Scale, top: float, bottom: float, text: Callable[[float], str]) -> str:
    parts = []
    for value in scale.ticks():
        x = scale(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 18, text(value), "soft mid" if value else "soft"))
    return "".join(parts)


def _label(x: float, y: float, entry: Entry, side: str) -> str:
    if side:
        under = f"{entry.kind}, simulated" if entry.row.simulated else entry.kind
        return _text(x, y - 2, _short(entry.label, int(x / 7.8)), side) + _text(x, y + 14, under, f"soft {side}")
    return _text(x, y, _short(entry.label, 50), "halo")


def _bar(scale: _Scale, y: float, entry: Entry, cost: float | None, hatch: str) -> str:
    if cost is None:
        return _text(scale(0), y + 4, "price not known", "soft")
    start, end = scale(0), scale(cost)
    box = f'x="{start:.1f}" y="{y - 9:.1f}" width="{max(end - start, 1):.1f}" height="18" rx="2"'
    parts = [f'<rect {box} fill="{colour(entry.row.kind)}"/>']
    if entry.row.simulated:
        parts.append(f'<rect {box} fill="url(#{hatch})"/>')
    parts.append(_text(end + 7, y + 4, money(cost, entry.row.currency), ""))
    return "".join(parts)


def _hatches(name: str) -> str:
    # Under a name of its own for each width: a pattern inside the picture that the page hides is not drawn.
    return (
        f'<defs><pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="2" height="6" fill="#fff" opacity=".45"/></pattern></defs>'
    )


def _text(x: float, y: float, text: str, classes: str) -> str:
    named = f' class="{classes.strip()}"' if classes.strip() else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}>{escape(text)}</text>'


def _short(text: str, most: int) -> str:
    """Cut in the middle: host types are alike at their beginning, and pools differ at their end."""
    tail = most // 2
    return text if len(text) <= most else f"{text[: most - tail - 1].rstrip()}…{text[-tail:].lstrip()}"
