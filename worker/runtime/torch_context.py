"""TorchContext: the execution context that runs a TorchScript model on an accelerator."""

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.accelerators import AcceleratorKind
from worker.errors import InputError
from worker.runtime.context import ForwardPass, WarmUp
from worker.runtime.model_file import Specification
from worker.runtime.staging import PinnedCopy, Staging, device_bytes, host_bytes
from worker.runtime.tensors import NUMPY_TYPES, Tensor, TensorSpec

if TYPE_CHECKING:
    import torch

# Warm-up of one batch size ends when the last inference took at most this many times the fastest, after so many
# inferences at least and at most.
_STEADY_RATIO = 1.25
_MIN_WARM_UPS = 3
_MAX_WARM_UPS = 20

PRECISIONS = ("fp32", "bf16", "fp16")


class TorchContext:
    """Loads, freezes and runs one model on the ordinal that the process is bound to.

    `threads` is the number of threads of one forward pass (0: torch's default). `precision` is the number format of the
    parameters and of floating-point inputs; outputs have the data type of the specification whatever it is.
    `inference_mode` False computes under no_grad only.
    """

    def __init__(
        self,
        kind: AcceleratorKind,
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
        # How long the first inference took, where `load` ran one already.
        self._first_ns = 0
        self.precision = precision
        self.threads = threads
        self._kind = kind
        self._ordinal = ordinal
        self._path = path
        self._inference_mode = inference_mode
        self._contexts = contextlib.ExitStack()
        self._forward: Any = None

    def load(self) -> None:
        """Imports torch, loads the model and enters the contexts in this thread. Raises InputError."""
        try:
            import torch
        except ImportError:
            raise InputError("serving a model needs torch: pip install 'inferload[worker]'") from None
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        if self.threads:
            torch.set_num_threads(self.threads)
        self.threads = torch.get_num_threads()
        self._torch = torch
        self._dtypes = _dtypes(torch)
        try:
            module = self._kind.load(self._path, self._ordinal)
        except RuntimeError as error:
            raise InputError(f"{self._path} cannot be loaded: {_first_line(error)}") from None
        module.eval()
        self._cast = None
        if self.precision != "fp32":
            if not self._kind.casts:
                raise InputError(f"{self._kind.name} chooses the number format when the model is compiled")
            self._cast = {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
            module.to(self._cast)
        tensors = [*module.parameters(), *module.buffers()]
        self.parameter_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if self._kind.freezes and hasattr(module, "training"):  # a module that was frozen before has no such attribute
            module = torch.jit.freeze(module)
        self._contexts.enter_context(torch.inference_mode() if self._inference_mode else torch.no_grad())
        self._contexts.enter_context(self._kind.forward_context(self._ordinal))
        pinned = self._kind.is_cuda
        self._staging = [Staging(torch, self._dtypes[spec.datatype], pinned) for spec in self.specification.inputs]
        self._needs_move = self._cast is not None or self._kind.device != "cpu"
        self._synchronize = self._kind.synchronize
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(4)] if pinned else []
        on_cpu = self._kind.device == "cpu"
        self._copy_out = PinnedCopy(torch) if pinned else host_bytes if on_cpu else device_bytes
        self._forward = module.forward  # the call operator adds hooks, which a loaded module has none of
        if not self.specification.outputs:
            self.specification = self.specification.model_copy(update={"outputs": self._observed_outputs()})

    def run(self, batch: Sequence[Sequence[Tensor]]) -> ForwardPass:
        """Copies a batch in, runs the model, copies the outputs out. Raises what the model raises."""
        events = self._events
        if events:
            events[0].record()
        begin_ns = time.perf_counter_ns()
        if len(batch) == 1:
            inputs = [staging.fill(tensor) for staging, tensor in zip(self._staging, batch[0], strict=True)]
        else:
            inputs = [staging.join([request[n] for request in batch]) for n, staging in enumerate(self._staging)]
        if self._needs_move:
            inputs = [self._move(tensor) for tensor in inputs]
        copied_ns = time.perf_counter_ns()
        if events:
            events[1].record()
        result = self._forward(*inputs)
        if events:
            events[2].record()
        self._synchronize()
        computed_ns = time.perf_counter_ns()
        outputs = [result] if isinstance(result, self._torch.Tensor) else list(_flatten(result))
        specs = self.specification.outputs
        if len(outputs) != len(specs):
            raise RuntimeError(f"the model returned {len(outputs)} outputs; its specification has {len(specs)}")
        whole = tuple([self._output(tensor, spec) for tensor, spec in zip(outputs, specs, strict=True)])
        rows = [whole] if len(batch) == 1 else _split(specs, whole, [request[0].shape[0] for request in batch])
        done_ns = time.perf_counter_ns()
        if events:
            # The device's own times: on the host's clock a copy-in ends when it has been started.
            events[3].record()
            events[3].synchronize()
            return ForwardPass(rows, *(round(a.elapsed_time(b) * 1e6) for a, b in pairwise(events)))
        return ForwardPass(rows, copied_ns - begin_ns, computed_ns - copied_ns, done_ns - computed_ns)

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        """Runs the first inference, then repeats until steady: TorchScript profiles on call 1 and optimizes on call 2.

        Each of `batch_sizes` (rows) has its own repetitions, because each may be compiled anew.
        """
        try:
            first_ns = self._first_ns or self._example_ns(None)
            later_ns: list[int] = []
            for rows in batch_sizes or (None,):
                later_ns += self._steady_ns(rows)
        except (RuntimeError, ValueError, IndexError) as error:
            raise InputError(f"the model fails on its own example input: {_last_line(error)}") from None
        return WarmUp(first_ns, later_ns)

    def _steady_ns(self, rows: int | None) -> list[int]:
        times: list[int] = []
        while len(times) < _MIN_WARM_UPS or (times[-1] > _STEADY_RATIO * min(times) and len(times) < _MAX_WARM_UPS):
            times.append(self._example_ns(rows))
        return times

    def _example_ns(self, rows: int | None) -> int:
        """Returns how long an inference on the example input takes, in nanoseconds."""
        inputs = [spec.example_tensor(rows) for spec in self.specification.inputs]
        begin_ns = time.perf_counter_ns()
        self.run([inputs])
        return time.perf_counter_ns() - begin_ns

    def peak_bytes(self) -> int:
        return self._kind.peak_bytes()

    def versions(self) -> dict[str, str]:
        return {"torch": str(self._torch.__version__), **self._kind.versions()}

    def _move(self, tensor: "torch.Tensor") -> "torch.Tensor":
        if self._kind.device != "cpu":
            # From page-locked memory the copy may overlap other work: forward waits for it on the current stream.
            tensor = tensor.to(self._kind.device, non_blocking=self._kind.is_cuda)
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
        """Returns names and shapes of a foreign model's outputs: two runs show which dimensions are free."""
        names = {dtype: name for name, dtype in self._dtypes.items()}

        def outputs(any_size: int) -> list["torch.Tensor"]:
            examples = [spec.example_tensor(any_size=any_size) for spec in self.specification.inputs]
            inputs = [self._move(staging.fill(one)) for staging, one in zip(self._staging, examples, strict=True)]
            results = list(_flatten(self._forward(*inputs)))
            self._kind.synchronize()
            return results

        try:
            begin_ns = time.perf_counter_ns()
            first = outputs(1)
            self._first_ns = time.perf_counter_ns() - begin_ns
        except RuntimeError as error:
            raise InputError(
                f"the model does not accept the inputs that --input describes: {_last_line(error)}"
            ) from None
        try:
            second = outputs(2)
        except RuntimeError:
            second = first  # the dimension is fixed, although --input calls it free
        specs = []
        for position, (one, other) in enumerate(zip(first, second, strict=True)):
            if one.dtype not in names:
                raise InputError(f"output {position} has type {one.dtype}, which the protocol does not have")
            shape = tuple(a if a == b and a > 0 else -1 for a, b in zip(one.shape, other.shape, strict=True))
            specs.append(TensorSpec(name=f"output_{position}", datatype=names[one.dtype], shape=shape))
        return tuple(specs)


def _dtypes(torch: Any) -> dict[str, Any]:
    """Returns torch's data types by the protocol's names, without those that this version of torch lacks.

    Torch uses numpy's names, and has the wide unsigned types since 2.3.
    """
    names = {name: dtype.name for name, dtype in NUMPY_TYPES.items()} | {"BF16": "bfloat16"}
    return {name: getattr(torch, attribute) for name, attribute in names.items() if hasattr(torch, attribute)}


def _flatten(result: Any) -> "Iterator[torch.Tensor]":
    """Yields the tensors in whatever a model returns: a tensor, or nested sequences and mappings of tensors."""
    if hasattr(result, "dtype"):
        yield result
    else:
        for part in result.values() if isinstance(result, Mapping) else result:
            yield from _flatten(part)


def _split(specs: Sequence[TensorSpec], columns: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Cuts each output, whose first dimension is the sum of `sizes`, into the rows of each request."""
    total = sum(sizes)
    for spec, (_, shape, _) in zip(specs, columns, strict=True):
        if shape[:1] != (total,):
            raise RuntimeError(f"output {spec.name} has shape {list(shape)}; expected {total} rows as in the inputs")
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
    """Returns the last line of an error: TorchScript writes its own stack before it."""
    return ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1].strip()
