"""Outputs over the wire have the bits that the model gives in process, from eight threads at once.

What is promised, exactly: the frozen module's bits, in inference mode, with as many threads as the worker has.
Freezing folds batch norms into convolutions, which changes ResNet-18's low-order bits; GPT's stay. A request that was
joined with others gets the bits of its rows in one pass over the joined batch. Kernels sum in an order that depends on
how many rows there are, so these can differ from a pass alone in the low-order bits, and are always one of the few that
the batch sizes give.

INFERLOAD_EXACT_INPUTS=1000 runs as many inputs for each, through GPT at its full size too; that takes half an hour.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from torch import nn

from worker.runtime import Specification, TensorSpec
from worker.runtime.model_file import save_model
from worker.wire import accelerator_pb2 as ours
from worker.wire import accelerator_pb2_grpc as ours_grpc
from worker.wire import open_inference_pb2 as oip
from worker.wire import open_inference_pb2_grpc as oip_grpc

FULL = int(os.environ.get("INFERLOAD_EXACT_INPUTS", "0"))
THREADS = 8
VOCABULARY, WIDTH, HEADS = 500, 64, 4


class Block(nn.Module):
    """GPT's: causal attention and a feed-forward layer, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.forward_layer = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.attend(self.before(x)).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.forward_layer(self.after(x))


class SmallGpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.tokens(tokens) + self.places(torch.arange(tokens.shape[1])))


@dataclass(frozen=True)
class Subject:
    """A model file, its input, how to draw one, and how many are tried alone and joined in batches of up to `most`."""

    path: Path
    name: str
    input_spec: TensorSpec
    draw: Callable[[np.random.Generator], np.ndarray[Any, Any]]
    alone: int
    joined: int
    most: int


def tokens(vocabulary: int) -> Callable[[np.random.Generator], np.ndarray[Any, Any]]:
    return lambda rng: rng.integers(0, vocabulary, (int(rng.integers(1, 3)), int(rng.integers(1, 13))), np.int64)


def image(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.standard_normal((1, 3, 224, 224), np.float32)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(5)
    input_spec = TensorSpec(name="tokens", datatype="INT64", shape=(-1, -1), example=(1, 7), high=VOCABULARY)
    output_spec = TensorSpec(name="hidden", datatype="FP32", shape=(-1, -1, WIDTH))
    traced = torch.jit.trace(SmallGpt().eval(), torch.zeros(1, 7, dtype=torch.int64))
    small = Specification(name="small", mode="trace", inputs=(input_spec,), outputs=(output_spec,))
    save_model(traced, folder / "small.pt", small)
    pixels = TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 224, 224))
    files = {
        "small": Subject(folder / "small.pt", "small", input_spec, tokens(VOCABULARY), FULL or 1000, FULL or 200, 8),
        "resnet18": Subject(folder / "resnet18.pt", "resnet18", pixels, image, FULL or 12, FULL or 6, 2),
    }
    if FULL:
        words = TensorSpec(name="input_ids", datatype="INT64", shape=(-1, -1))
        files["gpt"] = Subject(folder / "gpt.pt", "gpt", words, tokens(40478), FULL, FULL, 4)
    for name in files.keys() - {"small"}:
        command = [sys.executable, "-m", "worker", "export", name, "--out", str(folder / f"{name}.pt")]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return files


class InProcess:
    """The same file, loaded as anyone would."""

    def __init__(self, path: Path, example: np.ndarray[Any, Any]) -> None:
        self._module = torch.jit.freeze(torch.jit.load(str(path)).eval())
        for _ in range(3):  # TorchScript profiles on call 1, optimizes on call 2
            self(example)

    def __call__(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            output = self._module(torch.from_numpy(values.copy()))
        return (output if isinstance(output, torch.Tensor) else output[0]).numpy()  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as the worker has: how a sum is split among threads decides its low-order bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def answers(address: str, subject: Subject, inputs: list[np.ndarray[Any, Any]]) -> list[bytes]:
    """What the worker gives for each, asked for from eight threads at once."""
    with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(THREADS) as pool:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)

        def one(values: np.ndarray[Any, Any]) -> bytes:
            tensor = {"name": subject.input_spec.name, "datatype": subject.input_spec.datatype, "shape": values.shape}
            request = oip.ModelInferRequest(
                model_name=subject.name, inputs=[tensor], raw_input_contents=[values.tobytes()]
            )
            return stub.ModelInfer(request, timeout=120).raw_output_contents[0]  # type: ignore[no-any-return]

        return list(pool.map(one, inputs))


def executions(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub = ours_grpc.AcceleratorServiceStub(channel)
        return int(stub.Snapshot(ours.SnapshotRequest(), timeout=10).executions)


NAMES = ["small", "resnet18", *(["gpt"] if FULL else [])]


@pytest.mark.timeout(180 if not FULL else 3600)
@pytest.mark.parametrize("name", NAMES)
def test_a_request_alone_has_the_bits_of_the_model(name: str, serve: Callable[..., Any], subjects: Any) -> None:
    subject = subjects[name]
    rng = np.random.default_rng(1)
    inputs = [subject.draw(rng) for _ in range(subject.alone)]
    worker = serve(str(subject.path))
    responses = answers(worker.address, subject, inputs)
    assert executions(worker.address) == len(inputs)
    assert worker.end() == 0
    model = InProcess(subject.path, inputs[0])
    different = [place for place, values in enumerate(inputs) if responses[place] != model(values).tobytes()]
    assert different == []


@pytest.mark.timeout(180 if not FULL else 3600)
@pytest.mark.parametrize("name", NAMES)
def test_a_joined_request_has_the_bits_of_its_rows_in_a_batch(
    name: str, serve: Callable[..., Any], subjects: Any
) -> None:
    subject = subjects[name]
    rng = np.random.default_rng(2)
    shape = subject.draw(rng)[:1].shape  # one shape, so that all may be joined
    high = subject.input_spec.high or 40478
    inputs = [
        rng.integers(0, high, shape, np.int64) if subject.input_spec.datatype == "INT64" else subject.draw(rng)
        for _ in range(subject.joined)
    ]
    worker = serve(str(subject.path), "--max-batch-size", str(subject.most), "--max-queue-delay-us", "2000")
    responses = answers(worker.address, subject, inputs)
    assert executions(worker.address) < len(inputs)
    assert worker.end() == 0
    model = InProcess(subject.path, inputs[0])

    def possible(values: np.ndarray[Any, Any]) -> set[bytes]:
        """Of every batch size, every row's bits where all rows are this one: what the others hold has no effect."""
        batches = (model(np.repeat(values, size, axis=0)) for size in range(1, subject.most + 1))
        return {row.tobytes() for batch in batches for row in batch}

    different = [place for place, values in enumerate(inputs) if responses[place] not in possible(values)]
    assert different == []
