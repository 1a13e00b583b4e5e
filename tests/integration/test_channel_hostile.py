"""The channel against servers made by hand, most of them wrong: counted errors, never a hang, never a wrong count.

Where a script ends in a status code, gRPC's own client is put through it too: both transports count the same error.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import gevent
import grpc
import hpack
import pytest
from gevent.event import Event

from loadgen._channel import Channel, Reply
from loadgen._h2_frames import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

BOUND_S = 20.0
METHOD = "/test.Echo/Echo"


def fields(*pairs: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(pairs)


HEAD = fields((":status", "200"), ("content-type", "application/grpc"))
OK_TRAILERS = fields(("grpc-status", "0"))


def message(payload: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


def head(stream: int, block: bytes = HEAD) -> bytes:
    return frame(HEADERS, 4, stream, block)


def end(stream: int, block: bytes = OK_TRAILERS) -> bytes:
    return frame(HEADERS, 5, stream, block)


def ok_reply(stream: int, payload: bytes) -> bytes:
    return head(stream) + frame(DATA, 0, stream, message(payload)) + end(stream)


def window(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


class Peer:
    """The server's end of one accepted connection."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.file = accepted.makefile("rb")

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def greet(self, settings: bytes = b"") -> None:
        assert self.file.read(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        self.send(frame(SETTINGS, 0, 0, settings))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What the client sends, to its end; SETTINGS and PING are answered."""
        while len(start := self.file.read(9)) == 9:
            high, low, kind, flags, stream = struct.unpack(">HBBBI", start)
            payload = self.file.read(high << 8 | low)
            if kind in (SETTINGS, PING) and not flags & 1:
                self.send(frame(kind, 1, 0, payload if kind == PING else b""))
            yield kind, flags, stream, payload

    def requests(self) -> Iterator[int]:
        """The stream ids of requests, each once it is whole."""
        for kind, flags, stream, _ in self.frames():
            if kind == DATA and flags & 1:
                yield stream

    def until_closed(self) -> None:
        for _ in self.frames():
            pass


class Server:
    """Runs `script(peer)` for every connection, each in a thread; all of them have ended when it is left."""

    def __init__(self, script: Callable[[Peer], None], port: int = 0) -> None:
        self.script = script
        self.listener = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.accepted: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Server:
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads[0].join(BOUND_S)
        for accepted in self.accepted:
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(BOUND_S)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self.listener.accept()
                accepted.settimeout(BOUND_S)
                self.accepted.append(accepted)
                self.threads.append(threading.Thread(target=self._serve, args=(accepted,)))
                self.threads[-1].start()

    def _serve(self, accepted: socket.socket) -> None:
        peer = Peer(accepted)
        with accepted, peer.file, contextlib.suppress(OSError):
            self.script(peer)


@pytest.fixture(autouse=True)
def bound() -> Iterator[None]:
    with gevent.Timeout(BOUND_S):
        yield


@contextlib.contextmanager
def channel(address: str, **options: object) -> Iterator[Channel]:
    opened = Channel(address, method=METHOD, **options)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()
        assert opened.in_flight == 0


def answering(reply: Callable[[int], bytes], settings: bytes = b"") -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.greet(settings)
        for stream in peer.requests():
            peer.send(reply(stream))

    return script


def many(opened: Channel, count: int, timeout_s: float | None = 10.0, payload: bytes = b"ping") -> list[Reply]:
    """The replies of so many calls at once, each of which must come exactly once."""
    replies: list[Reply] = []
    over = Event()

    def done(reply: Reply) -> None:
        replies.append(reply)
        if len(replies) == count:
            over.set()

    for _ in range(count):
        opened.start(payload, timeout_s, done)
    assert over.wait(BOUND_S)
    gevent.sleep(0)
    assert len(replies) == count
    return replies


def grpcio_code(address: str) -> int:
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as other:
        try:
            other.unary_unary(METHOD)(b"ping", timeout=5)
        except grpc.RpcError as error:
            return int(error.code().value[0])  # type: ignore[attr-defined]
        return 0


def status(value: str) -> bytes:
    return fields((":status", value), ("content-type", "text/html"))


ENCODED = {name: fields((":status", "200"), ("grpc-encoding", name)) for name in ("gzip", "identity", "snappy")}
#: What a server answers to a request, where gRPC's client settles which code that is.
ANSWERS: dict[str, Callable[[int], bytes]] = {
    "well": lambda s: ok_reply(s, b"pong"),
    "trailers only": lambda s: end(s, fields((":status", "200"), ("grpc-status", "5"), ("grpc-message", "no"))),
    "a status nobody knows": lambda s: end(s, fields((":status", "200"), ("grpc-status", "77"))),
    "ok without a message": lambda s: head(s) + end(s),
    "ok in trailers only": lambda s: end(s, fields((":status", "200"), ("grpc-status", "0"))),
    "no grpc-status": lambda s: head(s) + frame(DATA, 0, s, message(b"x")) + end(s, fields(("x", "y"))),
    "no trailers": lambda s: head(s) + frame(DATA, 1, s, message(b"x")),
    "a message cut": lambda s: head(s) + frame(DATA, 0, s, message(b"pong")[:-1]) + end(s),
    "a wrong compressed flag": lambda s: head(s) + frame(DATA, 0, s, message(b"x", 7)) + end(s),
    "compressed without an encoding": lambda s: head(s) + frame(DATA, 0, s, message(b"x", 1)) + end(s),
    "compressed as identity": lambda s: head(s, ENCODED["identity"]) + frame(DATA, 0, s, message(b"x", 1)) + end(s),
    "compressed well": lambda s: head(s, ENCODED["gzip"]) + frame(DATA, 0, s, message(gzip.compress(b"x"), 1)) + end(s),
    "compressed badly": lambda s: head(s, ENCODED["gzip"]) + frame(DATA, 0, s, message(b"x", 1)) + end(s),
    "compressed by an unknown": lambda s: head(s, ENCODED["snappy"]) + frame(DATA, 0, s, message(b"x", 1)) + end(s),
    "gone away without it": lambda s: frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)),
    **{f"http {value}": (lambda s, v=value: end(s, status(v))) for value in ("400", "401", "403", "404", "429", "431")},
    **{f"http {value}": (lambda s, v=value: end(s, status(v))) for value in ("200", "418", "500", "502", "503", "504")},
    **{f"reset {error}": (lambda s, e=error: frame(RST_STREAM, 0, s, struct.pack(">I", e))) for error in range(14)},
    **{
        f"status {code}": (lambda s, c=code: head(s) + end(s, fields(("grpc-status", str(c)), ("grpc-message", "m"))))
        for code in range(1, 17)
    },
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_counted_as_grpcio_counts_it(name: str) -> None:
    with Server(answering(ANSWERS[name])) as server:
        theirs = grpcio_code(server.address)
        with channel(server.address) as opened:
            reply = opened.call(b"ping", 10.0)
    assert reply.code == theirs
    assert (reply.payload is not None) == (theirs == 0)
