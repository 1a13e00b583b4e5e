"""The table in the terminal: what was measured, if it counts, what to buy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capacity.pricing import Catalogue, Choice, LabeledRow, choose_per_model, labeled_rows, shared_slo
from capacity.reporting.charts.curve import sentence
from capacity.reporting.columns import Column, cost_columns, latency_columns, notes
from capacity.reporting.entries import title
from capacity.reporting.ordinals import slower_ordinals
from capacity.rundir import Run
from capacity.statistics import Slo

# A terminal narrower than this gets the table in two halves.
_ONE_TABLE = 150


def wide_console() -> Console:
    """The standard output; where nobody's window sets the width, none of the columns is squeezed."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=_ONE_TABLE + 10)


def loose(console: Console) -> bool:
    """Whether nobody's window sets the width, so that wrapping would be of no help."""
    return not console.is_terminal


def print_table(
    runs: Run | Sequence[Run],
    console: Console,
    by: str = "combination",
    slo: Slo | None = None,
    catalogue: Catalogue | None = None,
) -> None:
    """Prints the rows, the verdict on each run, and the choice. ValueError as `view.entries`."""
    runs = [runs] if isinstance(runs, Run) else runs
    slo = shared_slo(runs, slo)
    found = labeled_rows(runs, by, slo, catalogue)
    console.print(f"[bold]{escape(title(runs))}[/bold]")
    halves = [latency_columns(), cost_columns(slo, found)]
    for model in dict.fromkeys(entry.row.model for entry in found):
        rows = [entry for entry in found if entry.row.model == model]
        for columns in [halves[0] + halves[1]] if console.width >= _ONE_TABLE else halves:
            console.print()
            console.print(_table(model, rows, columns))
    for note in [*notes(found), *slower_ordinals(found)]:
        console.print(f"[dim]{escape(note)}[/dim]", soft_wrap=loose(console))
    for run in runs:
        _print_checks(run, console, several=len(runs) > 1)
    for run in runs:
        for curve in run.file.searches:
            name = f"{curve.hardware}{' (simulated)' if curve.simulated else ''}, {curve.model}"
            said = [f"{name}: {sentence(curve)}", *curve.notes]
            for line in said:
                console.print(escape(line), soft_wrap=loose(console), highlight=False)
    if by == "combination":
        for choice in choose_per_model(found, slo):
            _print_choice(choice, console)


def _table(model: str, found: Sequence[LabeledRow], columns: list[Column]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(escape(model), overflow="fold", min_width=16)
    for column in columns:
        table.add_column(column.name, justify="right", overflow="fold")
    for entry in found:
        label = escape(entry.label) + (" [yellow]simulated[/yellow]" if entry.row.simulated else "")
        cells = [
            escape(column.of(entry.row)) if not (column.result and entry.invalid) else "[red]not valid[/red]"
            for column in columns
        ]
        table.add_row(label, *cells, style="dim" if entry.invalid else None)
    return table


def _print_checks(run: Run, console: Console, several: bool) -> None:
    name = f"{escape(run.name)}: " if several else ""
    for check in run.file.checks:
        if check.status != "PASS":
            colour = "red" if check.status == "FAIL" else "yellow"
            said = f"{check.name} {check.value}, asked {check.threshold}{f': {check.detail}' if check.detail else ''}"
            console.print(f"[{colour}]{check.status}[/{colour}] {name}{escape(said)}", soft_wrap=loose(console))
    if not run.file.valid:
        console.print(f"[bold red]{name}NOT VALID: this run says nothing about the hardware.[/bold red]")


def _print_choice(choice: Choice, console: Console) -> None:
    # Where nobody's window sets the width, a line ends where its sentence does.
    console.print(f"\n[bold]{escape(choice.model)}[/bold]: {escape(choice.sentence)}", soft_wrap=loose(console))
    for step in choice.steps:
        console.print(
            f"  {step.name}: {len(step.remaining)} of {len(step.remaining) + len(step.excluded)} pass", highlight=False
        )
        for mark, who in (("out", step.excluded), ("note", step.remarks)):
            for entry in who:
                said = f"    {mark}: {escape(entry.label)}: {escape(entry.reason)}"
                console.print(said, soft_wrap=loose(console))
