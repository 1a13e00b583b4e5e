"""The columns of the table, as the terminal, the page and the exports show them, and the notes under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.pricing import LabeledRow, format_bytes, format_hourly, format_money
from capacity.reporting.formatting import format_ms, format_percentile, format_verdict
from capacity.rundir import Row
from capacity.statistics import Slo


@dataclass(frozen=True)
class Column:
    """A column: its name, its text for a row, and whether it is a result, which an invalid run does not have."""

    name: str
    of: Callable[[Row], str]
    result: bool = True


def latency_columns() -> list[Column]:
    """Returns the columns of counts, rate and latency."""
    return [
        Column("requests", lambda row: f"{row.requests:,}", False),
        Column("errors", lambda row: f"{sum(row.errors.values()):,}", False),
        Column("per s", lambda row: f"{row.throughput_rps:,.{1 if row.throughput_rps < 1000 else 0}f}"),
        Column("mean ms", lambda row: format_ms(row.latency_us.mean)),
        *(_percentile_column(p) for p in (50, 90, 95, 99)),
    ]


def _percentile_column(p: float) -> Column:
    return Column(f"P{p:g}", lambda row: format_percentile(row.latency_us, p))


def cost_columns(slo: Slo | None, entries: Sequence[LabeledRow]) -> list[Column]:
    """Returns the columns of first inference, memory, prices, energy where it is known, and the verdict on the SLO."""
    columns = [
        Column("first ms", lambda row: format_ms(row.first_inference_us)),
        Column("memory", lambda row: format_bytes(row.memory_bytes) if row.memory_bytes else "–"),
        Column(
            "price/h",
            lambda row: "–" if row.price_per_hour is None else format_hourly(row.price_per_hour, row.currency),
        ),
        Column("per 100,000", format_cost),
    ]
    if any(entry.row.cost_per_100k.saturated is not None for entry in entries):
        columns.append(Column("saturated", format_saturated_cost))
    if any(entry.row.cost_per_100k.at_slo is not None for entry in entries):
        columns.append(Column("at SLO", format_slo_cost))
    if any(entry.row.joules_per_inference is not None for entry in entries):
        columns.append(Column("J per inference", _energy))
    return [*columns, Column(str(slo), lambda row: format_verdict(row, slo))] if slo else columns


def _energy(row: Row) -> str:
    return "–" if row.joules_per_inference is None else f"{row.joules_per_inference:.3g}"


def format_cost(row: Row) -> str:
    """Returns the price of sequential requests, or a dash."""
    cost = row.cost_per_100k.sequential
    return "–" if cost is None else format_money(cost, row.currency)


def format_saturated_cost(row: Row) -> str:
    """Returns the price at the highest throughput, or a dash."""
    cost = row.cost_per_100k.saturated
    return "–" if cost is None else format_money(cost, row.currency)


def format_slo_cost(row: Row) -> str:
    """Returns the price at the highest rate within the SLO, or a dash."""
    cost = row.cost_per_100k.at_slo
    return "–" if cost is None else format_money(cost, row.currency)


def notes(entries: Sequence[LabeledRow]) -> list[str]:
    """Returns the notes under the table: those of the rows, why a price is missing, and where the prices are from."""
    lines = [f"{entry.label}, {entry.row.model}: {note}" for entry in entries for note in entry.row.notes]
    lines += dict.fromkeys(
        f"{entry.label}: {entry.row.cost_per_100k.reasons['sequential']}"
        for entry in entries
        if entry.row.target is None and "sequential" in entry.row.cost_per_100k.reasons
    )
    lines += dict.fromkeys(
        f"{entry.label}: {format_hourly(entry.row.price_per_hour, entry.row.currency)} an hour ({entry.row.price_note})"
        for entry in entries
        if entry.row.price_per_hour is not None and entry.row.price_note
    )
    return lines
