"""The end of a run: is it valid, what does the table say, and which exit code follows."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from capacity.confidence import Check
from capacity.report import print_table
from capacity.run import Run, RunFile
from capacity.tally import Series, Tally
from loadgen._options import Options


def checks_of(
    totals: Mapping[Series, Tally],
    warmups: Mapping[Series, Tally],
    cpu_warning: bool,
    generators: Sequence[Mapping[str, Any]],
    *,
    refused: int = 0,
) -> list[Check]:
    """What can be said of the run itself: did it measure, did the generators keep up, did all of them report."""
    requests = sum(tally.requests for tally in totals.values())
    above = sum(h.above for tally in totals.values() for h in tally.histograms.values())
    missing = [str(generator["client"]) for generator in generators if not generator["complete"]]
    warm = sum(tally.requests for tally in warmups.values())
    return [
        Check(
            name="measured requests",
            value=requests,
            threshold="at least 1",
            status="PASS" if requests else "FAIL",
            detail="" if requests else f"the run ended in ramp-up or warm-up, after {warm} requests",
        ),
        Check(
            name="generators that reported their end",
            value=len(generators) - len(missing),
            threshold=f"{len(generators)} of {len(generators)}",
            status="FAIL" if missing else "PASS",
            detail=f"missing: {', '.join(missing)}" if missing else "",
        ),
        Check(
            name="generator processor",
            value="over 90 %" if cpu_warning else "under 90 %",
            threshold="under 90 % of a core",
            status="FAIL" if cpu_warning else "PASS",
            detail="the generator, not the hardware, may have set the pace" if cpu_warning else "",
        ),
        Check(
            name="values out of the histograms' range",
            value=above,
            threshold="0",
            status="WARN" if above else "PASS",
            detail="over an hour; counted in the highest bucket" if above else "",
        ),
        *(
            [Check(name="refused reports", value=refused, threshold="0", status="WARN", detail="malformed snapshots")]
            if refused
            else []
        ),
    ]


def exit_code(file: RunFile, options: Options) -> int:
    """1 where the run is not valid or a row misses its SLO, else 0."""
    missed = options.slo is not None and any(row.meets_slo is False for row in file.rows)
    return 1 if missed or not file.valid else 0


def show(directory: Path, report: Path, by: str) -> None:
    """Prints the table of a run directory, and where its report is."""
    # Where nobody's window sets the width, none of the columns is to be squeezed.
    console = Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=160)
    print_table([Run.load(directory)], console, by=by)
    console.print(f"report: {report}", soft_wrap=True)
