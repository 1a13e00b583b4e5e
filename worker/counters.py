"""What a worker has served so far, by its own count: requests by code, forward passes, and its histograms.

Everything here belongs to the event loop's thread.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

from worker.batching import Done
from worker.contexts import Ran
from worker.histograms import Histogram


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

    def executed(self, rows: int, ran: Ran) -> None:
        self.executions += 1
        self.inferences += rows
        size = self.batches.get(rows)
        if size is None:
            size = self.batches[rows] = BatchSize()
        size.input.add(ran.input_ns)
        size.infer.add(ran.infer_ns)
        size.output.add(ran.output_ns)

    def succeeded(self, done: Done, took_ns: int) -> None:
        self.answered += 1
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.success.add(took_ns)
        self.queue.add(done.queue_ns)
        self.input.add(done.input_ns)
        self.infer.add(done.infer_ns)
        self.output.add(done.output_ns)
        self.queue_histogram.record(done.queue_ns)
        self.compute_histogram.record(done.input_ns + done.infer_ns + done.output_ns)

    def failed(self, code: str, took_ns: int) -> None:
        self.errors[code] += 1
        self.fail.add(took_ns)
