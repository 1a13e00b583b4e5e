"""`python -m loadgen …` runs Locust with the locustfile of this package; `--help` lists our options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None, program: str = "python -m loadgen") -> None:
    """Runs `convert-azure`, `password` or, with `load` or without a subcommand, Locust.

    `arguments` are those of the command line where None; `program` is the command's name in usage and errors.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["convert-azure"]:
        raise SystemExit(_convert_azure(words[1:], f"{program} convert-azure"))
    if words[:1] == ["password"]:
        from loadgen.web import print_user

        raise SystemExit(print_user(words[1:], f"{program} password"))
    if words[:1] == ["load"]:
        words, program = words[1:], f"{program} load"
    if {"-h", "--help"} & set(words):
        _print_help(program)
        return
    from loadgen._errors import LocustVersionError
    from loadgen._locust_version import check_locust

    try:
        check_locust()
    except LocustVersionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    from locust.main import main as run_locust

    sys.argv = [program, "-f", str(Path(__file__).parent), *words]
    run_locust()


def _print_help(program: str) -> None:
    """Prints our options. Locust prints its own help before it loads a locustfile, so ours are missing there."""
    from loadgen import _options
    from loadgen.distributed import RunToken

    parser = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [OPTION OF LOCUST]… [OPTION]…",
        description="Sends load to inference servers and records it in a run directory (locust -f loadgen/).",
        epilog="Locust's own options (-u, -r, -t, --headless, --processes, --master, …): locust --help.",
        add_help=False,
    )
    _options.register(parser)
    RunToken().add_options(parser)
    parser.print_help()


def _convert_azure(arguments: Sequence[str], program: str) -> int:
    """Converts a trace; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(
            f"usage: {program} IN.csv OUT.csv\n\nMakes a trace for --arrivals trace:OUT.csv from Azure's LLM inference "
            "trace, with columns TIMESTAMP, ContextTokens and GeneratedTokens."
        )
        return 0
    if len(arguments) != 2:
        print(f"error: expected two files: {program} IN.csv OUT.csv", file=sys.stderr)
        return 2
    from loadgen._errors import InputError
    from loadgen.schedule import convert_azure_trace

    try:
        count = convert_azure_trace(Path(arguments[0]), Path(arguments[1]))
    except (OSError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} arrivals")
    return 0


if __name__ == "__main__":
    main()
