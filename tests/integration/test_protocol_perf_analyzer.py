"""NVIDIA's perf_analyzer, unmodified, measures a worker: every way to send that it has for our RPCs.

Its figures are not judged here; that it ends well, that every level measured something, and that its server-side
breakdown adds up to what it calls the server's average, are.
"""

import csv
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools.environments import NotAvailable, debian_library, environment

pytestmark = pytest.mark.filterwarnings("error")
#: Windows hold so many requests, so that a busy machine makes them longer, not emptier.
WINDOW = ("--measurement-mode", "count_windows", "--measurement-request-count", "60")
#: Two windows that agree to within so many per cent end a level. What is judged here is not their stability.
ENOUGH = ("--stability-percentage", "999", "--max-trials", "4")
SERVER_PARTS = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")


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
            [folder / "bin/perf_analyzer", "-i", "grpc", "-u", address, *WINDOW, *ENOUGH, *arguments],
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
    mode: str, serve: Callable[..., Any], perf_analyzer: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", "--sim", "fixed:2ms", "--max-batch-size", "8")
    table = tmp_path / "levels.csv"
    done = perf_analyzer(worker.address, "-m", "sim", *MODES[mode], "-f", str(table))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["Inferences/Second"]]
    assert len(rows) == (2 if mode == "poisson" else 4), said
    for row in rows:
        assert float(row["Inferences/Second"]) > 0
        # A simulated forward pass never takes less than it was told to, and no part is counted twice.
        assert int(row["Server Compute Infer"]) >= 2000
        assert sum(int(row[part]) for part in SERVER_PARTS) <= int(row["Avg latency"]) + len(SERVER_PARTS)
    assert worker.end() == 0
