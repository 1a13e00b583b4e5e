"""NVIDIA's perf_analyzer, unmodified, measures a worker: every way to send that it has for our RPCs.

Its figures are not judged here; that it ends well, that every level measured something, and that its server-side
breakdown adds up to what it calls the server's average, are.
"""

import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tools.environments import NotAvailable, debian_library, environment

#: Short windows, and no more of them than it needs at least: how steady the figures are is not judged here.
WINDOWS = ("--measurement-interval", "250", "--stability-percentage", "999", "--max-trials", "4")
NUMBERS = re.compile(
    r"Avg request latency: (\d+) usec \(overhead (\d+) usec \+ queue (\d+) usec \+ compute input (\d+) usec "
    r"\+ compute infer (\d+) usec \+ compute output (\d+) usec\)"
)
COUNTS = re.compile(r"Inference count: (\d+)\s+Execution count: (\d+)\s+Successful request count: (\d+)")
#: Each of the six figures is rounded to a microsecond.
ROUNDING_US = 6
SERVICE_US = 2000
MOST_ROWS = 8


@pytest.fixture(scope="module")
def perf_analyzer() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`perf_analyzer(address, …)` runs it; its libraries come from Debian and NVIDIA, without being installed."""
    try:
        folder = environment("tritonclient")
        base64 = debian_library("libb64-0d")
    except NotAvailable as reason:
        pytest.skip(str(reason))
    (runtime,) = folder.rglob("libcudart.so.12")

    def run(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [folder / "bin/perf_analyzer", "-i", "grpc", "-u", address, *WINDOWS, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "LD_LIBRARY_PATH": f"{base64}:{runtime.parent}"},
            timeout=120,
            check=False,
        )

    if (tried := run("127.0.0.1:1", "--version")).returncode == 127:
        pytest.skip(f"perf_analyzer does not run here: {tried.stderr.strip()}")
    return run


MODES = {
    "sync": ("--concurrency-range", "1:4", "--sync"),
    "async": ("--concurrency-range", "1:4", "--async"),
    "streaming": ("--concurrency-range", "1:4", "--streaming"),
    "shared memory": ("--concurrency-range", "1:4", "--shared-memory", "system", "--output-shared-memory-size", "4096"),
    "batches of 4": ("--concurrency-range", "1:4", "-b", "4"),
    "poisson": ("--request-rate-range", "100:200:100", "--request-distribution", "poisson"),
}


@pytest.mark.parametrize("mode", MODES)
def test_perf_analyzer_measures_a_worker(
    mode: str, serve: Callable[..., Any], perf_analyzer: Callable[..., Any]
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", f"fixed:{SERVICE_US}us", "--max-batch-size", str(MOST_ROWS))
    done = perf_analyzer(worker.address, "-m", "sim", *MODES[mode])
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    throughputs = [float(figure) for figure in re.findall(r"Throughput: ([\d.]+) infer/sec", output)]
    breakdowns = [tuple(map(int, figures)) for figures in NUMBERS.findall(output)]
    counts = [tuple(map(int, figures)) for figures in COUNTS.findall(output)]
    levels = 2 if mode == "poisson" else 4
    assert (len(throughputs), len(breakdowns), len(counts)) == (levels, levels, levels), output
    assert min(throughputs) > 0
    for total, overhead, queue, copy_in, compute, copy_out in breakdowns:
        assert abs(total - (overhead + queue + copy_in + compute + copy_out)) <= ROUNDING_US
        assert compute >= SERVICE_US
    rows = 4 if mode == "batches of 4" else 1
    for inferences, executions, requests in counts:
        # A window may begin or end between a forward pass and the answers that it leads to: one batch each way.
        assert abs(inferences - rows * requests) <= MOST_ROWS
        assert inferences <= MOST_ROWS * (executions + 1)
        assert executions <= requests + 1
    assert worker.end() == 0
