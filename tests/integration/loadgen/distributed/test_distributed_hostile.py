"""Somebody on the master's port who is none of its generators changes no result; run.json counts what was refused."""

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


class Echo(threading.Thread):
    """Between generators and the master: hands everything on, and what generators say twice."""

    def __init__(self, master: int) -> None:
        super().__init__()
        self.port = free_port()
        self.names: set[bytes] = set()
        self.doubled = 0
        self._master = master
        self._ending = threading.Event()

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as front:
            front.linger = 0
            front.bind(f"tcp://127.0.0.1:{self.port}")
            backs: dict[bytes, Any] = {}
            poller = zmq.Poller()
            poller.register(front, zmq.POLLIN)
            while not self._ending.is_set():
                for ready, _ in poller.poll(100):
                    if ready is not front:
                        front.send_multipart([ready.identity, *ready.recv_multipart()])
                        continue
                    name, *parts = front.recv_multipart()
                    if name not in backs:
                        backs[name] = context.socket(zmq.DEALER)
                        backs[name].linger = 0
                        backs[name].identity = name
                        backs[name].connect(f"tcp://127.0.0.1:{self._master}")
                        poller.register(backs[name], zmq.POLLIN)
                        self.names.add(name)
                    for _ in range(2):
                        backs[name].send_multipart(parts)
                    self.doubled += 1
            for back in backs.values():
                back.close()

    def end(self) -> None:
        self._ending.set()
        self.join()


def garbage(names: set[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Packets and the names that their connections give themselves."""
    rng = random.Random(5)
    bomb = zlib.compress(bytes(1 << 28), 9)
    mine = next(iter(names))
    known = mine.decode()
    for number in range(40):
        yield b"noise", [rng.randbytes(rng.randrange(200))]
        yield b"noise", [rng.randbytes(9), rng.randbytes(40)]
        for wrong in ([], {"type": 1}, ["client_ready"], ["stats", None, "noise"], ["quit", None, known], 7):
            yield b"noise", [msgpack.packb(wrong)]
        # A stranger who knows how generators speak, in its own name and in one of theirs.
        for name in ("noise", known):
            for kind, data in (("client_ready", "2.47.0"), ("inferload_snapshot", bomb), ("quit", None)):
                body = msgpack.packb([kind, data, name])
                yield b"noise", [body]
                yield b"noise", [body, sign(b"another token", b"noise", 2**63 + number, body)]
    # One who knows the token and is none of them: it can take part, and not with this.
    for number, data in enumerate((None, b"", b"text", bomb, zlib.compress(msgpack.packb([1])), rng.randbytes(500)), 2):
        body = msgpack.packb(["inferload_snapshot", data, "insider"])
        yield b"insider", [body, sign(TOKEN.encode(), b"insider", number, body)]


def send(port: int, names: set[bytes]) -> int:
    """Everything there is of garbage; how many packets."""
    with zmq.Context() as context:
        sockets: dict[bytes, Any] = {}
        sent = 0
        for name, parts in garbage(names):
            if name not in sockets:
                one = sockets[name] = context.socket(zmq.DEALER)
                one.identity = name
                one.linger = 5000
                one.connect(f"tcp://127.0.0.1:{port}")
                if name == b"insider":
                    body = msgpack.packb(["client_ready", "2.47.0", "insider"])
                    one.send_multipart([body, sign(TOKEN.encode(), name, 1, body)])
            sockets[name].send_multipart(parts)
            sent += 1
        for one in sockets.values():
            one.close()
    return sent


def knock(port: int) -> None:
    """Bytes that are not even ZeroMQ's."""
    rng = random.Random(6)
    for size in (1, 64, 5000):
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(rng.randbytes(size))


@pytest.fixture
def run(serve: Callable[..., Any], tmp_path: Path) -> Iterator[tuple[Cluster, Echo]]:
    cluster = Cluster(tmp_path, (serve("--accelerator", "sim:0", *SIM).address,))
    echo = Echo(cluster.port)
    cluster.generator_port = echo.port
    echo.start()
    yield cluster, echo
    cluster.kill()
    echo.end()


def test_garbage_changes_nothing_and_is_counted(run: tuple[Cluster, Echo]) -> None:
    cluster, echo = run
    cluster.start("--deadline", "2s", generators=2, users=4)
    cluster.under_way()
    knock(cluster.port)
    sent = send(cluster.port, echo.names)
    before = served(*cluster.targets)
    wait_for(lambda: served(*cluster.targets) > before + 200)
    assert cluster.master is not None
    cluster.master.terminate()
    cluster.wait()

    document = cluster.document()
    assert counted(document) == served(*cluster.targets)
    assert all(row["errors"] == {} for row in document["rows"])
    assert {generator["client"] for generator in document["generators"]} == {name.decode() for name in echo.names}
    assert all(generator["complete"] for generator in document["generators"])
    gathered = cluster.gather()
    assert counted(gathered) == counted(document)

    (check,) = [check for check in document["checks"] if check["name"] == "refused reports"]
    refused = {reason: int(count) for count, reason in (part.split(" ", 1) for part in check["detail"].split(", "))}
    assert check["value"] == sum(refused.values())
    # Each packet of the garbage, perhaps some that the bytes of `knock` can be read as; and generators' second sayings.
    assert sum(count for reason, count in refused.items() if reason != "sent again") >= sent
    assert 0 < refused["sent again"] <= echo.doubled
    assert refused["malformed snapshots"] == 6
    assert TOKEN not in (cluster.folder / "run" / "run.json").read_text()
    said = "".join(log.read_text() for log in cluster.folder.glob("*.log"))
    assert TOKEN not in said
    assert "warning: port" not in said


def test_a_master_on_all_interfaces_without_a_token_is_warned_of(locust: Callable[..., Any]) -> None:
    port = free_port()
    waits = ("--headless", "--expect-workers", "1", "--expect-workers-max-wait", "1")
    done = locust("--master", *waits, "--master-bind-port", str(port), "--targets", "127.0.0.1:1")

    assert f"warning: port {port} is open on all interfaces of this host, and anybody who reaches it" in done.err
