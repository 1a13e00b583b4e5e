"""Checks that the installed Locust has the internals that this package relies on."""

from __future__ import annotations

import inspect
from importlib import import_module, metadata
from typing import Any

from loadgen._errors import LocustVersionError

#: As pyproject.toml has it.
SUPPORTED_VERSIONS = ">=2.43,<3"

#: Names without a documented interface, and the parameters that calls to them depend on. None: the name alone matters.
_INTERNALS: dict[str, tuple[str, ...] | None] = {
    "locust.rpc.zmqrpc:BaseSocket.__init__": ("self", "sock_type", "ipv4_only"),
    "locust.rpc.zmqrpc:BaseSocket.ipv4_only": ("self", "host", "port"),
    "locust.rpc.zmqrpc:Server.__init__": ("self", "host", "port"),
    "locust.rpc.zmqrpc:Server.recv_from_client": ("self",),
    "locust.rpc.zmqrpc:Client.__init__": ("self", "host", "port", "identity"),
    "locust.rpc.zmqrpc:Client.send": None,
    "locust.rpc:Message.__init__": ("self", "message_type", "data", "node_id"),
    "locust.rpc:Message.serialize": ("self",),
    "locust.exception:RPCError": None,
    "locust.exception:RPCSendError": None,
    "locust.util.exception_handler:retry": ("delays", "exception"),
    "locust.runners:Runner.quit": ("self",),
    "locust.runners:Runner.stop": ("self",),
    "locust.runners:Runner.register_message": ("self", "msg_type", "listener", "concurrent"),
    "locust.runners:MasterRunner.handle_message": ("self", "client_id", "msg"),
    "locust.runners:MasterRunner.send_message": ("self", "msg_type", "data", "client_id"),
    "locust.runners:WorkerRunner.send_message": ("self", "msg_type", "data", "client_id"),
    "locust.runners:WorkerNodes.all": None,
    "locust.runners:STATE_MISSING": None,
    "locust.stats:StatsEntry.__init__": ("self", "stats", "name", "method", "use_response_times_cache"),
    "locust.stats:StatsEntry.extend": ("self", "other"),
    "locust.stats:StatsError.__init__": ("self", "method", "name", "error", "occurrences"),
    "locust.stats:StatsError.create_key": ("method", "name", "error"),
    "locust.event:EventHook.fire": ("self", "reverse"),
    "locust.user.users:User.run": ("self",),
    "locust.user.users:User.stop": ("self", "force"),
    "locust.user.task:LOCUST_STATE_RUNNING": None,
    "locust.user.task:LOCUST_STATE_STOPPING": None,
    "locust.web:WebUI.auth_required_if_enabled": None,
}
_EVENTS = ("init_command_line_parser", "init", "test_start", "spawning_complete", "test_stopping", "test_stop")
_MORE_EVENTS = ("quitting", "quit", "user_error")


def check_locust() -> None:
    """Raises LocustVersionError, with one line as its text, unless all internals are there."""
    problem = next(filter(None, (_problem(path, parameters) for path, parameters in _INTERNALS.items())), None)
    if problem is None:
        events = import_module("locust").events
        problem = next((f"no event {name}" for name in (*_EVENTS, *_MORE_EVENTS) if not hasattr(events, name)), None)
    if problem is not None:
        raise LocustVersionError(
            f"Locust {metadata.version('locust')} is installed, but inferload works with Locust {SUPPORTED_VERSIONS} "
            f"({problem}): pip install 'locust{SUPPORTED_VERSIONS}'"
        )


def _problem(path: str, parameters: tuple[str, ...] | None) -> str | None:
    """Returns what is missing or different; None if the name is there with these parameters first."""
    module, _, names = path.partition(":")
    value: Any
    try:
        value = import_module(module)
        for name in names.split("."):
            value = getattr(value, name)
    except (ImportError, AttributeError):
        return f"no {module}.{names}"
    if parameters is None:
        return None
    names_found = tuple(inspect.signature(value).parameters)
    if names_found[: len(parameters)] != parameters:
        return f"{module}.{names} takes ({', '.join(names_found)}), expected ({', '.join(parameters)})"
    return None
