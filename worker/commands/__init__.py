"""The command line of the worker, one file per subcommand."""

from worker.commands.command_line import app, main

__all__ = ["app", "main"]
