"""What a user may ask of the load beyond the plain run: a class of their own, traces, checked outputs, TLS."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from loadgen.targets._output_checks import decode_outputs
from loadgen.targets._payloads import TensorSpec, encode_request, random_tensors

INFER = "/inference.GRPCInferenceService/ModelInfer"
ROOT = Path(__file__).parents[3]
# A run on a busy machine may find itself not valid, and end with 1: what is asserted here is what was sent and counted.
SIM = ("--sim", "fixed:2ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium")


def rows(directory: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((directory / "run.json").read_text())["rows"]
    return found


def own_locustfile(tmp_path: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "mine.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "locust", "-f", "mine.py", "--headless", "--only-summary", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )


def test_the_documented_locustfile_runs(serve: Callable[..., Any], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    worker = serve("--accelerator", "sim:0", *SIM, "--name", "mine")

    ended = own_locustfile(tmp_path, example, "-u", "2", "-t", "3s", "--targets", worker.address, "--run-dir", "run")

    assert ended.returncode in (0, 1), ended.stderr
    (row,) = rows(tmp_path / "run")
    assert row["answered"] > 100
    assert row["errors"] == {}
    assert row["model"] == "mine"


def test_a_users_own_request_that_the_model_cannot_take_ends_the_run_in_one_line(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)
    text = "import numpy as np\nfrom loadgen import InferenceUser\n\nclass Mine(InferenceUser):\n"
    text += "    def requests(self):\n        yield {'nothing': np.zeros((1, 16), np.float32)}\n"

    ended = own_locustfile(tmp_path, text, "-u", "1", "-t", "30s", "--targets", worker.address, "--loglevel", "ERROR")

    assert ended.returncode == 2
    assert "error: the model has no input nothing (its inputs are INPUT)" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_users_of_one_model_or_address_stay_there(serve: Callable[..., Any], tmp_path: Path) -> None:
    first = serve("--accelerator", "sim:0", *SIM, "--name", "first")
    second = serve("--accelerator", "sim:1", *SIM, "--name", "second")
    text = (
        "from loadgen import InferenceUser\n\nclass Mine(InferenceUser):\n    model = 'second'\n    deadline = '2s'\n"
    )

    own_locustfile(
        *(tmp_path, text, "-u", "2", "-t", "2s", "--targets", f"{first.address},{second.address}"),
        *("--run-dir", "run"),
    )

    counts = {row["model"]: row["answered"] for row in rows(tmp_path / "run")}
    assert counts["first"] == 0
    assert counts["second"] > 50


def test_a_trace_is_played_once_and_ends_the_run(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    first = serve("--accelerator", "sim:0", *SIM, "--name", "first")
    second = serve("--accelerator", "sim:1", *SIM, "--name", "second")
    lines = [f"{number * 0.01:.2f},{'first' if number % 3 else 'second'},{1 + number % 4}" for number in range(300)]
    (tmp_path / "trace.csv").write_text("\n".join(["arrival_s,model,size", *lines]))

    ended = locust(
        *("--headless", "-u", "3", "--arrivals", "trace:trace.csv", "--trace-scale", "2", "--run-dir", "run"),
        *("--targets", f"{first.address},{second.address}"),
    )

    assert ended.code in (0, 1), ended.err
    found = {row["model"]: row for row in rows(tmp_path / "run")}
    played = {model: row["requests"] + row["warmup"]["requests"] for model, row in found.items()}
    assert played == {"first": 200, "second": 100}
    assert sum(row["unsent"] for row in found.values()) == 0


def test_a_trace_of_a_model_that_nobody_serves_is_refused(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)
    (tmp_path / "trace.csv").write_text("arrival_s,model\n0,other\n")

    ended = locust(
        *("--headless", "--arrivals", "trace:trace.csv", "--targets", worker.address, "--loglevel", "WARNING")
    )

    assert ended.code == 2
    assert ended.err.startswith("inferload: error: no target of this run has model other; its targets are ")


def test_outputs_are_checked_against_what_is_expected(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)
    run = ("--headless", "-u", "1", "--requests", "60", "--targets", worker.address, "--check-outputs", "3")
    right = locust(*run, "--run-dir", "right")
    np.savez(tmp_path / "wrong.npz", OUTPUT=np.full((1, 16), 7.5, np.float32))

    wrong = locust(*run, "--run-dir", "wrong", "--expected", "wrong.npz")

    assert right.code in (0, 1), right.err
    assert rows(tmp_path / "right")[0]["errors"] == {}
    assert wrong.code == 1
    assert rows(tmp_path / "wrong")[0]["errors"] == {"WRONG_OUTPUT": 20}


def test_both_transports_count_the_same_and_bring_the_same_bytes(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM, "--sim-failure-rate", "0.25")
    request = encode_request("sim", "", random_tensors([TensorSpec("INPUT", "FP32", (-1, 16))], {})).message
    with grpc.insecure_channel(worker.address) as channel:
        infer = channel.unary_unary(INFER)
        np.savez(tmp_path / "expected.npz", **decode_outputs(answered(infer, request)))

    found = {}
    for transport in ("wire", "grpcio"):
        locust(
            *("--headless", "-u", "2", "--requests", "400", "--targets", worker.address, "--transport", transport),
            *("--check-outputs", "1", "--expected", "expected.npz", "--run-dir", transport),
        )
        (found[transport],) = rows(tmp_path / transport)

    for row in found.values():
        assert row["requests"] == 400
        # A quarter fails by chance; nothing but the failures that the worker makes is an error.
        assert set(row["errors"]) == {"INTERNAL"}
        assert 50 < row["errors"]["INTERNAL"] < 150
        assert row["compute_us"]["p50"] <= row["latency_us"]["p50"]


def answered(infer: Any, request: bytes) -> bytes:
    """The reply to a request that the worker may fail by chance."""
    for _ in range(50):
        with contextlib.suppress(grpc.RpcError):
            reply: bytes = infer(request)
            return reply
    raise AssertionError("fifty failures in a row")


@pytest.mark.parametrize("transport", ["wire", "grpcio"])
def test_targets_behind_mutual_tls_and_a_token_are_driven(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path, transport: str
) -> None:
    certificates(tmp_path)
    (tmp_path / "token").write_text("a-secret-token\n")
    worker = serve(
        *("--accelerator", "sim:0", *SIM, "--token-file", "token"),
        *("--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", "ca.pem"),
    )
    access = ("--target-ca", "ca.pem", "--target-cert", "client.pem", "--target-key", "client.key")
    run = ("--headless", "-u", "1", "--requests", "50", "--targets", worker.address, "--transport", transport)

    driven = locust(*run, *access, "--target-token-file", "token", "--run-dir", "run")
    refused = locust(*run, *access, "--loglevel", "WARNING")
    plain = locust(*run, "--loglevel", "WARNING")

    assert driven.code in (0, 1), driven.err
    assert rows(tmp_path / "run")[0]["answered"] == 50
    assert (refused.code, plain.code) == (2, 2)
    assert "UNAUTHENTICATED" in refused.err
    assert "UNAVAILABLE" in plain.err
    for file in (tmp_path / "run").iterdir():
        assert b"a-secret-token" not in file.read_bytes()


def certificates(folder: Path) -> None:
    """A certificate authority, a server for 127.0.0.1 and a client, by openssl."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name in ("server", "client"):
        openssl("req", *key[:5], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-out", f"{name}.pem", "-extfile", "names"),
        )


def test_a_run_until_resolved_stops_when_the_verdict_is_clear(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    worker = serve("--accelerator", "sim:0", *SIM)
    run = ("--headless", "-u", "1", "-t", "60s", "--targets", worker.address, "--until", "resolved")

    met = locust(*run, "--slo", "p90=100ms", "--run-dir", "met")
    missed = locust(*run, "--slo", "p90=1ms", "--run-dir", "missed")
    without = locust("--headless", "--until", "resolved", "--loglevel", "WARNING", "--targets", worker.address)

    assert [row["verdict"] for row in rows(tmp_path / "met")] == ["met"]
    assert [row["verdict"] for row in rows(tmp_path / "missed")] == ["missed"]
    for name in ("met", "missed"):
        assert json.loads((tmp_path / name / "run.json").read_text())["duration_s"] < 50
    assert (met.code in (0, 1), missed.code, without.code) == (True, 1, 2)
