"""Locust's environment and runners behind two protocols: the run's control, and links between processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gevent
from locust.exception import RPCError
from locust.runners import STATE_MISSING, MasterRunner

from capacity.measures import Series, Tally
from loadgen._errors import SendError
from loadgen._options import RECORDED, Options
from loadgen.adapter._statistics import add_statistics

_logger = logging.getLogger("inferload")

#: Attribute of the parsed options in which the master's plan travels with Locust's spawn message.
_PLAN = "inferload_plan"


class LocustControl:
    """A `RunControl`: Locust's parsed options, runner and statistics."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.client_id: str = "" if isinstance(environment.runner, MasterRunner) else environment.runner.client_id

    def options(self) -> Options:
        """Returns the checked options. Raises InputError."""
        return Options.read(self._environment.parsed_options)

    def command(self) -> dict[str, Any]:
        """Returns the recorded options that have a value."""
        options = vars(self._environment.parsed_options)
        return {option: value for option, value in options.items() if option in RECORDED and value not in (None, "")}

    @property
    def headless(self) -> bool:
        """Whether --headless was given."""
        return bool(self._environment.parsed_options.headless)

    @property
    def has_page(self) -> bool:
        """Whether this process serves Locust's web UI."""
        return self._environment.web_ui is not None

    @property
    def run_time_s(self) -> float | None:
        """The value of --run-time."""
        run_time = self._environment.parsed_options.run_time
        return float(run_time) if run_time else None

    @property
    def user_count(self) -> int:
        """How many users the run is to have."""
        return int(self._environment.runner.target_user_count)

    def stop(self) -> None:
        """Ends the run as --run-time does, in a greenlet: quits if headless, else stops and leaves the web UI."""
        runner = self._environment.runner
        gevent.spawn(runner.quit if self.headless else runner.stop)

    def set_exit_code(self, code: int) -> None:
        """Sets the exit code of the process, unless one is set."""
        if self._environment.process_exit_code is None:
            self._environment.process_exit_code = code

    def report_failure(self, place: str, error: Exception) -> None:
        """Logs an exception that is a bug, with its traceback; this process and the master then exit with 1."""
        _logger.error("%s failed: the run is not valid", place, exc_info=error)
        # A generator sends it to the master, whose exit code then is not 0 either.
        self._environment.events.user_error.fire(user_instance=None, exception=error, tb=error.__traceback__)
        self.set_exit_code(1)

    def add_statistics(self, interval: Mapping[Series, Tally]) -> None:
        """Adds one interval to Locust's statistics."""
        for series, tally in interval.items():
            add_statistics(self._environment.stats, series, tally)


class LocustMasterLink:
    """A `MasterLink` over Locust's MasterRunner.

    Args:
        on_error: called with the place and the exception of a handler that failed.
    """

    def __init__(self, environment: Any, on_error: Callable[[str, Exception], None]) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._on_error = on_error

    def clients(self) -> dict[str, bool]:
        """Returns Locust's workers; False for those whose heartbeat is missing."""
        return {client.id: client.state != STATE_MISSING for client in self._runner.clients.all}

    def send(self, message: str, data: Any, client: str | None = None) -> None:
        """Sends a message to one worker, or to all. Raises SendError."""
        try:
            self._runner.send_message(message, data, client)
        except RPCError as error:
            raise SendError(str(error)) from error

    def receive(self, message: str, handler: Callable[[str, Any], None]) -> None:
        """Registers a handler of a message type with Locust."""

        def listen(environment: Any, msg: Any, **_: Any) -> None:
            _guard(self._on_error, message, partial(handler, msg.node_id, msg.data))

        self._runner.register_message(message, listen)

    def publish_plan(self, plan: Mapping[str, Any] | None) -> None:
        """Puts the plan into the options, which Locust sends with its spawn message."""
        setattr(self._environment.parsed_options, _PLAN, plan)


class LocustGeneratorLink:
    """A `GeneratorLink` over Locust's WorkerRunner. `on_error` is as for LocustMasterLink."""

    def __init__(self, environment: Any, on_error: Callable[[str, Exception], None]) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._on_error = on_error
        self.client_id: str = environment.runner.client_id

    def send(self, message: str, data: Any) -> None:
        """Sends a message to the master. Raises SendError."""
        try:
            self._runner.send_message(message, data)
        except RPCError as error:
            raise SendError(str(error)) from error

    def receive(self, message: str, handler: Callable[[Any], None], *, concurrent: bool = False) -> None:
        """Registers a handler of a message type with Locust."""

        def listen(environment: Any, msg: Any, **_: Any) -> None:
            _guard(self._on_error, message, partial(handler, msg.data))

        self._runner.register_message(message, listen, concurrent=concurrent)

    def plan(self) -> Mapping[str, Any] | None:
        """Returns the plan that came with Locust's last spawn message."""
        plan: Mapping[str, Any] | None = getattr(self._environment.parsed_options, _PLAN, None)
        return plan


def _guard(on_error: Callable[[str, Exception], None], message: str, call: Callable[[], None]) -> None:
    """Calls a handler; Locust itself would log its exception and go on."""
    try:
        call()
    except Exception as error:
        on_error(f"handler of message {message!r}", error)
