"""Connects Locust's events to this process's part in a run: the only generator, Locust's master, or a worker.

The folder `adapter` holds the rest of what touches Locust. What changes in a process, and when:

- `import InferenceUser` changes nothing. Defining a subclass of it, as a locustfile does, adds listeners to Locust's
  events and, when Locust reads its command line, the options of this package.
- Then, too, Locust's socket classes are replaced (see `adapter/_sockets.py`), since Locust opens its sockets before a
  run exists. They are put back when Locust quits.
- Everything else happens only in a run of which an InferenceUser is a part, and is undone at its end.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import gevent
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadgen import _options
from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.adapter import (
    InterruptHandler,
    LocustControl,
    LocustGeneratorLink,
    LocustMasterLink,
    SocketReplacement,
    open_port_warning,
)
from loadgen.distributed import GeneratorNode, MessageValidator, RemoteGenerators, RunToken, answer_pings
from loadgen.generator import LoadSession
from loadgen.run import Coordinator, LocalGenerators, Role, print_line
from loadgen.targets import read_addresses
from loadgen.web import add_pages

#: How long the end of a run may take if another greenlet is already ending it: longer than any deadline of a request.
END_TIMEOUT_S = 300.0


class _Registry:
    """What the listeners share. Locust calls them with objects of its own only, so there is one for the process."""

    def __init__(self) -> None:
        self.user_class: type | None = None
        self.token = RunToken(sys.argv[1:], os.environ)
        self.validator = MessageValidator(self.token)
        self.sockets = SocketReplacement(self.validator, self.token)
        self.interrupts = InterruptHandler()
        self.control: LocustControl | None = None
        self.master_link: LocustMasterLink | None = None
        #: This process's part in runs of InferenceUsers; None if the locustfile's chosen users have none.
        self.role: Role | None = None
        #: The same, if this process owns the run.
        self.coordinator: Coordinator | None = None


_registry = _Registry()


def current_session() -> LoadSession | None:
    """Returns the run of this process; None outside a run, and on a master."""
    return _registry.role.session if _registry.role is not None else None


def install(user_class: type) -> None:
    """Adds the listeners to Locust's events, once in a process. `user_class` is InferenceUser."""
    if _registry.user_class is not None:
        return
    _registry.user_class = user_class
    events.init_command_line_parser.add_listener(_on_command_line)
    events.init.add_listener(_on_init)
    _listen(events.test_start, _on_test_start, finish_on_error=True)
    _listen(events.spawning_complete, _on_spawning_complete, finish_on_error=True)
    _listen(events.test_stopping, _on_test_stopping)
    _listen(events.test_stop, _on_test_stop)
    events.quit.add_listener(_on_quit)


def abort(environment: Any, error: Exception) -> None:
    """Ends a run whose locustfile asks for something impossible: it would not be the load that was intended."""
    if environment.process_exit_code is None and _registry.control is not None:
        print_line(f"error: {error}")
        _registry.control.set_exit_code(2)
        _registry.control.stop()


def _listen(event: Any, listener: Callable[..., None], *, finish_on_error: bool = False) -> None:
    """Adds a listener. If it raises, the run fails: Locust itself logs the exception and goes on."""

    def call(**arguments: Any) -> None:
        control = _registry.control
        if _registry.role is None or control is None:
            return
        try:
            listener(_registry.role, **arguments)
        except Exception as error:
            # A generator leaves the end of the run to the master.
            finish_run = finish_on_error and _registry.coordinator is not None
            control.report_failure(f"listener {listener.__name__.removeprefix('_on_')}", error)
            if finish_run:
                control.stop()

    event.add_listener(call)


def _on_command_line(parser: Any, **_: Any) -> None:
    _options.register(parser)
    _registry.token.add_options(parser)
    _registry.sockets.apply()


def _on_init(environment: Any, runner: Any, **_: Any) -> None:
    control = _registry.control = LocustControl(environment)
    if isinstance(runner, MasterRunner):
        _registry.validator.custom_types = runner.custom_messages
        _report_failures(runner, control)
    if not _has_inference_user(environment):
        return
    options = environment.parsed_options
    options.arrivals = options.arrivals or _options.default_arrivals(options.shape)
    # Listeners of quitting are called in reverse order: a generator's end precedes Locust's own "quit" message to the
    # master, after which the master waits for this generator no longer.
    _listen(events.quitting, _on_quitting)
    # Locust's stop() calls this to log its caller. The first call takes 60 ms, in which nothing would be sent.
    inspect.stack()
    if isinstance(runner, WorkerRunner):
        _registry.role = GeneratorNode(control, LocustGeneratorLink(environment, control.report_failure))
        return
    if isinstance(runner, MasterRunner):
        warning = open_port_warning(runner.master_bind_host, runner.server.port, _registry.token)
        if warning:
            print_line(warning)
        link = _registry.master_link = LocustMasterLink(environment, control.report_failure)
        answer_pings(link)
        coordinator = Coordinator(control, RemoteGenerators(control, link, _registry.validator))
    else:
        coordinator = Coordinator(control, LocalGenerators(control))
    _registry.role = _registry.coordinator = coordinator
    try:
        if environment.web_ui is not None:
            live = coordinator.live
            base_path = options.web_base_path or ""
            add_pages(environment.web_ui, live, base_path=base_path, users_file=options.web_users)
        target_addresses = read_addresses(Options.read(options).targets, Path.cwd())
        if not target_addresses and options.headless:
            # Now, because --run-time counts from the end of Locust's init.
            coordinator.start_fleet()
    except InputError as error:
        coordinator.stop_fleet()
        _exit(error)
    # Timers count from the event loop's current time, which did not advance in here: --run-time would end early.
    gevent.get_hub().loop.update_now()
    _set_defaults(options, len(target_addresses))


def _set_defaults(options: Any, targets: int) -> None:
    """Sets the number of users and the spawn rate where the command line does not give them."""
    if options.num_users is None:
        # An embedded fleet has a worker on every core.
        options.num_users = targets or os.cpu_count() or 1
        if options.shape:
            # Each generator has a source for each target, so that all targets get the same load.
            options.num_users *= _generator_count(options)
    if options.spawn_rate is None:
        # Locust's default of one user a second makes the ramp-up longer than many runs.
        options.spawn_rate = min(options.num_users, 100)


def _generator_count(options: Any) -> int:
    """Returns how many generators the command line asks for."""
    forks = options.processes or 0
    return max((os.cpu_count() or 1) if forks < 0 else forks, options.expect_workers if options.master else 1, 1)


def _has_inference_user(environment: Any) -> bool:
    return _registry.user_class is not None and any(
        issubclass(user_class, _registry.user_class) for user_class in environment.user_classes
    )


def _report_failures(runner: Any, control: LocustControl) -> None:
    """Makes an exception in the master's handling of an accepted message fail the run. It ends this message alone."""
    handle = runner.handle_message

    def handle_message(client_id: str, msg: Any) -> None:
        try:
            handle(client_id, msg)
        except Exception as error:
            control.report_failure(f"handling of message {msg.type!r} from {client_id}", error)

    runner.handle_message = handle_message


def _exit(error: InputError) -> NoReturn:
    print_line(f"error: {error}")
    raise SystemExit(2)


def _on_test_start(role: Role, environment: Any, **_: Any) -> None:
    if _registry.coordinator is not None and not _has_inference_user(environment):
        if _registry.master_link is not None:
            _registry.master_link.publish_plan(None)
        return
    _registry.interrupts.apply()
    try:
        role.begin()
    except InputError as error:
        if _registry.coordinator is not None:
            _registry.coordinator.stop_fleet()
        if environment.parsed_options.headless or _registry.coordinator is None:
            _exit(error)
        print_line(f"error: {error}")
        gevent.spawn(environment.runner.stop)
    if not role.running:
        # On a generator: the users that the master chose are none of this package's.
        _registry.interrupts.restore()


def _on_spawning_complete(role: Role, **_: Any) -> None:
    role.users_ready()


def _on_test_stopping(role: Role, **_: Any) -> None:
    role.drain()


def _on_test_stop(role: Role, **_: Any) -> None:
    try:
        role.end()
    finally:
        _registry.interrupts.restore()


def _on_quitting(role: Role, environment: Any, **_: Any) -> None:
    if role.running:
        # Locust determines its exit code before it stops a run that a signal ended, so the run is ended here.
        environment.runner.stop()
    # Another greenlet may be ending the run, for example when the last generator left. Then stop() returned at once,
    # and Locust's next step would kill that greenlet.
    role.finished.wait(END_TIMEOUT_S)


def _on_quit(**_: Any) -> None:
    _registry.interrupts.restore()
    _registry.sockets.restore()
    if _registry.coordinator is None:
        return
    try:
        _registry.coordinator.print_result()
    except Exception:
        # Locust has determined its exit code already.
        logging.getLogger("inferload").exception("printing the table of the run failed")
        raise SystemExit(1) from None
