"""What a master lets in: well-formed messages of its own generators, each once; why not, for all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import msgpack

from loadgen.distributed._signing import opened, secret

#: What a message may have, until the master says how much its run's snapshots need.
CAP = 4 << 20
NAME_LENGTH = 255
#: What Locust's workers can say that they are.
_STATES = {"ready", "spawning", "running", "cleanup", "stopping", "stopped", "missing"}

MALFORMED = "malformed"
TOO_LARGE = "too large"
STRANGER = "of strangers"
FALSE_NAME = "under a false name"
REPLAYED = "sent again"


class Said(NamedTuple):
    """A message that was let in: of which client, of what type, and what comes with it."""

    client: str
    type: str
    data: Any


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

    def admit(self, parts: Sequence[bytes]) -> Said:
        """The message in a packet's parts. Raises Refused."""
        if len(parts) not in (2, 3) or not 0 < len(parts[0]) <= NAME_LENGTH:
            raise Refused(MALFORMED)
        name, body = parts[0], parts[1]
        if len(body) > self.cap:
            raise Refused(TOO_LARGE)
        number = self._number(name, body, parts[2] if len(parts) == 3 else b"")
        message = _message(name, body)
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
        return message

    def _number(self, name: bytes, body: bytes, sealed: bytes) -> int | None:
        """The message's own number; None where the run has no token and the message no seal."""
        key = self._key()
        number = opened(key, name, body, sealed)
        if number is None and (key or sealed):
            raise Refused(STRANGER)
        if number is not None and number <= self._last.get(name, 0):
            raise Refused(REPLAYED)
        return number


def _message(name: bytes, body: bytes) -> Said:
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
    return Said(client, kind, data)


#: A master's door stays when Locust opens its socket anew.
door = Door()
