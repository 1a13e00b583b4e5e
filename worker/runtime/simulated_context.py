"""SimulatedContext: the execution context of `sim:N`, which sleeps a service time instead of running a model."""

import ctypes
import random
import sys
import time
from collections.abc import Sequence

from worker.runtime.context import ForwardPass, WarmUp
from worker.runtime.coupling import CoupledOrdinal
from worker.runtime.model_file import Specification
from worker.runtime.simulation import Simulation, parse_service_time
from worker.runtime.tensors import Tensor, TensorSpec, byte_size

# The specification of a simulated worker without a model file.
DEFAULT_SPECIFICATION = Specification(
    name="sim",
    mode="foreign",
    inputs=(TensorSpec(name="INPUT", datatype="FP32", shape=(-1, 16), example=(1, 16)),),
    outputs=(TensorSpec(name="OUTPUT", datatype="FP32", shape=(-1, 16)),),
)

_PR_SET_TIMERSLACK = 29


class InjectedError(RuntimeError):
    """A failure of a forward pass that `--sim-failure-rate` asks for."""


class SimulatedContext:
    """Sleeps, then returns zeros in the shapes of the specification. Never imports torch."""

    def __init__(
        self,
        simulation: Simulation,
        specification: Specification = DEFAULT_SPECIFICATION,
        coupling: CoupledOrdinal | None = None,
    ) -> None:
        self.specification = specification
        self.parameter_bytes = 0
        self.precision = ""
        self.threads = 0
        self._simulation = simulation
        self._coupling = coupling
        self._service_time = parse_service_time(simulation.text)
        self._rng = random.Random(simulation.seed)

    def load(self) -> None:
        """Makes the sleeps of this thread precise."""
        _reduce_timer_slack()

    def run(self, batch: Sequence[Sequence[Tensor]]) -> ForwardPass:
        begin_ns = time.perf_counter_ns()
        rows = sum(request[0].shape[0] if request[0].shape else 1 for request in batch)
        simulation = self._simulation
        service_ns = self._service_time(self._rng) + simulation.per_row_ns * (rows - 1)
        if simulation.stall_rate and self._rng.random() < simulation.stall_rate:
            service_ns += simulation.stall_ns
        if self._coupling is not None:
            service_ns = self._coupling.extend(service_ns)
        outputs = [self._zeros(request) for request in batch]
        if (rest_ns := begin_ns + service_ns - time.perf_counter_ns()) > 0:
            time.sleep(rest_ns / 1e9)
        if simulation.failure_rate and self._rng.random() < simulation.failure_rate:
            raise InjectedError("simulated failure (--sim-failure-rate)")
        return ForwardPass(outputs, 0, time.perf_counter_ns() - begin_ns, 0)

    def warm_up(self, batch_sizes: Sequence[int]) -> WarmUp:
        """Does nothing: a simulated accelerator has no first inference, and its failures are for requests."""
        return WarmUp(0, [])

    def peak_bytes(self) -> int:
        return 0

    def versions(self) -> dict[str, str]:
        return {}

    def _zeros(self, request: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs. A free dimension has the size of the first input's at the same position, or 1."""
        input_shape = request[0].shape
        tensors = []
        for spec in self.specification.outputs:
            shape = tuple(
                size if size != -1 else input_shape[position] if position < len(input_shape) else 1
                for position, size in enumerate(spec.shape)
            )
            tensors.append(Tensor(spec.datatype, shape, bytes(byte_size(spec.datatype, shape))))
        return tuple(tensors)


def _reduce_timer_slack() -> None:
    """Takes this thread's timer slack from 50 µs to the least there is, so that a sleep ends when it should."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
