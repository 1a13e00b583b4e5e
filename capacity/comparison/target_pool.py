"""The targets of each row of a report beside one another, with the test whether one is slower than its siblings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capacity.comparison.target_skew import TargetSkew, target_skews
from capacity.pricing import LabeledRow


@dataclass(frozen=True)
class TargetPool:
    """The targets of one row of a report: `skews` has the test of each."""

    entry: LabeledRow
    skews: list[TargetSkew]

    @property
    def sentences(self) -> list[str]:
        """The result of the test: the slower targets, else why there was no test, else that none is slower."""
        slower = [skew.sentence for skew in self.skews if skew.slower]
        if slower:
            return slower
        reasons = list(dict.fromkeys(skew.reason for skew in self.skews if skew.reason))
        return reasons or ["None is slower than its siblings"]


def target_pools(entries: Sequence[LabeledRow]) -> list[TargetPool]:
    """Returns the rows of valid runs that have several targets and a log."""
    pools = []
    for entry in entries:
        timeline = entry.run.timeline
        members = entry.run.members(entry.row) if timeline is not None and entry.row.target is None else []
        if timeline is not None and len(members) > 1 and not entry.invalid:
            pinned = entry.run.file.conditions.get("router", "pinned") == "pinned"
            by_rate = entry.run.file.arrivals == "closed" and pinned
            pools.append(TargetPool(entry, target_skews(timeline, members, by_rate)))
    return pools
