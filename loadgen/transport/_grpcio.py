"""The reference transport: grpcio under gevent. Slower than our own channel, and beyond doubt about the protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import grpc
import grpc.experimental.gevent

from loadgen.transport._access import Access
from loadgen.transport._reply import INTERNAL, OK, Reply

#: Each completion queue that grpcio polls under gevent holds one of the hub's native threads for as long as it waits,
#: and a hub has 10: thirty slow calls then delay a fast one by a second. (Found by trying.)
_NATIVE_THREADS = 200

_OPTIONS = (
    # As much as our own channel takes: a server that answers with more is refused, not kept in memory.
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

_ready = False


def _reply(ended: Any) -> Reply:
    return _answered(ended.result()) if ended.code() is grpc.StatusCode.OK else _failed(ended)


def _answered(message: bytes | None) -> Reply:
    # grpcio hands a message that was lost or cut as None, without an error.
    return Reply(OK, "", message) if message is not None else Reply(INTERNAL, "OK without a whole message")


def _failed(ended: Any) -> Reply:
    return Reply(ended.code().value[0], ended.details() or "")


def make_ready() -> None:
    """Ties grpcio to gevent, once a process and after any fork."""
    global _ready
    if not _ready:
        gevent.get_hub().threadpool.maxsize = _NATIVE_THREADS
        grpc.experimental.gevent.init_gevent()
        _ready = True


def open_channel(address: str, access: Access) -> Any:
    """A channel of its own connection to `host:port`."""
    make_ready()
    return access.channel(address, _OPTIONS)


class GrpcioChannel:
    """Unary calls of one method over grpcio, bytes in and bytes out. `call` blocks the calling greenlet only."""

    def __init__(self, address: str, *, method: str, access: Access) -> None:
        self._channel = open_channel(address, access)
        self._metadata = access.metadata
        self._call = self._channel.unary_unary(method, request_serializer=None, response_deserializer=None)

    @staticmethod
    def prepare(payload: bytes) -> bytes:
        """grpcio frames each request anew: there is nothing to do once for many."""
        return payload

    def call(self, payload: bytes, timeout_s: float | None = None) -> Reply:
        """One request. A failed one is a Reply with its code, never an exception."""
        try:
            return _answered(self._call(payload, timeout=timeout_s, metadata=self._metadata))
        except grpc.RpcError as error:
            return _failed(error)

    def start(self, payload: bytes, timeout_s: float | None, done: Callable[[Reply], None]) -> None:
        """As `call`, but returns at once; `done` is called exactly once, and must not block."""
        future = self._call.future(payload, timeout=timeout_s, metadata=self._metadata)
        future.add_done_callback(lambda ended: done(_reply(ended)))

    @property
    def connected(self) -> bool:
        """grpcio does not say; its calls do."""
        return True

    def renew(self, timeout_s: float) -> None:
        """grpcio looks after its own connections."""

    def close(self) -> None:
        """Ends the connection; calls in flight become CANCELLED."""
        self._channel.close()
