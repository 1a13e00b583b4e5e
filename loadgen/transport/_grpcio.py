"""The reference transport: grpcio under gevent, slower than our own channel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gevent
import grpc
import grpc.experimental.gevent

from loadgen._reply import OK, Reply
from loadgen.transport._access import Access
from worker.wire import StatusCode

#: Each completion queue that grpcio polls under gevent holds one of the hub's native threads for as long as it waits,
#: and a hub has 10: thirty slow calls then delay a fast one by a second. (Measured.)
_NATIVE_THREADS = 200

_OPTIONS = (
    # As much as our own channel takes: a server that answers with more is refused, not kept in memory.
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def _reply(ended: Any) -> Reply:
    return _ok_reply(ended.result()) if ended.code() is grpc.StatusCode.OK else _error_reply(ended)


def _ok_reply(message: bytes | None) -> Reply:
    # grpcio hands a message that was lost or cut as None, without an error.
    return (
        Reply(OK, "", message)
        if message is not None
        else Reply(StatusCode.INTERNAL.value, "OK without a whole message")
    )


def _error_reply(ended: Any) -> Reply:
    return Reply(ended.code().value[0], ended.details() or "")


@functools.cache
def _use_gevent() -> None:
    """Lets grpcio wait by gevent, once a process and after any fork."""
    gevent.get_hub().threadpool.maxsize = _NATIVE_THREADS
    grpc.experimental.gevent.init_gevent()


def open_grpcio_channel(address: str, access: Access) -> Any:
    """A grpcio channel with a connection of its own to `host:port`."""
    _use_gevent()
    return access.channel(address, _OPTIONS)


class GrpcioChannel:
    """Unary calls of one method over grpcio, bytes in and bytes out. `call` blocks the calling greenlet only."""

    def __init__(self, address: str, *, method: str, access: Access) -> None:
        self._channel = open_grpcio_channel(address, access)
        self._metadata = access.metadata
        self._call = self._channel.unary_unary(method, request_serializer=None, response_deserializer=None)

    @staticmethod
    def prepare(payload: bytes) -> bytes:
        """grpcio frames each request anew: there is nothing to do once for many."""
        return payload

    def call(self, payload: bytes, timeout_s: float | None = None) -> Reply:
        """One request. A failed one is a Reply with its code, never an exception."""
        try:
            return _ok_reply(self._call(payload, timeout=timeout_s, metadata=self._metadata))
        except grpc.RpcError as error:
            return _error_reply(error)

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
