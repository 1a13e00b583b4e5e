"""A worker under load and under fire: no answered request is lost, none is answered twice, memory stays flat.

INFERLOAD_LOAD_REQUESTS=200000 sends as many where the suite sends 20,000.
"""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from worker.wire import accelerator_pb2 as ours
from worker.wire import accelerator_pb2_grpc as ours_grpc
from worker.wire import open_inference_pb2 as oip

REQUESTS = int(os.environ.get("INFERLOAD_LOAD_REQUESTS", "20000"))
CLIENTS = 100
INFER = "/inference.GRPCInferenceService/ModelInfer"
SIM = ("--accelerator", "sim:0", "--sim")
NEVER_READS = Path(__file__).parents[2] / "clients" / "never_reads.py"
#: What the allocator and the counters may keep while they settle; a leak of 100 bytes a request would be 20 MB.
SETTLING_BYTES = 4 * 2**20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def message(request_id: str) -> bytes:
    request = oip.ModelInferRequest(model_name="sim", id=request_id, raw_input_contents=[bytes(64)])
    request.inputs.add(name="INPUT", datatype="FP32", shape=[1, 16])
    return request.SerializeToString()


def snapshot(address: str) -> ours.SnapshotResponse:
    with grpc.insecure_channel(address) as channel:
        return ours_grpc.AcceleratorServiceStub(channel).Snapshot(ours.SnapshotRequest(), timeout=20)


async def load(address: str, requests: int, answers: Counter[str], refusals: Counter[str]) -> None:
    """A hundred clients, each on a connection of its own, share the requests; every id that comes back is counted."""
    numbers = iter(range(requests))

    async def client(own: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            infer = channel.unary_unary(INFER)
            for number in numbers:
                request_id = f"{own}:{number}"
                try:
                    answer = oip.ModelInferResponse.FromString(await infer(message(request_id)))
                except grpc.aio.AioRpcError as error:
                    refusals[error.code().name] += 1
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        return
                else:
                    assert answer.id == request_id
                    answers[answer.id] += 1

    await asyncio.gather(*(client(own) for own in range(CLIENTS)))


@pytest.mark.timeout(180 if REQUESTS <= 20000 else 3600)
def test_a_hundred_clients_are_answered_once_each_and_memory_stays_flat(serve: Callable[..., Any]) -> None:
    worker = serve(*SIM, "fixed:0ms", "--max-batch-size", "8")
    process = psutil.Process(worker.process.pid)
    resident = []
    total: Counter[str] = Counter()
    parts = 4
    for _ in range(parts):
        answers: Counter[str] = Counter()
        refusals: Counter[str] = Counter()
        asyncio.run(load(worker.address, REQUESTS // parts, answers, refusals))
        assert refusals == {}
        assert len(answers) == answers.total() == REQUESTS // parts
        total.update(answers.values())
        resident.append(process.memory_info().rss)
    counts = snapshot(worker.address)
    assert (counts.requests, counts.answered, dict(counts.errors)) == (REQUESTS, REQUESTS, {})
    assert counts.histograms["queue"].count == counts.histograms["compute"].count == REQUESTS
    # The first quarter may settle; after it a worker keeps nothing of a request.
    assert resident[-1] - resident[0] < SETTLING_BYTES, resident
    assert worker.end() == 0


def test_a_client_that_is_killed_takes_nothing_with_it(serve: Callable[..., Any]) -> None:
    """Its requests are cancelled, not run; the other's are answered."""
    worker = serve(*SIM, "fixed:20ms")
    for _ in range(2):
        client = subprocess.Popen([sys.executable, NEVER_READS, worker.address], stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        assert client.stdout.readline() == "in flight\n"
        client.kill()
        client.communicate()
        with grpc.insecure_channel(worker.address) as channel:
            answer = channel.unary_unary(INFER)(message("alive"), timeout=30)
            assert oip.ModelInferResponse.FromString(answer).id == "alive"
    counts = snapshot(worker.address)
    assert counts.requests == 2 * 101
    # What was cancelled where it waited was not run: 100 passes of 20 ms are not over when the client is killed.
    assert counts.answered + counts.errors["CANCELLED"] == counts.requests
    assert counts.executions < counts.requests
    assert worker.end() == 0


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", INFER.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
#: gRPC's five bytes before a message say how long it is, and whether it is compressed.
LONGER_THAN_IT_SAYS = struct.pack(">BI", 0, 3) + message("x")
SHORTER_THAN_IT_SAYS = struct.pack(">BI", 0, 2**20) + message("x")
BEYOND_ALL_LIMITS = struct.pack(">BI", 0, 2**32 - 1) + b"x"
COMPRESSED_BY_NOTHING = struct.pack(">BI", 1, 4) + b"\xff\xff\xff\xff"
OPENING = PREFACE + SETTINGS
MALFORMED = {
    "nothing": b"",
    "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 16,
    "a preface only": PREFACE,
    "a frame cut short": OPENING + frame(0, 0, 1, b"x" * 100)[:50],
    "a frame larger than allowed": OPENING + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1000),
    "data without a stream": OPENING + frame(0, 1, 7, b"x"),
    "headers that are no headers": OPENING + frame(1, 5, 1, b"\xff" * 40),
    "a stream of even number": OPENING + frame(1, 5, 2, HEADERS),
    "settings of a wrong length": PREFACE + frame(4, 0, 0, b"abc"),
    "a window beyond its bound": OPENING + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "a message longer than it says": OPENING + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, LONGER_THAN_IT_SAYS),
    "a message shorter than it says": OPENING + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, SHORTER_THAN_IT_SAYS),
    "a message beyond all limits": OPENING + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, BEYOND_ALL_LIMITS),
    "a message compressed by nothing": OPENING + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, COMPRESSED_BY_NOTHING),
    "a stream that never ends": OPENING + frame(1, 4, 1, HEADERS),
    "streams reset as they open": OPENING
    + b"".join(frame(1, 4, n, HEADERS) + frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 801, 2)),
}


def test_malformed_frames_disturb_nobody_else(serve: Callable[..., Any]) -> None:
    worker = serve(*SIM, "fixed:0ms")
    host, _, port = worker.address.rpartition(":")
    descriptors = psutil.Process(worker.process.pid).num_fds()
    with grpc.insecure_channel(worker.address) as channel:
        infer = channel.unary_unary(INFER)
        infer(message("before"), timeout=30)
        for name, data in MALFORMED.items():
            with socket.create_connection((host, int(port)), timeout=30) as raw:
                raw.sendall(data)
                answer = oip.ModelInferResponse.FromString(infer(message(name), timeout=30))
                assert answer.id == name
            answer = oip.ModelInferResponse.FromString(infer(message(f"{name} and gone"), timeout=30))
            assert answer.id == f"{name} and gone"
        counts = snapshot(worker.address)
        # What reached the worker as a request ended, and what was answered is what we sent.
        assert counts.requests == counts.answered + sum(counts.errors.values())
        assert counts.answered >= 1 + 2 * len(MALFORMED)
        assert set(counts.errors) <= {"INVALID_ARGUMENT", "CANCELLED"}
    assert psutil.Process(worker.process.pid).num_fds() <= descriptors + len(MALFORMED)
    assert worker.end() == 0


def test_sigterm_under_load_loses_no_answer_and_answers_none_twice(serve: Callable[..., Any]) -> None:
    """Every request that the worker counts as answered has reached its client; all others were refused."""
    worker = serve(*SIM, "fixed:1ms", "--max-batch-size", "8", "--log-level", "info")
    answers: Counter[str] = Counter()
    refusals: Counter[str] = Counter()

    async def run() -> None:
        loading = asyncio.ensure_future(load(worker.address, 10**9, answers, refusals))
        while answers.total() < 2000:
            await asyncio.sleep(0.01)
        worker.process.send_signal(signal.SIGTERM)
        await loading

    asyncio.run(run())
    assert worker.process.wait(30) == 0
    assert len(answers) == answers.total() >= 2000
    assert refusals == {"UNAVAILABLE": CLIENTS}
    assert worker.process.stderr is not None
    (stopped,) = [line for line in worker.process.stderr.read().splitlines() if '"stopped"' in line]
    assert f'"answered": {answers.total()}' in stopped
