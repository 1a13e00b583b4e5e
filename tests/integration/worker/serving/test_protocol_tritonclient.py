"""NVIDIA's Python client cannot tell a worker from Triton: every call that it has for our RPCs, plain and asyncio."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tools.environments import NotAvailable, environment

CLIENTS = Path(__file__).parents[2] / "clients"


@pytest.fixture(scope="module")
def triton_python() -> Path:
    """The interpreter of an environment with tritonclient: in this process its definitions would clash with ours."""
    try:
        return environment("tritonclient") / "bin/python"
    except NotAvailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def adding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(N, 16), (N, 16) -> their sum, their difference: integers, so that a client can tell right from wrong exactly."""

    class Adding(torch.nn.Module):
        def forward(self, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return one + other, one - other

    path = tmp_path_factory.mktemp("model") / "adding.pt"
    zeros = torch.zeros(2, 16, dtype=torch.int32)
    torch.jit.save(torch.jit.trace(Adding(), (zeros, zeros)), str(path))
    return path


@pytest.mark.parametrize("script", ["triton_grpc.py", "triton_aio.py"])
def test_every_call_of_tritonclient_is_answered(
    script: str, serve: Callable[..., Any], adding: Path, triton_python: Path
) -> None:
    inputs = ("--input", "INPUT0:INT32:-1,16", "--input", "INPUT1:INT32:-1,16")
    served = serve(str(adding), *inputs, "--max-batch-size", "8", "--priority-levels", "2")
    slow = serve("--accelerator", "sim:0", "--sim", "fixed:300ms")
    done = subprocess.run(
        [triton_python, CLIENTS / script, served.address, slow.address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    promises = (CLIENTS / script).read_text().count("\n@check\n")
    assert (done.returncode, done.stdout.count("ok "), "failed" in done.stdout) == (0, promises, False), (
        done.stdout + done.stderr
    )
    assert (served.end(), slow.end()) == (0, 0)
