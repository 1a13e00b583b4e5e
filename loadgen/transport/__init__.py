"""How a request travels: our own HTTP/2 channel on gevent, and grpcio's."""

from loadgen._reply import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    OK,
    UNAVAILABLE,
    UNSENT,
    WRONG_OUTPUT,
    ConnectionLost,
    NotConnected,
    Reply,
    code_name,
)
from loadgen.transport._access import Access
from loadgen.transport._channel import Channel
from loadgen.transport._grpcio import GrpcioChannel, open_grpcio_channel
from loadgen.transport.http2 import Call, PreparedRequest, Security, Statistics

__all__ = [
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "OK",
    "UNAVAILABLE",
    "UNSENT",
    "WRONG_OUTPUT",
    "Access",
    "Call",
    "Channel",
    "ConnectionLost",
    "GrpcioChannel",
    "NotConnected",
    "PreparedRequest",
    "Reply",
    "Security",
    "Statistics",
    "code_name",
    "open_grpcio_channel",
]
