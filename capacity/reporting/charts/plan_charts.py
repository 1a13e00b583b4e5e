"""Charts of a plan: cost against rate for each combination, and the demand of a day with the cost of its fleets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from capacity.errors import InputError
from capacity.planning import CostCurve, FleetPlan, PlanFile, Schedule
from capacity.pricing import format_hourly
from capacity.reporting.charts.canvas import DASHES, Chart, Scale, shorten, text_at
from capacity.statistics import Slo

# The light half of canvas.STYLE: matplotlib reads no CSS.
_LINES = ("#0072b2", "#c65a00", "#00875f", "#a8487f", "#8a6d00", "#3d4650", "#2a93c9", "#e08a2e")
_INK, _RULE = "#1c2127", "#d9dde2"
_DASHES_PNG: tuple[tuple[int, tuple[int, ...]], ...] = ((0, ()), (0, (7, 3)), (0, (2, 3)), (0, (9, 3, 2, 3)))


class _Decades:
    """Logarithmic from (low, high) to px; `ticks` are 1, 2 and 5 of each power of ten, or 1 alone where those crowd."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._high = math.log10(low), math.log10(max(high, low * 1.01))
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round numbers within it."""
        every = abs(self._end - self._start) / max(self._high - self._low, 1e-9)
        factors = (1, 2, 5) if every > 150 else (1, 3) if every > 90 else (1,)
        powers = range(math.floor(self._low), math.ceil(self._high) + 1)
        ticks = [round(factor * 10.0**power, 9) for power in powers for factor in factors]
        return [value for value in ticks if self._low - 1e-9 <= math.log10(value) <= self._high + 1e-9]


def cost_rate_chart(
    curves: Sequence[CostCurve], plans: Sequence[FleetPlan], slo: Slo, currency: str, width: int
) -> Chart | None:
    """The price an hour of pools of each combination alone, as steps, and the chosen fleets as dots; axes in decades.

    A curve ends where its limit does. None where no combination has a curve.
    """
    drawn = [curve for curve in curves if curve.points]
    chosen = [plan for plan in plans if plan.rows and plan.cost_per_hour]
    if not drawn:
        return None
    names = 250 if width >= 640 else 0
    height, left, top = (420, 66, 40) if width >= 640 else (340, 58, 40)
    bottom, right = height - 48, width - names - 14
    rates = [rate for curve in drawn for rate, _cost in curve.points]
    costs = [cost for curve in drawn for _rate, cost in curve.points if cost > 0] + [
        plan.cost_per_hour for plan in chosen if plan.cost_per_hour
    ]
    if not costs:
        return None
    across = _Decades(min(rates), max(rates), left, right)
    up = _Decades(min(costs) * 0.8, max(costs) * 1.15, bottom, top)
    parts = [text_at(0, 14, f"Price an hour of the cheapest pool within {slo}", "head")]
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(left - 8, y + 4, format_hourly(value, currency), "soft end"))
    for value in across.ticks():
        x = across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(text_at(x, bottom + 18, f"{value:,.0f}" if value >= 1 else f"{value:g}", "soft mid"))
    parts.append(text_at((left + right) / 2, height - 8, "requests a second", "soft mid"))
    labels = []
    for index, curve in enumerate(drawn):
        look = f'style="stroke:var(--s{index % 8})" stroke-dasharray="{DASHES[index % len(DASHES)]}"'
        path, before = [], None
        for rate, cost in curve.points:
            y = up(max(cost, min(costs) * 0.8))
            if before is not None and y != before:
                path.append(f"{across(rate):.1f},{before:.1f}")
            path.append(f"{across(rate):.1f},{y:.1f}")
            before = y
        parts.append(f'<polyline class="curve" {look} points="{" ".join(path)}"/>')
        labels.append((before or bottom, index, curve))
    if names:
        parts += _names(labels, right + 10, top, bottom)
    for plan in chosen:
        assert plan.cost_per_hour is not None
        x, y = across(plan.required_rps), up(plan.cost_per_hour)
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        side = "end" if x > right - 70 else ""
        parts.append(
            text_at(x - 9 if side else x + 9, y + 17, format_hourly(plan.cost_per_hour, currency), f"halo {side}")
        )
    return Chart("".join(parts), width, height)


def _names(labels: list[tuple[float, int, CostCurve]], x: float, top: float, bottom: float) -> list[str]:
    """The curves' names beside their ends, each with its line, none over another."""
    parts: list[str] = []
    labels = sorted(labels, key=lambda label: label[0])
    space = min(30.0, (bottom - top) / max(len(labels), 1))
    places = [y for y, _index, _curve in labels]
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + space)
    past = max(places[-1] - bottom, 0.0) if places else 0.0
    for number in reversed(range(len(places))):
        most = places[number + 1] - space if number + 1 < len(places) else bottom
        places[number] = min(places[number], most) if past else places[number]
    for place, (_y, index, curve) in zip(places, labels, strict=True):
        look = f'style="stroke:var(--s{index % 8})" stroke-dasharray="{DASHES[index % len(DASHES)]}"'
        parts.append(f'<line class="curve" {look} x1="{x:.1f}" x2="{x + 24:.1f}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(text_at(x + 30, place + 2, shorten(curve.hardware, 27), ""))
        under = ", ".join(
            [*([curve.market] if curve.market != "on-demand" else []), *(["simulated"] if curve.simulated else [])]
        )
        if under:
            parts.append(text_at(x + 30, place + 15, under, "soft"))
    return parts


def day_chart(schedule: Schedule, currency: str, width: int) -> Chart:
    """A day's demand and the price an hour of what runs, one above the other, as steps."""
    height, left, right = 340, 66, width - 16
    panels = (
        ("Requests a second", [slot.rps for slot in schedule.slots], 36, 140),
        ("Price an hour", [slot.cost / slot.hours for slot in schedule.slots], 196, 300),
    )
    across = Scale(0, 24, left, right)
    parts = []
    for number, (heading, values, top, bottom) in enumerate(panels):
        up = Scale(0, max(values), bottom, top, every=34)
        parts.append(text_at(0, top - 16, heading, "head"))
        for value in up.ticks():
            y = up(value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            text = f"{value:,g}" if number == 0 else format_hourly(value, currency)
            parts.append(text_at(left - 8, y + 4, text, "soft end"))
        path, hour = [], 0.0
        for slot, value in zip(schedule.slots, values, strict=True):
            path += [f"{across(hour):.1f},{up(value):.1f}", f"{across(hour + slot.hours):.1f},{up(value):.1f}"]
            hour += slot.hours
        parts.append(f'<polyline class="curve" style="stroke:var(--s{number})" points="{" ".join(path)}"/>')
    for hour in range(0, 25, 4):
        parts.append(text_at(across(hour), height - 14, f"{hour:02d}:00", f"soft {'mid' if 0 < hour < 24 else 'end'}"))
    return Chart("".join(parts), width, height)


def write_plan_png(path: Path, file: PlanFile) -> None:
    """Cost against rate as a PNG, for places that take no SVG; InputError where there is no curve."""
    # Half a second to import, which a table in the terminal need not wait for.
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    drawn = [curve for curve in file.curves if curve.points]
    if not drawn:
        raise InputError("a plan without a combination that meets its SLO has no picture")
    figure = Figure(figsize=(11, 5.2), layout="constrained", facecolor="white")
    axis = figure.subplots()
    for index, curve in enumerate(drawn):
        marks = [*([curve.market] if curve.market != "on-demand" else []), *(["simulated"] if curve.simulated else [])]
        label = f"{curve.hardware} ({', '.join(marks)})" if marks else curve.hardware
        axis.step(
            [rate for rate, _cost in curve.points],
            [cost for _rate, cost in curve.points],
            where="post",
            color=_LINES[index % len(_LINES)],
            linestyle=_DASHES_PNG[index % len(_DASHES_PNG)],
            linewidth=1.8,
            label=label,
        )
    halo = [withStroke(linewidth=3, foreground="white")]
    for plan in file.plans:
        if plan.cost_per_hour:
            axis.plot([plan.required_rps], [plan.cost_per_hour], "o", color=_INK, markersize=7)
            axis.annotate(
                format_hourly(plan.cost_per_hour, file.currency),
                (plan.required_rps, plan.cost_per_hour),
                (8, -14),
                textcoords="offset points",
                fontsize=10,
                color=_INK,
                path_effects=halo,
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter(lambda value, _place: f"{value:,g}")
    axis.yaxis.set_major_formatter(lambda value, _place: format_hourly(value, file.currency))
    axis.set_xlabel("requests a second")
    axis.set_title(
        f"{file.model}: price an hour of the cheapest pool within {file.slo}{' (simulated)' if file.simulated else ''}",
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    axis.grid(color=_RULE)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, which="both", colors=_INK)
    axis.spines[:].set_visible(False)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    figure.savefig(path, dpi=150)
