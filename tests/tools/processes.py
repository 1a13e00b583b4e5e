"""What tests with real processes need: a free port, the workers' own count, and waiting for a thing to be so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

#: Children see no proxy, no colour and no terminal width but this one, so that their output reads the same everywhere.
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", "INFERLOAD_TARGETS": ""}


def free_port() -> int:
    """A TCP port of the loopback that nobody has now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def hear_ctrl_c() -> None:
    """For a child of a test that interrupts it: a shell that runs the tests in the background has SIGINT ignored, and
    children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def served(*addresses: str, inside: Sequence[str] = ()) -> int:
    """How many requests the workers took in, by their own count; `inside` goes before the command that asks."""
    done = subprocess.run(
        [*inside, sys.executable, "-m", "worker", "statistics", "--targets", ",".join(addresses), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(done.stdout)["requests"])


def wait_for(condition: Callable[[], bool], timeout_s: float = 40) -> None:
    """Polls until the condition holds; fails the test where it never does."""
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
