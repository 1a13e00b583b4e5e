"""What a worker has served so far, by its own count: requests by code, forward passes, and its histograms.

Everything here belongs to the event loop's thread.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

from worker.operations.histograms import Histogram
from worker.runtime.context import Ran

BULK = 256
# Batch sizes that have a histogram of their own: who sends rows of any number does not fill the memory.
MOST_SIZES = 64


@dataclass
class Duration:
    """A count and a sum of nanoseconds, as ModelStatistics reports them."""

    count: int = 0
    ns: int = 0

    def add(self, nanoseconds: int, count: int = 1) -> None:
        self.count += count
        self.ns += nanoseconds


@dataclass
class BatchSize:
    """Forward passes of one batch size."""

    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)


@dataclass
class Counters:
    requests: int = 0
    answered: int = 0
    # By gRPC code name.
    errors: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    # Rows of all batches: what Triton calls inferences.
    inferences: int = 0
    in_flight: int = 0
    bytes_in_flight: int = 0
    # Milliseconds since the epoch.
    last_inference_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)
    batches: dict[int, BatchSize] = field(default_factory=dict)
    queue_histogram: Histogram = field(default_factory=Histogram)
    compute_histogram: Histogram = field(default_factory=Histogram)
    # How long forward passes held the executor, by rows.
    pass_histograms: dict[int, Histogram] = field(default_factory=dict)
    # Passes and requests not yet added up: doing that in bulk takes it out of the path of each request.
    _passes: list[tuple[int, Ran, int]] = field(default_factory=list)
    _requests: list[tuple[Ran, int, int]] = field(default_factory=list)

    def executed(self, rows: int, ran: Ran, held_ns: int) -> None:
        """One forward pass over `rows` rows, for which the executor could do nothing else for `held_ns`."""
        self._passes.append((rows, ran, held_ns))

    def succeeded(self, ran: Ran, queue_ns: int, took_ns: int) -> None:
        """One request answered, as part of a forward pass."""
        self.answered += 1
        self.last_inference_ms = time.time_ns() // 1_000_000
        self._requests.append((ran, queue_ns, took_ns))
        if len(self._requests) >= BULK:
            self.settle()

    def failed(self, code: str, took_ns: int) -> None:
        self.errors[code] += 1
        self.fail.add(took_ns)

    def settle(self) -> None:
        """Adds up what has come in. To be called before anything but requests, answered, errors and fail is read."""
        passes, self._passes = self._passes, []
        requests, self._requests = self._requests, []
        held: dict[int, list[int]] = {}
        for rows, ran, held_ns in passes:
            self.executions += 1
            self.inferences += rows
            size = self.batches.setdefault(rows, BatchSize())
            size.input.add(ran.input_ns)
            size.infer.add(ran.infer_ns)
            size.output.add(ran.output_ns)
            held.setdefault(rows, []).append(held_ns)
        for rows, values in held.items():
            histogram = self.pass_histograms.get(rows)
            if histogram is None and len(self.pass_histograms) < MOST_SIZES:
                histogram = self.pass_histograms[rows] = Histogram()
            if histogram is not None:
                histogram.record(values)
        if not requests:
            return
        for ran, queue_ns, took_ns in requests:
            self.success.add(took_ns)
            self.queue.add(queue_ns)
            self.input.add(ran.input_ns)
            self.infer.add(ran.infer_ns)
            self.output.add(ran.output_ns)
        self.queue_histogram.record([queue_ns for _, queue_ns, _ in requests])
        self.compute_histogram.record([ran.input_ns + ran.infer_ns + ran.output_ns for ran, _, _ in requests])
