"""stress.html and the terminal's tables: what a scenario did, what it found, whether it passed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capacity.experiments.stress.findings import Drawn, Stress
from capacity.reporting import templates as pages
from capacity.reporting.charts.canvas import DASHES, STYLE
from capacity.reporting.charts.over_time import Curve, Panel, over_time

PAGE_NAME = "stress.html"
_WIDTHS = (("wide", 1176), ("middle", 720), ("narrow", 364))
_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def show(found: Stress, console: Console) -> None:
    """Prints it."""
    mark = " [yellow]simulated[/yellow]" if found.simulated else ""
    console.print(f"[bold]stress {escape(found.scenario)}[/bold]{mark}", highlight=False)
    for sentence in found.sentences:
        console.print(escape(sentence), soft_wrap=True, highlight=False)
    for one in found.tables:
        table = Table(title=escape(one.title), title_justify="left", box=None, header_style="bold", pad_edge=False)
        for number, column in enumerate(one.columns):
            table.add_column(escape(column), justify="left" if number == 0 else "right", overflow="fold")
        for row in one.rows:
            table.add_row(*map(escape, row))
        console.print()
        console.print(table)
        if one.note:
            console.print(f"[dim]{escape(one.note)}[/dim]")
    console.print()
    for check in found.checks:
        said = f"{check.name}: {check.value}, asked {check.threshold}{f': {check.detail}' if check.detail else ''}"
        console.print(f"[{_COLOURS[check.status]}]{check.status}[/] {escape(said)}", soft_wrap=True, highlight=False)


def write(found: Stress, directory: Path) -> Path:
    """Writes stress.html, one file that needs no network, with links to the runs beside it."""
    path = directory / PAGE_NAME
    text = (
        pages.environment()
        .get_template("stress.html")
        .render(
            found=found,
            style=STYLE,
            pictures=_pictures(found),
            keys=[(number, name) for number, name in enumerate(_names(found.panels))],
            dashes=DASHES,
        )
    )
    path.write_text(text, encoding="utf-8")
    return path


def _names(panels: list[Drawn]) -> list[str]:
    """Curves are told apart by name over all panels, as far as there are dashes."""
    return list(dict.fromkeys(name for panel in panels for name in panel.curves))[: len(DASHES)]


def _pictures(found: Stress) -> str:
    names = _names(found.panels)
    panels: list[Any] = [
        Panel(
            panel.heading, [Curve(names.index(name), points) for name, points in panel.curves.items() if name in names]
        )
        for panel in found.panels
    ]
    label = f"{found.scenario} over time"
    drawn = [(variant, over_time(panels, width, found.marks)) for variant, width in _WIDTHS] if panels else []
    return "".join(picture.svg(label, variant) for variant, picture in drawn if picture)
