"""What measuring costs: a value in bulk, a snapshot on its way to the master, and the master of many generators.

Generators are simulated by the snapshots that they would send, signed and numbered, over ZeroMQ from another process.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gevent
import locust
import msgpack
import numpy as np
import zmq
from _bench import SERVER_CORE, Promise, judge, pin_client
from hdrh.histogram import HdrHistogram

from capacity.measures import MEASURES, sum_tallies
from capacity.measures.combination import HardwareCombination
from capacity.measures.tally import Series, Tally
from capacity.rundir.interval_log import IntervalLogWriter, series_tag
from capacity.statistics import Histogram
from capacity.statistics.payload import HIGHEST_US, LOWEST_US, SIGNIFICANT_DIGITS
from loadgen.adapter._sockets import ValidatingServer
from loadgen.distributed._signing import TOKEN_VARIABLE, RunToken, sign
from loadgen.distributed._snapshot import Snapshot, pack
from loadgen.distributed._validator import MessageValidator
from loadgen.measure import tally_difference

VALUE_NS = 150
ENCODE_MS = 20
MASTER_CORE_SHARE = 0.5
COMBINATIONS = 8
GENERATORS = 200
#: What a simulated generator answers a second for each combination.
RATE = 100
#: So many generators have states of their own; the others say the same.
DISTINCT = 10
KEY = b"of this benchmark"

SERIES = [
    Series(HardwareCombination.parse(f"host{n} + cpu-1c"), "model", f"cpu:0 @ host{n}:9000", True)
    for n in range(COMBINATIONS)
]
KNOWN = {series_tag(series, "latency"): series for series in SERIES}
# A generator has its warm-up's tallies all the time: making them is no part of a snapshot.
WARMUPS = {series: Tally() for series in SERIES}


def values_ns(rng: np.random.Generator, size: int, scale: float) -> Any:
    """Latencies around `scale` ms, spread as an inference server's are."""
    return (rng.lognormal(0, 0.4, size) * scale * 1e6).astype(np.int64)


def bulk(rounds: int, size: int = 20_000) -> tuple[list[float], list[float]]:
    """Nanoseconds a value of ours in bulk, and of hdrhistogram's record_value, one after another."""
    rng, ours, theirs = np.random.default_rng(1), [], []
    for _ in range(rounds):
        values = values_ns(rng, size, 5)
        histogram, start = Histogram(), time.perf_counter_ns()
        histogram.record_ns(values)
        ours.append((time.perf_counter_ns() - start) / size)
        peer, micros = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS), (values // 1000).tolist()
        start = time.perf_counter_ns()
        for value in micros:
            peer.record_value(value)
        theirs.append((time.perf_counter_ns() - start) / size)
        assert peer.total_count == histogram.count
    return ours, theirs


def grow(totals: dict[Series, Tally], rng: np.random.Generator, size: int) -> None:
    """One more second of a generator, in all five measures."""
    for number, series in enumerate(SERIES):
        tally = totals[series]
        tally.due += size
        tally.answered += size
        for place, measure in enumerate(MEASURES):
            tally.histograms[measure].record_ns(values_ns(rng, size, (number + 1) / (place + 1)))


def packed(totals: dict[Series, Tally], sequence: int) -> bytes:
    """A snapshot as a generator sends it every second."""
    return pack(
        totals=totals,
        warmups=WARMUPS,
        first_ns=dict.fromkeys(SERIES, 5_000_000),
        autocorrelation_times=dict.fromkeys(SERIES, 1.5),
        in_flight=dict.fromkeys(SERIES, 4),
        health=None,
        run="run",
        sequence=sequence,
        final=False,
        host="host",
        measured_s=float(sequence),
        readings=[["generator", "name", "utilisation_percent", 30.0]],
        offset_us=1.0,
        round_trip_us=100.0,
        probe=0,
        sources=[],
    )


def encoding(rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds to encode a snapshot, and its bytes, of a generator that has run for a minute and more."""
    rng, totals = np.random.default_rng(2), {series: Tally() for series in SERIES}
    grow(totals, rng, 60 * RATE)
    encode_ms, sizes = [], []
    for sequence in range(1, rounds + 1):
        grow(totals, rng, RATE)
        start = time.perf_counter_ns()
        body = packed(totals, sequence)
        encode_ms.append((time.perf_counter_ns() - start) / 1e6)
        sizes.append(len(body) / 1024)
    return encode_ms, sizes


def speak(port: int, seconds: int) -> None:
    """Simulates the generators: each reports that it is ready, then sends a heartbeat and a snapshot every second."""
    context = zmq.Context()
    generators = []
    for number in range(GENERATORS):
        generator = context.socket(zmq.DEALER)
        generator.identity = b"generator-%d" % number
        generator.connect(f"tcp://127.0.0.1:{port}")
        generators.append(generator)
    numbers = itertools.count(1)

    def send(generator: Any, message_type: str, data: Any) -> None:
        body = msgpack.packb([message_type, data, generator.identity.decode()])
        generator.send_multipart([body, sign(KEY, generator.identity, next(numbers), body)])

    states = []
    for number in range(DISTINCT):
        totals = {series: Tally() for series in SERIES}
        rng = np.random.default_rng(number)
        states.append([])
        for sequence in range(1, seconds + 1):
            grow(totals, rng, RATE)
            states[-1].append(packed(totals, sequence))
    heartbeat = {"state": "running", "current_cpu_usage": 30.0, "current_memory_usage": 1 << 27}
    for generator in generators:
        send(generator, "client_ready", locust.__version__)
    start = time.monotonic()
    for second in range(seconds):
        for number, generator in enumerate(generators):
            time.sleep(max(0.0, start + second + number / GENERATORS - time.monotonic()))
            send(generator, "heartbeat", heartbeat)
            send(generator, "inferload_snapshot", states[number % DISTINCT][second])
    for generator in generators:
        send(generator, "quit", None)
    context.destroy(linger=5000)


def mastering(seconds: int) -> list[float]:
    """Returns the master's share of a core in each second, for all of our work: validating, decoding, adding, logging.

    Left out are Locust's own answers to heartbeats, and the page.
    """
    token = RunToken(environment={TOKEN_VARIABLE: KEY.decode()})
    validator = MessageValidator(token)
    validator.custom_types = {"inferload_snapshot"}
    server = ValidatingServer(validator, token, "127.0.0.1", 0)
    last: dict[str, Snapshot] = {}
    written = {series: Tally() for series in SERIES}
    shares: list[float] = []
    quitted: set[str] = set()

    def listen() -> None:
        while len(quitted) < GENERATORS:
            message = validator.validate(server.socket.recv_multipart())
            if message.type == "inferload_snapshot":
                snapshot, before = Snapshot.unpack(message.data, KNOWN), last.get(message.client)
                if before is not None and not snapshot.follows(before):
                    raise RuntimeError(f"{message.client} contradicts itself")
                last[message.client] = snapshot
            elif message.type == "quit":
                quitted.add(message.client)

    command = [sys.executable, __file__, "--speak", str(server.port), "--seconds", str(seconds)]
    speaker = subprocess.Popen(["taskset", "-c", str(SERVER_CORE), *command])
    listener = gevent.spawn(listen)
    try:
        with tempfile.TemporaryDirectory() as folder, IntervalLogWriter(Path(folder) / "run.hlog", time.time()) as log:
            while len(last) < GENERATORS and not listener.ready():
                gevent.sleep(0.05)
            began = time.monotonic()
            spent, at = time.process_time(), began
            for second in itertools.count(1):
                gevent.sleep(max(0.0, began + second - time.monotonic()))
                if quitted or listener.ready():
                    break
                total = _sum_tallies(last)
                for series, tally in total.items():
                    for measure, histogram in tally_difference(tally, written[series]).histograms.items():
                        if histogram.count:
                            log.write(second - 1, 1.0, series_tag(series, measure), histogram)
                            gevent.sleep(0)
                written = total
                now, used = time.monotonic(), time.process_time()
                shares.append((used - spent) / (now - at))
                spent, at = used, now
        listener.get(timeout=60)
    finally:
        speaker.terminate()
        speaker.wait(30)
    answered = sum(tally.answered for tally in _sum_tallies(last).values())
    if answered != GENERATORS * COMBINATIONS * RATE * seconds:
        raise RuntimeError(f"the master counts {answered} requests of {GENERATORS * COMBINATIONS * RATE * seconds}")
    return shares


def _sum_tallies(last: dict[str, Snapshot]) -> dict[Series, Tally]:
    return {series: sum_tallies([one.totals[series] for one in last.values()]) for series in SERIES}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=10, help="of the master with its generators")
    parser.add_argument("--speak", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speak:
        speak(options.speak, options.seconds)
        return 0
    pin_client()
    ours, theirs = bulk(options.rounds)
    encode_ms, kib = encoding(options.rounds)
    shares = mastering(options.seconds)
    what = f"{COMBINATIONS} combinations × {len(MEASURES)} measures"
    peer = f"hdrhistogram's record_value: {statistics.median(theirs):,.0f} ns"
    size = f"{what}; {statistics.median(kib):.1f} KiB a second and generator after a minute at {RATE}/s each"
    master = f"{GENERATORS} generators, a snapshot of {what} and a heartbeat a second each"
    return judge(
        "bench_recorder",
        [
            Promise("a value recorded in bulk", "≤", VALUE_NS, ours, "ns", f"20,000 at a time; {peer}"),
            Promise("a snapshot encoded", "≤", ENCODE_MS, encode_ms, "ms", size),
            Promise("the master's share of a core", "≤", MASTER_CORE_SHARE, shares, "", master),
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
