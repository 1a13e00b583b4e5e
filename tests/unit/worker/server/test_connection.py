"""The server's HTTP/2 connection, fed with frames made by hand: no socket, no clock, no event loop."""

from __future__ import annotations

import functools
import gzip
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.server.connection import ServerConnection
from worker.server.request_headers import Method, RequestHeadParser
from worker.server.stream import Stream
from worker.wire.http2 import (
    CLIENT_PREFACE,
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LAST_STREAM_ID,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BufferedBytes,
    PeerLimits,
    encode_settings,
    literal_block,
)
from worker.wire.http2 import (
    encode_frame as frame,
)
from worker.wire.http2.headers import EMPTY_TABLE

LIMITS = PeerLimits()
GREETING = CLIENT_PREFACE + encode_settings()
ECHO, HOLD, FEED = "/test.Test/Echo", "/test.Test/Hold", "/test.Test/Feed"


def fields(path: str = ECHO, **more: str) -> list[tuple[str, str]]:
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
    rest = {"content_type": "application/grpc", "te": "trailers"} | more
    return [*pseudo, *((name.replace("_", "-"), value) for name, value in rest.items())]


def block(path: str = ECHO, **more: str) -> bytes:
    return literal_block(fields(path, **more))


def message(payload: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


def unary(stream: int, payload: bytes = b"hello", head: bytes | None = None) -> bytes:
    return frame(HEADERS, 4, stream, head or block()) + frame(DATA, 1, stream, message(payload))


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[list[object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: object) -> Time.Handle:
        entry: list[object] = [self.now + delay, functools.partial(callback, *args)]
        self.timers.append(entry)
        return Time.Handle(self, entry)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for entry in list(self.timers):
            due, callback = entry
            if due <= self.now:  # type: ignore[operator]
                self.timers.remove(entry)
                callback()  # type: ignore[operator]

    class Handle:
        def __init__(self, time: Time, entry: list[object]) -> None:
            self._time, self._entry = time, entry

        def cancel(self) -> None:
            if self._entry in self._time.timers:
                self._time.timers.remove(self._entry)


class Feeding:
    """Takes the messages of a stream; `waiting` until the test takes them."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ended = False

    @property
    def waiting(self) -> bool:
        return bool(self.messages)

    def message(self, data: bytes) -> None:
        self.messages.append(data)

    def half_closed(self) -> None:
        self.ended = True


class Peer:
    """A connection with three methods: one echoes, one answers when the test says, one takes a stream of messages."""

    fast = True
    """Whether small requests take the fast path."""

    def __init__(self, limits: PeerLimits = LIMITS, token: str = "") -> None:
        self.time = Time()
        self.pending: list[Stream] = []
        self.cancelled: list[int] = []
        self.feeding: list[Feeding] = []
        self.requests: list[bytes] = []
        methods = {ECHO: Method(self._echo), HOLD: Method(self._hold), FEED: Method(self._feed, True)}
        parser = RequestHeadParser(
            lambda path, _: methods.get(path),
            lambda _, metadata: not token or ("t", token) in metadata,
            limits.header_list_bytes,
        )
        self.buffered = BufferedBytes()
        self.connection = ServerConnection(parser, limits, self.buffered, self.time, lambda: None, fast=self.fast)
        self.connection.open()
        self._decoder = hpack.Decoder()
        self._rest = b""

    def _echo(self, stream: Stream, data: bytes) -> None:
        self.requests.append(data)
        stream.reply(data)

    def _hold(self, stream: Stream, data: bytes) -> None:
        self.requests.append(data)
        stream.on_cancel = lambda: self.cancelled.append(stream.id)
        self.pending.append(stream)

    def _feed(self, stream: Stream, data: bytes) -> None:
        taker = Feeding()
        self.feeding.append(taker)
        stream.receiver = taker
        stream.on_cancel = lambda: self.cancelled.append(stream.id)
        self.pending.append(stream)

    def feed(self, data: bytes) -> list[tuple[int, int, int, bytes]]:
        self.connection.receive(data)
        return self.sent()

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """What it sends: kind, flags, stream, payload."""
        writer = self.connection.writer
        data = writer.take()
        while writer.queue:
            writer.fill()
            if not writer.out:
                break
            data += writer.take()
        return list(split(data))

    def headers(self, payload: bytes) -> dict[str, str]:
        return dict(self._decoder.decode(payload))

    def code(self, frames: list[tuple[int, int, int, bytes]]) -> int | None:
        """The HTTP/2 error of the GOAWAY that ended it."""
        codes = [struct.unpack(">I", payload[4:8])[0] for kind, _, _, payload in frames if kind == GOAWAY]
        return codes[-1] if codes else None

    def status(self, frames: list[tuple[int, int, int, bytes]]) -> tuple[str, str]:
        """The grpc-status and grpc-message of the only call that ended."""
        (last,) = [payload for kind, flags, _, payload in frames if kind == HEADERS and flags & 1]
        ended = self.headers(last)
        return ended["grpc-status"], ended.get("grpc-message", "")


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while data:
        size = int.from_bytes(data[:3], "big")
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]
        assert len(data) >= 9 + size
        data = data[9 + size :]


@pytest.fixture(params=[True, False], ids=["fast path", "shared path"], scope="module", autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this module runs with the fast path and without it."""
    Peer.fast = request.param
    yield
    Peer.fast = True


@pytest.fixture
def peer() -> Peer:
    peer = Peer()
    assert [kind for kind, *_ in peer.feed(GREETING)] == [SETTINGS, WINDOW_UPDATE, SETTINGS]
    return peer


def echoed(peer: Peer, frames: list[tuple[int, int, int, bytes]], stream: int, payload: bytes) -> None:
    first, *middle, last = [entry for entry in frames if entry[2] == stream and entry[0] in (HEADERS, DATA)]
    assert peer.headers(first[3]) == {":status": "200", "content-type": "application/grpc"}
    assert b"".join(data for _, _, _, data in middle) == message(payload)
    assert peer.headers(last[3]) == {"grpc-status": "0"}
    assert last[1] == 5


@given(st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_frames_may_come_in_any_pieces(cuts: list[int], padded: bool) -> None:
    data = GREETING
    payloads = [b"", b"x", bytes(100)]
    for number, payload in enumerate(payloads):
        stream = 2 * number + 1
        head = block(x=f"{number}") if number else EMPTY_TABLE + block()
        if padded:
            data += frame(HEADERS, 0x2C, stream, b"\x03" + bytes(4) + b"\x10" + head + bytes(3))
            framed = message(payload)
            data += frame(DATA, 8, stream, b"\x02" + framed[:3] + bytes(2)) + frame(PRIORITY, 0, stream, bytes(5))
            data += frame(DATA, 0, stream, framed[3:]) + frame(DATA, 1, stream)
        else:
            data += frame(HEADERS, 0, stream, head[:9]) + frame(CONTINUATION, 0, stream, head[9:20])
            data += frame(CONTINUATION, 4, stream, head[20:]) + frame(DATA, 1, stream, message(payload))
    peer = Peer()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    frames = []
    for start, end in itertools.pairwise(places):
        frames += peer.feed(data[start:end])
    for number, payload in enumerate(payloads):
        echoed(peer, frames, 2 * number + 1, payload)
    assert not peer.connection.streams.streams
    assert peer.buffered.total == 0


def some_frame() -> st.SearchStrategy[bytes]:
    payload = st.one_of(
        st.binary(max_size=40),
        st.sampled_from([block(), block(HOLD), block(FEED), block(grpc_timeout="1m"), EMPTY_TABLE, message(b"x")]),
        st.sampled_from([bytes(4), b"\x7f\xff\xff\xff", struct.pack(">HI", INITIAL_WINDOW_SIZE, 1), bytes(8)]),
    )
    return st.builds(
        frame, st.integers(0, 10), st.sampled_from([0, 1, 4, 5, 0xC, 0x24, 0xFF]), st.integers(0, 7), payload
    )


class SharedPathPeer(Peer):
    """The same without the fast path."""

    fast = False


def some_request() -> st.SearchStrategy[bytes]:
    heads = [block(), block(HOLD), block(FEED), block(grpc_timeout="1m"), block("/none"), block(content_length="6")]
    return st.builds(unary, st.sampled_from([1, 3, 5, 7, 9]), st.binary(max_size=30), st.sampled_from(heads))


@given(st.lists(some_request() | some_frame(), max_size=20))
def test_the_fast_path_has_the_effect_of_the_shared_one(pieces: list[bytes]) -> None:
    results = []
    for kind in (Peer, SharedPathPeer):
        peer = kind()
        frames = peer.feed(GREETING + unary(1, head=EMPTY_TABLE + block()) + unary(3))
        for piece in pieces:
            frames += peer.feed(piece)
        for stream in peer.pending:
            stream.reply(b"late")
        streams = peer.connection.streams
        ids = (list(streams.streams), streams.last_id, streams.highest_id)
        results.append((frames + peer.sent(), peer.requests, peer.cancelled, peer.buffered.total, ids))
    assert results[0] == results[1]


@given(st.booleans(), st.lists(some_frame() | st.binary(max_size=30), max_size=20))
def test_whatever_comes_the_connection_goes_on_or_ends_with_goaway(greeted: bool, pieces: list[bytes]) -> None:
    peer = Peer()
    frames = peer.feed(GREETING) if greeted else []
    for piece in pieces:
        frames += peer.feed(piece)
    if peer.connection.error is not None:
        assert frames[-1][0] == GOAWAY
        assert not peer.connection.streams.streams
        assert peer.buffered.total == 0
        assert peer.feed(b"more") == []
    else:
        assert peer.code(frames) is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (CLIENT_PREFACE + frame(PING, 0, 0, bytes(8)), 1),
        (CLIENT_PREFACE + frame(SETTINGS, 1, 0), 1),
        (GREETING + frame(SETTINGS, 0, 0, b"abc"), 6),
        (GREETING + encode_settings((INITIAL_WINDOW_SIZE, 2**31)), 3),
        (GREETING + encode_settings((5, 100)), 1),
        (GREETING + b"\xff\xff\xff\0\0\0\0\0\1", 6),
        (GREETING + frame(DATA, 0, 0, b"x"), 1),
        (GREETING + frame(DATA, 1, 7, b"x"), 1),
        (GREETING + frame(HEADERS, 4, 2, block()), 1),
        (GREETING + frame(HEADERS, 5, 1, b"\xff" * 40), 9),
        (GREETING + frame(HEADERS, 0, 1, block()) + frame(PING, 0, 0, bytes(8)), 1),
        (GREETING + frame(CONTINUATION, 4, 1, block()), 1),
        (GREETING + frame(HEADERS, 0xC, 1, b"\xff" + block()[:20]), 1),
        (GREETING + frame(HEADERS, 0x24, 1, b"abc"), 6),
        (GREETING + frame(PUSH_PROMISE, 4, 1, bytes(4)), 1),
        (GREETING + frame(RST_STREAM, 0, 1, bytes(4)), 1),
        (GREETING + frame(RST_STREAM, 0, 1, bytes(3)), 6),
        (GREETING + frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), 3),
        (GREETING + frame(WINDOW_UPDATE, 0, 0, bytes(4)), 1),
        (GREETING + frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 100, 11),
        (GREETING + frame(HEADERS, 0, 1, bytes(60000)), 11),
        (GREETING + frame(HEADERS, 4, 1, b"\x40\x01a\x7f\x81\x1e" + b"b" * 3968 + b"\xbe" * 100), 11),
        (GREETING + frame(GOAWAY, 0, 0, b"abc"), 6),
    ],
)
def test_a_peer_that_breaks_http2_gets_goaway(data: bytes, code: int) -> None:
    if code == 11 and len(data) > 50000:
        data += frame(CONTINUATION, 0, 1, bytes(60000))
    peer = Peer()
    assert peer.code(peer.feed(data)) == code


@pytest.mark.parametrize(
    ("flood", "most"),
    [
        (frame(PING, 0, 0, bytes(8)), LIMITS.idle_frames),
        (frame(SETTINGS, 0, 0), LIMITS.idle_frames),
        (frame(PRIORITY, 0, 1, bytes(5)), LIMITS.idle_frames),
        (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), LIMITS.idle_frames),
        (frame(99, 0, 0), LIMITS.idle_frames),
    ],
)
def test_a_flood_of_frames_that_move_nothing_ends_the_connection(peer: Peer, flood: bytes, most: int) -> None:
    frames = peer.feed(flood * (most + 1))
    assert peer.code(frames) == 11


def test_the_same_frames_over_hours_are_keepalive(peer: Peer) -> None:
    for _ in range(3):
        peer.feed(frame(PING, 0, 0, bytes(8)) * (LIMITS.idle_frames - 100))
        peer.time.advance(3600)
    assert peer.connection.error is None


def test_empty_data_without_end_ends_the_connection(peer: Peer) -> None:
    frames = peer.feed(frame(HEADERS, 4, 1, block()) + frame(DATA, 0, 1) * (LIMITS.idle_frames + 1))
    assert peer.code(frames) == 11


def test_answers_that_nobody_reads_end_the_connection(peer: Peer) -> None:
    peer.connection.writer.blocked = True
    assert peer.code(peer.feed(frame(PING, 0, 0, bytes(8)) * (LIMITS.unread_answers + 1))) == 11


def test_calls_that_are_reset_as_they_are_opened_end_the_connection(peer: Peer) -> None:
    frames = []
    for number in range(1, 2 * LIMITS.rapid_resets + 4, 2):
        frames += peer.feed(frame(HEADERS, 4, number, block(HOLD)) + frame(RST_STREAM, 0, number, bytes(4)))
    assert peer.code(frames) == 11
    assert not peer.connection.streams.streams


def test_calls_whose_client_provokes_the_reset_count_too(peer: Peer) -> None:
    frames = []
    for number in range(1, 2 * LIMITS.rapid_resets + 4, 2):
        frames += peer.feed(frame(HEADERS, 4, number, block(HOLD)) + frame(WINDOW_UPDATE, 0, number, bytes(4)))
    assert peer.code(frames) == 11
    assert not peer.connection.streams.streams


def test_calls_that_are_reset_later_do_not(peer: Peer) -> None:
    for number in range(1, 2 * LIMITS.rapid_resets + 4, 2):
        peer.feed(unary(number, head=block(HOLD)))
        peer.feed(frame(RST_STREAM, 0, number, bytes(4)))
    assert peer.connection.error is None
    assert len(peer.cancelled) == len(peer.pending) > LIMITS.rapid_resets


def test_a_header_block_is_read_by_the_dynamic_table_until_the_peer_gives_it_up(peer: Peer) -> None:
    encoder = hpack.Encoder()
    for stream in (1, 3):  # the second refers to entries of the first
        echoed(peer, peer.feed(unary(stream, head=encoder.encode(fields()))), stream, b"hello")
    encoder.header_table_size = 0
    for stream in (5, 7, 9):
        echoed(peer, peer.feed(unary(stream, head=encoder.encode(fields()))), stream, b"hello")
    encoder.header_table_size = 4096
    for stream in (11, 13):
        echoed(peer, peer.feed(unary(stream, head=encoder.encode(fields()))), stream, b"hello")


def test_a_smaller_table_is_confirmed_once(peer: Peer) -> None:
    peer.feed(encode_settings((1, 0)))
    first, *_ = peer.feed(unary(1))
    assert first[3][:1] == EMPTY_TABLE
    echoed(peer, peer.feed(unary(3)), 3, b"hello")


def test_header_lists_beyond_our_settings_are_refused_alone(peer: Peer) -> None:
    echoed(peer, peer.feed(unary(1, head=EMPTY_TABLE + block())), 1, b"hello")
    large = block(x="y" * LIMITS.header_list_bytes)
    pieces = [frame(HEADERS, 1, 3, large[:9000]), frame(CONTINUATION, 4, 3, large[9000:])]
    assert peer.status(peer.feed(b"".join(pieces)))[0] == "8"
    echoed(peer, peer.feed(unary(5)), 5, b"hello")


REFUSED = {
    "unknown method": (block("/test.Test/None"), "12", "there is no method /test.Test/None"),
    "timeout that is none": (block(grpc_timeout="1x"), "13", "grpc-timeout is '1x'"),
    "unknown compression": (block(grpc_encoding="snappy"), "12", "messages compressed with 'snappy' are not read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_cannot_be_made_is_refused_in_one_header_block(peer: Peer, name: str) -> None:
    request_block, code, text = REFUSED[name]
    for stream in (1, 3):
        frames = peer.feed(unary(stream, head=request_block))
        (reply,) = [entry for entry in frames if entry[0] == HEADERS]
        head = peer.headers(reply[3])
        assert (head[":status"], head["grpc-status"]) == ("200", code)
        assert head["grpc-message"].startswith(text)
        assert ("grpc-accept-encoding" in head) == (code == "12")
    assert peer.requests == []


@pytest.mark.parametrize(
    ("change", "status"), [({"content_type": "text/html"}, "415"), ({"content_type": "application/grpcx"}, "415")]
)
def test_what_is_not_grpc_gets_an_http_status(peer: Peer, change: dict[str, str], status: str) -> None:
    frames = peer.feed(unary(1, head=block(**change)))
    assert peer.headers(frames[0][3]) == {":status": status}
    get = literal_block([(":method", "GET"), (":scheme", "http"), (":path", "/")])
    assert peer.headers(peer.feed(frame(HEADERS, 5, 3, get))[0][3]) == {":status": "405"}


@pytest.mark.parametrize(
    "head",
    [
        literal_block([(":method", "POST"), (":scheme", "http")]),
        literal_block([*fields(), (":path", "/late")]),
        literal_block([(":path", ECHO), *fields()]),
        literal_block([*fields(), ("Upper", "case")]),
        literal_block([*fields(), ("connection", "close")]),
        literal_block([*fields(), ("a", "line\r\nbreak")]),
        literal_block([(":unknown", "x"), *fields()]),
        block(te="gzip"),
        block(content_length="five"),
        block(content_length="5"),
    ],
)
def test_a_malformed_request_is_reset(peer: Peer, head: bytes) -> None:
    frames = peer.feed(frame(HEADERS, 5, 1, head))
    assert frames == [(RST_STREAM, 0, 1, struct.pack(">I", 1))]
    echoed(peer, peer.feed(unary(3)), 3, b"hello")


def test_a_stream_number_that_was_skipped_ends_the_connection(peer: Peer) -> None:
    echoed(peer, peer.feed(unary(7)), 7, b"hello")
    assert peer.code(peer.feed(unary(3))) == 1


def test_late_trailers_of_a_stream_that_has_ended_are_ignored(peer: Peer) -> None:
    trailers = literal_block([("trailing", "x")])
    peer.feed(unary(1, head=block("/test.Test/None")))
    assert peer.feed(frame(HEADERS, 5, 1, trailers)) == []
    echoed(peer, peer.feed(unary(3)), 3, b"hello")


def test_headers_after_the_end_of_a_request_reset_its_stream(peer: Peer) -> None:
    peer.feed(unary(1, head=block(HOLD)))
    assert peer.feed(frame(HEADERS, 5, 1, block(HOLD))) == [(RST_STREAM, 0, 1, struct.pack(">I", 5))]
    assert peer.cancelled == [1]


@pytest.mark.parametrize("trailers", [[(":path", ECHO)], [("Upper", "case")], [("connection", "close")]])
def test_malformed_trailers_reset_the_stream(peer: Peer, trailers: list[tuple[str, str]]) -> None:
    peer.feed(frame(HEADERS, 4, 1, block(FEED)))
    frames = peer.feed(frame(HEADERS, 5, 1, literal_block(trailers)))
    assert frames == [(RST_STREAM, 0, 1, struct.pack(">I", 1))]
    assert peer.cancelled == [1]


@pytest.mark.parametrize(("length", "well_formed"), [("10", True), ("9", False), ("11", False)])
def test_a_content_length_is_that_of_the_data(peer: Peer, length: str, well_formed: bool) -> None:
    frames = peer.feed(unary(1, b"hello", block(content_length=length)))
    if well_formed:
        echoed(peer, frames, 1, b"hello")
    else:
        assert frames == [(RST_STREAM, 0, 1, struct.pack(">I", 1))]
        assert peer.requests == []


def test_a_table_that_the_peer_has_given_up_may_not_come_again(peer: Peer) -> None:
    echoed(peer, peer.feed(frame(SETTINGS, 1, 0) + unary(1, head=EMPTY_TABLE + block())), 1, b"hello")
    peer.feed(frame(SETTINGS, 1, 0))
    assert peer.code(peer.feed(unary(3, head=b"\x3f\xe1\x1f" + block()))) == 9


def test_a_token_that_is_missing_is_refused_each_time() -> None:
    peer = Peer(token="s3cret")
    peer.feed(GREETING)
    echoed(peer, peer.feed(unary(1, head=EMPTY_TABLE + block(t="s3cret"))), 1, b"hello")
    for stream in (3, 5):
        assert peer.status(peer.feed(unary(stream, head=block(t="wrong"))))[0] == "16"
    echoed(peer, peer.feed(unary(7, head=block(t="s3cret"))), 7, b"hello")


def test_compressed_requests_are_read(peer: Peer) -> None:
    for stream, (encoding, packed) in enumerate(
        [("gzip", gzip.compress(b"a" * 5000)), ("deflate", zlib.compress(b"a" * 5000))]
    ):
        number = 2 * stream + 1
        head = frame(HEADERS, 4, number, block(grpc_encoding=encoding))
        echoed(peer, peer.feed(head + frame(DATA, 1, number, message(packed, 1))), number, b"a" * 5000)


@pytest.mark.parametrize(
    ("encoding", "data", "code"),
    [
        ("gzip", message(b"no gzip at all", 1), "13"),
        ("gzip", message(gzip.compress(bytes(99))[:-9], 1), "13"),
        ("gzip", message(gzip.compress(bytes(10**6)), 1), "8"),
        ("identity", message(b"abc", 1), "13"),
        ("gzip", message(b"abc", 7), "13"),
        ("gzip", message(b"abc") + message(b"second"), "12"),
        ("gzip", b"", "12"),
        ("gzip", message(b"abc")[:-1], "13"),
        ("gzip", struct.pack(">BI", 0, 2**32 - 1) + b"x", "8"),
    ],
)
def test_a_message_that_cannot_be_read_has_a_status(encoding: str, data: bytes, code: str) -> None:
    peer = Peer(PeerLimits(message_bytes=100_000))
    peer.feed(GREETING)
    frames = peer.feed(frame(HEADERS, 4, 1, block(grpc_encoding=encoding)) + frame(DATA, 1, 1, data))
    assert peer.status(frames)[0] == code
    assert peer.requests == []
    assert peer.buffered.total == 0


def test_an_answer_beyond_the_limit_has_a_status() -> None:
    peer = Peer(PeerLimits(message_bytes=100))
    peer.feed(GREETING)
    peer.feed(unary(1, head=block(HOLD)))
    peer.pending[0].reply(bytes(101))
    assert peer.status(peer.sent())[0] == "8"


def test_words_are_percent_encoded(peer: Peer) -> None:
    peer.feed(unary(1, head=block(HOLD)))
    peer.pending[0].finish(3, "100 % wörtlich\n")
    assert peer.status(peer.sent()) == ("3", "100 %25 w%C3%B6rtlich%0A")


def test_large_answers_wait_for_windows_and_take_turns(peer: Peer) -> None:
    peer.feed(encode_settings((INITIAL_WINDOW_SIZE, 20000)))
    large = bytes(range(256)) * 200
    for stream in (1, 3):
        frames = peer.feed(unary(stream, large))
        assert sum(len(entry[3]) for entry in frames if entry[0] == DATA) == 20000
    frames = peer.feed(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 40000)) + encode_settings((INITIAL_WINDOW_SIZE, 0)))
    assert sum(len(entry[3]) for entry in frames if entry[0] == DATA) == 20000
    frames = peer.feed(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 10000)))
    assert sum(len(entry[3]) for entry in frames if entry[0] == DATA) == 65535 - 60000  # the connection's own window
    frames = peer.feed(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 10**6)))
    assert sum(len(entry[3]) for entry in frames if entry[0] == DATA) == 10000 - 5535
    frames += peer.feed(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 10**6)))
    assert [entry[2] for entry in frames if entry[0] == HEADERS] == [1]
    frames = peer.feed(encode_settings((INITIAL_WINDOW_SIZE, 10**6)))
    assert {entry[2] for entry in frames if entry[0] != SETTINGS} == {3}
    assert not peer.connection.streams.streams


def test_a_window_beyond_its_bound_resets_the_stream(peer: Peer) -> None:
    peer.feed(unary(1, head=block(HOLD)))
    frames = peer.feed(frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"))
    assert frames == [(RST_STREAM, 0, 1, struct.pack(">I", 3))]
    assert peer.cancelled == [1]


def test_a_client_that_sends_more_than_its_window_is_cut_off(peer: Peer) -> None:
    peer.feed(frame(HEADERS, 4, 1, block(FEED)))
    frames = []
    sent = 0
    while sent <= LIMITS.stream_window:  # nothing is read, so no window is granted
        frames += peer.feed(frame(DATA, 0, 1, message(bytes(60000))))
        sent += 60005
    assert (RST_STREAM, 0, 1, struct.pack(">I", 3)) in frames
    assert peer.cancelled == [1]


def test_what_is_read_is_given_back(peer: Peer) -> None:
    windows = {0: LIMITS.connection_window, 1: LIMITS.stream_window}
    frames = peer.feed(frame(HEADERS, 4, 1, block()))
    framed = message(bytes(5 * LIMITS.connection_window))
    for at in range(0, len(framed), 60000):
        piece = framed[at : at + 60000]
        for stream in windows:
            windows[stream] -= len(piece)
            assert windows[stream] >= 0
        frames = peer.feed(frame(DATA, int(at + 60000 >= len(framed)), 1, piece))
        for kind, _, stream, payload in frames:
            if kind == WINDOW_UPDATE:
                windows[stream] += struct.unpack(">I", payload)[0]
    assert peer.requests == [bytes(5 * LIMITS.connection_window)]
    assert peer.buffered.total == 0


def test_unread_messages_are_bounded_over_all_calls() -> None:
    peer = Peer(PeerLimits(buffered_bytes=100_000))
    peer.feed(GREETING)
    for stream in (1, 3):
        frames = peer.feed(frame(HEADERS, 4, stream, block()) + frame(DATA, 0, stream, message(bytes(10**6))[:60000]))
    assert peer.status(frames)[0] == "8"
    assert list(peer.connection.streams.streams) == [1]


def test_more_streams_than_allowed_are_refused() -> None:
    peer = Peer(PeerLimits(streams=2))
    peer.feed(GREETING)
    frames = [peer.feed(unary(stream, head=block(HOLD))) for stream in (1, 3, 5)]
    assert frames[2][0] == (RST_STREAM, 0, 5, struct.pack(">I", 7))
    assert peer.code(frames[2]) is None
    peer.pending[0].reply(b"")
    echoed(peer, peer.feed(unary(7)), 7, b"hello")


def test_a_deadline_ends_the_call_and_tells_who_answers(peer: Peer) -> None:
    for stream in (1, 3):
        peer.feed(unary(stream, head=block(HOLD, grpc_timeout="100m")))
    assert peer.pending[0].time_remaining() == pytest.approx(0.1)
    peer.pending[1].reply(b"in time")
    peer.sent()
    peer.time.advance(0.2)
    assert peer.status(peer.sent())[0] == "4"
    assert peer.cancelled == [1]
    peer.pending[0].reply(b"late")
    assert peer.sent() == []
    assert peer.time.timers == []


def test_a_reset_and_a_lost_connection_tell_who_answers(peer: Peer) -> None:
    for stream in (1, 3, 5):
        peer.feed(unary(stream, head=block(HOLD)))
    peer.feed(frame(RST_STREAM, 0, 3, bytes(4)))
    assert peer.cancelled == [3]
    peer.connection.close()
    assert peer.cancelled == [3, 1, 5]
    for stream in peer.pending:
        stream.reply(b"late")
    assert peer.sent() == []


def test_a_graceful_shutdown_answers_what_was_on_its_way_and_nothing_after(peer: Peer) -> None:
    peer.feed(unary(1, head=block(HOLD)))
    peer.connection.drain()
    first, ping = peer.sent()
    assert first == (GOAWAY, 0, 0, struct.pack(">II", LAST_STREAM_ID, 0))
    echoed(peer, peer.feed(unary(3)), 3, b"hello")
    last = peer.feed(frame(PING, 1, 0, ping[3]))
    assert last == [(GOAWAY, 0, 0, struct.pack(">II", 3, 0))]
    assert peer.feed(unary(5)) == []
    peer.pending[0].reply(b"after all")
    echoed(peer, peer.sent(), 1, b"after all")


def test_a_failing_method_is_internal_and_its_traceback_is_logged(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    def fails(stream: Stream, data: bytes) -> None:
        raise ZeroDivisionError("by zero")

    parser = RequestHeadParser(lambda *_: Method(fails), lambda *_: True, LIMITS.header_list_bytes)
    connection = ServerConnection(parser, LIMITS, BufferedBytes(), peer.time, lambda: None)
    connection.receive(GREETING + unary(1))
    assert peer.status(list(split(connection.writer.take()))) == ("13", "ZeroDivisionError: by zero")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_stream_of_messages_goes_to_its_receiver(peer: Peer) -> None:
    data = message(b"1") + message(b"") + message(b"333")
    peer.feed(frame(HEADERS, 4, 1, block(FEED)))
    for at in range(len(data)):
        peer.feed(frame(DATA, 0, 1, data[at : at + 1]))
    assert peer.feeding[0].messages == [b"1", b"", b"333"]
    stream = peer.pending[0]
    stream.send(b"a")
    stream.send(b"b")
    frames = peer.feed(frame(HEADERS, 5, 1, literal_block([("trailing", "x")])))
    assert peer.feeding[0].ended
    stream.finish(0, "", (("more-bin", b"\0\1"), ("so", "on")))
    frames += peer.sent()
    assert [payload for kind, _, _, payload in frames if kind == DATA] == [message(b"a"), message(b"b")]
    assert peer.headers(frames[-1][3]) == {"grpc-status": "0", "more-bin": "AAE", "so": "on"}
