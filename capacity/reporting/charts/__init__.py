"""Charts as SVG, and some as PNG: each function returns a Chart, whose colours come from CSS."""

from capacity.reporting.charts.bars import Bar, draw_bars, pareto_chart, rate_chart, time_share_chart
from capacity.reporting.charts.canvas import DASHES, STYLE, Chart, stack_charts
from capacity.reporting.charts.cost_png import write_cost_png
from capacity.reporting.charts.over_time import Curve, Panel, draw_over_time, run_panels
from capacity.reporting.charts.plan_charts import cost_rate_chart, day_chart, write_plan_png
from capacity.reporting.charts.price_latency import cost_latency_chart, percentile_chart
from capacity.reporting.charts.search_curve import charted_probes, describe_search, format_rate, search_chart

__all__ = [
    "DASHES",
    "STYLE",
    "Bar",
    "Chart",
    "Curve",
    "Panel",
    "charted_probes",
    "cost_latency_chart",
    "cost_rate_chart",
    "day_chart",
    "describe_search",
    "draw_bars",
    "draw_over_time",
    "format_rate",
    "pareto_chart",
    "percentile_chart",
    "rate_chart",
    "run_panels",
    "search_chart",
    "stack_charts",
    "time_share_chart",
    "write_cost_png",
    "write_plan_png",
]
