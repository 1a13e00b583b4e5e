"""The values of rows as text, and the Pareto front, for tables, pages and charts."""

from capacity.reporting.formatting.pareto import dominated_rows, latency_and_price, pareto_front
from capacity.reporting.formatting.values import (
    PERCENTILES,
    describe_arrivals,
    format_ms,
    format_percentile,
    format_verdict,
    shown_percentile,
)

__all__ = [
    "PERCENTILES",
    "describe_arrivals",
    "dominated_rows",
    "format_ms",
    "format_percentile",
    "format_verdict",
    "latency_and_price",
    "pareto_front",
    "shown_percentile",
]
