"""The article's measurement against the model called in process: what gRPC and Locust add to the median.

Promise: the median latency that `locust -f loadgen/ -u 1` reports for GPT, input (1, 7), on one core is within 10 % of
the same model called in a plain loop on that core with as many threads. Both are measured in turn, in one run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 3
REQUESTS = 150
PROMISE = 1.10

IN_PROCESS = """
import os, sys, time, warnings
os.sched_setaffinity(0, {0})
os.environ["OMP_NUM_THREADS"] = "1"
warnings.simplefilter("ignore")
import numpy as np, torch
torch.set_num_threads(1)
model = torch.jit.freeze(torch.jit.load(sys.argv[1]).eval())
tokens = torch.from_numpy(np.random.default_rng(20260101).integers(0, 40478, (1, 7)))
durations_s = []
with torch.inference_mode():
    for _ in range(int(sys.argv[2]) + 5):
        start = time.perf_counter()
        model(tokens)
        durations_s.append(time.perf_counter() - start)
print(float(np.median(durations_s[5:])) * 1e6)
"""


def in_process(model: Path) -> float:
    """Median in µs of a plain loop."""
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(model), str(REQUESTS)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def served(model: Path, folder: Path) -> float:
    """Median latency in µs of one user on one worker on the same core."""
    load = [sys.executable, "-m", "locust", "-f", "loadgen/", "--headless", "--only-summary", "-u", "1"]
    load += ["--requests", str(REQUESTS), "--run-dir", str(folder)]
    fleet = [sys.executable, "-m", "worker", "fleet", str(model), "--accelerators", "cpu:0", "--", *load]
    subprocess.run(fleet, capture_output=True, text=True, check=True)
    (row,) = json.loads((folder / "run.json").read_text())["rows"]
    return float(row["latency_us"]["p50"])


def main() -> int:
    model = Path(sys.argv[1] if len(sys.argv) > 1 else ".models/gpt.pt")
    if not model.is_file():
        print(f"{model} is missing: python -m worker export gpt --mode trace --out {model}", file=sys.stderr)
        return 2
    loops, runs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(ROUNDS):
            loops.append(in_process(model))
            runs.append(served(model, Path(scratch) / str(number)))
    plain, path = statistics.median(loops), statistics.median(runs)
    ratio = statistics.median(run / loop for run, loop in zip(runs, loops, strict=True))
    print(f"GPT (1, 7), one core, {ROUNDS} rounds of {REQUESTS}: in process {plain / 1000:.2f} ms, ", end="")
    print(f"through Locust and gRPC {path / 1000:.2f} ms, ratio {ratio:.3f} (promise: at most {PROMISE:.2f})")
    return 0 if ratio <= PROMISE else 1


if __name__ == "__main__":
    raise SystemExit(main())
