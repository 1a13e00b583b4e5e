"""`python -m capacity`: what was measured and what to buy, from run directories. Wrong input: one line, exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from capacity.commands.plan import plan
from capacity.commands.stress import stress
from capacity.comparison import ChangeLimit, compare_runs, differing_conditions
from capacity.merging import find_generator_logs, merge_runs, recover_run
from capacity.pricing import Catalogue, labeled_rows, shared_slo
from capacity.reporting.export import FORMATS, name_of, text, write_parquet
from capacity.reporting.html import write_report
from capacity.reporting.terminal import print_table, wide_console
from capacity.rundir import Run
from capacity.statistics import Slo

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Runs = Annotated[list[Path], typer.Argument(metavar="RUN…", help="run directories", show_default=False)]


@app.callback()
def _commands() -> None:
    """What was measured, and what to buy: works offline, from run directories."""


@app.command()
def report(
    runs: Runs,
    by: Annotated[str, typer.Option(help="rows by combination, or by target")] = "combination",
    slo: Annotated[str | None, typer.Option(help="judge by this SLO instead, such as p99=50ms,errors=0.1%")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml instead")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write  [default: the run, or the first's parent]")] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help=f"the rows as {', '.join(FORMATS)}, to stdout or --out")
    ] = None,
) -> None:
    """Prints the table and the choice, and writes report.html with its pictures; or the rows in another format."""
    loaded = [Run.load(directory) for directory in runs]
    objective = Slo.parse(slo) if slo else None
    prices = Catalogue.load(catalogue) if catalogue else None
    folder = out or (runs[0] if len(runs) == 1 else runs[0].resolve().parent)
    console = wide_console()
    if kind is not None:
        _export(kind, loaded, by, objective, prices, folder if out or kind == "parquet" else None, console)
        return
    print_table(loaded, console, by, objective, prices)
    path = write_report(loaded, folder, objective, prices)
    console.print(f"\nreport: {path}", soft_wrap=True, highlight=False)


def _export(
    kind: str,
    runs: list[Run],
    by: str,
    slo: Slo | None,
    prices: Catalogue | None,
    folder: Path | None,
    console: Console,
) -> None:
    if kind not in FORMATS:
        raise ValueError(f"--format {kind}: choose one of {', '.join(FORMATS)}")
    slo = shared_slo(runs, slo)
    found = labeled_rows(runs, by, slo, prices)
    if folder is None:
        print(text(kind, runs, found, slo), end="")
        return
    path = folder / name_of(kind)
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        write_parquet(path, found, slo)
    else:
        path.write_text(text(kind, runs, found, slo), encoding="utf-8")
    console.print(f"{kind}: {path}", soft_wrap=True, highlight=False)


@app.command("merge")
def merge(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="the new run directory", show_default=False)],
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml instead")] = None,
) -> None:
    """Puts whole runs together as one, or the logs that one run's generators kept themselves."""
    prices = Catalogue.load(catalogue) if catalogue else None
    logs = [find_generator_logs(directory) for directory in runs]
    if any(logs):
        if not all(logs):
            raise ValueError(f"{runs[logs.index([])]} is no log of a generator; whole runs merge with whole runs")
        file = recover_run([log for found in logs for log in found], out, prices)
    else:
        file = merge_runs([Run.load(directory) for directory in runs], out, prices)
    requests = sum(row.requests for row in file.rows)
    Console().print(f"merged: {out}, {requests:,} requests in {len(file.rows)} rows", soft_wrap=True, highlight=False)


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="run directory to compare with", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="run directory that may be better", show_default=False)],
    fail_if: Annotated[list[str] | None, typer.Option(help="exit with 1 on such a change: 'p99 > +5%'")] = None,
) -> None:
    """Says in which measures B differs from A, for each combination and model. All intervals hold at once, with 95 %
    confidence: of two runs that are alike, 5 comparisons in 100 call a difference.
    """
    runs = Run.load(first), Run.load(second)
    limits = [ChangeLimit.parse(text) for text in fail_if or []]
    console = Console()
    for name, ours, theirs in differing_conditions(*runs):
        console.print(f"[yellow]other conditions[/yellow] {escape(f'{name}: {ours} / {theirs}')}", highlight=False)
    broken = []
    for pair in compare_runs(*runs):
        a, b = pair.first.hardware, pair.second.hardware
        marks = " (simulated)" if pair.first.simulated or pair.second.simulated else ""
        title = f"{pair.first.model}, {a if a == b else f'A {a}, B {b}'}{marks}"
        console.print(f"[bold]{escape(title)}[/bold]", highlight=False)
        for difference in pair.differences:
            console.print(f"  {escape(difference.sentence)}", highlight=False)
            broken += [limit for limit in limits if limit.broken_by(difference)]
    for limit in broken:
        console.print(f"[red]FAIL[/red] {escape(str(limit))}", highlight=False)
    if broken:
        raise typer.Exit(1)


app.command()(plan)
app.command("stress")(stress)


def main(arguments: Sequence[str] | None = None, program: str = "python -m capacity") -> None:
    """Runs the subcommand of `arguments` (default: the command line); `program` is the command's name in messages.

    Wrong input is one line on stderr and exit code 2.
    """
    try:
        app(list(sys.argv[1:] if arguments is None else arguments), prog_name=program)
    except (ValueError, OSError) as error:
        print(f"capacity: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
