"""The worker's counters in Prometheus' text format (version 0.0.4), over plain HTTP."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from worker.operations.counters import Counters
from worker.operations.histograms import Histogram

# Seconds, three a decade from 100 µs to 10 s.
BOUNDS_S = (*(round(base * 10.0**power, 6) for power in range(-4, 1) for base in (1, 2.5, 5)), 10.0)
_BOUNDS_US = np.array([round(bound * 1e6) for bound in BOUNDS_S], np.int64)
_MAX_REQUEST_BYTES = 8192
_TIMEOUT_S = 5.0


def render_metrics(counters: Counters, *, depth: int, process_peak_bytes: int, accelerator_peak_bytes: int) -> str:
    """Returns the whole page: `depth` requests in the queue, peaks in bytes, counts since the worker was ready."""
    counters.settle()
    return "\n".join(_lines(counters, depth, process_peak_bytes, accelerator_peak_bytes)) + "\n"


def _lines(counters: Counters, depth: int, process_peak: int, accelerator_peak: int) -> Iterator[str]:
    yield from _header("requests_total", "counter", "Inference requests ended, by gRPC status code.")
    for code, count in [("OK", counters.answered), *sorted(counters.errors.items())]:
        yield f'inferload_requests_total{{code="{code}"}} {count}'
    yield from _header("requests_in_flight", "gauge", "Inference requests that are not answered yet.")
    yield f"inferload_requests_in_flight {counters.in_flight}"
    yield from _header("queue_depth", "gauge", "Requests that wait for their forward pass.")
    yield f"inferload_queue_depth {depth}"
    yield from _header("executions_total", "counter", "Forward passes, by rows in the batch.")
    for rows, size in sorted(counters.batches.items()):
        yield f'inferload_executions_total{{batch_size="{rows}"}} {size.infer.count}'
    yield from _histogram("queue_seconds", "From a request's arrival to its forward pass.", counters.queue_histogram)
    yield from _histogram("compute_seconds", "Copy-in, forward and copy-out of a request.", counters.compute_histogram)
    yield from _header("process_peak_bytes", "gauge", "Highest resident memory of the process.")
    yield f"inferload_process_peak_bytes {process_peak}"
    yield from _header("accelerator_peak_bytes", "gauge", "Highest memory held on the accelerator; 0 where unknown.")
    yield f"inferload_accelerator_peak_bytes {accelerator_peak}"


def _header(name: str, kind: str, words: str) -> Iterator[str]:
    yield f"# HELP inferload_{name} {words}"
    yield f"# TYPE inferload_{name} {kind}"


def _histogram(name: str, words: str, histogram: Histogram) -> Iterator[str]:
    yield from _header(name, "histogram", words)
    for bound, count in zip(BOUNDS_S, histogram.cumulative(_BOUNDS_US), strict=True):
        yield f'inferload_{name}_bucket{{le="{bound:g}"}} {count}'
    yield f'inferload_{name}_bucket{{le="+Inf"}} {histogram.count}'
    yield f"inferload_{name}_sum {histogram.sum_ns / 1e9}"
    yield f"inferload_{name}_count {histogram.count}"


async def serve_metrics(address: str, port: int, page: Callable[[], str]) -> asyncio.Server:
    """Serves `page()` at /metrics, one request a connection. Raises OSError where the port is in use."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _TIMEOUT_S)
            method, path, *_ = [*request.split(b"\r\n", 1)[0].split(b" "), b"", b""]
            status, body = "404 Not Found", "this server has only GET /metrics\n"
            if method == b"GET" and path.partition(b"?")[0] == b"/metrics":
                status, body = "200 OK", page()
            encoded = body.encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"Content-Length: {len(encoded)}\r\nConnection: close\r\n\r\n".encode()
                + encoded
            )
            await asyncio.wait_for(writer.drain(), _TIMEOUT_S)
        writer.close()

    return await asyncio.start_server(respond, address, port, limit=_MAX_REQUEST_BYTES)
