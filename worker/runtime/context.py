"""ExecutionContext: what the executor thread drives, whether a model runs in it or service times are simulated."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from worker.runtime.model_file import Specification
from worker.runtime.tensors import Tensor


class ForwardPass(NamedTuple):
    """One forward pass: each request's outputs, and how long copy-in, forward and copy-out took, in nanoseconds."""

    outputs: list[tuple[Tensor, ...]]
    input_ns: int
    infer_ns: int
    output_ns: int


class WarmUp(NamedTuple):
    """How long the first inference took, and those after it, in nanoseconds; 0 and none where there were none."""

    first_ns: int
    later_ns: list[int]


class ExecutionContext(Protocol):
    """One model on one accelerator, as long as the process lives. All methods are called in one thread."""

    specification: Specification
    #: Size of parameters and buffers as loaded, in bytes.
    parameter_bytes: int
    #: Number format of the parameters (fp32, bf16, fp16); empty where none is loaded.
    precision: str
    #: Threads of one forward pass.
    threads: int

    def load(self) -> None:
        """Loads the model. Raises InputError where it cannot be loaded."""

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        """Runs what must have run before the first request; each of `batch_sizes` (rows) will be served."""

    def run(self, batch: Sequence[Sequence[Tensor]]) -> ForwardPass:
        """Runs one forward pass over one or more requests, whose tensors differ in their first dimension at most."""

    def peak_bytes(self) -> int:
        """Returns the most memory held on the accelerator so far; 0 where that is unknown."""

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries that run the model, by name."""
