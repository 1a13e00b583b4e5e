"""Which messages Locust's master accepts: well-formed messages of its own generators, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import msgpack

from loadgen._errors import MessageRefused
from loadgen.distributed._locust_messages import LOCUST_MESSAGES
from loadgen.distributed._signing import RunToken, verify

#: Most bytes of a message, unless the snapshots of the run need more.
SIZE_LIMIT = 4 << 20
NAME_LENGTH = 255

#: Reasons for which a message is refused.
MALFORMED = "malformed"
TOO_LARGE = "too large"
STRANGER = "from strangers"
FALSE_NAME = "under a false name"
REPLAYED = "replayed"


class Message(NamedTuple):
    """An accepted message: the name of the generator that sent it, its type, and its data."""

    client: str
    type: str
    data: Any


class MessageValidator:
    """Accepts or refuses the packets that reach Locust's master. It has no socket.

    A packet is accepted if it is small enough, is signed with the run's token (where there is one) and a number higher
    than the last of this client, carries the name of its own connection, is of a known type with data that Locust's
    master can process, and comes from a client that has reported itself ready.

    Attributes:
        refused: how many messages were refused, by reason.
        size_limit: most bytes of a message.
        custom_types: message types other than Locust's own; the handler of such a message checks its data.
    """

    def __init__(self, token: RunToken) -> None:
        self.refused: Counter[str] = Counter()
        self.size_limit = SIZE_LIMIT
        self.custom_types: Container[str] = ()
        self._token = token
        self._last_numbers: dict[bytes, int] = {}
        self._ready: set[bytes] = set()

    def validate(self, parts: Sequence[bytes]) -> Message:
        """Returns the message of a packet: client name, message, and signature if there is one.

        Raises MessageRefused.
        """
        if len(parts) not in (2, 3) or not 0 < len(parts[0]) <= NAME_LENGTH:
            raise MessageRefused(MALFORMED)
        client, body = parts[0], parts[1]
        if len(body) > self.size_limit:
            raise MessageRefused(TOO_LARGE)
        number = self._verify(client, body, parts[2] if len(parts) == 3 else b"")
        message = _unpack(client, body)
        is_valid = LOCUST_MESSAGES.get(message.type)
        if is_valid is None and message.type not in self.custom_types:
            raise MessageRefused(MALFORMED)
        if is_valid is not None and not is_valid(message.data):
            raise MessageRefused(MALFORMED)
        if message.type == "client_ready":
            self._ready.add(client)
        elif message.type != "locustfile" and client not in self._ready:
            raise MessageRefused(STRANGER)
        if number is not None:
            self._last_numbers[client] = number
        return message

    def _verify(self, client: bytes, body: bytes, signature: bytes) -> int | None:
        """Returns the message's number; None if the run has no token and the message no signature."""
        key = self._token.key
        number = verify(key, client, body, signature)
        if number is None and (key or signature):
            raise MessageRefused(STRANGER)
        if number is not None and number <= self._last_numbers.get(client, 0):
            raise MessageRefused(REPLAYED)
        return number


def _unpack(client: bytes, body: bytes) -> Message:
    try:
        message_type, data, sender = msgpack.unpackb(body, raw=False, strict_map_key=False)
        name = client.decode()
    # Malformed input raises ValueError and its subclasses; deep nesting and unhashable keys raise the others.
    except (ValueError, TypeError, RecursionError, OverflowError):
        raise MessageRefused(MALFORMED) from None
    if not isinstance(message_type, str) or not isinstance(sender, str):
        raise MessageRefused(MALFORMED)
    if sender != name:
        raise MessageRefused(FALSE_NAME)
    return Message(name, message_type, data)
