"""What a worker adds to the model: one core for the server, one for the client, which is the same for all.

Promises: (a) GPT at 1 in flight does at least 0.97 of what a loop around the module does in process; (b) a 16×16 linear
model at 8 in flight does at least 3 times what MLServer 1.7.1 does with the same file, and its median at 1 in flight is
at most 400 µs; (c) where a batch of 8 costs as much as one, batching gives at least 6 times the throughput at 16 in
flight. Exits with 1 where one is missed, with 2 where something cannot be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _bench import SERVER_CORE, Promise, closed_loop, judge, pin_client, request, server, worker

ROOT = Path(__file__).parents[1]
WIDTH = 16

#: The loop that (a) is held against: the module as the worker loads it, and nothing around it.
IN_PROCESS = """
import sys, time, torch
torch.set_num_threads(1)
module = torch.jit.freeze(torch.jit.load(sys.argv[1]).eval())
seconds = float(sys.argv[2])
with torch.inference_mode():
    tokens = torch.zeros(1, 7, dtype=torch.int64)
    for _ in range(5):
        module(tokens)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        module(tokens)
        count += 1
    print(count / (time.perf_counter() - begin))
"""
LINEAR = f"""
import sys, torch
torch.manual_seed(0)
layer = torch.nn.Linear({WIDTH}, {WIDTH}).eval()
torch.jit.save(torch.jit.trace(layer, torch.rand(1, {WIDTH})), sys.argv[1])
"""


def gpt(rounds: int, seconds: float, folder: Path) -> list[Promise]:
    """(a)"""
    model = ROOT / ".models" / "gpt.pt"
    if not model.exists():
        _run([sys.executable, "-m", "worker", "export", "gpt", "--out", model])
    tokens = request("gpt", "input_ids", "INT64", (1, 7), np.zeros((1, 7), "<i8").tobytes())
    alone, served, ratios = [], [], []
    with worker(folder, model, "--accelerator", "cpu:0") as address:
        for _ in range(rounds):
            output = _run(["taskset", "-c", str(SERVER_CORE), sys.executable, "-c", IN_PROCESS, model, seconds])
            alone.append(float(output))
            served.append(closed_loop(address, tokens, 1, seconds)[0])
            ratios.append(served[-1] / alone[-1])
    detail = f"{_middle(served):.1f} /s served, {_middle(alone):.1f} /s in process"
    return [Promise("(a) GPT served / in process, 1 in flight", "≥", 0.97, ratios, detail=detail)]


def linear(rounds: int, seconds: float, folder: Path) -> list[Promise]:
    """(b)"""
    model = folder / "linear.pt"
    _run([sys.executable, "-c", LINEAR, model])
    values = request("linear", "x", "FP32", (1, WIDTH), np.ones((1, WIDTH), "<f4").tobytes())
    peer = folder / "mlserver"
    port = _mlserver_files(peer, model)
    environment = Path(_run([sys.executable, ROOT / "tests/tools/environments.py", "mlserver"]))
    ours, theirs, medians, ratios = [], [], [], []
    with (
        worker(folder, model, "--accelerator", "cpu:0", "--input", f"x:FP32:-1,{WIDTH}") as address,
        server(
            [environment / "bin/mlserver", "start", peer],
            f"gRPC server running on http://127.0.0.1:{port}",
            peer,
            PYTHONPATH=str(Path(__file__).parent),
        ),
    ):
        _until_ready(f"127.0.0.1:{port}")
        for _ in range(rounds):
            ours.append(closed_loop(address, values, 8, seconds)[0])
            theirs.append(closed_loop(f"127.0.0.1:{port}", values, 8, seconds)[0])
            ratios.append(ours[-1] / theirs[-1])
            medians.append(closed_loop(address, values, 1, seconds)[1])
    detail = f"{_middle(ours):.0f} /s, MLServer {_middle(theirs):.0f} /s"
    return [
        Promise("(b) linear 16×16 / MLServer 1.7.1, 8 in flight", "≥", 3, ratios, detail=detail),
        Promise("(b) linear 16×16, median at 1 in flight", "≤", 400, medians, "µs"),
    ]


def batching(rounds: int, seconds: float, folder: Path) -> list[Promise]:
    """(c)"""
    values = request("sim", "INPUT", "FP32", (1, WIDTH), bytes(4 * WIDTH))
    sim = ("--accelerator", "sim:0", "--sim", "fixed:5ms")
    single, joined, ratios = [], [], []
    other = folder / "joined"
    other.mkdir()
    with worker(folder, *sim) as alone, worker(other, *sim, "--max-batch-size", "8") as batched:
        for _ in range(rounds):
            single.append(closed_loop(alone, values, 16, seconds)[0])
            joined.append(closed_loop(batched, values, 16, seconds)[0])
            ratios.append(joined[-1] / single[-1])
    detail = f"{_middle(joined):.0f} /s batched, {_middle(single):.0f} /s not; 5 ms a batch, simulated"
    return [Promise("(c) batches of 8 / no batching, 16 in flight", "≥", 6, ratios, detail=detail)]


def _mlserver_files(folder: Path, model: Path) -> int:
    """MLServer's settings for the file, inference in its own process, the way it is fastest on one core; its port."""
    folder.mkdir()
    ports = [_free_port() for _ in range(3)]
    settings = {"host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1], "metrics_port": ports[2]}
    settings |= {"debug": False, "parallel_workers": 0}
    hosted = {"name": "linear", "implementation": "mlserver_runtime.TorchScript", "parameters": {"uri": str(model)}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(hosted))
    return ports[1]


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_ready(address: str) -> None:
    """Waits until the model is loaded, by the protocol's own question."""
    import gevent

    from loadgen.transport import Channel
    from worker.wire import open_inference_pb2 as oip

    ask = oip.ModelReadyRequest(name="linear").SerializeToString()
    channel = Channel(address, method="/inference.GRPCInferenceService/ModelReady")
    for _ in range(300):
        reply = channel.call(ask, 5)
        if reply.code == 0 and oip.ModelReadyResponse.FromString(bytes(reply.payload)).ready:
            channel.close()
            return
        gevent.sleep(0.2)
    raise RuntimeError(f"{address} does not become ready: {reply}")


def _run(command: Sequence[object]) -> str:
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError((error.stderr.strip().splitlines() or [str(error)])[-1]) from None
    return done.stdout.strip()


def _middle(figures: Sequence[float]) -> float:
    return float(np.median(figures))


PARTS = {"gpt": gpt, "linear": linear, "batching": batching}


def main() -> int:
    parser = argparse.ArgumentParser(description="A worker beside the bare module, MLServer, and itself unbatched.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement in each round")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    options = parser.parse_args()
    pin_client()
    promises: list[Promise] = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as scratch:
                promises += part(options.rounds, options.seconds, Path(scratch))
    return judge("worker: one core, the client on another", promises)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
