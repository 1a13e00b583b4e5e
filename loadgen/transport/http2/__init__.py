"""gRPC over HTTP/2 as a client under load speaks it."""

from loadgen.transport.http2._call import Call, PreparedRequest
from loadgen.transport.http2._client_socket import ClientSocket, split_address
from loadgen.transport.http2._connection import ClientConnection
from loadgen.transport.http2._connection_pool import ConnectionPool, Destination, Statistics
from loadgen.transport.http2._request_headers import request_block
from loadgen.transport.http2._tls import Security

__all__ = [
    "Call",
    "ClientConnection",
    "ClientSocket",
    "ConnectionPool",
    "Destination",
    "PreparedRequest",
    "Security",
    "Statistics",
    "request_block",
    "split_address",
]
