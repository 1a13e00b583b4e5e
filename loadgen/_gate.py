"""Both ends of Locust's connection. What comes in at the master's is a well-formed message of one of its generators, or
it is dropped and counted.

Locust's own receiver ends at the first packet that it cannot read, and believes the name that a message gives itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any

import gevent
import msgpack
import zmq
from locust.exception import RPCError, RPCSendError
from locust.rpc import Message, zmqrpc
from locust.runners import STATE_CLEANUP, STATE_INIT, STATE_MISSING, STATE_RUNNING, STATE_SPAWNING, STATE_STOPPED
from locust.util.exception_handler import retry

from loadgen._seal import numbers, only_forks, opened, seal, secret

#: A packet above this ends its connection before it is read.
LARGEST = 64 << 20
#: What a message may have, until the master says how much its run's snapshots need.
CAP = 4 << 20
NAME_LENGTH = 255
_STATES = {STATE_CLEANUP, STATE_INIT, STATE_MISSING, STATE_RUNNING, STATE_SPAWNING, STATE_STOPPED}

MALFORMED = "malformed"
TOO_LARGE = "too large"
STRANGER = "of strangers"
FALSE_NAME = "under a false name"
REPLAYED = "sent again"


class Refused(Exception):
    """A message that is dropped; its text is the reason under which it is counted."""


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(count, int) and count >= 0 for name, count in value.items()
    )


def _heartbeat(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and data.get("state") in _STATES
        and isinstance(data.get("current_cpu_usage"), (int, float))
        and isinstance(data.get("current_memory_usage", 0), (int, float))
    )


def _stats(data: Any) -> bool:
    parts = {"stats": list, "stats_total": dict, "errors": dict}
    return (
        isinstance(data, dict)
        and _counts(data.get("user_classes_count"))
        and all(isinstance(data.get(name), kind) for name, kind in parts.items())
    )


def _logs(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("worker_id"), str) and isinstance(data.get("logs"), list)


#: What Locust's workers say, and whether the data that comes with it is what Locust's master will look for.
_SHAPES: dict[str, Callable[[Any], bool]] = {
    "client_ready": lambda data: isinstance(data, str) or data == -1,
    "locustfile": lambda data: isinstance(data, dict) and isinstance(data.get("version"), str),
    "client_stopped": lambda data: data is None,
    "heartbeat": _heartbeat,
    "stats": _stats,
    "spawning": lambda data: data is None,
    "spawning_complete": lambda data: isinstance(data, dict) and _counts(data.get("user_classes_count")),
    "logs": _logs,
    "quit": lambda data: data is None,
    "exception": lambda data: (
        isinstance(data, dict) and all(isinstance(data.get(name), str) for name in ("msg", "traceback"))
    ),
}


class Door:
    """Lets messages in, or counts why not (`refused`). `cap` is the most bytes that a message may have."""

    def __init__(self, key: Callable[[], bytes] = secret) -> None:
        self.refused: Counter[str] = Counter()
        self.cap = CAP
        #: Types of message beside Locust's own, ours and a user's; their data is checked by who takes them.
        self.custom: Container[str] = ()
        self._key = key
        self._last: dict[bytes, int] = {}
        self._members: set[bytes] = set()

    def admit(self, parts: Sequence[bytes]) -> tuple[str, Any]:
        """A packet's parts to (client, message). Raises Refused."""
        if len(parts) not in (2, 3) or not 0 < len(parts[0]) <= NAME_LENGTH:
            raise Refused(MALFORMED)
        name, body = parts[0], parts[1]
        if len(body) > self.cap:
            raise Refused(TOO_LARGE)
        number = self._number(name, body, parts[2] if len(parts) == 3 else b"")
        client, message = _message(name, body)
        check = _SHAPES.get(message.type)
        if check is None and message.type not in self.custom:
            raise Refused(MALFORMED)
        if check is not None and not check(message.data):
            raise Refused(MALFORMED)
        if message.type == "client_ready":
            self._members.add(name)
        elif message.type != "locustfile" and name not in self._members:
            raise Refused(STRANGER)
        if number is not None:
            self._last[name] = number
        return client, message

    def _number(self, name: bytes, body: bytes, sealed: bytes) -> int | None:
        """The message's own number; None where the run has no token and the message no seal."""
        key = self._key()
        number = opened(key, name, body, sealed)
        if number is None and (key or sealed):
            raise Refused(STRANGER)
        if number is not None and number <= self._last.get(name, 0):
            raise Refused(REPLAYED)
        return number


def _message(name: bytes, body: bytes) -> tuple[str, Any]:
    try:
        kind, data, says = msgpack.unpackb(body, raw=False, strict_map_key=False)
        client = name.decode()
    # Unpacking answers malformed input with ValueError and its kin, and deep nesting or unhashable keys with others.
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise Refused(MALFORMED) from None
    if not isinstance(kind, str) or not isinstance(says, str):
        raise Refused(MALFORMED)
    if says != client:
        raise Refused(FALSE_NAME)
    return client, Message(kind, data, client)


#: A master's door stays when Locust opens its socket anew.
door = Door()


class Gate(zmqrpc.Server):
    """Locust's server socket, behind the door."""

    def __init__(self, host: str, port: int) -> None:
        if host == "*" and only_forks():
            # Nobody from elsewhere could take part.
            host = "127.0.0.1"
        zmqrpc.BaseSocket.__init__(self, zmq.ROUTER, self.ipv4_only(host, port))
        # Has to be said before the port is open; Locust's own constructor opens it at once.
        self.socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
        try:
            if port == 0:
                self.port = self.socket.bind_to_random_port(f"tcp://{host}")
            else:
                self.socket.bind(f"tcp://{host}:{port}")
                self.port = port
        except zmq.ZMQError as error:
            raise RPCError(f"Socket bind failure: {error}") from error

    def recv_from_client(self) -> tuple[str, Any]:
        """The next message that is let in, and whose it is."""
        while True:
            try:
                parts = self.socket.recv_multipart()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            try:
                return door.admit(parts)
            except Refused as refused:
                door.refused[str(refused)] += 1
                # A flood of them must not keep everything else from running.
                gevent.sleep(0)


class SealedClient(zmqrpc.Client):
    """Locust's connection from a worker to its master, with the seal as a part of its own behind each message."""

    def __init__(self, host: str, port: int, identity: str) -> None:
        super().__init__(host, port, identity)
        self._name = identity.encode()

    @retry()
    def send(self, msg: Any) -> None:
        """As Locust's: never waits, RPCSendError where the message cannot be queued."""
        body = msg.serialize()
        try:
            self.socket.send_multipart([body, seal(secret(), self._name, next(numbers), body)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise RPCSendError("ZMQ sent failure") from error


def install() -> None:
    """Puts both in the place of Locust's own."""
    zmqrpc.Server, zmqrpc.Client = Gate, SealedClient


def guard(runner: Any) -> None:
    """Messages that somebody registered for come in, and what handling one raises ends that message alone."""
    door.custom = runner.custom_messages
    handle = runner.handle_message

    def handle_message(client: str, message: Any) -> None:
        try:
            handle(client, message)
        except Exception:
            door.refused[MALFORMED] += 1

    runner.handle_message = handle_message
