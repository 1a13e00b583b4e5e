"""`compare`: in which measures one run differs from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from capacity.comparison import ChangeLimit, compare_runs, differing_conditions
from capacity.rundir import Run


def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A", help="run directory to compare with", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="run directory that may be better", show_default=False)],
    fail_if: Annotated[
        list[str] | None, typer.Option(help="exit with 1 on a larger change, such as 'p99 > +5%'; repeatable")
    ] = None,
) -> None:
    """Shows in which measures B differs from A, for each combination and model. All intervals hold together, with
    95 % confidence: of two equal runs, 5 comparisons in 100 report a difference.
    """
    runs = Run.load(first), Run.load(second)
    limits = [ChangeLimit.parse(text) for text in fail_if or []]
    console = Console()
    for name, in_first, in_second in differing_conditions(*runs):
        text = escape(f"{name}: {in_first} / {in_second}")
        console.print(f"[yellow]other conditions[/yellow] {text}", highlight=False)
    exceeded = []
    for pair in compare_runs(*runs):
        a, b = pair.first.hardware, pair.second.hardware
        marks = " (simulated)" if pair.first.simulated or pair.second.simulated else ""
        title = f"{pair.first.model}, {a if a == b else f'A {a}, B {b}'}{marks}"
        console.print(f"[bold]{escape(title)}[/bold]", highlight=False)
        for difference in pair.differences:
            console.print(f"  {escape(difference.sentence)}", highlight=False)
            exceeded += [limit for limit in limits if limit.is_exceeded_by(difference)]
    for limit in exceeded:
        console.print(f"[red]FAIL[/red] {escape(str(limit))}: exceeded", highlight=False)
    if exceeded:
        raise typer.Exit(1)
