"""`report`: the table and the choice in the terminal and as a page, or the rows in another format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capacity.errors import InputError
from capacity.pricing import Catalogue, labeled_rows, shared_slo
from capacity.reporting import (
    EXPORT_FORMATS,
    export_file_name,
    export_text,
    print_table,
    wide_console,
    write_parquet,
    write_report,
)
from capacity.rundir import Run
from capacity.statistics import Slo


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="run directories", show_default=False)],
    by: Annotated[str, typer.Option(help="rows by combination, or by target")] = "combination",
    slo: Annotated[str | None, typer.Option(help="judge by this SLO instead, such as p99=50ms,errors=0.1%")] = None,
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml instead")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to write into (default: the run, or the first's parent)")
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help=f"the rows as {', '.join(EXPORT_FORMATS)}, to stdout or --out")
    ] = None,
) -> None:
    """Prints the table and the choice, and writes report.html with its charts; or the rows in another format."""
    measured = [Run.load(directory) for directory in runs]
    objective = Slo.parse(slo) if slo else None
    prices = Catalogue.load(catalogue) if catalogue else None
    folder = out or (runs[0] if len(runs) == 1 else runs[0].resolve().parent)
    console = wide_console()
    if format_name is not None:
        to_file = out is not None or format_name == "parquet"
        _export(format_name, measured, by, objective, prices, folder if to_file else None, console)
        return
    print_table(measured, console, by, objective, prices)
    path = write_report(measured, folder, objective, prices)
    console.print(f"\nreport: {path}", soft_wrap=True, highlight=False)


def _export(
    format_name: str,
    runs: Sequence[Run],
    by: str,
    slo: Slo | None,
    prices: Catalogue | None,
    folder: Path | None,
    console: Console,
) -> None:
    """Writes the rows into a file in `folder`; None: to stdout."""
    if format_name not in EXPORT_FORMATS:
        raise InputError(f"--format {format_name}: unknown format (choose {', '.join(EXPORT_FORMATS)})")
    slo = shared_slo(runs, slo)
    entries = labeled_rows(runs, by, slo, prices)
    if folder is None:
        print(export_text(format_name, runs, entries, slo), end="")
        return
    path = folder / export_file_name(format_name)
    folder.mkdir(parents=True, exist_ok=True)
    if format_name == "parquet":
        write_parquet(path, entries, slo)
    else:
        path.write_text(export_text(format_name, runs, entries, slo), encoding="utf-8")
    console.print(f"{format_name}: {path}", soft_wrap=True, highlight=False)
