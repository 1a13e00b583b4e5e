"""The command line of the worker, one file per subcommand."""

from worker.commands.app import main

__all__ = ["main"]
