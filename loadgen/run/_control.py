"""What the part of a process in a run needs of Locust, and what Locust's events call on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gevent.event import Event

from capacity.measures import Series, Tally
from loadgen._options import Options
from loadgen.generator import LoadSession


class Role(Protocol):
    """A process's part in runs: coordinator, or one of several generators.

    `session` is the load of this process, None outside a run and on a master. `finished` is set while every run that
    began is written down.
    """

    finished: Event

    @property
    def session(self) -> LoadSession | None: ...

    @property
    def running(self) -> bool:
        """Whether a run has begun and not ended."""

    def begin(self) -> None:
        """A run begins. Raises InputError."""

    def users_ready(self) -> None:
        """All users are there."""

    def drain(self) -> None:
        """The run ends: sends nothing more, and blocks until nothing is in flight."""

    def end(self) -> None:
        """The users are gone: writes the results."""


class RunControl(Protocol):
    """What a role needs of Locust. `client_id` is this process's name among the generators."""

    client_id: str

    def options(self) -> Options:
        """Returns the options of the run that begins. Raises InputError."""

    def command(self) -> dict[str, Any]:
        """Returns the options as the user gave them, for run.json."""

    @property
    def headless(self) -> bool:
        """Whether there is no web interface that outlives the run."""

    @property
    def has_page(self) -> bool:
        """Whether there is a live page."""

    @property
    def run_time_s(self) -> float | None:
        """--run-time in seconds."""

    @property
    def user_count(self) -> int:
        """How many users the run is to have."""

    def stop(self) -> None:
        """Ends the run as --run-time would. Returns at once."""

    def set_exit_code(self, code: int) -> None:
        """Sets the exit code of the process, unless it is set."""

    def report_failure(self, place: str, error: Exception) -> None:
        """Logs an exception that is a bug with its traceback, and makes the run fail."""

    def add_statistics(self, tallies: Mapping[Series, Tally]) -> None:
        """Adds one interval to Locust's own statistics."""
