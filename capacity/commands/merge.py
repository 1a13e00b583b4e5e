"""`merge`: several runs as one, or a run from the logs that its generators wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capacity.errors import InputError
from capacity.merging import find_generator_logs, merge_runs, recover_run
from capacity.pricing import Catalogue
from capacity.rundir import Run


def merge_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="run directories", show_default=False)],
    out: Annotated[Path, typer.Option(help="the new run directory", show_default=False)],
    catalogue: Annotated[Path | None, typer.Option(help="price by this hardware.toml instead")] = None,
) -> None:
    """Merges complete runs into one, or makes a run from the logs that its generators wrote."""
    prices = Catalogue.load(catalogue) if catalogue else None
    logs = [find_generator_logs(directory) for directory in runs]
    if any(logs):
        if not all(logs):
            raise InputError(
                f"{runs[logs.index([])]} has no generator logs: give either only complete runs, or only generator logs"
            )
        file = recover_run([log for of_directory in logs for log in of_directory], out, prices)
    else:
        file = merge_runs([Run.load(directory) for directory in runs], out, prices)
    requests = sum(row.requests for row in file.rows)
    Console().print(f"merged: {out}, {requests:,} requests in {len(file.rows)} rows", soft_wrap=True, highlight=False)
