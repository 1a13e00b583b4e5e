"""The result of a stress test in the terminal, and as stress.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capacity.experiments.stress import ChartPanel, StressResult
from capacity.reporting import templates
from capacity.reporting.charts import DASHES, STYLE, Curve, Panel, draw_over_time

PAGE_NAME = "stress.html"
_WIDTHS = (("wide", 1176), ("middle", 720), ("narrow", 364))
_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def print_stress_result(result: StressResult, console: Console) -> None:
    """Prints the summary, the tables and the checks."""
    mark = " [yellow]simulated[/yellow]" if result.simulated else ""
    console.print(f"[bold]stress {escape(result.scenario)}[/bold]{mark}", highlight=False)
    for sentence in result.summary:
        console.print(escape(sentence), soft_wrap=True, highlight=False)
    for content in result.tables:
        table = Table(title=escape(content.title), title_justify="left", box=None, header_style="bold", pad_edge=False)
        for number, column in enumerate(content.columns):
            table.add_column(escape(column), justify="left" if number == 0 else "right", overflow="fold")
        for row in content.rows:
            table.add_row(*map(escape, row))
        console.print()
        console.print(table)
        if content.note:
            console.print(f"[dim]{escape(content.note)}[/dim]")
    console.print()
    for check in result.checks:
        detail = f": {check.detail}" if check.detail else ""
        line = escape(f"{check.name}: {check.value} (expected {check.threshold}){detail}")
        console.print(f"[{_COLOURS[check.status]}]{check.status}[/] {line}", soft_wrap=True, highlight=False)


def write_stress_page(result: StressResult, directory: Path) -> Path:
    """Writes stress.html, one file that needs no network, with links to the runs beside it; returns its path."""
    path = directory / PAGE_NAME
    text = (
        templates.environment()
        .get_template("stress.html")
        .render(
            result=result,
            style=STYLE,
            charts=_charts(result),
            keys=list(enumerate(_curve_names(result.panels))),
            dashes=DASHES,
        )
    )
    path.write_text(text, encoding="utf-8")
    return path


def _curve_names(panels: Sequence[ChartPanel]) -> list[str]:
    """The names of the curves over all panels, as many as there are dash patterns."""
    return list(dict.fromkeys(name for panel in panels for name in panel.curves))[: len(DASHES)]


def _charts(result: StressResult) -> str:
    """The chart over time at three widths, as SVG."""
    if not result.panels:
        return ""
    names = _curve_names(result.panels)
    panels = [
        Panel(panel.title, [Curve(names.index(name), points) for name, points in panel.curves.items() if name in names])
        for panel in result.panels
    ]
    marks = [(mark.at_s, mark.down) for mark in result.marks]
    charts = [(variant, draw_over_time(panels, width, marks)) for variant, width in _WIDTHS]
    return "".join(chart.svg(f"{result.scenario} over time", variant) for variant, chart in charts if chart)
