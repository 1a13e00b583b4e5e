"""The chart of cost and latency as a PNG, for places that take no SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capacity.pricing import LabeledRow, format_money
from capacity.reporting.formatting import PERCENTILES, format_ms, shown_percentile
from capacity.statistics import Slo
from worker.wire import format_duration

# The light half of canvas.STYLE: matplotlib reads no CSS.
_COLOURS = {"cpu": "#0072b2", "cuda": "#00875f", "eia": "#4b535d"}
_OTHER, _INK, _RULE, _SLO = "#c65a00", "#1c2127", "#d9dde2", "#b3261e"


def write_cost_png(path: Path, entries: Sequence[LabeledRow], slo: Slo | None) -> None:
    """Writes the chart: for each model the bars of cost per 100,000 and the line of P90 beside them."""
    # Half a second to import, which a table in the terminal need not wait for.
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]

    models = list(dict.fromkeys(entry.row.model for entry in entries))
    groups = [[entry for entry in entries if entry.row.model == model] for model in models]
    heights = [len(group) + 1.2 for group in groups]
    figure = Figure(figsize=(11, 0.5 * sum(heights) + 0.6), layout="constrained", facecolor="white")
    axes = figure.subplots(len(groups), 2, squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights})
    p, bound_ns = shown_percentile(slo)
    for (bars, line), group, model in zip(axes, groups, models, strict=True):
        names = [f"{entry.label}{' (simulated)' if entry.row.simulated else ''}" for entry in group]
        places = list(range(len(group)))
        for place, entry in enumerate(group):
            cost = entry.row.cost_per_100k.sequential
            if cost is None:
                bars.text(0, place, " price not known", va="center", color=_INK, fontsize=9)
                continue
            colour = _COLOURS.get(entry.row.kind, _OTHER)
            hatch = "//" if entry.row.simulated else None
            bars.barh(place, cost, height=0.5, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            bars.text(cost, place, f" {format_money(cost, entry.row.currency)}", va="center", color=_INK, fontsize=9)
        latencies = [getattr(entry.row.latency_us, PERCENTILES[p]) for entry in group]
        points = [(place, value / 1000) for place, value in zip(places, latencies, strict=True) if value is not None]
        line.plot([value for _, value in points], [place for place, _ in points], "o-", color=_INK, markersize=6)
        for place, value in points:
            line.text(
                value, place, f"   {format_ms(value * 1000)}", va="center", color=_INK, fontsize=9, path_effects=halo
            )
        if bound_ns:
            line.axvline(bound_ns / 1e6, color=_SLO, linestyle="--", label=f"SLO {format_duration(bound_ns)}")
            line.legend(frameon=False, loc="lower right", fontsize=9)
        bars.set_title(f"{model}: cost per 100,000, one at a time", loc="left", fontsize=10, fontweight="bold")
        line.set_title(f"P{p:g} latency, ms", loc="left", fontsize=10, fontweight="bold")
        bars.set_yticks(places, names)
        bars.invert_yaxis()
        for axis in (bars, line):
            axis.set_xlim(left=0)
            axis.margins(x=0.15, y=0.2)
            axis.grid(axis="x", color=_RULE)
            axis.set_axisbelow(True)
            axis.tick_params(length=0, colors=_INK)
            axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=150)
