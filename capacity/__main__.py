"""`python -m capacity`: reports, comparisons, plans and stress tests, from run directories."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from capacity.commands import compare_command, merge_command, plan_command, report_command, stress_command
from capacity.errors import InputError
from capacity.experiments import LaunchError
from worker.wire import FormatError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("report")(report_command)
app.command("merge")(merge_command)
app.command("compare")(compare_command)
app.command("plan")(plan_command)
app.command("stress")(stress_command)


@app.callback()
def _describe() -> None:
    """What was measured, and what to buy: works offline, from run directories."""


def main(arguments: Sequence[str] | None = None, program: str = "python -m capacity") -> None:
    """Runs the subcommand of `arguments` (default: the command line); `program` is the command's name in messages.

    Wrong input, a file that cannot be opened, and a process that does not start are one line on stderr and exit code 2.
    Any other exception is a bug and keeps its traceback.
    """
    try:
        app(list(sys.argv[1:] if arguments is None else arguments), prog_name=program)
    except (InputError, FormatError, LaunchError) as error:
        message = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        message = str(error)
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
