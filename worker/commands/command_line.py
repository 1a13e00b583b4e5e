"""The command line: all subcommands, and wrong input as one line and an exit code."""

import sys
from collections.abc import Sequence

import typer

from worker.commands.accelerators import accelerators
from worker.commands.export import export
from worker.commands.fleet import fleet
from worker.commands.serve import serve
from worker.commands.statistics import statistics
from worker.errors import InputError

app = typer.Typer(
    help="Serves one TorchScript model on one accelerator ordinal over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (accelerators, export, serve, fleet, statistics):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None, program: str = "python -m worker") -> None:
    """Runs the subcommand of `arguments` (default: the command line); `program` is the command's name in messages.

    Wrong input is one line on stderr, and its exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    # The words after "--" are a command of their own with its own options, so that they are not parsed here.
    if words[:1] == ["fleet"] and "--" in words:
        place = words.index("--")
        words, command = words[:place], words[place + 1 :]
    try:
        app(words, prog_name=program, obj=command)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
