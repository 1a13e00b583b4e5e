"""The parts of every chart: frame, colours and line styles, scales, ticks and text. Colours come from CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's palette, whose colours the colour-blind can distinguish; the article's dark grey, green and blue for
# three kinds.
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
.pic .mark{stroke-width:1.2;opacity:.7}
.pic .slo{stroke:var(--slo);stroke-width:1.5;stroke-dasharray:5 4}.pic text.slo-text{fill:var(--slo);font-size:12px}
.pic .line{fill:none;stroke:var(--ink);stroke-width:1.5}.pic .whisker{stroke:var(--ink);stroke-width:3;opacity:.35}
.pic .dot{fill:var(--ink)}.pic .miss{fill:none;stroke:var(--ink);stroke-width:2}
.pic .curve{fill:none;stroke-width:2;stroke-linejoin:round}.pic .thin{fill:none;stroke-width:1.2;opacity:.75}
.pic .seg0{fill:var(--s0)}.pic .seg1{fill:var(--s1)}.pic .seg2{fill:var(--s2)}.pic .seg3{fill:var(--s5);opacity:.35}
.pic .band{fill:var(--slo);opacity:.14}.pic .cross{fill:none;stroke:var(--soft);stroke-width:2}
.pic .full{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:2 3}
.pic .mark{stroke:var(--ink);stroke-width:2}.pic .front{fill:none;stroke:var(--soft);stroke-width:1.5}
"""
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "none", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Chart:
    """SVG elements without their frame, and how large that is in px."""

    body: str
    width: int
    height: int

    def svg(self, label: str, variant: str = "", style: bool = False) -> str:
        """Returns the SVG element; with `style` it has its style sheet, for a file of its own."""
        head = f"<style>{STYLE}</style>" if style else ""
        spaces = ' xmlns="http://www.w3.org/2000/svg"' if style else ""
        return (
            f'<svg{spaces} class="pic {variant}" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-label="{escape(label)}">{head}{self.body}</svg>'
        )


def stack_charts(charts: Sequence[tuple[str, Chart]]) -> Chart:
    """Returns the charts of (title, chart) under one another, each under its title."""
    parts, y, width = [], 0, max(chart.width for _title, chart in charts)
    for heading, chart in charts:
        parts.append(f'<g transform="translate(0 {y})">{text_at(0, 18, heading, "head")}')
        parts.append(f'<g transform="translate(0 28)">{chart.body}</g></g>')
        y += chart.height + 44
    return Chart("".join(parts), width, y)


class Scale:
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


def ticks_across(scale: Scale, top: float, bottom: float, text: Callable[[float], str]) -> str:
    """Grid lines of a scale from left to right, and their numbers under them."""
    parts = []
    for value in scale.ticks():
        x = scale(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(text_at(x, bottom + 18, text(value), "soft mid" if value else "soft"))
    return "".join(parts)


def text_at(x: float, y: float, text: str, classes: str) -> str:
    """One text, escaped."""
    named = f' class="{classes.strip()}"' if classes.strip() else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}>{escape(text)}</text>'


def shorten(text: str, most: int) -> str:
    """Cut in the middle: host types are alike at their beginning, and pools differ at their end."""
    tail = most // 2
    return text if len(text) <= most else f"{text[: most - tail - 1].rstrip()}…{text[-tail:].lstrip()}"
