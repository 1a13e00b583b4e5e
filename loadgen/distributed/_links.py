"""Both ends of the connection between a master and its generators. Locust's are in `loadgen.adapter`.

An exception of a handler is logged with its traceback and fails the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

#: Generator to master: its cumulative state.
SNAPSHOT = "inferload_snapshot"
#: Generator to master: its share of --requests or of the trace is sent and answered.
EXHAUSTED = "inferload_exhausted"
#: Master to generators: send nothing more, and report the last state.
DRAIN = "inferload_drain"
#: Master to generators: when measuring begins.
START = "inferload_start"
#: Master to generators: a probe begins, or ends early.
PROBE = "inferload_probe"


class MasterLink(Protocol):
    """A master's connection to all generators."""

    def clients(self) -> dict[str, bool]:
        """Returns the names of the generators, and whether each is present; False if its heartbeat is missing."""

    def send(self, message: str, data: Any, client: str | None = None) -> None:
        """Sends a message to one generator, or to all. Raises SendError."""

    def receive(self, message: str, handler: Callable[[str, Any], None]) -> None:
        """Calls `handler(client, data)` for each message of this type."""

    def publish_plan(self, plan: Mapping[str, Any] | None) -> None:
        """Sets what a generator gets with the order to start its users; None if no run of this package takes place."""


class GeneratorLink(Protocol):
    """A generator's connection to the master."""

    @property
    def client_id(self) -> str:
        """The name of this generator."""

    def send(self, message: str, data: Any) -> None:
        """Sends a message to the master. Raises SendError."""

    def receive(self, message: str, handler: Callable[[Any], None], *, concurrent: bool = False) -> None:
        """Calls `handler(data)` for each message of this type; in a greenlet of its own if `concurrent`."""

    def plan(self) -> Mapping[str, Any] | None:
        """Returns what the master published for the run that starts; None if no run of this package takes place."""
