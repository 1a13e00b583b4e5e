"""The command line of the worker, one file per subcommand."""

from worker.commands.app import app, main

__all__ = ["app", "main"]
