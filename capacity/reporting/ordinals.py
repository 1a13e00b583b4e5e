"""The ordinals of each row of a report beside one another: their throughput, and whether one is slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capacity.comparison import TargetSkew, target_skews
from capacity.pricing import LabeledRow
from capacity.reporting.charts.bars import Bar, bars
from capacity.reporting.charts.canvas import Picture


@dataclass(frozen=True)
class Pool:
    """The ordinals of one row."""

    entry: LabeledRow
    siblings: list[TargetSkew]

    @property
    def sentences(self) -> list[str]:
        """What the test says of them."""
        said = [sibling.sentence for sibling in self.siblings if sibling.slower]
        if said:
            return said
        reasons = list(dict.fromkeys(sibling.reason for sibling in self.siblings if sibling.reason))
        return reasons or ["None is slower than its siblings"]

    def picture(self, width: int) -> Picture | None:
        """Throughput of each."""
        rows = [
            Bar(s.target, [(s.throughput_rps, 1 if s.slower else 0)], words=f"{s.throughput_rps:.4g}{_mark(s)}")
            for s in self.siblings
        ]
        return bars("Answered a second", rows, width)


def _mark(sibling: TargetSkew) -> str:
    return f", {100 * sibling.slower_by:.0f} % slower" if sibling.slower and sibling.slower_by is not None else ""


def pools(found: Sequence[LabeledRow]) -> list[Pool]:
    """The rows that have several ordinals and a log."""
    made = []
    for entry in found:
        course = entry.run.timeline
        members = entry.run.members(entry.row) if course is not None and entry.row.target is None else []
        if course is not None and len(members) > 1 and not entry.invalid:
            pinned = entry.run.file.conditions.get("router", "pinned") == "pinned"
            by_rate = entry.run.file.arrivals == "closed" and pinned
            made.append(Pool(entry, target_skews(course, members, by_rate)))
    return made


def slower(found: Sequence[LabeledRow]) -> list[str]:
    """A sentence for each ordinal that is slower than its siblings."""
    return [
        f"{pool.entry.label}, {pool.entry.row.model}: {sibling.sentence}"
        for pool in pools(found)
        for sibling in pool.siblings
        if sibling.slower
    ]
