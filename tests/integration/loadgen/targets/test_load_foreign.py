"""`locust -f loadgen/` against a server that nobody here wrote: MLServer over gRPC, counted as it counts itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools.environments import NotAvailable, environment
from tools.processes import wait_for

START_TIMEOUT_S = 60
MODEL = "doubling"
RUNTIME = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Doubling(MLModel):
    async def predict(self, payload):
        values = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("twice", 2 * values)])
"""
MODEL_SETTINGS = {
    "name": MODEL,
    "implementation": "runtime.Doubling",
    "inputs": [{"name": "values", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "twice", "datatype": "FP32", "shape": [-1, 4]}],
}


@dataclass(frozen=True)
class MLServer:
    """A running MLServer: its gRPC address, and where it tells what it served."""

    address: str
    metrics: str

    def served(self) -> int:
        """Inferences that it answered, by its own count."""
        with urllib.request.urlopen(self.metrics, timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        counted = [line for line in lines if line.startswith(f'model_infer_request_success_total{{model="{MODEL}"')]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in counted)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServer]:
    try:
        home = environment("mlserver")
    except NotAvailable as why:
        pytest.skip(str(why))
    http, grpc, metrics = free_ports(3)
    folder = tmp_path_factory.mktemp("mlserver")
    (folder / "runtime.py").write_text(RUNTIME)
    (folder / "model-settings.json").write_text(json.dumps(MODEL_SETTINGS))
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [home / "bin/mlserver", "start", folder],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
        try:
            _wait_until_ready(f"http://127.0.0.1:{http}/v2/models/{MODEL}/ready", process, folder / "output")
            yield MLServer(f"127.0.0.1:{grpc}", f"http://127.0.0.1:{metrics}/metrics")
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, f"MLServer did not become ready:\n{output.read_text()[-3000:]}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    wait_for(answers, START_TIMEOUT_S)


@pytest.mark.parametrize(
    "how",
    [
        ("-u", "4", "--requests", "300"),
        ("-u", "4", "--requests", "100", "--transport", "grpcio"),
        ("-u", "2", "-t", "3s", "--arrivals", "poisson", "--user-rate", "40"),
    ],
    ids=["closed", "closed over grpcio", "poisson"],
)
def test_every_request_is_counted_as_mlserver_counts_it(
    mlserver: MLServer, locust: Callable[..., Any], tmp_path: Path, how: tuple[str, ...]
) -> None:
    before = mlserver.served()

    ended = locust(
        *("--headless", "--hardware", "c5.xlarge", "--model", MODEL, "--targets", mlserver.address, "--run-dir", "run"),
        *("--input-shape", "values:2,4", *how),
    )

    # 1 is a run that a busy machine made invalid: its counts must hold nevertheless.
    assert ended.code in (0, 1), ended.err
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    (row,) = document["rows"]
    assert (row["hardware"], row["model"], row["simulated"]) == ("c5.xlarge", MODEL, False)
    assert row["errors"] == {}
    assert row["due"] == row["requests"] + row["unsent"]
    assert row["requests"] == row["answered"] > 0
    if "--requests" in how:
        assert row["requests"] == int(how[how.index("--requests") + 1])
    assert mlserver.served() - before == row["answered"] + row["warmup"]["requests"]
    # A request that was due and never sent is a sample beyond all others.
    assert row["latency_us"]["samples"] == row["due"]


def test_what_mlserver_answers_is_looked_at(mlserver: MLServer, locust: Callable[..., Any], tmp_path: Path) -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(tmp_path / "values.npz", values=values)
    np.savez(tmp_path / "right.npz", twice=2 * values)
    np.savez(tmp_path / "wrong.npz", twice=3 * values)

    for expected, errors in (("right", {}), ("wrong", {"WRONG_OUTPUT": 40})):
        locust(
            *("--headless", "-u", "2", "--requests", "40", "--model", MODEL, "--targets", mlserver.address),
            *("--input", "values.npz", "--check-outputs", "1", "--expected", f"{expected}.npz", "--run-dir", expected),
        )
        (row,) = json.loads((tmp_path / expected / "run.json").read_text())["rows"]
        assert (row["requests"], row["errors"]) == (40, errors)


def test_a_model_that_mlserver_does_not_have_is_refused(mlserver: MLServer, locust: Callable[..., Any]) -> None:
    ended = locust("--headless", "-u", "1", "-t", "1s", "--model", "other", "--targets", mlserver.address)

    assert ended.code == 2
    assert "has no model other" in ended.err
