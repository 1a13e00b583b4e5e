"""ExecutionContext: one TorchScript model on one accelerator ordinal, for life, driven by one thread."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from worker.accelerators.kinds import Kind
from worker.errors import UsageError
from worker.runtime.model_file import Specification
from worker.runtime.staging import PinnedCopy, Staging, device_bytes, host_bytes
from worker.runtime.tensors import Tensor, TensorSpec

if TYPE_CHECKING:
    import torch

# Steady: the last warm-up inference took no longer than this many times the fastest. Bounded in case it never is.
STEADY = 1.25
WARMUP_LEAST = 3
WARMUP_MOST = 20

PRECISIONS = ("fp32", "bf16", "fp16")


class Ran(NamedTuple):
    """One forward pass: each request's outputs, and how long copy-in, forward and copy-out took, in nanoseconds."""

    outputs: list[tuple[Tensor, ...]]
    input_ns: int
    infer_ns: int
    output_ns: int


class WarmUp(NamedTuple):
    """How long the first inference took, and those after it, in nanoseconds; 0 and none where there were none."""

    first_ns: int
    later_ns: list[int]


class Context(Protocol):
    """What the executor thread drives. All but the attributes is called in that one thread."""

    specification: Specification
    # Parameters and buffers as loaded, in bytes.
    parameter_bytes: int
    precision: str
    threads: int

    def load(self) -> None: ...

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        """Runs what must have been run before the first request; each of `batch_sizes` will be served."""

    def run(self, batch: Sequence[Sequence[Tensor]]) -> Ran:
        """One forward pass over one or more requests, whose tensors differ in their first dimension at most."""

    def peak_bytes(self) -> int: ...

    def versions(self) -> dict[str, str]: ...


def warm_up(context: "ExecutionContext", batch_sizes: Sequence[int] = ()) -> WarmUp:
    """Runs the first inference, then repeats until steady: TorchScript profiles on call 1 and optimizes on call 2.

    Each of `batch_sizes` gets its own repetitions, because each may be compiled anew.
    """

    def timed(rows: int | None) -> int:
        feed = [spec.example_tensor(rows) for spec in context.specification.inputs]
        begin = time.perf_counter_ns()
        context.run([feed])
        return time.perf_counter_ns() - begin

    first = context.first_ns or timed(None)
    later: list[int] = []
    for rows in batch_sizes or (None,):
        took: list[int] = []
        while len(took) < WARMUP_LEAST or (took[-1] > STEADY * min(took) and len(took) < WARMUP_MOST):
            took.append(timed(rows))
        later += took
    return WarmUp(first, later)


class ExecutionContext:
    """Loads, freezes and runs one model on the ordinal that the process is bound to.

    `precision` is the number format of the parameters and of floating inputs; outputs travel as the specification
    says whatever it is. `inference_mode` False computes under no_grad only.
    """

    def __init__(
        self,
        kind: Kind,
        ordinal: int,
        path: Path,
        specification: Specification,
        *,
        threads: int = 0,
        precision: str = "fp32",
        inference_mode: bool = True,
    ) -> None:
        self.specification = specification
        self.parameter_bytes = 0
        # How long the first inference took, where loading needed one already.
        self.first_ns = 0
        self.precision = precision
        self.threads = threads
        self._kind = kind
        self._ordinal = ordinal
        self._path = path
        self._inference_mode = inference_mode
        self._life = contextlib.ExitStack()
        self._forward: Any = None

    def load(self) -> None:
        """Imports torch, loads the model and enters the contexts in this thread. UsageError in one sentence."""
        try:
            import torch
        except ImportError:
            raise UsageError("serving a model needs torch: pip install 'inferload[worker]'") from None
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        if self.threads:
            torch.set_num_threads(self.threads)
        self.threads = torch.get_num_threads()
        self._torch = torch
        self._dtypes = _dtypes(torch)
        try:
            module = self._kind.load(self._path, self._ordinal)
        except RuntimeError as error:
            raise UsageError(f"{self._path} cannot be loaded: {_first_line(error)}") from None
        module.eval()
        self._cast = None
        if self.precision != "fp32":
            if not self._kind.casts:
                raise UsageError(f"{self._kind.name} chooses the number format when the model is compiled")
            self._cast = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
            module.to(self._cast)
        held = [*module.parameters(), *module.buffers()]
        self.parameter_bytes = sum(tensor.numel() * tensor.element_size() for tensor in held)
        if self._kind.freezes and hasattr(module, "training"):  # a module that was frozen before has lost it
            module = torch.jit.freeze(module)
        self._life.enter_context(torch.inference_mode() if self._inference_mode else torch.no_grad())
        self._life.enter_context(self._kind.context(self._ordinal))
        pinned = self._kind.device.startswith("cuda")
        self._staging = [Staging(torch, self._dtypes[spec.datatype], pinned) for spec in self.specification.inputs]
        self._moves = self._cast is not None or self._kind.device != "cpu"
        self._synchronize = self._kind.synchronize
        self._marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)] if pinned else []
        on_cpu = self._kind.device == "cpu"
        self._copy_out = PinnedCopy(torch) if pinned else host_bytes if on_cpu else device_bytes
        self._forward = module.forward  # the call operator adds hooks, which a loaded module has none of
        if not self.specification.outputs:
            self.specification = self.specification.model_copy(update={"outputs": self._observed_outputs()})

    def run(self, batch: Sequence[Sequence[Tensor]]) -> Ran:
        marks = self._marks
        if marks:
            marks[0].record()
        begin = time.perf_counter_ns()
        if len(batch) == 1:
            inputs = [staging.one(tensor) for staging, tensor in zip(self._staging, batch[0], strict=True)]
        else:
            inputs = [staging.joined([request[n] for request in batch]) for n, staging in enumerate(self._staging)]
        if self._moves:
            inputs = [self._moved(tensor) for tensor in inputs]
        given = time.perf_counter_ns()
        if marks:
            marks[1].record()
        given_back = self._forward(*inputs)
        if marks:
            marks[2].record()
        self._synchronize()
        computed = time.perf_counter_ns()
        outputs = [given_back] if isinstance(given_back, self._torch.Tensor) else list(_flatten(given_back))
        specs = self.specification.outputs
        if len(outputs) != len(specs):
            raise RuntimeError(f"the model gave {len(outputs)} outputs where its specification has {len(specs)}")
        whole = tuple([self._output(tensor, spec) for tensor, spec in zip(outputs, specs, strict=True)])
        rows = [whole] if len(batch) == 1 else _split(specs, whole, [request[0].shape[0] for request in batch])
        done = time.perf_counter_ns()
        if marks:
            # The device's own times: the host's see a copy in as no longer than its start takes.
            marks[3].record()
            marks[3].synchronize()
            return Ran(rows, *(round(a.elapsed_time(b) * 1e6) for a, b in pairwise(marks)))
        return Ran(rows, given - begin, computed - given, done - computed)

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        try:
            return warm_up(self, batch_sizes)
        except (RuntimeError, ValueError, IndexError) as error:
            raise UsageError(f"the model fails on its own example input: {_last_line(error)}") from None

    def peak_bytes(self) -> int:
        return self._kind.peak_bytes()

    def versions(self) -> dict[str, str]:
        return {"torch": str(self._torch.__version__), **self._kind.versions()}

    def _moved(self, tensor: "torch.Tensor") -> "torch.Tensor":
        if self._kind.device != "cpu":
            # From page-locked memory it may run beside: on the current stream, so that forward waits for it.
            tensor = tensor.to(self._kind.device, non_blocking=self._kind.device.startswith("cuda"))
        return tensor.to(self._cast) if self._cast is not None and tensor.is_floating_point() else tensor

    def _output(self, tensor: "torch.Tensor", spec: TensorSpec) -> Tensor:
        dtype = self._dtypes[spec.datatype]
        if tensor.dtype is not dtype:
            tensor = tensor.to(dtype)
        shape = tuple(tensor.shape)
        if dtype is self._torch.bfloat16:
            tensor = tensor.contiguous().view(self._torch.int16)
        return Tensor(spec.datatype, shape, self._copy_out(tensor))

    def _observed_outputs(self) -> tuple[TensorSpec, ...]:
        """Names and shapes of a foreign model's outputs: run it twice, and a dimension that changes is a free one."""
        names = {dtype: name for name, dtype in self._dtypes.items()}

        def outputs(any_size: int) -> list["torch.Tensor"]:
            feeds = [spec.example_tensor(any_size=any_size) for spec in self.specification.inputs]
            inputs = [self._moved(staging.one(feed)) for staging, feed in zip(self._staging, feeds, strict=True)]
            found = list(_flatten(self._forward(*inputs)))
            self._kind.synchronize()
            return found

        try:
            begin = time.perf_counter_ns()
            first = outputs(1)
            self.first_ns = time.perf_counter_ns() - begin
        except RuntimeError as error:
            raise UsageError(f"the model does not take what --input says: {_last_line(error)}") from None
        try:
            second = outputs(2)
        except RuntimeError:
            second = first  # one size only, whatever was said
        specs = []
        for position, (one, other) in enumerate(zip(first, second, strict=True)):
            if one.dtype not in names:
                raise UsageError(f"output {position} is of type {one.dtype}, which has no name in the protocol")
            shape = tuple(a if a == b and a > 0 else -1 for a, b in zip(one.shape, other.shape, strict=True))
            specs.append(TensorSpec(name=f"output_{position}", datatype=names[one.dtype], shape=shape))
        return tuple(specs)


def _dtypes(torch: Any) -> dict[str, Any]:
    names = {
        "BOOL": "bool",
        "UINT8": "uint8",
        "UINT16": "uint16",
        "UINT32": "uint32",
        "UINT64": "uint64",
        "INT8": "int8",
        "INT16": "int16",
        "INT32": "int32",
        "INT64": "int64",
        "FP16": "float16",
        "BF16": "bfloat16",
        "FP32": "float32",
        "FP64": "float64",
    }
    # Torch has the wide unsigned types since 2.3.
    return {name: getattr(torch, attribute) for name, attribute in names.items() if hasattr(torch, attribute)}


def _flatten(given: Any) -> "Iterator[torch.Tensor]":
    if hasattr(given, "dtype"):
        yield given
    else:
        for part in given.values() if isinstance(given, Mapping) else given:
            yield from _flatten(part)


def _split(specs: Sequence[TensorSpec], columns: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Cuts each output, whose first dimension is the sum of `sizes`, back into what each request gets."""
    total = sum(sizes)
    for spec, (_, shape, _) in zip(specs, columns, strict=True):
        if shape[:1] != (total,):
            raise RuntimeError(f"output {spec.name} of shape {list(shape)} has not the {total} rows that were given")
    result: list[tuple[Tensor, ...]] = []
    start = 0
    for size in sizes:
        parts = []
        for datatype, shape, data in columns:
            row = len(data) // total
            parts.append(Tensor(datatype, (size, *shape[1:]), data[start * row : (start + size) * row]))
        result.append(tuple(parts))
        start += size
    return result


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _last_line(error: Exception) -> str:
    """TorchScript puts its own stack first and what went wrong last."""
    return ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1].strip()
