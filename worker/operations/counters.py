"""Counters: what this worker has served so far: requests by status code, forward passes, and histograms.

Everything here belongs to the event loop's thread.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

from worker.operations.histograms import Histogram
from worker.runtime import ForwardPass

# Requests that are added up at a time.
_BULK = 256
# Batch sizes with a histogram of their own: a client that sends every number of rows does not fill the memory.
MAX_BATCH_SIZES = 64


@dataclass
class Duration:
    """A count and a sum of nanoseconds, as ModelStatistics reports them."""

    count: int = 0
    ns: int = 0

    def add(self, nanoseconds: int, count: int = 1) -> None:
        """Adds `count` events that took so many nanoseconds together."""
        self.count += count
        self.ns += nanoseconds


@dataclass
class BatchSize:
    """Durations of the three parts of forward passes over one number of rows."""

    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)


@dataclass
class Counters:
    """All counts of a worker since it was ready."""

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
    # How long forward passes occupied the executor, by rows.
    pass_histograms: dict[int, Histogram] = field(default_factory=dict)
    # Passes and requests that are not added up yet: in bulk that costs each request less.
    _passes: list[tuple[int, ForwardPass, int]] = field(default_factory=list)
    _requests: list[tuple[ForwardPass, int, int]] = field(default_factory=list)

    def add_pass(self, rows: int, forward_pass: ForwardPass, occupied_ns: int) -> None:
        """Counts a forward pass over `rows` rows, which kept the executor from the next one for `occupied_ns`."""
        self._passes.append((rows, forward_pass, occupied_ns))

    def add_response(self, forward_pass: ForwardPass, queue_ns: int, total_ns: int) -> None:
        """Counts an answered request, which waited `queue_ns` for its forward pass and took `total_ns` in all."""
        self.answered += 1
        self.last_inference_ms = time.time_ns() // 1_000_000
        self._requests.append((forward_pass, queue_ns, total_ns))
        if len(self._requests) >= _BULK:
            self.settle()

    def add_error(self, code: str, total_ns: int) -> None:
        """Counts a request that ended after `total_ns` with a status code (by name)."""
        self.errors[code] += 1
        self.fail.add(total_ns)

    def settle(self) -> None:
        """Adds up passes and requests. Call it before reading anything but requests, answered, errors and fail."""
        passes, self._passes = self._passes, []
        requests, self._requests = self._requests, []
        occupied: dict[int, list[int]] = {}
        for rows, forward_pass, occupied_ns in passes:
            self.executions += 1
            self.inferences += rows
            size = self.batches.setdefault(rows, BatchSize())
            size.input.add(forward_pass.input_ns)
            size.infer.add(forward_pass.infer_ns)
            size.output.add(forward_pass.output_ns)
            occupied.setdefault(rows, []).append(occupied_ns)
        for rows, values in occupied.items():
            histogram = self.pass_histograms.get(rows)
            if histogram is None and len(self.pass_histograms) < MAX_BATCH_SIZES:
                histogram = self.pass_histograms[rows] = Histogram()
            if histogram is not None:
                histogram.record(values)
        if not requests:
            return
        for forward_pass, queue_ns, total_ns in requests:
            self.success.add(total_ns)
            self.queue.add(queue_ns)
            self.input.add(forward_pass.input_ns)
            self.infer.add(forward_pass.infer_ns)
            self.output.add(forward_pass.output_ns)
        self.queue_histogram.record([queue_ns for _, queue_ns, _ in requests])
        self.compute_histogram.record([one.input_ns + one.infer_ns + one.output_ns for one, _, _ in requests])
