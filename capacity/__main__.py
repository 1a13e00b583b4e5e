"""`python -m capacity`: what was measured and what to buy, from run directories. Wrong input: one line, exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capacity.hardware import Catalogue
from capacity.report import print_table, write_report
from capacity.run import Run
from capacity.slo import Slo

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Runs = Annotated[list[Path], typer.Argument(metavar="RUN…", help="run directories", show_default=False)]


@app.callback()
def _commands() -> None:
    """What was measured, and what to buy: works offline, from run directories."""


@app.command()
def report(
    runs: Runs,
    by: Annotated[str, typer.Option(help="rows by combination, or by ordinal")] = "combination",
    slo: Annotated[str | None, typer.Option(help="judge by this SLO instead, such as p99=50ms,errors=0.1%")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml instead")] = None,
    out: Annotated[Path | None, typer.Option(help="where to write  [default: the run, or the first's parent]")] = None,
) -> None:
    """Prints the table and the choice, and writes report.html with its pictures."""
    loaded = [Run.load(directory) for directory in runs]
    objective = Slo.parse(slo) if slo else None
    prices = Catalogue.load(catalogue) if catalogue else None
    folder = out or (runs[0] if len(runs) == 1 else runs[0].resolve().parent)
    console = Console()
    print_table(loaded, console, by, objective, prices)
    path = write_report(loaded, folder, objective, prices)
    console.print(f"\nreport: {path}", soft_wrap=True, highlight=False)


def main() -> None:
    """The command line; what a user got wrong is one line on stderr and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"capacity: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
