"""The targets of a row beside one another, as a chart and as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.comparison import TargetPool, TargetSkew, target_pools
from capacity.pricing import LabeledRow
from capacity.reporting.charts import Bar, Chart, draw_bars


def throughput_chart(pool: TargetPool, width: int) -> Chart | None:
    """Draws the throughput of each target of a pool; the slower ones are marked."""
    rows = [
        Bar(
            skew.target,
            [(skew.throughput_rps, 1 if skew.slower else 0)],
            words=f"{skew.throughput_rps:.4g}{_mark(skew)}",
        )
        for skew in pool.skews
    ]
    return draw_bars("Answered a second", rows, width)


def _mark(skew: TargetSkew) -> str:
    return f", {100 * skew.slower_by:.0f} % slower" if skew.slower and skew.slower_by is not None else ""


def slower_targets(entries: Sequence[LabeledRow]) -> list[str]:
    """Returns a sentence for each target that is slower than its siblings."""
    return [
        f"{pool.entry.label}, {pool.entry.row.model}: {skew.sentence}"
        for pool in target_pools(entries)
        for skew in pool.skews
        if skew.slower
    ]
