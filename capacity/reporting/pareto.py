"""The Pareto front of latency and price: what is neither slower nor dearer than something else."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.pricing import LabeledRow


def point(entry: LabeledRow) -> tuple[float, float] | None:
    """P90 in µs and the sequential price per 100,000; None where one of them is not known."""
    p90, cost = entry.row.latency_us.p90, entry.row.cost_per_100k.sequential
    return None if p90 is None or cost is None else (p90, cost)


def front(entries: Sequence[LabeledRow]) -> list[LabeledRow]:
    """Those that nothing beats in both P90 and price, from the fastest to the cheapest."""
    known = [(found, entry) for entry in entries if (found := point(entry)) is not None]
    kept, cheapest = [], float("inf")
    for (_p90, cost), entry in sorted(known, key=lambda pair: pair[0]):
        if cost < cheapest:
            kept.append(entry)
            cheapest = cost
    return kept


def beaten(entries: Sequence[LabeledRow]) -> list[tuple[LabeledRow, LabeledRow]]:
    """Each entry that is off the front, with the one on it that beats it in both and is the cheapest to do so."""
    ahead = front(entries)
    pairs = []
    for entry in entries:
        mine = point(entry)
        if mine is None or entry in ahead:
            continue
        better = [other for other in ahead if (at := point(other)) and at[0] <= mine[0] and at[1] <= mine[1]]
        pairs.append((entry, better[-1]))
    return pairs
