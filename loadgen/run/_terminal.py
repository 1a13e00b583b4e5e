"""What a run says on the terminal, and its exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from capacity.reporting import print_table
from capacity.rundir import Run, RunFile
from loadgen._options import Options

#: Columns of the table where no terminal sets its width.
_WIDTH = 160


def print_line(text: str) -> None:
    """Prints one line to standard error, beside Locust's log."""
    print(f"inferload: {text}", file=sys.stderr, flush=True)


def exit_code(file: RunFile, options: Options) -> int:
    """Returns 1 where the run is not valid or a row missed its SLO, else 0.

    With --strict also where a check warns or a row's verdict is inconclusive.
    """
    failed = options.slo is not None and any(row.verdict == "missed" for row in file.rows)
    if options.strict:
        failed |= any(check.status != "PASS" for check in file.checks)
        failed |= options.slo is not None and any(row.verdict == "inconclusive" for row in file.rows)
    return 1 if failed or not file.valid else 0


def print_result(directory: Path, report: Path, by: str) -> None:
    """Prints the table of a run directory, by combination or by target, and the path of its report."""
    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=_WIDTH)
    print_table([Run.load(directory)], console, by=by)
    console.print(f"report: {report}", soft_wrap=True)
