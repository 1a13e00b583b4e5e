"""The channel against gRPC's own C-core server, which runs in a process of its own (this file, run as a script)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import grpc
import pytest
from gevent.event import Event

from loadgen.transport import Channel, PreparedRequest, Reply, Security

BOUND_S = 30.0
SERVICE = "/test.Echo/"


class Servicer(grpc.GenericRpcHandler):
    """Methods by the name that the path ends with; all take and give bytes."""

    def __init__(self, stop: Any) -> None:
        self.stop = stop
        self.held = self.cancelled = self.met = self.running = self.peak = 0
        self.changed = asyncio.Condition()
        self.free = False

    def service(self, details: Any) -> Any:
        method = getattr(self, details.method.rpartition("/")[2].lower(), None)
        return method and grpc.unary_unary_rpc_method_handler(method)

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        code, _, details = request.decode().partition(":")
        context.set_code(int(code))
        context.set_details(details)
        return b"not for the client"

    async def about(self, request: bytes, context: Any) -> bytes:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return json.dumps({"remaining": context.time_remaining(), "peer": context.peer(), **metadata}).encode()

    async def large(self, request: bytes, context: Any) -> bytes:
        return bytes(int(request))

    async def meet(self, request: bytes, context: Any) -> bytes:
        """Answers once as many calls are here as the request says."""
        async with self.changed:
            self.met += 1
            self.changed.notify_all()
            await self.changed.wait_for(lambda: self.met >= int(request))
        return b"met"

    async def few(self, request: bytes, context: Any) -> bytes:
        """How many of these ran at once, at most."""
        self.running += 1
        self.peak = max(self.peak, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return str(self.peak).encode()

    async def hold(self, request: bytes, context: Any) -> bytes:
        try:
            async with self.changed:
                self.held += 1
                await self.changed.wait_for(lambda: self.free)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"held"

    async def counters(self, request: bytes, context: Any) -> bytes:
        return json.dumps({"held": self.held, "cancelled": self.cancelled}).encode()

    async def release(self, request: bytes, context: Any) -> bytes:
        async with self.changed:
            self.free = True
            self.changed.notify_all()
        return b""

    async def goaway(self, request: bytes, context: Any) -> bytes:
        self.stop()
        return b""


async def serve(folder: Path) -> None:
    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    ending: list[Any] = []
    more = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)]
    main = grpc.aio.server(options=more)
    few = grpc.aio.server(options=[*more, ("grpc.max_concurrent_streams", 5)])
    short = grpc.aio.server(options=more)
    squeezing = grpc.aio.server(options=more, compression=grpc.Compression.Gzip)
    aging = grpc.aio.server(options=[*more, ("grpc.max_connection_age_ms", 100)])
    shared = Servicer(lambda: ending.append(asyncio.ensure_future(short.stop(BOUND_S))))
    for server in (main, few, short, squeezing, aging):
        server.add_generic_rpc_handlers((shared,))
    pair = [(read("server.key"), read("server.pem"))]
    ports = {
        "plain": main.add_insecure_port("127.0.0.1:0"),
        "tls": main.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair)),
        "mutual": main.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, read("ca.pem"), True)),
        "few": few.add_insecure_port("127.0.0.1:0"),
        "squeezing": squeezing.add_insecure_port("127.0.0.1:0"),
        "aging": aging.add_insecure_port("127.0.0.1:0"),
        "short": short.add_insecure_port("127.0.0.1:0"),
    }
    for server in (main, few, short, squeezing, aging):
        await server.start()
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the test closes it, or dies
    for server in (main, few, squeezing, aging):
        await server.stop(0)


def certificates(folder: Path) -> None:
    """An authority, a server for worker.test and a client, as PEM files."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        openssl("req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")
    (folder / "names").write_text("subjectAltName=DNS:worker.test")
    for name in ("server", "client"):
        openssl("req", *new[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    certificates(path)
    return path


@contextlib.contextmanager
def server_process(folder: Path) -> Iterator[dict[str, str]]:
    command = [sys.executable, __file__, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield {name: f"127.0.0.1:{port}" for name, port in json.loads(line).items()}
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[dict[str, str]]:
    with server_process(folder) as addresses:
        yield addresses


@pytest.fixture(autouse=True)
def bound() -> Iterator[None]:
    with gevent.Timeout(BOUND_S):
        yield


@contextlib.contextmanager
def channel(address: str, method: str, **options: Any) -> Iterator[Channel]:
    opened = Channel(address, method=SERVICE + method, **options)
    try:
        yield opened
    finally:
        opened.close()
        assert opened.in_flight == 0


class Replies:
    """The replies of calls that `start` began, and when all have come."""

    def __init__(self, expected: int) -> None:
        self.replies: list[Reply] = []
        self.expected = expected
        self.all = Event()

    def __call__(self, reply: Reply) -> None:
        self.replies.append(reply)
        if len(self.replies) == self.expected:
            self.all.set()

    def wait(self) -> list[Reply]:
        assert self.all.wait(BOUND_S)
        gevent.sleep(0)
        assert len(self.replies) == self.expected
        return self.replies


def ask(address: str, method: str) -> Any:
    with channel(address, method) as other:
        return json.loads(other.call(b"", 10.0).payload or b"null")


def wait_until(address: str, counter: str, value: int) -> None:
    while ask(address, "Counters")[counter] < value:
        gevent.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 82, 16378, 16379, 16380, 65530, 65531, 600_000])
def test_messages_of_every_size_come_back_as_they_went(server: dict[str, str], size: int) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    with channel(server["plain"], "Echo") as echo:
        for _ in range(3):
            assert echo.call(payload, 10.0) == Reply(0, "", payload)


def test_twenty_megabytes_in_both_directions_while_small_calls_go_on(server: dict[str, str]) -> None:
    payload = bytes(range(256)) * 80_000
    with channel(server["plain"], "Echo") as echo:
        large, small = Replies(3), Replies(200)
        for _ in range(3):
            echo.start(payload, 25.0, large)
        for number in range(200):
            echo.start(b"%d" % number, 25.0, small)
        assert {reply.payload for reply in small.wait()} == {b"%d" % number for number in range(200)}
        assert all(reply == Reply(0, "", payload) for reply in large.wait())
        assert echo.statistics.bytes_sent > 3 * len(payload)
        assert echo.statistics.bytes_received > 3 * len(payload)


@pytest.mark.parametrize("code", range(17))
def test_each_status_is_what_grpcio_says(server: dict[str, str], code: int) -> None:
    request = f"{code}:naïve 100% …\n\t{{}}".encode()
    with grpc.insecure_channel(server["plain"]) as other:
        try:
            theirs = Reply(0, "", other.unary_unary(SERVICE + "Fail")(request, timeout=10))
        except grpc.RpcError as error:
            theirs = Reply(error.code().value[0], error.details())  # type: ignore[attr-defined]
    with channel(server["plain"], "Fail") as fail:
        ours = fail.call(request, 10.0)
    assert ours._replace(message="") == theirs._replace(message="")
    assert code == 0 or ours.message == theirs.message


def test_a_method_that_is_not_there_is_unimplemented(server: dict[str, str]) -> None:
    with channel(server["plain"], "Nothing") as nothing:
        assert nothing.call(b"", 10.0).code == 12


def test_a_thousand_calls_at_once(server: dict[str, str]) -> None:
    with channel(server["plain"], "Meet") as meet:
        met = Replies(1000)
        for _ in range(1000):
            meet.start(b"1000", 25.0, met)
        assert meet.in_flight == 1000
        assert set(met.wait()) == {Reply(0, "", b"met")}
        assert meet.in_flight == 0
        assert meet.statistics.connects == 1


def test_a_thousand_greenlets_share_one_connection(server: dict[str, str]) -> None:
    with channel(server["plain"], "Echo") as echo:
        prepared = echo.prepare(b"the same")
        users = [gevent.spawn(echo.call, prepared, 25.0) for _ in range(1000)]
        gevent.joinall(users, timeout=BOUND_S)
        assert {user.value for user in users} == {Reply(0, "", b"the same")}


def test_calls_above_the_servers_streams_wait_their_turn(server: dict[str, str]) -> None:
    with channel(server["few"], "Few") as few:
        gathered = Replies(60)
        for _ in range(60):
            few.start(b"", 25.0, gathered)
        peaks = [int(reply.payload or b"0") for reply in gathered.wait()]
        assert len(peaks) == 60
        assert max(peaks) == 5
        assert few.statistics.connects == 1


def test_a_call_that_waits_for_a_stream_keeps_its_deadline(server: dict[str, str]) -> None:
    with channel(server["few"], "Hold") as hold:
        handles = [hold.start(b"", None, Replies(1)) for _ in range(5)]
        assert hold.call(b"", 0.05).code == 4
        assert hold.in_flight == 5
        late = Replies(2)
        waiting = hold.start(b"", None, late)
        hold.cancel(waiting)
        assert [reply.code for reply in late.replies] == [1]
        hold.start(b"", 0.05, late)
        assert late.wait()[1].code == 4
        for handle in handles:
            hold.cancel(handle)


def test_headers_say_what_grpc_servers_look_for(server: dict[str, str]) -> None:
    options: dict[str, Any] = {"token": "tok-en", "authority": "worker.example"}
    with channel(server["plain"], "About", **options) as about:
        for timeout_s in (20.0, 20.0, 15.0):
            request = json.loads(about.call(b"", timeout_s).payload or b"")
            assert request["authorization"] == "Bearer tok-en"
            assert timeout_s - 10 < request["remaining"] <= timeout_s + 1
        assert json.loads(about.call(b"").payload or b"")["remaining"] is None


def test_compressed_replies_are_read(server: dict[str, str]) -> None:
    payload = b"again and again " * 10_000
    with channel(server["squeezing"], "Echo") as echo:
        assert echo.call(payload, 10.0) == Reply(0, "", payload)
        assert echo.statistics.bytes_received < len(payload) // 10
    with channel(server["squeezing"], "Echo", max_receive_bytes=1000) as echo:
        assert echo.call(payload, 10.0).code == 8


def test_a_reply_above_the_limit_is_refused_and_the_channel_goes_on(server: dict[str, str]) -> None:
    with channel(server["plain"], "Large", max_receive_bytes=1 << 20) as large:
        assert large.call(b"5000000", 10.0).code == 8
        assert large.call(b"1048577", 10.0).code == 8
        assert large.call(b"1048576", 10.0) == Reply(0, "", bytes(1 << 20))
        assert large.statistics.connects == 1


def test_a_request_above_the_servers_limit_is_the_servers_to_refuse(server: dict[str, str]) -> None:
    with channel(server["plain"], "Echo") as echo:
        assert echo.call(bytes(65 << 20), 25.0).code == 8
        assert echo.call(b"after", 10.0).payload == b"after"


def test_deadlines_end_calls_on_both_sides(server: dict[str, str]) -> None:
    before = ask(server["plain"], "Counters")["cancelled"]
    with channel(server["plain"], "Hold") as hold:
        gathered = Replies(30)
        for number in range(30):
            hold.start(b"", 0.3 - number * 0.005, gathered)
        assert {reply.code for reply in gathered.wait()} == {4}
        assert hold.statistics.deadlines == 30
        assert hold.in_flight == 0
        wait_until(server["plain"], "cancelled", before + 30)
    with channel(server["plain"], "Echo") as echo:
        assert echo.call(b"", 0.0).code == 4
        assert echo.call(b"", -1.0).code == 4


def test_a_cancelled_call_ends_once_and_the_server_hears_of_it(server: dict[str, str]) -> None:
    counters = ask(server["plain"], "Counters")
    with channel(server["plain"], "Hold") as hold:
        cancelled, others = Replies(1), Replies(2)
        handle = hold.start(b"", 25.0, cancelled)
        for _ in range(2):
            hold.start(b"", 25.0, others)
        wait_until(server["plain"], "held", counters["held"] + 3)
        hold.cancel(handle)
        hold.cancel(handle)
        assert [reply.code for reply in cancelled.replies] == [1]
        assert hold.in_flight == 2
        wait_until(server["plain"], "cancelled", counters["cancelled"] + 1)
        hold.close()
        assert [reply.code for reply in others.replies] == [1, 1]
        assert hold.call(b"", 1.0).code == 1, "a closed channel's calls are cancelled"


def test_a_killed_greenlet_cancels_its_call(server: dict[str, str]) -> None:
    counters = ask(server["plain"], "Counters")
    with channel(server["plain"], "Hold") as hold:
        user = gevent.spawn(hold.call, b"", 25.0)
        wait_until(server["plain"], "held", counters["held"] + 1)
        user.kill()
        assert hold.in_flight == 0
        wait_until(server["plain"], "cancelled", counters["cancelled"] + 1)


def test_closing_wakes_every_greenlet(server: dict[str, str]) -> None:
    with channel(server["plain"], "Hold") as hold:
        users = [gevent.spawn(hold.call, b"") for _ in range(10)]
        gevent.sleep(0)
        hold.close()
        gevent.joinall(users, timeout=BOUND_S)
        assert [user.value.code for user in users] == [1] * 10


def test_a_call_may_be_started_from_a_reply(server: dict[str, str]) -> None:
    with channel(server["plain"], "Echo") as echo:
        codes: list[int] = []
        over = Event()

        def done(reply: Reply) -> None:
            codes.append(reply.code)
            if len(codes) == 500:
                over.set()
            elif len(codes) < 500:
                echo.start(prepared, 10.0, done)

        prepared = PreparedRequest(b"again")
        echo.start(prepared, 10.0, done)
        assert over.wait(BOUND_S)
        assert codes == [0] * 500


def test_several_connections_share_the_calls(server: dict[str, str]) -> None:
    with channel(server["plain"], "About", connections=3) as about:
        peers = set()
        while about.statistics.connects < 3:
            about.call(b"", 10.0)
        gathered = Replies(30)
        for _ in range(30):
            about.start(b"", 10.0, gathered)
        for reply in gathered.wait():
            peers.add(json.loads(reply.payload or b"")["peer"])
        assert len(peers) == 3
        assert about.statistics.connects == 3


def test_tls(server: dict[str, str], folder: Path) -> None:
    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    def call(port: str, security: Security) -> Reply:
        with channel(server[port], "Echo", security=security) as echo:
            replies = [echo.call(bytes(600_000), 10.0) for _ in range(2)]
            assert replies[0].code == replies[1].code
            return replies[0]

    plain = Security(read("ca.pem"), server_name="worker.test")
    assert call("tls", plain) == Reply(0, "", bytes(600_000))
    assert call("tls", Security(read("ca.pem"))).code == 14, "the certificate is for another name"
    assert call("tls", Security(read("other.pem"), server_name="worker.test")).code == 14
    assert call("plain", plain).code == 14, "a server without TLS"
    mutual = Security(read("ca.pem"), read("client.pem"), read("client.key"), "worker.test")
    assert call("mutual", mutual) == Reply(0, "", bytes(600_000))
    assert call("mutual", plain).code == 14, "no client certificate"
    assert "PRIVATE" not in repr(mutual)


def test_a_thousand_calls_over_tls(server: dict[str, str], folder: Path) -> None:
    security = Security((folder / "ca.pem").read_bytes(), server_name="worker.test")
    with channel(server["tls"], "Echo", security=security) as echo:
        gathered = Replies(1000)
        for number in range(1000):
            echo.start(b"%d" % number * 100, 25.0, gathered)
        assert {reply.payload for reply in gathered.wait()} == {b"%d" % number * 100 for number in range(1000)}


PATCHED = """
from gevent import monkey
monkey.patch_all()
import pathlib, sys
from loadgen.transport import Channel, Security
plain, tls, root = sys.argv[1:]
security = Security(pathlib.Path(root).read_bytes(), server_name="worker.test")
for address, options in ((plain, {}), (tls, {"security": security})):
    channel = Channel(address, method="/test.Echo/Echo", **options)
    print([len(channel.call(bytes(size), 20.0).payload) for size in (5, 600_000)])
    channel.close()
"""


def test_it_is_the_same_where_gevent_has_patched_everything(server: dict[str, str], folder: Path) -> None:
    command = [sys.executable, "-c", PATCHED, server["plain"], server["tls"], str(folder / "ca.pem")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S)
    assert result.stdout == "[5, 600000]\n[5, 600000]\n", result.stderr


def test_a_server_that_goes_away_finishes_what_it_has(folder: Path) -> None:
    with server_process(folder) as server, channel(server["short"], "Hold") as hold:
        held = Replies(10)
        for _ in range(10):
            hold.start(b"", 25.0, held)
        wait_until(server["plain"], "held", 10)
        ask(server["plain"], "Goaway")
        while not hold.statistics.goaways:
            gevent.sleep(0.01)
        assert hold.call(b"", 10.0).code == 14, "the server listens no more"
        assert hold.in_flight == 10
        ask(server["plain"], "Release")
        assert set(held.wait()) == {Reply(0, "", b"held")}


def test_a_server_that_ages_its_connections_loses_no_call(server: dict[str, str]) -> None:
    """C-core's graceful end: a GOAWAY that excludes no call, a PING, then one with the last stream it took."""
    with channel(server["aging"], "Echo") as echo:
        codes: list[int] = []

        def use() -> None:
            while echo.statistics.reconnects < 3:
                codes.append(echo.call(b"ping", 10.0).code)

        gevent.joinall([gevent.spawn(use) for _ in range(8)], raise_error=True, timeout=BOUND_S)
        assert set(codes) == {0}
        counts = echo.statistics
        assert counts.goaways >= 3
        assert counts.refused == counts.broken == 0


def test_a_server_that_ends_leaves_no_call_in_flight(folder: Path) -> None:
    with server_process(folder) as server, channel(server["plain"], "Hold") as hold:
        held = Replies(10)
        for _ in range(10):
            hold.start(b"", None, held)
        wait_until(server["plain"], "held", 10)
    assert {reply.code for reply in held.wait()} <= {1, 14}
    assert hold.in_flight == 0


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
