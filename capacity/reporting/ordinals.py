"""The ordinals of a row beside one another, as a chart and as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.comparison import OrdinalPool, TargetSkew, ordinal_pools
from capacity.pricing import LabeledRow
from capacity.reporting.charts import Bar, Chart, draw_bars


def throughput_chart(pool: OrdinalPool, width: int) -> Chart | None:
    """Draws the throughput of each ordinal of a pool; the slower ones are marked."""
    rows = [
        Bar(
            ordinal.target,
            [(ordinal.throughput_rps, 1 if ordinal.slower else 0)],
            words=f"{ordinal.throughput_rps:.4g}{_mark(ordinal)}",
        )
        for ordinal in pool.ordinals
    ]
    return draw_bars("Answered a second", rows, width)


def _mark(ordinal: TargetSkew) -> str:
    return f", {100 * ordinal.slower_by:.0f} % slower" if ordinal.slower and ordinal.slower_by is not None else ""


def slower_ordinals(entries: Sequence[LabeledRow]) -> list[str]:
    """Returns a sentence for each ordinal that is slower than its siblings."""
    return [
        f"{pool.entry.label}, {pool.entry.row.model}: {ordinal.sentence}"
        for pool in ordinal_pools(entries)
        for ordinal in pool.ordinals
        if ordinal.slower
    ]
