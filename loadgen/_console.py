"""Lines to the user on the terminal."""

from __future__ import annotations

import sys


def print_line(text: str) -> None:
    """Prints one line to standard error, beside Locust's log."""
    print(f"inferload: {text}", file=sys.stderr, flush=True)
