"""Strangers who send packets to the master's port change no result; run.json counts what was refused."""

from __future__ import annotations

import random
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from tools.cluster import SIM, TOKEN, Cluster, counted
from tools.processes import free_port, served, wait_for

from loadgen.distributed._signing import sign


class DuplicatingProxy(threading.Thread):
    """A proxy between generators and the master; it forwards each message of a generator twice."""

    def __init__(self, master: int) -> None:
        super().__init__()
        self.port = free_port()
        self.names: set[bytes] = set()
        self.duplicates = 0
        self._master = master
        self._stop_requested = threading.Event()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as listener:
            listener.linger = 0
            listener.bind(f"tcp://127.0.0.1:{self.port}")
            connections: dict[bytes, Any] = {}
            poller = zmq.Poller()
            poller.register(listener, zmq.POLLIN)
            while not self._stop_requested.is_set():
                for ready, _ in poller.poll(100):
                    if ready is not listener:
                        listener.send_multipart([ready.identity, *ready.recv_multipart()])
                        continue
                    name, *parts = listener.recv_multipart()
                    if name not in connections:
                        connections[name] = context.socket(zmq.DEALER)
                        connections[name].linger = 0
                        connections[name].identity = name
                        connections[name].connect(f"tcp://127.0.0.1:{self._master}")
                        poller.register(connections[name], zmq.POLLIN)
                        self.names.add(name)
                    for _ in range(2):
                        connections[name].send_multipart(parts)
                    self.duplicates += 1
            for connection in connections.values():
                connection.close()

    def stop(self) -> None:
        self._stop_requested.set()
        self.join()


def hostile_packets(names: set[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields names of connections, and the packets that they send."""
    rng = random.Random(5)
    bomb = zlib.compress(bytes(1 << 28), 9)
    generator = next(iter(names))
    generator_name = generator.decode()
    for number in range(40):
        yield b"noise", [rng.randbytes(rng.randrange(200))]
        yield b"noise", [rng.randbytes(9), rng.randbytes(40)]
        for malformed in (
            [],
            {"type": 1},
            ["client_ready"],
            ["stats", None, "noise"],
            ["quit", None, generator_name],
            7,
        ):
            yield b"noise", [msgpack.packb(malformed)]
        # A stranger that knows Locust's messages, under its own name and under that of a generator.
        for name in ("noise", generator_name):
            for message_type, data in (("client_ready", "2.47.0"), ("inferload_snapshot", bomb), ("quit", None)):
                body = msgpack.packb([message_type, data, name])
                yield b"noise", [body]
                yield b"noise", [body, sign(b"another token", b"noise", 2**63 + number, body)]
    # A process that knows the token: it may take part in the run, but these snapshots are malformed.
    for number, data in enumerate((None, b"", b"text", bomb, zlib.compress(msgpack.packb([1])), rng.randbytes(500)), 2):
        body = msgpack.packb(["inferload_snapshot", data, "insider"])
        yield b"insider", [body, sign(TOKEN.encode(), b"insider", number, body)]


def send_hostile_packets(port: int, names: set[bytes]) -> int:
    """Sends all hostile packets. Returns how many."""
    with zmq.Context() as context:
        sockets: dict[bytes, Any] = {}
        packets = 0
        for name, parts in hostile_packets(names):
            if name not in sockets:
                connection = sockets[name] = context.socket(zmq.DEALER)
                connection.identity = name
                connection.linger = 5000
                connection.connect(f"tcp://127.0.0.1:{port}")
                if name == b"insider":
                    body = msgpack.packb(["client_ready", "2.47.0", "insider"])
                    connection.send_multipart([body, sign(TOKEN.encode(), name, 1, body)])
            sockets[name].send_multipart(parts)
            packets += 1
        for connection in sockets.values():
            connection.close()
    return packets


def send_noise(port: int) -> None:
    """Sends bytes that are not ZeroMQ's protocol."""
    rng = random.Random(6)
    for size in (1, 64, 5000):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(rng.randbytes(size))


@pytest.fixture
def run(serve: Callable[..., Any], tmp_path: Path) -> Iterator[tuple[Cluster, DuplicatingProxy]]:
    cluster = Cluster(tmp_path, (serve("--accelerator", "sim:0", *SIM).address,))
    proxy = DuplicatingProxy(cluster.port)
    cluster.generator_port = proxy.port
    proxy.start()
    yield cluster, proxy
    cluster.kill()
    proxy.stop()


def test_hostile_packets_change_nothing_and_are_counted(run: tuple[Cluster, DuplicatingProxy]) -> None:
    cluster, proxy = run
    cluster.start("--deadline", "2s", generators=2, users=4)
    cluster.wait_until_running()
    send_noise(cluster.port)
    packets = send_hostile_packets(cluster.port, proxy.names)
    before = served(*cluster.targets)
    wait_for(lambda: served(*cluster.targets) > before + 200)
    assert cluster.master is not None
    cluster.master.terminate()
    cluster.wait()

    document = cluster.document()
    assert counted(document) == served(*cluster.targets)
    assert all(row["errors"] == {} for row in document["rows"])
    assert {generator["client"] for generator in document["generators"]} == {name.decode() for name in proxy.names}
    assert all(generator["complete"] for generator in document["generators"])
    merged = cluster.merge()
    assert counted(merged) == counted(document)

    (check,) = [check for check in document["checks"] if check["name"] == "refused reports"]
    refused = {reason: int(count) for count, reason in (part.split(" ", 1) for part in check["detail"].split(", "))}
    assert check["value"] == sum(refused.values())
    # Each hostile packet, perhaps some that the noise can be read as, and the duplicates of the proxy.
    assert sum(count for reason, count in refused.items() if reason != "replayed") >= packets
    assert 0 < refused["replayed"] <= proxy.duplicates
    assert refused["malformed snapshots"] == 6
    assert TOKEN not in (cluster.folder / "run" / "run.json").read_text()
    output = "".join(log.read_text() for log in cluster.folder.glob("*.log"))
    assert TOKEN not in output
    assert "warning: port" not in output


def test_a_master_on_all_interfaces_without_a_token_is_warned_of(locust: Callable[..., Any]) -> None:
    port = free_port()
    waits = ("--headless", "--expect-workers", "1", "--expect-workers-max-wait", "1")
    done = locust("--master", *waits, "--master-bind-port", str(port), "--targets", "127.0.0.1:1")

    assert f"warning: port {port} is open on all interfaces of this host, and anybody who reaches it" in done.err
