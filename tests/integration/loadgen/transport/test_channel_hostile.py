"""The channel against hand-written servers, most of them wrong: counted errors, never a hang, never a wrong count.

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
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from loadgen.transport import Channel, Reply
from worker.wire.http2 import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from worker.wire.http2 import (
    encode_frame as frame,
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
    "an undefined status": lambda s: end(s, fields((":status", "200"), ("grpc-status", "77"))),
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
    "goaway that excludes it": lambda s: frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)),
    **{f"http {value}": (lambda s, v=value: end(s, status(v))) for value in ("400", "401", "403", "404", "429", "431")},
    **{f"http {value}": (lambda s, v=value: end(s, status(v))) for value in ("200", "418", "500", "502", "503", "504")},
    **{f"reset {error}": (lambda s, e=error: frame(RST_STREAM, 0, s, struct.pack(">I", e))) for error in range(14)},
    **{
        f"status {code}": (lambda s, c=code: head(s) + end(s, fields(("grpc-status", str(c)), ("grpc-message", "m"))))
        for code in range(1, 17)
    },
}
#: Where gRPC's client is not followed: it takes a lost message for a success without a response, which a load
#: generator must not count as an answer; and its table of HTTP statuses lacks 431, which gRPC's specification has.
OURS = dict.fromkeys(
    ["ok without a message", "ok in trailers only", "a message cut", "a wrong compressed flag"], (13, 0)
)
OURS["http 431"] = (13, 2)


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_counted_as_grpcio_counts_it(name: str) -> None:
    with Server(answering(ANSWERS[name])) as server:
        theirs = grpcio_code(server.address)
        with channel(server.address) as opened:
            reply = opened.call(b"ping", 10.0)
    assert (reply.code, theirs) == OURS.get(name, (theirs, theirs))
    assert (reply.payload is not None) == (reply.code == 0)


#: What a server may send instead of HTTP/2, or in the middle of it; the connection ends, and the next one is good.
BROKEN: dict[str, bytes] = {
    "http 1": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "zeros": bytes(100),
    "a frame without end": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "a wrong length": frame(RST_STREAM, 0, 1, bytes(5)),
    "a ping cut": frame(PING, 0, 0, bytes(8))[:-3],
    "an unopened stream": frame(DATA, 0, 99, b"x"),
    "a header block of nonsense": frame(HEADERS, 4, 1, b"\xff" * 20),
    "a continuation alone": frame(CONTINUATION, 4, 1, HEAD),
    "half a reply": ok_reply(1, b"pong")[:-5],
    "nothing": b"",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("greeted", [True, False])
def test_a_broken_connection_fails_its_calls_and_the_next_one_serves(name: str, greeted: bool) -> None:
    connections = iter(range(100))

    def script(peer: Peer) -> None:
        if next(connections) > 0:
            answering(lambda stream: ok_reply(stream, b"pong"))(peer)
            return
        if greeted:
            peer.greet()
            for _, stream in zip(range(5), peer.requests(), strict=False):
                assert stream < 11
        peer.send(BROKEN[name])

    with Server(script) as server, channel(server.address, connect_timeout_s=60.0) as opened:
        assert {reply.code for reply in many(opened, 5)} == {14}
        assert opened.in_flight == 0
        counts = opened.statistics
        assert (counts.connects, counts.failed_connects, counts.broken) == ((1, 0, 1) if greeted else (0, 1, 0))
        while (reply := opened.call(b"ping", 10.0)).code == 14:
            gevent.sleep(0.01)  # the backoff
        assert reply == Reply(0, "", b"pong")
        assert opened.statistics.reconnects == greeted


@pytest.mark.parametrize("name", ["a wrong length", "an unopened stream", "a header block of nonsense", "http 1"])
def test_a_server_that_violates_http2_gets_goaway_and_is_counted(name: str) -> None:
    goaways: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.greet()
        for kind, flags, _, payload in peer.frames():
            if kind == DATA and flags & 1:
                peer.send(BROKEN[name])
            elif kind == GOAWAY:
                goaways.append(payload)

    with Server(script) as server, channel(server.address) as opened:
        assert opened.call(b"ping", 10.0).code == 14
        assert opened.statistics.protocol_errors == 1
    assert len(goaways) == 1


def test_connection_refused_is_unavailable_at_once_and_backs_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with channel(address) as opened:
        assert {reply.code for reply in many(opened, 50, None)} == {14}
        assert {reply.code for reply in many(opened, 50, None)} == {14}
        assert opened.statistics.failed_connects == 1, "calls during the backoff do not connect"
    with channel("no.such.host.invalid:1") as opened:
        assert opened.call(b"ping", 10.0).code == 14


def test_a_server_that_says_nothing_is_a_failed_connect() -> None:
    with Server(Peer.until_closed) as server, channel(server.address, connect_timeout_s=0.1) as opened:
        assert {reply.code for reply in many(opened, 5, None)} == {14}
        assert opened.statistics.failed_connects == 1


def test_a_deadline_holds_while_a_connection_is_made() -> None:
    with Server(Peer.until_closed) as server, channel(server.address) as opened:
        assert {reply.code for reply in many(opened, 5, 0.05)} == {4}
        assert opened.statistics.deadlines == 5


def test_a_server_that_comes_back_is_found_again() -> None:
    pong = answering(lambda stream: ok_reply(stream, b"pong"))
    with Server(pong) as server, channel(server.address) as opened:
        assert opened.call(b"ping", 10.0).code == 0
        port = server.listener.getsockname()[1]
        server.__exit__()
        while opened.call(b"ping", 10.0).code != 14:
            gevent.sleep(0.01)
        with Server(pong, port):
            while (reply := opened.call(b"ping", 10.0)).code == 14:
                gevent.sleep(0.01)
            assert reply == Reply(0, "", b"pong")
            assert opened.statistics.reconnects == 1


def test_a_window_of_zero_holds_uploads_and_nothing_else() -> None:
    opens = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(struct.pack(">HI", 4, 0))
        first = True
        for kind, flags, stream, _ in peer.frames():
            if kind == HEADERS and first:
                first = False
                peer.send(frame(HEADERS, 4, stream, HEAD))
                assert opens.wait(BOUND_S)
                peer.send(window(stream, 10) + window(stream, 10**6) + window(0, 10**6))
            if kind == DATA and flags & 1:
                peer.send(frame(DATA, 0, stream, message(b"whole")) + end(stream))

    with Server(script) as server, channel(server.address) as opened:
        replies: list[Reply] = []
        over = Event()
        opened.start(bytes(600_000), None, lambda reply: (replies.append(reply), over.set())[0])
        assert opened.call(b"small", 1.0).code == 4, "its stream has no window either, and its deadline holds"
        assert replies == []
        opens.set()
        assert over.wait(BOUND_S)
        assert replies == [Reply(0, "", b"whole")]


def test_one_byte_at_a_time() -> None:
    def script(peer: Peer) -> None:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.greet()
        for stream in peer.requests():
            data = ok_reply(stream, b"pong")
            for at in range(len(data)):
                peer.send(data[at : at + 1])

    with Server(script) as server, channel(server.address) as opened:
        assert set(many(opened, 10)) == {Reply(0, "", b"pong")}


def test_a_server_that_reads_slowly_gets_everything() -> None:
    sizes: list[int] = []
    reads = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet(struct.pack(">HI", 4, 2**31 - 1))
        peer.send(window(0, 2**31 - 1 - 65535))
        assert reads.wait(BOUND_S)
        size = 0
        for kind, flags, stream, payload in peer.frames():
            if kind == DATA:
                size += len(payload)
                if flags & 1:
                    sizes.append(size)
                    size = 0
                    peer.send(ok_reply(stream, b"pong"))

    with Server(script) as server, channel(server.address) as opened:
        replies: list[Reply] = []
        over = Event()
        opened.start(bytes(30_000_000), None, lambda reply: (replies.append(reply), over.set())[0])
        while not opened._pool.ready or opened._pool.ready[0]._unsent is None:
            gevent.sleep(0.01)
        assert opened.statistics.bytes_sent < 30_000_000, "the socket is full: the rest waits"
        reads.set()
        assert over.wait(BOUND_S)
        assert replies == [Reply(0, "", b"pong")]
        assert sizes == [30_000_005]


def test_goaway_moves_the_channel_to_a_new_connection() -> None:
    """Every third call is answered with a GOAWAY that leaves it out; none is lost, none counted twice."""
    streams: list[int] = []

    def script(peer: Peer) -> None:
        peer.greet()
        for number, stream in enumerate(peer.requests(), 1):
            if number == 3:
                peer.send(frame(GOAWAY, 0, 0, struct.pack(">II", stream - 2, 0) + b"enough"))
                peer.until_closed()
                return
            streams.append(stream)
            peer.send(ok_reply(stream, b"pong"))

    with Server(script) as server, channel(server.address) as opened:
        codes = [opened.call(b"ping", 10.0).code for _ in range(30)]
        assert codes == [0, 0, 14] * 10
        counts = opened.statistics
        assert (counts.goaways, counts.refused, counts.connects, counts.reconnects) == (10, 10, 10, 9)
        assert counts.broken == 0


def test_a_server_that_closes_while_it_goes_away_leaves_calls_unavailable() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        streams = peer.requests()
        peer.send(ok_reply(next(streams), b"pong"))
        for _ in range(3):
            last = next(streams)
        peer.send(frame(GOAWAY, 0, 0, struct.pack(">II", last, 0)))

    with Server(script) as server, channel(server.address) as opened:
        assert opened.call(b"ping", 10.0).code == 0
        assert {reply.code for reply in many(opened, 3)} == {14}
        counts = opened.statistics
        assert (counts.goaways, counts.refused, counts.broken) == (1, 0, 1)


def test_a_cancelled_call_makes_room_for_one_that_waits() -> None:
    def script(peer: Peer) -> None:
        peer.greet(struct.pack(">HI", 3, 1))
        streams = peer.requests()
        next(streams)
        for stream in streams:
            peer.send(ok_reply(stream, b"pong"))

    with Server(script) as server, channel(server.address) as opened:
        replies: list[Reply] = []
        over = Event()
        first = opened.start(b"ping", None, replies.append)
        opened.start(b"ping", None, lambda reply: (replies.append(reply), over.set())[0])
        while opened._waiting and opened.statistics.connects == 0:
            gevent.sleep(0.01)
        opened.cancel(first)
        assert over.wait(BOUND_S)
        assert [reply.code for reply in replies] == [1, 0]


def test_stream_ids_run_out_while_the_server_is_silent() -> None:
    connections = iter(range(10))

    def script(peer: Peer) -> None:
        silent = next(connections) == 0
        peer.greet()
        for number, stream in enumerate(peer.requests()):
            if number == 0 or not silent:
                peer.send(ok_reply(stream, b"pong"))

    with Server(script) as server, channel(server.address) as opened:
        assert opened.call(b"ping", 10.0).code == 0
        gevent.sleep(0)  # out of the read that brought the reply
        opened._pool.ready[0].connection.calls.next_id = 2**31 - 1
        unanswered: list[Reply] = []
        handle = opened.start(b"ping", None, unanswered.append)
        assert opened.call(b"ping", 10.0).code == 0
        assert opened.in_flight == 1
        opened.cancel(handle)
        assert [reply.code for reply in unanswered] == [1]
        assert opened.statistics.connects == 2


def test_stream_ids_that_run_out_bring_a_new_connection() -> None:
    with Server(answering(lambda stream: ok_reply(stream, b"pong"))) as server, channel(server.address) as opened:
        assert opened.call(b"ping", 10.0).code == 0
        opened._pool.ready[0].connection.calls.next_id = 2**31 - 5
        assert {reply.code for reply in many(opened, 20)} == {0}
        assert [opened.call(b"ping", 10.0).code for _ in range(5)] == [0] * 5
        assert opened.statistics.connects == 2


def test_a_server_that_only_takes_connections_is_not_hammered() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
        peer.until_closed()

    with Server(script) as server, channel(server.address) as opened:
        codes = [reply.code for _ in range(20) for reply in many(opened, 10)]
        assert set(codes) == {14}
        assert len(codes) == 200
        assert opened.statistics.connects < 10


def test_max_concurrent_streams_of_none_holds_calls_until_there_are_some() -> None:
    def script(peer: Peer) -> None:
        peer.greet(struct.pack(">HI", 3, 0))
        assert opens.wait(BOUND_S)
        peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 2)))
        for stream in peer.requests():
            peer.send(ok_reply(stream, b"pong"))

    opens = threading.Event()
    with Server(script) as server, channel(server.address) as opened:
        assert opened.call(b"ping", 0.05).code == 4
        gevent.spawn_later(0.01, opens.set)
        assert {reply.code for reply in many(opened, 20)} == {0}


def test_an_exception_out_of_done_is_printed_and_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(reply: Reply) -> None:
        raise RuntimeError("from done")

    with Server(answering(lambda stream: ok_reply(stream, b"pong"))) as server, channel(server.address) as opened:
        opened.start(b"ping", 10.0, fail)
        assert {reply.code for reply in many(opened, 5)} == {0}
        opened.start(b"ping", 0.0, fail)
        opened.cancel(opened.start(b"ping", 10.0, fail))
        assert opened.call(b"ping", 10.0).code == 0
    assert capsys.readouterr().err.count("RuntimeError: from done") == 3


def test_closing_from_a_reply_ends_the_rest() -> None:
    with Server(answering(lambda stream: ok_reply(stream, b"pong"))) as server, channel(server.address) as opened:
        codes: list[int] = []

        def done(reply: Reply) -> None:
            codes.append(reply.code)
            opened.close()

        for _ in range(10):
            opened.start(b"ping", 10.0, done)
        while len(codes) < 10:
            gevent.sleep(0.01)
        gevent.sleep(0.01)
        assert codes == [0] + [1] * 9


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 200), max_size=8), truncated=st.integers(0, 80))
def test_wherever_the_bytes_are_cut_and_end_every_call_ends_once(cuts: list[int], truncated: int) -> None:
    """Three replies, the bytes cut at random places and the connection closed before the last `truncated` of them."""

    def script(peer: Peer) -> None:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.greet()
        streams = [stream for _, stream in zip(range(3), peer.requests(), strict=False)]
        data = b"".join(ok_reply(stream, b"pong") for stream in streams)
        data = data[: len(data) - truncated]
        at = 0
        for cut in [*cuts, len(data)]:
            peer.send(data[at : at + cut])
            at += cut

    whole = len(ok_reply(1, b"pong"))
    lost = -(-truncated // whole)
    with Server(script) as server, channel(server.address) as opened:
        codes = [reply.code for reply in many(opened, 3)]
        assert codes == [0] * (3 - lost) + [14] * lost
