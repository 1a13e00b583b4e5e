"""The table, the checks and the choice in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capacity.pricing import Catalogue, Choice, LabeledRow, choose_per_model, labeled_rows, shared_slo
from capacity.reporting.charts import describe_search
from capacity.reporting.columns import Column, cost_columns, latency_columns, notes
from capacity.reporting.formatting import describe_arrivals
from capacity.reporting.target_comparison import slower_targets
from capacity.rundir import Run
from capacity.statistics import Slo

# A terminal narrower than this gets the table in two halves.
_ONE_TABLE = 150


def wide_console() -> Console:
    """Returns a console on standard output; without a terminal it is wide enough for all columns."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=_ONE_TABLE + 10)


def is_redirected(console: Console) -> bool:
    """Returns whether the output is no terminal, so that lines are not wrapped."""
    return not console.is_terminal


def print_table(
    runs: Run | Sequence[Run],
    console: Console,
    by: str = "combination",
    slo: Slo | None = None,
    catalogue: Catalogue | None = None,
) -> None:
    """Prints the rows, the failed checks of each run, and the choice. Raises InputError as `labeled_rows` does."""
    runs = [runs] if isinstance(runs, Run) else runs
    slo = shared_slo(runs, slo)
    entries = labeled_rows(runs, by, slo, catalogue)
    console.print(f"[bold]{escape(describe_arrivals(runs))}[/bold]")
    halves = [latency_columns(), cost_columns(slo, entries)]
    for model in dict.fromkeys(entry.row.model for entry in entries):
        rows = [entry for entry in entries if entry.row.model == model]
        for columns in [halves[0] + halves[1]] if console.width >= _ONE_TABLE else halves:
            console.print()
            console.print(_table(model, rows, columns))
    for note in [*notes(entries), *slower_targets(entries)]:
        console.print(f"[dim]{escape(note)}[/dim]", soft_wrap=is_redirected(console))
    for run in runs:
        _print_checks(run, console, several=len(runs) > 1)
    for run in runs:
        for search in run.file.searches:
            name = f"{search.hardware}{' (simulated)' if search.simulated else ''}, {search.model}"
            text = [f"{name}: {describe_search(search)}", *search.notes]
            for line in text:
                console.print(escape(line), soft_wrap=is_redirected(console), highlight=False)
    if by == "combination":
        for choice in choose_per_model(entries, slo):
            _print_choice(choice, console)


def _table(model: str, entries: Sequence[LabeledRow], columns: list[Column]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(escape(model), overflow="fold", min_width=16)
    for column in columns:
        table.add_column(column.name, justify="right", overflow="fold")
    for entry in entries:
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
            text = (
                f"{check.name} {check.value} (expected {check.threshold}){f': {check.detail}' if check.detail else ''}"
            )
            console.print(f"[{colour}]{check.status}[/{colour}] {name}{escape(text)}", soft_wrap=is_redirected(console))
    if not run.file.valid:
        console.print(f"[bold red]{name}NOT VALID: this run is no result about the hardware.[/bold red]")


def _print_choice(choice: Choice, console: Console) -> None:
    # Without a terminal a line is a whole sentence.
    console.print(f"\n[bold]{escape(choice.model)}[/bold]: {escape(choice.sentence)}", soft_wrap=is_redirected(console))
    for step in choice.steps:
        console.print(
            f"  {step.name}: {len(step.remaining)} of {len(step.remaining) + len(step.excluded)} pass", highlight=False
        )
        for mark, remarks in (("excluded", step.excluded), ("note", step.remarks)):
            for entry in remarks:
                text = f"    {mark}: {escape(entry.label)}: {escape(entry.reason)}"
                console.print(text, soft_wrap=is_redirected(console))
