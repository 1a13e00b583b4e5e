"""A model on an ordinal gives, bit for bit, what it gives in process, and its context surrounds forward in the thread
that calls it. A stand-in replaces Elastic Inference, whose service is closed."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worker.accelerators import KindOptions
from worker.accelerators.cpu import Cpu
from worker.accelerators.elastic_inference import ElasticInference
from worker.errors import InputError
from worker.runtime import Specification, Tensor, TensorSpec, TorchContext, parse_tensor_spec, read_specification
from worker.runtime.model_file import save_model
from worker.serving.batch_queue import BatchingPolicy, Job, JobResult
from worker.serving.executor import BatchExecutor


class Two(torch.nn.Module):
    """(N, 4) and (N, 4) -> (N, 3) and (N, 4) of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x + y), (y * 10).to(torch.int32)


SPECIFICATION = Specification(
    name="two",
    mode="trace",
    inputs=tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 4)) for name in "xy"),
    outputs=(
        TensorSpec(name="sum", datatype="FP32", shape=(-1, 3)),
        TensorSpec(name="tens", datatype="INT32", shape=(-1, 4)),
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "two.pt"
    save_model(torch.jit.trace(Two().eval(), (torch.rand(1, 4), torch.rand(1, 4))), file, SPECIFICATION)
    return file


@pytest.fixture(autouse=True)
def _leave_inference_mode() -> Iterator[None]:
    """Loading enters a context for the life of its thread, which here is the test's."""
    with torch.inference_mode(False):
        yield


def on_cpu(path: Path, **more: Any) -> TorchContext:
    context = TorchContext(Cpu(), 0, path, read_specification(path), threads=1, **more)
    context.load()
    return context


def feed(rows: int, seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((rows, 4)).astype(np.float32) for _ in range(2)]
    return [Tensor("FP32", (rows, 4), memoryview(b"x" + array.tobytes())[1:]) for array in arrays]


def in_process(tensors: list[Tensor]) -> list[bytes]:
    inputs = [torch.from_numpy(np.frombuffer(t.data, np.float32).reshape(t.shape).copy()) for t in tensors]
    with torch.no_grad():
        return [bytes(output.numpy().tobytes()) for output in Two().eval()(*inputs)]


def test_outputs_are_those_of_the_model_in_process(path: Path) -> None:
    context = on_cpu(path)
    for seed, rows in enumerate((1, 3, 1, 7, 2)):
        request = feed(rows, seed)
        (outputs,) = context.run([request]).outputs
        assert [output.data for output in outputs] == in_process(request)
        assert [output.shape for output in outputs] == [(rows, 3), (rows, 4)]


def test_a_joined_batch_gives_each_request_its_own_rows(path: Path) -> None:
    context = on_cpu(path)
    requests = [feed(rows, 10 + rows) for rows in (2, 1, 3)]
    answers = context.run(requests).outputs
    for request, outputs in zip(requests, answers, strict=True):
        assert outputs[0].shape == (request[0].shape[0], 3)
        assert outputs[1].data == in_process(request)[1]
        got, expected = np.frombuffer(outputs[0].data, np.float32), np.frombuffer(in_process(request)[0], np.float32)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_first_inference_is_kept_apart_from_at_least_three_more(path: Path) -> None:
    context = on_cpu(path)
    warm = context.warm_up(())
    assert warm.first_ns > 0
    assert len(warm.later_ns) >= 3


def test_each_served_batch_size_is_warmed(path: Path) -> None:
    assert len(on_cpu(path).warm_up(range(1, 5)).later_ns) >= 12


def test_a_narrow_format_travels_as_the_specification_says(path: Path) -> None:
    context = on_cpu(path, precision="bf16")
    request = feed(2, 5)
    (outputs,) = context.run([request]).outputs
    exact = np.frombuffer(in_process(request)[0], np.float32)
    got = np.frombuffer(outputs[0].data, np.float32)
    assert outputs[0].datatype == "FP32"
    assert not np.array_equal(got, exact)
    np.testing.assert_allclose(got, exact, rtol=0.05, atol=0.05)


class Event:
    """Stands in for a CUDA event: times in milliseconds, in the order of recording."""

    clock = 0

    def record(self) -> None:
        Event.clock += 1
        self.at = Event.clock**2

    def synchronize(self) -> None: ...

    def elapsed_time(self, later: "Event") -> float:
        return float(later.at - self.at)


def test_on_cuda_the_three_parts_are_the_devices_own_times(path: Path) -> None:
    context = on_cpu(path)
    context._events = [Event() for _ in range(4)]
    forward_pass = context.run([feed(1, 0)])
    assert (forward_pass.input_ns, forward_pass.infer_ns, forward_pass.output_ns) == (3_000_000, 5_000_000, 7_000_000)


@pytest.mark.parametrize("inference_mode", [True, False])
def test_nothing_is_recorded_for_a_gradient(path: Path, inference_mode: bool) -> None:
    context = on_cpu(path, inference_mode=inference_mode)
    assert context.precision == "fp32"
    assert not torch.is_grad_enabled()
    assert torch.is_inference_mode_enabled() is inference_mode
    torch.set_grad_enabled(True)


def test_a_foreign_model_is_run_to_see_what_it_gives(tmp_path: Path) -> None:
    file = tmp_path / "foreign.pt"
    torch.jit.save(torch.jit.script(Two().eval()), str(file))
    specification = read_specification(file, [parse_tensor_spec("x:FP32:-1,4"), parse_tensor_spec("y:FP32:-1,4")])
    context = TorchContext(Cpu(), 0, file, specification, threads=1)
    context.load()
    assert [(s.name, s.datatype, s.shape) for s in context.specification.outputs] == [
        ("output_0", "FP32", (-1, 3)),
        ("output_1", "INT32", (-1, 4)),
    ]
    assert context.warm_up(()).first_ns > 0


def test_a_foreign_model_that_does_not_take_the_input_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "foreign.pt"
    torch.jit.save(torch.jit.script(Two().eval()), str(file))
    specification = read_specification(file, [parse_tensor_spec("x:FP32:-1,5"), parse_tensor_spec("y:FP32:-1,5")])
    with pytest.raises(InputError, match="does not accept the inputs that --input describes") as raised:
        TorchContext(Cpu(), 0, file, specification).load()
    assert "\n" not in str(raised.value)


# Elastic Inference.


@dataclass
class Calls:
    targets: list[object] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)
    forward: list[int] = field(default_factory=list)


def elastic_inference(calls: Calls) -> ElasticInference:
    class Watched(ElasticInference):
        def synchronize(self) -> None:  # called after each forward, in the same thread
            calls.forward.append(threading.get_ident())

    return Watched(KindOptions(ei_tool=Path("unused")))


async def served_once(context: TorchContext) -> None:
    loop = asyncio.get_running_loop()
    executor = BatchExecutor(context, BatchingPolicy(), loop)
    await executor.call(context.load)
    result: asyncio.Future[JobResult | BaseException] = loop.create_future()
    executor.submit(Job(feed(1, 0)), result.set_result)
    assert isinstance(await result, JobResult)
    assert await executor.stop(10)


def test_the_target_device_surrounds_forward_in_the_thread_that_calls_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()

    @contextlib.contextmanager
    def optimized_execution(on: bool, options: dict[str, str]) -> Iterator[None]:
        calls.targets.append(options["target_device"])
        calls.entered.append(threading.get_ident())
        yield

    monkeypatch.setattr(torch.jit, "optimized_execution", optimized_execution)
    asyncio.run(served_once(TorchContext(elastic_inference(calls), 1, path, read_specification(path))))
    assert calls.targets == ["eia:1"]
    assert set(calls.forward) == set(calls.entered)
    assert threading.get_ident() not in calls.forward


def test_the_later_build_attaches_the_model_to_the_ordinal(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "torcheia"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import jit\n")
    (package / "jit.py").write_text(
        "calls = []\ndef attach_eia(model, ordinal):\n    calls.append(ordinal)\n    return model\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    profiling: list[bool] = []
    monkeypatch.setattr(torch._C, "_jit_set_profiling_executor", profiling.append)
    calls = Calls()
    asyncio.run(served_once(TorchContext(elastic_inference(calls), 2, path, read_specification(path))))
    attached = sys.modules.pop("torcheia.jit")
    sys.modules.pop("torcheia")
    assert attached.calls == [2]
    assert profiling == [False]
    assert len(calls.forward) == 1


def test_a_stock_pytorch_is_refused_in_plain_words(path: Path) -> None:
    context = TorchContext(ElasticInference(KindOptions(ei_tool=Path("unused"))), 0, path, read_specification(path))
    with pytest.raises(InputError, match="was not built for Elastic Inference"):
        context.load()
