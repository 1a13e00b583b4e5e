"""Ties Locust's events to this process's part in the run: alone, Locust's master, or one of its workers."""

from __future__ import annotations

import inspect
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadgen import _options
from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.distributed import _signing
from loadgen.distributed import _sockets as _gate
from loadgen.distributed._generator import Generator
from loadgen.distributed._master import Master
from loadgen.measure import _locust_statistics as _locust_stats
from loadgen.run._coordinator import Keeper, Node, finish, say
from loadgen.run._session import Session
from loadgen.run._single import Alone
from loadgen.targets._discovery import addresses
from loadgen.web import _pages as _web

#: How long the end of a run may take when another greenlet is at it: longer than any deadline that somebody waits for.
ENDING_S = 300.0

_node: Node | None = None


def current_session() -> Session | None:
    """The run of this process; None outside a run, and on a master."""
    return _node.session if _node is not None else None


def install() -> None:
    """Hangs everything on Locust's events. Once a process: importing `loadgen._user` does it."""
    _locust_stats.install()
    _gate.install()
    events.init_command_line_parser.add_listener(_options.register)
    events.init_command_line_parser.add_listener(_signing.register_options)
    events.init.add_listener(_on_init)
    events.test_start.add_listener(_on_test_start)
    events.spawning_complete.add_listener(_on_spawning_complete)
    events.test_stopping.add_listener(_on_test_stopping)
    events.test_stop.add_listener(_on_test_stop)
    events.quit.add_listener(_on_quit)


def _on_init(environment: Any, runner: Any, **_: Any) -> None:
    global _node
    options = environment.parsed_options
    options.arrivals = options.arrivals or _options.default_arrivals(options.shape)
    # Listeners of quitting are called last first: a generator's end comes before Locust's worker takes its leave, after
    # which the master waits for it no longer.
    events.quitting.add_listener(_on_quitting)
    _take_interrupts()
    # Locust's stop() asks this who called it. The first time takes 60 ms, in which nothing would be sent or received.
    inspect.stack()
    if isinstance(runner, WorkerRunner):
        _node = Generator(environment)
        return
    keeper = _node = Master(environment) if isinstance(runner, MasterRunner) else Alone(environment)
    try:
        _web.install(environment, keeper.onlooker.live)
        found = addresses(Options.read(options).targets, Path.cwd())
        if not found and options.headless:
            # Now, because --run-time counts from when Locust has gone through its init.
            keeper.embedded()
    except InputError as error:
        keeper.stop_fleet()
        _refuse(error)
    # Timers count from the loop's idea of now, which stood still until here: --run-time would end early by as much.
    gevent.get_hub().loop.update_now()
    if options.num_users is None:
        # An embedded fleet has a worker on every core.
        options.num_users = len(found) or os.cpu_count() or 1
        if options.shape:
            # Each generator has a source for each target, so that every one of them is loaded alike.
            options.num_users *= _generators(options)
    if options.spawn_rate is None:
        # Locust's default of one user a second makes the ramp-up longer than many runs.
        options.spawn_rate = min(options.num_users, 100)


def _generators(options: Any) -> int:
    """How many generators there will be, as far as the command line says it."""
    forked = options.processes or 0
    return max((os.cpu_count() or 1) if forked < 0 else forked, options.expect_workers if options.master else 1, 1)


def _take_interrupts() -> None:
    """Ctrl-C goes to Locust's main greenlet, which ends the run. Python's own way raises it in whichever greenlet runs,
    one that writes a log among them."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        hub = gevent.get_hub()
        gevent.signal_handler(signal.SIGINT, lambda: hub.handle_system_error(KeyboardInterrupt, KeyboardInterrupt()))


def _refuse(error: InputError) -> NoReturn:
    say(f"error: {error}")
    raise SystemExit(2)


def abort(environment: Any, error: Exception) -> None:
    """Ends a run in which a user's own class asked for what cannot be: it would not be the load that was wanted."""
    if environment.process_exit_code is None:
        say(f"error: {error}")
        environment.process_exit_code = 2
        gevent.spawn(finish, environment)


def _on_test_start(environment: Any, **_: Any) -> None:
    assert _node is not None
    try:
        _node.begin()
    except InputError as error:
        if isinstance(_node, Keeper):
            _node.stop_fleet()
        if environment.parsed_options.headless or isinstance(_node, Generator):
            _refuse(error)
        say(f"error: {error}")
        gevent.spawn(environment.runner.stop)


def _on_spawning_complete(**_: Any) -> None:
    assert _node is not None
    _node.ramped()


def _on_test_stopping(**_: Any) -> None:
    assert _node is not None
    _node.drain()


def _on_test_stop(**_: Any) -> None:
    assert _node is not None
    _node.end()


def _on_quitting(environment: Any, **_: Any) -> None:
    if _node is None:
        return
    if _node.running:
        # Locust settles its exit code before it stops a run that a signal ended: end it first.
        environment.runner.stop()
    # Another greenlet may be at it already, as when the last generator left: then stop() returned at once, and what
    # Locust does next kills that greenlet.
    _node.over.wait(ENDING_S)


def _on_quit(**_: Any) -> None:
    if isinstance(_node, Keeper):
        _node.show()
