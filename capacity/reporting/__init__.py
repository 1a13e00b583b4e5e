"""Showing runs, plans and stress tests: terminal, HTML pages, charts, and exports for other programs."""

from capacity.reporting.export import EXPORT_FORMATS, export_file_name, export_text, write_parquet
from capacity.reporting.html import write_report
from capacity.reporting.plan_text import print_plan, write_plan
from capacity.reporting.stress_page import print_stress_result, write_stress_page
from capacity.reporting.terminal import print_table, wide_console

__all__ = [
    "EXPORT_FORMATS",
    "export_file_name",
    "export_text",
    "print_plan",
    "print_stress_result",
    "print_table",
    "wide_console",
    "write_parquet",
    "write_plan",
    "write_report",
    "write_stress_page",
]
