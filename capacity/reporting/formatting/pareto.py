"""The Pareto front of latency and price: the rows of which no other is both faster and cheaper."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.pricing import LabeledRow


def latency_and_price(entry: LabeledRow) -> tuple[float, float] | None:
    """Returns P90 in µs and the sequential price per 100,000; None where one of them is missing."""
    p90, cost = entry.row.latency_us.p90, entry.row.cost_per_100k.sequential
    return None if p90 is None or cost is None else (p90, cost)


def pareto_front(entries: Sequence[LabeledRow]) -> list[LabeledRow]:
    """Returns the rows that no other beats in both P90 and price, from the fastest to the cheapest."""
    positions = [(position, entry) for entry in entries if (position := latency_and_price(entry)) is not None]
    members, cheapest = [], float("inf")
    for (_p90, cost), entry in sorted(positions, key=lambda pair: pair[0]):
        if cost < cheapest:
            members.append(entry)
            cheapest = cost
    return members


def dominated_rows(entries: Sequence[LabeledRow]) -> list[tuple[LabeledRow, LabeledRow]]:
    """Returns each row off the front, with the cheapest row on it that is better in both."""
    on_front = pareto_front(entries)
    pairs = []
    for entry in entries:
        own = latency_and_price(entry)
        if own is None or entry in on_front:
            continue
        better = [
            other for other in on_front if (at := latency_and_price(other)) and at[0] <= own[0] and at[1] <= own[1]
        ]
        pairs.append((entry, better[-1]))
    return pairs
