"""The course of a run: its coordinator, the run directory, telemetry, early stop."""

from loadgen.run._control import Role, RunControl
from loadgen.run._coordinator import Coordinator
from loadgen.run._generators import Generators, Interval, RunCallbacks
from loadgen.run._live_feed import CHECK_INTERVAL
from loadgen.run._local_generators import LocalGenerators
from loadgen.run._terminal import print_line
from loadgen.run._ticker import Ticker

__all__ = [
    "CHECK_INTERVAL",
    "Coordinator",
    "Generators",
    "Interval",
    "LocalGenerators",
    "Role",
    "RunCallbacks",
    "RunControl",
    "Ticker",
    "print_line",
]
