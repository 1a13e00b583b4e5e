"""The command `inferload`: passes each subcommand on to the package that has it, and imports no other package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

PROGRAM = "inferload"


class Subcommand(NamedTuple):
    """`module` has `main(arguments, program)`, which parses `arguments` and names itself `program` in its messages."""

    module: str
    summary: str


#: In the order of use; the blank lines of the help are between the packages.
SUBCOMMANDS = {
    "accelerators": Subcommand("worker.__main__", "print the accelerators of this host"),
    "export": Subcommand("worker.__main__", "write a reference model as TorchScript"),
    "serve": Subcommand("worker.__main__", "serve a model on one accelerator"),
    "fleet": Subcommand("worker.__main__", "serve a model on several accelerators, one process each"),
    "statistics": Subcommand("worker.__main__", "print what each worker has served, by its own count"),
    "load": Subcommand("loadgen.__main__", "send load and record it in a run directory (locust -f loadgen/)"),
    "convert-azure": Subcommand("loadgen.__main__", "make a trace for --arrivals from Azure's LLM inference trace"),
    "password": Subcommand("loadgen.__main__", "print a line of the user file of --web-login"),
    "report": Subcommand("capacity.__main__", "print the table of runs and write report.html"),
    "compare": Subcommand("capacity.__main__", "say in which measures two runs differ"),
    "merge": Subcommand("capacity.__main__", "merge runs, or the local logs of a run's generators, into one run"),
    "plan": Subcommand("capacity.__main__", "find the cheapest fleet that carries a rate within the SLO"),
    "stress": Subcommand("capacity.__main__", "test how a fleet behaves in bursts, overload, failures and long runs"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the subcommand that `arguments` (default: the command line) begins with. Exit code 2 where there is none."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        return
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if words else 2)
    name, *rest = words
    if name not in SUBCOMMANDS:
        print(f"{PROGRAM}: unknown subcommand {name!r} (choose from {', '.join(SUBCOMMANDS)})", file=sys.stderr)
        raise SystemExit(2)
    run: Callable[[Sequence[str], str], None] = importlib.import_module(SUBCOMMANDS[name].module).main
    run([name, *rest], PROGRAM)


def usage() -> str:
    """The text of --help: all subcommands, one line each."""
    lines = [
        f"usage: {PROGRAM} SUBCOMMAND …",
        "",
        "Load-tests inference accelerators and says which hardware to buy, and how much of it.",
    ]
    package = ""
    for name, subcommand in SUBCOMMANDS.items():
        if (own := subcommand.module.partition(".")[0]) != package:
            lines.append("")
            package = own
        lines.append(f"  {name:<14} {subcommand.summary}")
    return "\n".join([*lines, "", f"`{PROGRAM} SUBCOMMAND --help` prints the options of a subcommand."])


if __name__ == "__main__":
    main()
