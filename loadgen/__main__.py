"""`python -m loadgen …` is `locust -f loadgen/ …` from any folder, and `--help` says our options; Locust's does not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loadgen import _options
from loadgen.distributed import _signing


def main() -> None:
    """Locust's help is printed before any locustfile is loaded, so ours has a place of its own."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        parser = argparse.ArgumentParser(
            prog="locust -f loadgen/",
            usage="%(prog)s [Locust's options] [these]",
            description="Drives inference servers and records what they did.",
            epilog="Locust's own options (-u, -r, -t, --headless, --processes, --master, …) are in: locust --help. "
            "python -m loadgen convert-azure IN.csv OUT.csv makes a trace of Azure's LLM inference trace.",
            add_help=False,
        )
        _options.register(parser)
        _signing.register_options(parser)
        parser.print_help()
        return
    if sys.argv[1:2] == ["convert-azure"]:
        sys.exit(_convert(sys.argv[2:]))
    from locust.main import main as locust

    sys.argv[1:1] = ["-f", str(Path(__file__).parent)]
    locust()


def _convert(arguments: list[str]) -> int:
    from loadgen.schedule._arrivals import convert_azure

    if len(arguments) != 2:
        print("error: python -m loadgen convert-azure IN.csv OUT.csv", file=sys.stderr)
        return 2
    try:
        print(f"{convert_azure(Path(arguments[0]), Path(arguments[1]))} arrivals")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    main()
