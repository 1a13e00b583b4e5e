"""Charts of bars in segments, one for each row, and the chart of price against P90 with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capacity.pricing import LabeledRow, format_axis_price
from capacity.reporting.charts.canvas import Chart, Scale, shorten, text_at, ticks_across
from capacity.reporting.formatting import format_ms, latency_and_price, pareto_front


@dataclass(frozen=True)
class Bar:
    """One row: segments (value, which of the four fills), a mark across it if any, and words at its end."""

    label: str
    segments: Sequence[tuple[float, int]]
    mark: float | None = None
    words: str = ""


def draw_bars(heading: str, rows: Sequence[Bar], width: int) -> Chart | None:
    """The rows under one another on one scale from 0; None where there is nothing to draw."""
    longest = max((sum(value for value, _ in bar.segments) for bar in rows), default=0.0)
    longest = max([longest, *(bar.mark for bar in rows if bar.mark is not None)])
    if longest <= 0:
        return None
    wide = width >= 640
    left = round(0.3 * width) if wide else 0
    band, top = (28, 34) if wide else (44, 34)
    words = max((len(bar.words) for bar in rows), default=0)
    across = Scale(0, longest, left, width - max(16, round(7.4 * words) + 14))
    bottom = top + band * len(rows)
    parts = [text_at(left, 14, heading, "head"), ticks_across(across, top - 8, bottom, lambda value: f"{value:g}")]
    for index, bar in enumerate(rows):
        y = top + band * index + (4 if wide else 20)
        if wide:
            parts.append(text_at(left - 12, y + 13, shorten(bar.label, int(left / 7.4)), "end"))
        else:
            parts.append(text_at(0, y - 4, shorten(bar.label, 48), "halo"))
        at = 0.0
        for value, fill in bar.segments:
            x, length = across(at), across(at + value) - across(at)
            if length > 0:
                parts.append(
                    f'<rect class="seg{fill}" x="{x:.1f}" y="{y}" width="{max(length, 0.5):.1f}" height="17"/>'
                )
            at += value
        if bar.mark is not None:
            x = across(bar.mark)
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + 20}"/>')
        parts.append(text_at(across(max(at, bar.mark or 0)) + 8, y + 13, bar.words, ""))
    return Chart("".join(parts), width, bottom + 28)


def time_share_chart(entries: Sequence[LabeledRow], width: int) -> Chart | None:
    """Draws the parts of the mean latency: compute and queue by the worker's clock, lateness, and the rest."""
    rows = []
    for entry in entries:
        row = entry.row
        compute, service = row.compute_us.mean, row.service_us.mean
        if compute is None or service is None:
            continue
        queue, late = row.queue_us.mean or 0.0, row.lateness_us.mean or 0.0
        rest = max(service - queue - compute, 0.0)
        parts = [(value / 1000, fill) for value, fill in ((compute, 0), (queue, 1), (rest, 2), (late, 3))]
        share = 100 * compute / max(compute + queue + rest + late, 1e-9)
        rows.append(Bar(entry.label, parts, words=f"{format_ms(service + late)} ms, {share:.0f} % compute"))
    return draw_bars("Mean latency, ms", rows, width)


def rate_chart(entries: Sequence[LabeledRow], width: int) -> Chart | None:
    """Draws answered requests a second, failed or unsent ones, and the offered rate as a mark."""
    rows = []
    for entry in entries:
        row = entry.row
        lost = max(row.offered_rps - row.throughput_rps, 0.0)
        share = 100 * row.answered / row.due if row.due else 0.0
        answered = "all" if row.answered == row.due else f"{share:.3g} %"
        rows.append(
            Bar(
                entry.label, [(row.throughput_rps, 0), (lost, 1)], row.offered_rps, f"{row.offered_rps:.4g}, {answered}"
            )
        )
    return draw_bars("Offered and answered, a second", rows, width)


def pareto_chart(entries: Sequence[LabeledRow], width: int) -> Chart | None:
    """Draws price against P90; rows on the Pareto front are filled and joined. None for fewer than two points."""
    positions = [(position, entry) for entry in entries if (position := latency_and_price(entry)) is not None]
    if len(positions) < 2:
        return None
    on_front = pareto_front(entries)
    height, left, top, right = 300, 64, 34, 24
    bottom = height - 44
    across = Scale(0, 1.1 * max(at[0] for at, _ in positions) / 1000, left, width - right)
    up = Scale(0, 1.15 * max(at[1] for at, _ in positions), bottom, top, every=45)
    currency = positions[0][1].row.currency
    parts = [text_at(0, 14, "Price per 100,000, one at a time", "head")]
    for value in up.ticks():
        y = up(value)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text_at(left - 8, y + 4, format_axis_price(value, currency), "soft end"))
    parts.append(ticks_across(across, top, bottom, lambda value: f"{value:g}"))
    parts.append(text_at(width - right, height - 8, "P90 latency, ms", "soft end"))
    corners = sorted((latency_and_price(entry) or (0.0, 0.0)) for entry in on_front)
    path, previous = "", None
    for x, y in ((across(p90 / 1000), up(cost)) for p90, cost in corners):
        path += f"M{x:.1f} {y:.1f}" if previous is None else f"H{x:.1f}V{y:.1f}"
        previous = x
    parts.append(f'<path class="front" d="{path}"/>')
    label_places: list[tuple[float, float]] = []
    for (p90, cost), entry in sorted(positions, key=lambda pair: pair[0]):
        x, y = across(p90 / 1000), up(cost)
        parts.append(f'<circle class="{"dot" if entry in on_front else "miss"}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
        side = "end" if x > (left + width) / 2 else ""
        at = y - 9
        while any(abs(at - other) < 15 and abs(x - near) < 260 for near, other in label_places):
            at -= 15
        if at < top - 4:
            # Above there is the heading.
            at = y + 18
        label_places.append((x, at))
        most = max(int((x - left if side else width - right - x) / 7.2), 8)
        parts.append(text_at(x + (-8 if side else 8), at, shorten(entry.label, most), f"halo {side}"))
    return Chart("".join(parts), width, height)
