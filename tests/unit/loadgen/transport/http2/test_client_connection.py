"""The client's HTTP/2 connection, fed with frames made by hand: no socket, no clock."""

from __future__ import annotations

import gzip
import itertools
import struct
import zlib
from collections.abc import Iterator

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.transport import PreparedRequest, Reply
from loadgen.transport.http2 import Call, ClientConnection, request_block
from loadgen.transport.http2._request_headers import OPENING_BYTES, format_timeout
from worker.wire.http2 import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    LAST_STREAM_ID,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BlockCache,
    ProtocolError,
)
from worker.wire.http2 import (
    encode_frame as frame,
)

BLOCK = request_block(method="/a.B/C", scheme="http", authority="h:1", timeout_s=1.0)


def fields(*pairs: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(pairs)


HEAD = fields((":status", "200"), ("content-type", "application/grpc"))
OK_TRAILERS = fields(("grpc-status", "0"))


def message(payload: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


def ok_reply(stream: int, payload: bytes) -> bytes:
    return frame(HEADERS, 4, stream, HEAD) + frame(DATA, 0, stream, message(payload)) + ended(stream, OK_TRAILERS)


def ended(stream: int, block: bytes) -> bytes:
    return frame(HEADERS, 5, stream, block)


def settings(**values: int) -> bytes:
    names = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", names[name], value) for name, value in values.items()))


def window(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def frames_in(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    position = 0
    while position < len(data):
        high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data, position)
        length = high << 8 | low
        payload = data[position + 9 : position + 9 + length]
        assert len(payload) == length
        yield kind, flags, stream, payload
        position += 9 + length


class Client:
    """A connection after the handshake, and every reply its calls got."""

    fast = True
    """Whether small requests and replies take the fast path."""

    def __init__(self, greeting: bytes | None = None, limit: int = 1 << 20) -> None:
        self.failures = 0
        self.now = 0.0
        self.connection = ClientConnection(BlockCache(), limit, self._failed, lambda: self.now, fast=self.fast)
        self.replies: dict[int, list[Reply]] = {}
        self.preface = self.connection.writer.take()
        self.connection.receive(settings() if greeting is None else greeting)
        self.greeting_answer = self.connection.writer.take()

    def _failed(self) -> None:
        self.failures += 1

    def start(self, payload: bytes | PreparedRequest = b"ping", block: bytes = BLOCK, deadline: float = 1e9) -> Call:
        request = payload if isinstance(payload, PreparedRequest) else PreparedRequest(payload)
        call = Call(lambda reply: self.replies[call.stream_id].append(reply), request, deadline)
        self.connection.send(call, block)
        self.replies[call.stream_id] = []
        return call

    def answer(self, data: bytes) -> Reply:
        """The reply of the one call started, after this."""
        self.connection.receive(data)
        (replies,) = self.replies.values()
        (reply,) = replies
        return reply

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        return list(frames_in(self.connection.writer.take()))


class SharedPathClient(Client):
    """The same without the fast path."""

    fast = False


@pytest.fixture(params=[True, False], ids=["fast path", "shared path"], scope="module", autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this module runs with the fast path and without it."""
    Client.fast = request.param
    yield
    Client.fast = True


def one_call(data: bytes, limit: int = 1 << 20) -> Reply:
    client = Client(limit=limit)
    client.start()
    return client.answer(data)


def test_the_preface_asks_for_no_header_table_no_push_and_the_largest_windows() -> None:
    client = Client()
    assert client.preface == OPENING_BYTES
    first, second = frames_in(client.preface.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    assert first[:3] == (SETTINGS, 0, 0)
    assert dict(struct.iter_unpack(">HI", first[3])) == {1: 0, 2: 0, 4: 2**31 - 1, 5: 65536, 6: 65536}
    assert second == (WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
    assert client.greeting_answer == frame(SETTINGS, 1, 0)


def test_nothing_may_start_before_the_servers_settings() -> None:
    connection = ClientConnection(BlockCache(), 100, lambda: None)
    assert connection.calls.limit == 0
    connection.receive(settings(streams=7))
    assert connection.calls.limit == 7


def test_request_headers_are_those_of_grpc_and_carry_no_state() -> None:
    block = request_block(method="/a.B/C", scheme="https", authority="host:1", token="secret", timeout_s=0.25)
    decoder = hpack.Decoder()
    expected = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/a.B/C"),
        (":authority", "host:1"),
        ("grpc-timeout", "250000u"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-python-inferload/1"),
        ("grpc-accept-encoding", "identity,deflate,gzip"),
        ("authorization", "Bearer secret"),
    ]
    for _ in range(2):
        assert [(str(name), str(value)) for name, value in decoder.decode(block)] == expected
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (1e-12, "1n"),
        (0.001, "1000000n"),
        (0.0999, "99900000n"),
        (0.1, "100000u"),
        (1.0, "1000000u"),
        (99.0, "99000000u"),
        (100.0, "100000m"),
        (3600.0, "3600000m"),
        (1e5, "100000S"),
        (1e12, "99999999S"),
    ],
)
def test_timeouts_have_at_most_eight_digits(seconds: float, value: str) -> None:
    assert format_timeout(seconds) == value


def test_the_first_block_empties_the_table_and_later_ones_are_the_block_itself() -> None:
    client = Client()
    client.start(b"one")
    client.start(b"two")
    assert client.sent() == [
        (HEADERS, 4, 1, b"\x20" + BLOCK),
        (DATA, 1, 1, message(b"one")),
        (HEADERS, 4, 3, BLOCK),
        (DATA, 1, 3, message(b"two")),
    ]


def test_a_prepared_request_is_the_same_bytes_every_time_and_on_every_connection() -> None:
    prepared = PreparedRequest(b"payload")
    for _ in range(2):
        client = Client()
        for number in range(3):
            client.start(prepared)
            head, data = client.sent()
            assert head == (HEADERS, 4, 2 * number + 1, (b"" if number else b"\x20") + BLOCK)
            assert data == (DATA, 1, 2 * number + 1, message(b"payload"))


def test_a_header_block_larger_than_a_frame_is_continued() -> None:
    block = request_block(method="/a.B/C", scheme="http", authority="h:1", token="~" * 40000)
    client = Client()
    for number in range(2):
        client.start(b"x", block)
        *pieces, data = client.sent()
        assert [kind for kind, *_ in pieces] == [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
        assert [flags for _, flags, *_ in pieces] == [0] * (len(pieces) - 1) + [4]
        assert len(pieces) > 2
        assert b"".join(payload for *_, payload in pieces).removeprefix(b"\x20") == block
        assert data == (DATA, 1, 2 * number + 1, message(b"x"))


def test_a_large_upload_is_cut_to_the_peers_frame_size_and_waits_for_both_windows() -> None:
    client = Client(settings(window=20000, frame=16384))
    payload = bytes(range(256)) * 400
    client.start(payload)
    _, *data = client.sent()
    assert [(flags, len(piece)) for _, flags, _, piece in data] == [(0, 16384), (0, 3616)]
    client.connection.receive(window(1, 100000))
    data += client.sent()
    assert sum(len(piece) for *_, piece in data) == 65535, "the connection's first window"
    client.connection.receive(window(0, 10**6))
    data += client.sent()
    assert b"".join(piece for *_, piece in data) == message(payload)
    assert [flags for _, flags, _, _ in data][-1] == 1
    assert sum(flags for _, flags, _, _ in data) == 1


def test_small_requests_use_up_the_connections_window_too() -> None:
    client = Client()
    for _ in range(10):
        client.start(bytes(9995))
    first = [payload for kind, _, _, payload in client.sent() if kind == DATA]
    assert sum(map(len, first)) == 65535
    client.connection.receive(window(0, 100_000))
    assert sum(len(payload) for *_, payload in client.sent()) == 100_000 - 65535


def test_larger_frames_are_used_where_the_peer_takes_them() -> None:
    client = Client(settings(window=10**6, frame=65536) + window(0, 10**6))
    client.start(bytes(200_000))
    _, *data = client.sent()
    assert [len(piece) for *_, piece in data] == [65536, 65536, 65536, 3397]


def test_an_upload_that_waits_for_its_streams_window_blocks_nobody() -> None:
    client = Client(settings(window=10))
    client.start(bytes(1000))
    client.start(b"small")
    assert [(kind, stream, len(payload)) for kind, _, stream, payload in client.sent()][1:] == [
        (DATA, 1, 10),
        (HEADERS, 3, len(BLOCK)),
        (DATA, 3, 10),
    ]


def test_uploads_take_turns_within_the_connections_window() -> None:
    client = Client(settings(window=10**6, frame=16384))
    client.start(bytes(100_000))
    client.start(bytes(100_000))
    client.sent()
    client.connection.receive(window(0, 16384 * 4))
    assert [(stream, len(payload)) for _, _, stream, payload in client.sent()] == [(1, 16384), (3, 16384)] * 2


def test_a_smaller_initial_window_shrinks_the_windows_of_streams() -> None:
    client = Client(settings(window=1000) + window(0, 10**6))
    client.start(bytes(5000))
    client.sent()
    client.connection.receive(settings(window=100) + window(1, 900))
    assert client.sent() == [(SETTINGS, 1, 0, b"")]
    client.connection.receive(window(1, 7))
    assert [(stream, len(payload)) for _, _, stream, payload in client.sent()] == [(1, 7)]
    client.start(bytes(500))
    assert [len(payload) for kind, _, _, payload in client.sent() if kind == DATA] == [100]


def test_an_upload_hands_out_no_more_than_the_socket_is_ready_for() -> None:
    client = Client(settings(window=2**31 - 1) + window(0, 2**31 - 1 - 65535))
    client.start(bytes(3_000_000))
    sizes = []
    while client.connection.writer.queue:
        sizes.append(sum(len(payload) for kind, _, _, payload in client.sent() if kind == DATA))
        client.connection.writer.fill()
    assert max(sizes) <= 262144 + 16384
    assert sum(sizes) + sum(len(payload) for *_, payload in client.sent()) == 3_000_005


def test_a_reply_ends_its_call_once() -> None:
    client = Client()
    client.start()
    assert client.answer(ok_reply(1, b"pong")) == Reply(0, "", b"pong")
    client.connection.receive(frame(RST_STREAM, 0, 1, bytes(4)))
    assert client.replies[1] == [Reply(0, "", b"pong")]
    assert client.connection.calls.stray == 0
    assert client.sent()[-1][0] == DATA


def test_replies_may_come_in_any_order() -> None:
    client = Client()
    for _ in range(3):
        client.start()
    client.connection.receive(ok_reply(5, b"c") + ok_reply(1, b"a") + ok_reply(3, b"b"))
    assert {stream: replies[0].payload for stream, replies in client.replies.items()} == {1: b"a", 3: b"b", 5: b"c"}


def test_a_message_may_come_in_any_number_of_frames() -> None:
    whole = message(bytes(range(100)))
    pieces = b"".join(frame(DATA, 0, 1, whole[at : at + 1]) for at in range(len(whole))) + frame(DATA, 0, 1)
    reply = one_call(frame(HEADERS, 4, 1, HEAD) + pieces + ended(1, OK_TRAILERS))
    assert reply == Reply(0, "", bytes(range(100)))


def test_padding_and_priorities_are_taken_off() -> None:
    padded_head = bytes([3]) + bytes(5) + HEAD + bytes(3)
    padded_data = bytes([200]) + message(b"pong") + bytes(200)
    data = frame(HEADERS, 4 | 8 | 32, 1, padded_head) + frame(DATA, 8, 1, padded_data)
    assert one_call(data + frame(HEADERS, 5 | 8, 1, bytes([0]) + OK_TRAILERS)) == Reply(0, "", b"pong")


def test_headers_may_be_continued() -> None:
    head = frame(HEADERS, 0, 1, HEAD[:1]) + frame(CONTINUATION, 0, 1, HEAD[1:2]) + frame(CONTINUATION, 4, 1, HEAD[2:])
    trailers = frame(HEADERS, 1, 1, b"") + frame(CONTINUATION, 4, 1, OK_TRAILERS)
    assert one_call(head + frame(DATA, 0, 1, message(b"pong")) + trailers) == Reply(0, "", b"pong")


def test_an_informational_head_and_unknown_frames_are_skipped() -> None:
    unknown = frame(0xBE, 0xFF, 1, b"what?") + frame(0x10, 0, 0, b"priority update")
    early = frame(HEADERS, 4, 1, fields((":status", "103")))
    priority = frame(PRIORITY, 0, 1, bytes(5))
    reply = one_call(unknown + early + unknown + priority + ok_reply(1, b"pong"))
    assert reply == Reply(0, "", b"pong")


def test_a_ping_is_answered_and_an_answer_is_not() -> None:
    client = Client()
    client.connection.receive(frame(PING, 0, 0, b"12345678") + frame(PING, 1, 0, b"87654321"))
    assert client.sent() == [(PING, 1, 0, b"12345678")]


def test_the_connections_receive_window_is_topped_up() -> None:
    client = Client(limit=2**31 - 6)
    received, granted = 0, 2**31 - 1
    piece = frame(DATA, 0, 1, bytes(65536)) * 64
    client.start()
    client.connection.receive(frame(HEADERS, 4, 1, fields((":status", "500"))))
    while granted == 2**31 - 1:
        client.connection.receive(piece)
        received += 65536 * 64
        granted += sum(struct.unpack(">I", payload)[0] for kind, *_, payload in client.sent() if kind == WINDOW_UPDATE)
    assert granted - received == 2**31 - 1


@pytest.mark.parametrize("code", range(17))
def test_each_status_code_passes_as_it_is(code: int) -> None:
    trailers = fields((":status", "200"), ("grpc-status", str(code)), ("grpc-message", "caf%C3%A9 %zz 100%"))
    reply = one_call(ended(1, trailers))
    if code == 0:
        assert reply.code == 13, "OK without a message is no unary reply"
    else:
        assert reply == Reply(code, "café %zz 100%", None)


@pytest.mark.parametrize("text", ["17", "-1", "4294967296", "9" * 40, "ok", ""])
def test_an_undefined_status_is_unknown(text: str) -> None:
    assert one_call(ended(1, fields((":status", "200"), ("grpc-status", text)))).code == 2


@pytest.mark.parametrize(
    ("status", "code"),
    sorted(
        {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 431: 13, 502: 14, 503: 14, 504: 14}.items()
        | {200: 2, 204: 2, 301: 2, 418: 2, 500: 2, 505: 2}.items()
    ),
)
def test_http_statuses_without_a_grpc_status(status: int, code: int) -> None:
    block = fields((":status", str(status)), ("content-type", "text/html"))
    assert one_call(ended(1, block)).code == code
    assert one_call(frame(HEADERS, 4, 1, block) + frame(DATA, 1, 1, b"<html>")).code == code


def test_a_grpc_status_wins_over_the_http_status() -> None:
    assert one_call(ended(1, fields((":status", "503"), ("grpc-status", "5")))).code == 5


@pytest.mark.parametrize(
    ("error", "code"),
    sorted(dict.fromkeys((*range(7), 9, 10, 13, 99), 13).items() | {7: 14, 8: 1, 11: 8, 12: 7}.items()),
)
def test_resets(error: int, code: int) -> None:
    client = Client()
    client.start()
    assert client.answer(frame(RST_STREAM, 0, 1, struct.pack(">I", error))).code == code
    assert client.connection.calls.resets == 1
    assert not client.connection.calls.streams


def test_a_cancel_after_our_deadline_is_the_deadline() -> None:
    client = Client()
    client.start(deadline=5.0)
    client.now = 5.0
    assert client.answer(frame(RST_STREAM, 0, 1, struct.pack(">I", 8))).code == 4


def test_compressed_messages() -> None:
    def reply(encoding: str | None, body: bytes, limit: int = 1 << 20) -> Reply:
        extra = () if encoding is None else (("grpc-encoding", encoding),)
        head = frame(HEADERS, 4, 1, fields((":status", "200"), *extra))
        return one_call(head + frame(DATA, 0, 1, body) + ended(1, OK_TRAILERS), limit)

    text = b"text " * 1000
    assert reply("gzip", message(gzip.compress(text), 1)) == Reply(0, "", text)
    assert reply("deflate", message(zlib.compress(text), 1)) == Reply(0, "", text)
    assert reply("gzip", message(text, 0)) == Reply(0, "", text)
    assert reply("identity", message(text, 1)).code == 13
    assert reply(None, message(text, 1)).code == 13
    assert reply("snappy", message(text, 1)).code == 13
    assert reply("gzip", message(text, 1)).code == 13
    assert reply("gzip", message(gzip.compress(text)[:-4], 1)).code == 13
    assert reply("gzip", message(text, 2)).code == 13
    assert reply("gzip", message(gzip.compress(text), 1), limit=4999).code == 8
    assert reply("gzip", message(gzip.compress(text), 1), limit=5000).code == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", 13), (b"\0\0", 13), (message(b"pong")[:-1], 13), (message(b"pong") + b"x", 13), (message(b"a") * 2, 13)],
)
def test_a_message_that_is_not_exactly_one(body: bytes, code: int) -> None:
    head = frame(HEADERS, 4, 1, HEAD)
    assert one_call(head + frame(DATA, 0, 1, body) + ended(1, OK_TRAILERS)).code == code


def test_messages_above_the_limit_are_refused_as_soon_as_they_are_announced() -> None:
    client = Client(limit=100)
    client.start()
    head = frame(HEADERS, 4, 1, HEAD)
    assert client.answer(head + frame(DATA, 0, 1, struct.pack(">BI", 0, 101))).code == 8
    assert client.sent()[-1] == (RST_STREAM, 0, 1, struct.pack(">I", 8))
    assert one_call(head + frame(DATA, 0, 1, message(bytes(100))) + ended(1, OK_TRAILERS), limit=100).code == 0
    assert one_call(head + frame(DATA, 0, 1, message(bytes(101))) + ended(1, OK_TRAILERS), limit=100).code == 8


def test_a_body_larger_than_the_limit_is_refused_whatever_it_announced() -> None:
    client = Client(limit=100)
    client.start()
    body = frame(HEADERS, 4, 1, HEAD) + frame(DATA, 0, 1, message(b"ten bytes.") + bytes(91))
    assert client.answer(body).code == 8


def test_goaway_excludes_the_calls_above_its_last_stream() -> None:
    client = Client()
    for _ in range(3):
        client.start()
    client.connection.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 2**31 - 1, 0)))
    assert client.connection.calls.draining
    assert client.connection.calls.limit == 0
    assert not any(client.replies.values()), "a first GOAWAY of a graceful end excludes no call"
    client.connection.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 3, 0) + b"enough"))
    assert [len(replies) for replies in client.replies.values()] == [0, 0, 1]
    assert client.replies[5][0].code == 14
    assert (client.connection.calls.goaways, client.connection.calls.refused) == (2, 1)
    client.connection.receive(settings(streams=9) + ok_reply(1, b"a") + ok_reply(3, b"b"))
    assert [replies[0].code for replies in client.replies.values()] == [0, 0, 14]
    assert client.connection.calls.limit == 0


def test_the_last_stream_id_ends_the_connections_use() -> None:
    client = Client()
    client.connection.calls.next_id = LAST_STREAM_ID - 2
    client.start()
    assert client.connection.calls.limit > 0
    client.start()
    assert client.connection.calls.limit == 0
    assert client.connection.calls.draining
    client.connection.receive(ok_reply(LAST_STREAM_ID, b"last"))
    assert client.replies[LAST_STREAM_ID][0].payload == b"last"


def test_an_early_reply_resets_the_rest_of_the_request() -> None:
    client = Client()
    client.start(bytes(100_000))
    client.sent()
    assert client.answer(ended(1, fields((":status", "200"), ("grpc-status", "8")))).code == 8
    assert client.sent() == [(RST_STREAM, 0, 1, bytes(4))]
    client.connection.receive(window(1, 1000) + window(0, 1000))
    assert client.sent() == []


def test_a_withdrawn_call_is_reset_and_its_late_reply_counted() -> None:
    client = Client()
    call = client.start()
    client.sent()
    client.connection.calls.withdraw(call)
    client.connection.calls.withdraw(call)
    assert client.sent() == [(RST_STREAM, 0, 1, struct.pack(">I", 8))]
    client.connection.receive(ok_reply(1, b"late") + window(1, 5))
    assert client.replies[1] == []
    assert client.connection.calls.stray == 3


def test_an_abandoned_connection_ends_every_call_once() -> None:
    client = Client()
    for _ in range(3):
        client.start()
    client.connection.calls.abandon(Reply(14, "lost"))
    client.connection.calls.abandon(Reply(14, "lost"))
    assert list(client.replies.values()) == [[Reply(14, "lost")]] * 3


def test_an_exception_out_of_done_harms_no_other_call() -> None:
    client = Client()

    def fail(reply: Reply) -> None:
        raise RuntimeError(reply.message)

    client.connection.send(Call(fail, PreparedRequest(b""), 1e9), BLOCK)
    client.start()
    client.connection.receive(ok_reply(1, b"a") + ok_reply(3, b"b"))
    assert client.replies[3] == [Reply(0, "", b"b")]
    assert client.failures == 1
    client.connection.send(Call(fail, PreparedRequest(b""), 1e9), BLOCK)
    client.connection.calls.abandon(Reply(14, ""))
    assert client.failures == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(DATA, 0, 1, b"early"), 13),
        (frame(HEADERS, 4, 1, HEAD) * 2, 13),
        (frame(HEADERS, 4, 1, fields(("no", "status"))), 13),
        (window(1, 0), 13),
        (frame(HEADERS, 4, 1, HEAD) + frame(DATA, 1, 1, message(b"no trailers")), 2),
    ],
)
def test_a_malformed_reply_ends_its_own_call_only(data: bytes, code: int) -> None:
    client = Client()
    client.start()
    client.start()
    client.connection.receive(data)
    assert [reply.code for reply in client.replies[1]] == [code]
    client.connection.receive(ok_reply(3, b"fine"))
    assert client.replies[3] == [Reply(0, "", b"fine")]


def test_reply_headers_above_the_limit_are_a_resource_exhausted() -> None:
    block = fields((":status", "200"), *((f"x-{number}", "y" * 200) for number in range(400)))
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    data = frame(HEADERS, 1, 1, pieces[0]) + b"".join(frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:])
    assert one_call(data + frame(CONTINUATION, 4, 1)).code == 8


VIOLATIONS = {
    "a frame too large": frame(DATA, 0, 1, bytes(65537))[:9],
    "a frame too large, whole": frame(DATA, 0, 1, bytes(65537)),
    "settings on a stream": frame(SETTINGS, 0, 1),
    "settings of 5 bytes": frame(SETTINGS, 0, 0, bytes(5)),
    "an acknowledgement with content": frame(SETTINGS, 1, 0, bytes(6)),
    "push enabled": settings(push=1),
    "an initial window too large": settings(window=2**31),
    "a largest frame too small": settings(frame=16383),
    "a largest frame too large": settings(frame=2**24),
    "a ping of 7 bytes": frame(PING, 0, 0, bytes(7)),
    "a ping on a stream": frame(PING, 0, 1, bytes(8)),
    "goaway on a stream": frame(GOAWAY, 0, 1, bytes(8)),
    "goaway cut": frame(GOAWAY, 0, 0, bytes(7)),
    "a push": frame(PUSH_PROMISE, 4, 1, bytes(4) + HEAD),
    "data on stream 0": frame(DATA, 0, 0, b"x"),
    "data on an idle stream": frame(DATA, 0, 3, b"x"),
    "data on an even stream": frame(DATA, 0, 2, b"x"),
    "headers on stream 0": frame(HEADERS, 4, 0, HEAD),
    "headers on an idle stream": frame(HEADERS, 4, 3, HEAD),
    "a reset of stream 0": frame(RST_STREAM, 0, 0, bytes(4)),
    "a reset of an idle stream": frame(RST_STREAM, 0, 3, bytes(4)),
    "a reset of 3 bytes": frame(RST_STREAM, 0, 1, bytes(3)),
    "a priority of 4 bytes": frame(PRIORITY, 0, 1, bytes(4)),
    "a window update of 3 bytes": frame(WINDOW_UPDATE, 0, 0, bytes(3)),
    "a window update of 0": window(0, 0),
    "a window above 2^31-1": window(0, 2**31 - 1),
    "a window update of an idle stream": window(3, 1),
    "more padding than data": frame(DATA, 8, 1, bytes([4]) + b"abc"),
    "padding without its length": frame(DATA, 8, 1),
    "more padding than headers": frame(HEADERS, 4 | 8, 1, bytes([255]) + HEAD),
    "a priority cut": frame(HEADERS, 4 | 32, 1, bytes(4)),
    "continuation alone": frame(CONTINUATION, 4, 1, HEAD),
    "a ping within headers": frame(HEADERS, 0, 1, HEAD) + frame(PING, 0, 0, bytes(8)),
    "data within headers": frame(HEADERS, 0, 1, HEAD) + frame(DATA, 0, 1, b"x"),
    "headers within headers": frame(HEADERS, 0, 1, HEAD) * 2,
    "another stream's continuation": frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, 4, 3, HEAD),
    "an unknown frame within headers": frame(HEADERS, 0, 1, HEAD) + frame(0xBE, 0, 1),
    "continuations without end": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 100,
    "a header index that is empty": frame(HEADERS, 4, 1, b"\xff\xff\x01"),
    "a dynamic table again": frame(HEADERS, 4, 1, b"\x3f\xe1\x1f" + HEAD),
    "a header cut": frame(HEADERS, 4, 1, HEAD[:-1]),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_peer_that_violates_http2_ends_the_connection(name: str) -> None:
    client = Client()
    client.start()
    client.sent()
    with pytest.raises(ProtocolError) as raised:
        client.connection.receive(VIOLATIONS[name])
    kind, _, stream, payload = client.sent()[-1]
    assert (kind, stream, payload) == (GOAWAY, 0, struct.pack(">II", 0, raised.value.code))
    assert client.connection.calls.limit == 0
    client.connection.calls.abandon(Reply(14, "broken"))
    assert client.replies[1] == [Reply(14, "broken")]


def test_answers_that_nobody_reads_end_the_connection() -> None:
    client = Client()
    client.connection.writer.blocked = True
    with pytest.raises(ProtocolError):
        client.connection.receive(frame(PING, 0, 0, bytes(8)) * 10001)


@pytest.mark.parametrize(
    "first", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 1, 0)]
)
def test_a_peer_that_does_not_begin_with_settings_is_refused(first: bytes) -> None:
    connection = ClientConnection(BlockCache(), 100, lambda: None)
    with pytest.raises(ProtocolError):
        connection.receive(first)


def conversation() -> tuple[bytes, dict[int, Reply]]:
    """What a server sends to five calls, with everything that may lie between."""
    body = message(bytes(300))
    data = (
        frame(PING, 0, 0, b"12345678")
        + ok_reply(1, b"one")
        + frame(HEADERS, 4, 5, HEAD)
        + frame(DATA, 0, 5, body[:7])
        + frame(HEADERS, 0, 3, HEAD[:2])
        + frame(CONTINUATION, 4, 3, HEAD[2:])
        + frame(DATA, 8, 5, bytes([9]) + body[7:] + bytes(9))
        + settings(streams=100, window=70000)
        + frame(DATA, 0, 3, message(b"three"))
        + frame(RST_STREAM, 0, 7, struct.pack(">I", 7))
        + ended(5, OK_TRAILERS)
        + frame(0x77, 1, 0, b"unknown")
        + ended(9, fields((":status", "200"), ("grpc-status", "5"), ("grpc-message", "no%20such")))
        + ended(3, OK_TRAILERS)
    )
    return data, {
        1: Reply(0, "", b"one"),
        3: Reply(0, "", b"three"),
        5: Reply(0, "", bytes(300)),
        7: Reply(14, "the server reset the stream with HTTP/2 error 7"),
        9: Reply(5, "no such"),
    }


@given(cuts=st.lists(st.integers(0, 700), max_size=40))
def test_it_does_not_matter_where_the_stream_of_bytes_is_cut(cuts: list[int]) -> None:
    data, expected = conversation()
    client = Client()
    for _ in range(5):
        client.start()
    client.sent()
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for left, right in itertools.pairwise(edges):
        client.connection.receive(data[left:right])
    assert client.replies == {stream: [reply] for stream, reply in expected.items()}
    assert client.sent() == [(PING, 1, 0, b"12345678"), (SETTINGS, 1, 0, b"")]


def test_one_byte_at_a_time_is_the_same() -> None:
    data, expected = conversation()
    client = Client()
    for _ in range(5):
        client.start()
    for at in range(len(data)):
        client.connection.receive(data[at : at + 1])
    assert client.replies == {stream: [reply] for stream, reply in expected.items()}


def server_frames() -> st.SearchStrategy[bytes]:
    """What a server may send: frames of replies, whole replies, any frame, and noise."""
    stream = st.sampled_from([1, 3, 5])
    block = st.sampled_from([HEAD, OK_TRAILERS, fields((":status", "404")), fields(("grpc-status", "5"))])
    payload = st.one_of(st.binary(max_size=40), block, st.sampled_from([message(b"x"), bytes(4), bytes(8)]))
    return st.one_of(
        st.builds(ok_reply, stream, st.binary(max_size=30)),
        st.builds(frame, st.just(HEADERS), st.sampled_from([4, 5]), stream, block),
        st.builds(frame, st.just(DATA), st.sampled_from([0, 1]), stream, st.binary(max_size=8).map(message)),
        st.builds(frame, st.just(RST_STREAM), st.just(0), stream, st.sampled_from([bytes(4), b"\0\0\0\x08"])),
        st.builds(frame, st.integers(0, 11), st.integers(0, 255), st.integers(0, 8), payload),
    )


@given(st.lists(server_frames(), max_size=20), st.integers(0, 100_000))
def test_the_fast_path_has_the_effect_of_the_shared_one(pieces: list[bytes], size: int) -> None:
    results = []
    for kind in (Client, SharedPathClient):
        client = kind()
        for number in range(3):
            client.start(bytes(size if number == 1 else number))
        error = None
        try:
            for piece in pieces:
                client.connection.receive(piece)
        except ProtocolError as failure:
            error = str(failure), failure.code
        calls = client.connection.calls
        counters = (calls.resets, calls.stray, calls.goaways, calls.refused, calls.answered, calls.limit)
        results.append((client.replies, client.connection.writer.take(), error, counters))
    assert results[0] == results[1]


@given(
    noise=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                frame,
                st.integers(0, 11),
                st.integers(0, 255),
                st.integers(0, 8),
                st.one_of(st.binary(max_size=40), st.sampled_from([HEAD, OK_TRAILERS, message(b"x")])),
            ),
        ),
        max_size=30,
    )
)
def test_whatever_a_server_sends_no_call_ends_twice_and_none_is_lost(noise: list[bytes]) -> None:
    client = Client()
    for _ in range(3):
        client.start(bytes(50_000))
    try:
        for data in noise:
            client.connection.receive(data)
    except ProtocolError:
        pass
    for stream, replies in client.replies.items():
        assert len(replies) == (stream not in client.connection.calls.streams)
    client.connection.calls.abandon(Reply(14, "lost"))
    assert [len(replies) for replies in client.replies.values()] == [1, 1, 1]
    assert client.failures == 0
