"""The subcommands, one module each; each is a function that typer turns into a command."""

from capacity.commands.compare import compare_command
from capacity.commands.merge import merge_command
from capacity.commands.plan import plan_command
from capacity.commands.report import report_command
from capacity.commands.stress import stress_command

__all__ = ["compare_command", "merge_command", "plan_command", "report_command", "stress_command"]
