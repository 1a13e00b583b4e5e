"""The server as gRPC's own clients see it: every kind of call, metadata, sizes, security, and how calls end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tools.processes import wait_for

from worker.errors import InputError
from worker.operations import Security
from worker.server import GrpcServer, Stream
from worker.server.connection import ServerConnection
from worker.server.server_socket import ServerSocket
from worker.server.servicer_context import ServicerContext
from worker.wire.http2 import (
    CLIENT_PREFACE,
    DATA,
    DEFAULT_WINDOW,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    WINDOW_UPDATE,
    PeerLimits,
    encode_settings,
    literal_block,
    u32,
)
from worker.wire.http2 import (
    encode_frame as frame,
)

BOUND_S = 30.0
SERVICE = "test.Test"
LARGE = 20 * 2**20


class Servicer:
    """One method of each kind, and some that end in their own way."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.cancelled = threading.Event()
        self.done: list[tuple[bool, bool]] = []

    async def double(self, request: bytes, context: Any) -> bytes:
        return request * 2

    async def metadata(self, request: bytes, context: Any) -> bytes:
        """Its metadata back, as trailers."""
        sent = dict(context.invocation_metadata())
        await context.send_initial_metadata((("early", "yes"),))
        context.set_trailing_metadata((("text", sent["text"]), ("raw-bin", sent["raw-bin"])))
        assert context.peer().startswith("ipv4:127.0.0.1:")
        assert context.is_active()
        assert context.time_remaining() <= BOUND_S
        context.add_done_callback(lambda call: self.done.append((call.done(), call.cancelled())))
        return b"metadata"

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "50 % größer\n", (("why", "because"),))
        raise AssertionError("abort raises")

    async def set_code(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        return b""

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise ZeroDivisionError("by zero")

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.waiting.set()
        try:
            await asyncio.sleep(BOUND_S)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"well"
        await asyncio.sleep(BOUND_S)

    async def large(self, request: bytes, context: Any) -> None:
        try:
            for _ in range(int(request)):
                await context.write(bytes(2**20))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"+".join([request async for request in requests])

    async def echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    def handlers(self) -> Any:
        unary, both = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        methods = {
            name: unary(getattr(self, name)) for name in ("double", "metadata", "abort", "set_code", "fail", "wait")
        }
        methods |= {
            name: grpc.unary_stream_rpc_method_handler(getattr(self, name)) for name in ("count", "large", "watch")
        }
        methods |= {"join": grpc.stream_unary_rpc_method_handler(self.join), "echo": both(self.echo)}
        methods["typed"] = unary(self.double, request_deserializer=lambda data: data.decode("ascii").encode())
        return grpc.method_handlers_generic_handler(SERVICE, methods)


class Running:
    """A server in a thread of its own."""

    def __init__(self, limits: PeerLimits = PeerLimits(), security: Security = Security()) -> None:  # noqa: B008 - frozen
        self.servicer = Servicer()
        self.pending: list[Stream] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.server = GrpcServer(limits, security.authorized(), security.tls())
        self.server.add_generic_rpc_handlers([self.servicer.handlers()])
        self.server.add_unary("/test.Test/direct", lambda stream, data: stream.reply(data))
        self.server.add_unary("/test.Test/hold", lambda stream, data: self.pending.append(stream))
        self.port = self.run(self.server.listen("127.0.0.1", 0))
        self.address = f"localhost:{self.port}"

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(BOUND_S)

    def end(self) -> None:
        self.run(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(BOUND_S)
        self.loop.close()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def make(*arguments: Any, **more: Any) -> Running:
        started.append(Running(*arguments, **more))
        return started[-1]

    yield make
    for running in started:
        running.end()


@pytest.fixture
def channel(running: Running) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(running.address, options=options) as channel:
        yield channel


@pytest.fixture
def running(run: Callable[..., Running]) -> Running:
    return run()


def call(channel: grpc.Channel, name: str, request: bytes = b"x", **more: Any) -> bytes:
    answer: bytes = channel.unary_unary(f"/{SERVICE}/{name}")(request, timeout=BOUND_S, **more)
    return answer


def refused(act: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        act()
    return caught.value


class Answering:
    """Answers as ModelInfer does: it knows its stream, and its stream knows it."""

    def __init__(self, stream: Stream, data: bytes) -> None:
        self._stream = stream
        stream.on_cancel = self.cancel
        stream.reply(data)

    def cancel(self) -> None:
        self._stream.ended = True


def test_calls_and_connections_are_freed_without_the_collector(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's collector looks seldom, so as not to stop a measurement: what it alone would free piles up."""
    # pytest keeps each log record, with the frames of the method that fails; a worker writes it and keeps nothing.
    monkeypatch.setattr(logging.getLogger("inferload.worker"), "disabled", True)
    running.server.add_unary("/test.Test/answering", Answering)

    def left() -> list[str]:
        kinds = (ServerSocket, ServerConnection, Stream, ServicerContext, Answering)
        return [type(one).__name__ for one in gc.get_objects() if type(one) in kinds]

    gc.collect()
    gc.disable()
    try:
        assert left() == []
        for _ in range(3):
            with grpc.insecure_channel(running.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                for name in ("direct", "answering", "double"):
                    call(channel, name)
                list(channel.unary_stream(f"/{SERVICE}/count")(b"3", timeout=BOUND_S))
                list(channel.stream_stream(f"/{SERVICE}/echo")(iter([b"a", b"b"]), timeout=BOUND_S))
                refused(lambda channel=channel: call(channel, "fail"))
                cancelled = channel.unary_stream(f"/{SERVICE}/watch")(b"", timeout=BOUND_S)
                assert next(cancelled) == b"well"
                cancelled.cancel()
        wait_for(lambda: left() == [])
    finally:
        gc.enable()


def test_every_kind_of_call_is_answered(channel: grpc.Channel) -> None:
    assert call(channel, "double", b"ab") == b"abab"
    assert call(channel, "direct", b"") == b""
    numbers = [str(number).encode() for number in range(300)]
    assert list(channel.unary_stream(f"/{SERVICE}/count")(b"300", timeout=BOUND_S)) == numbers
    assert channel.stream_unary(f"/{SERVICE}/join")(iter(numbers), timeout=BOUND_S) == b"+".join(numbers)
    assert list(channel.stream_stream(f"/{SERVICE}/echo")(iter(numbers), timeout=BOUND_S)) == numbers
    assert channel.stream_unary(f"/{SERVICE}/join")(iter([]), timeout=BOUND_S) == b""


def test_metadata_travels_both_ways(running: Running, channel: grpc.Channel) -> None:
    sent = (("text", "some"), ("raw-bin", b"\0\xff\1"))
    answer, metadata = channel.unary_unary(f"/{SERVICE}/metadata").with_call(b"", timeout=BOUND_S, metadata=sent)
    assert answer == b"metadata"
    assert ("early", "yes") in metadata.initial_metadata()
    assert set(sent) <= set(metadata.trailing_metadata())
    assert call(channel, "double") == b"xx"  # by then the first call's callbacks have run
    assert running.servicer.done == [(True, False)]


def test_calls_end_with_the_status_of_the_servicer(channel: grpc.Channel) -> None:
    aborted = refused(lambda: call(channel, "abort"))
    assert (aborted.code(), aborted.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "50 % größer\n")
    assert ("why", "because") in aborted.trailing_metadata()
    assert refused(lambda: call(channel, "set_code")).code() is grpc.StatusCode.DATA_LOSS
    failed = refused(lambda: call(channel, "fail"))
    assert failed.code() is grpc.StatusCode.UNKNOWN
    assert "by zero" in failed.details()
    assert refused(lambda: call(channel, "none")).code() is grpc.StatusCode.UNIMPLEMENTED
    unreadable = refused(lambda: call(channel, "typed", b"\xff"))
    assert unreadable.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "/test.Test/typed" in unreadable.details()


def test_compressed_requests_are_read(channel: grpc.Channel) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert call(channel, "double", bytes(10000), compression=compression) == bytes(20000)
        echo = channel.stream_stream(f"/{SERVICE}/echo")
        assert list(echo(iter([bytes(9999)] * 3), timeout=BOUND_S, compression=compression)) == [bytes(9999)] * 3


def test_large_messages_go_both_ways(channel: grpc.Channel) -> None:
    large = bytes(range(256)) * (LARGE // 256)
    assert call(channel, "direct", large) == large
    assert list(channel.stream_stream(f"/{SERVICE}/echo")(iter([large[:-1]]), timeout=BOUND_S)) == [large[:-1]]
    assert [len(part) for part in channel.unary_stream(f"/{SERVICE}/large")(b"20", timeout=BOUND_S)] == [2**20] * 20


def test_messages_beyond_the_limit_are_refused(run: Callable[..., Running]) -> None:
    running = run(PeerLimits(message_bytes=10_000))
    with grpc.insecure_channel(running.address) as channel:
        assert refused(lambda: call(channel, "double", bytes(10_001))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused(lambda: call(channel, "double", bytes(5001))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        packed = lambda: call(channel, "double", bytes(10**6), compression=grpc.Compression.Gzip)  # noqa: E731
        assert refused(packed).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(channel, "double", bytes(5000)) == bytes(10_000)


def test_deadlines_and_cancellation_reach_the_servicer(running: Running, channel: grpc.Channel) -> None:
    wait = channel.unary_unary(f"/{SERVICE}/wait")
    assert refused(lambda: wait(b"", timeout=0.05)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert running.servicer.cancelled.wait(BOUND_S)
    running.servicer.cancelled.clear()
    running.servicer.waiting.clear()
    flying = wait.future(b"", timeout=BOUND_S)
    assert running.servicer.waiting.wait(BOUND_S)
    flying.cancel()
    assert running.servicer.cancelled.wait(BOUND_S)


def test_a_thousand_calls_at_once_are_answered_each_with_its_own(running: Running) -> None:
    async def main() -> None:
        async with grpc.aio.insecure_channel(running.address) as channel:
            double = channel.unary_unary(f"/{SERVICE}/double")
            echo = channel.stream_stream(f"/{SERVICE}/echo")

            async def one(number: int) -> None:
                if number % 2:
                    assert await double(str(number).encode(), timeout=BOUND_S) == str(number).encode() * 2
                else:
                    talk = echo(timeout=BOUND_S)
                    for part in (b"a", b"b"):
                        await talk.write(part + str(number).encode())
                        assert await talk.read() == part + str(number).encode()
                    await talk.done_writing()
                    assert await talk.code() is grpc.StatusCode.OK

            await asyncio.gather(*(one(number) for number in range(1000)))

    asyncio.run(main())


def test_a_reader_that_stops_holds_the_writer_and_nobody_else(running: Running, channel: grpc.Channel) -> None:
    parts = channel.unary_stream(f"/{SERVICE}/large")(b"100", timeout=BOUND_S)
    next(parts)
    with grpc.insecure_channel(running.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
        assert call(other, "double") == b"xx"
    assert call(channel, "double") == b"xx"
    assert sum(1 for _ in parts) == 99


def test_a_drain_ends_what_runs_and_takes_nothing_more(running: Running, channel: grpc.Channel) -> None:
    flying = channel.unary_unary(f"/{SERVICE}/hold").future(b"in flight", timeout=BOUND_S)
    talk = channel.stream_stream(f"/{SERVICE}/echo")
    stopped = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"first"
        stopped.wait(BOUND_S)

    talking = talk(messages(), timeout=BOUND_S)
    assert next(talking) == b"first"
    watching = channel.unary_stream(f"/{SERVICE}/watch")(b"", timeout=BOUND_S)
    assert next(watching) == b"well"
    wait_for(lambda: bool(running.pending))
    drained = asyncio.run_coroutine_threadsafe(running.server.drain(), running.loop)
    assert list(talking) == []
    assert talking.code() is grpc.StatusCode.OK
    assert refused(lambda: next(watching)).code() is grpc.StatusCode.UNAVAILABLE
    late = refused(lambda: call(channel, "double"))
    assert late.code() is grpc.StatusCode.UNAVAILABLE
    assert not drained.done()
    running.loop.call_soon_threadsafe(running.pending[0].reply, b"answered")
    assert flying.result(BOUND_S) == b"answered"
    drained.result(BOUND_S)
    stopped.set()


def test_a_server_that_stops_cancels_what_runs(running: Running, channel: grpc.Channel) -> None:
    flying = channel.unary_unary(f"/{SERVICE}/wait").future(b"", timeout=BOUND_S)
    assert running.servicer.waiting.wait(BOUND_S)
    running.run(running.server.stop())
    assert refused(lambda: flying.result(BOUND_S)).code() is grpc.StatusCode.UNAVAILABLE
    assert running.servicer.cancelled.is_set()


def test_a_port_in_use_is_an_error(running: Running) -> None:
    other = GrpcServer()
    with pytest.raises(OSError, match="in use"):
        running.run(other.listen("127.0.0.1", running.port))


def test_connections_beyond_the_limit_are_closed(run: Callable[..., Running]) -> None:
    running = run(PeerLimits(connections=1))
    with grpc.insecure_channel(running.address) as channel:
        assert call(channel, "double") == b"xx"
        with grpc.insecure_channel(running.address, options=[("grpc.use_local_subchannel_pool", 1)]) as other:
            late = refused(lambda: other.unary_unary(f"/{SERVICE}/double")(b"x", timeout=2))
        assert late.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert call(channel, "double") == b"xx"


SETTINGS_OF_ALL = (
    CLIENT_PREFACE
    + encode_settings((INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
    + frame(WINDOW_UPDATE, 0, 0, u32.pack(LARGEST_WINDOW - DEFAULT_WINDOW))
)


def head(path: str) -> bytes:
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    return literal_block(fields)


def read_to_end(connected: socket.socket) -> bytes:
    data = b""
    while piece := connected.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize(
    "opening", [b"", CLIENT_PREFACE[:10], CLIENT_PREFACE, SETTINGS_OF_ALL + frame(HEADERS, 0, 1, head("/")[:9])]
)
def test_a_peer_that_does_not_go_on_is_cut_off(run: Callable[..., Running], opening: bytes) -> None:
    running = run(PeerLimits(progress_s=0.2))
    with socket.create_connection(("127.0.0.1", running.port), BOUND_S) as connected:
        connected.sendall(opening)
        with contextlib.suppress(ConnectionResetError):
            read_to_end(connected)
    with grpc.insecure_channel(running.address) as channel:
        assert call(channel, "double") == b"xx"


def test_a_peer_that_violates_http2_gets_goaway_before_the_end(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), BOUND_S) as connected:
        connected.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert read_to_end(connected).endswith(frame(GOAWAY, 0, 0, u32.pack(0) + u32.pack(1)))


def test_a_peer_that_does_not_read_is_cut_off_and_disturbs_nobody(run: Callable[..., Running]) -> None:
    running = run(PeerLimits(unread_s=0.2))
    with socket.create_connection(("127.0.0.1", running.port), BOUND_S) as silent:
        request = b"\0" + u32.pack(3) + b"999"
        silent.sendall(SETTINGS_OF_ALL + frame(HEADERS, 4, 1, head(f"/{SERVICE}/large")) + frame(DATA, 1, 1, request))
        with grpc.insecure_channel(running.address) as channel:
            assert call(channel, "double") == b"xx"
        assert running.servicer.cancelled.wait(BOUND_S)
        with grpc.insecure_channel(running.address) as channel:
            assert call(channel, "double") == b"xx"


def test_tls_is_spoken_with_large_messages_and_many_calls(run: Callable[..., Running], tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    running = run(security=Security(tmp_path / "cert.pem", tmp_path / "key.pem"))
    credentials = grpc.ssl_channel_credentials((tmp_path / "cert.pem").read_bytes())
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.secure_channel(running.address, credentials, options) as channel:
        large = bytes(range(256)) * (LARGE // 256)
        assert call(channel, "direct", large) == large
        flying = [channel.unary_unary(f"/{SERVICE}/direct").future(bytes([n]), timeout=BOUND_S) for n in range(200)]
        assert [future.result(BOUND_S) for future in flying] == [bytes([n]) for n in range(200)]
    with grpc.insecure_channel(running.address) as plain:
        late = refused(lambda: plain.unary_unary(f"/{SERVICE}/direct")(b"x", timeout=2))
        assert late.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_tls_files_that_do_not_fit_are_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no PEM")
    for security in (
        Security(tmp_path / "no.pem", tmp_path / "no.pem"),
        Security(tmp_path / "missing.pem", tmp_path / "missing.pem"),
        Security(certificate=tmp_path / "no.pem"),
        Security(client_ca=tmp_path / "no.pem"),
    ):
        with pytest.raises(InputError):
            security.tls()
