"""Execution contexts: a TorchScript model on an accelerator, or simulated service times; model files and tensors."""

from worker.runtime.context import ExecutionContext, ForwardPass, WarmUp
from worker.runtime.coupling import CoupledOrdinal, coupling_table, parse_coupling
from worker.runtime.model_file import Specification, file_sha256, read_specification, verified_copy
from worker.runtime.reference_models import export_model
from worker.runtime.simulated_context import DEFAULT_SPECIFICATION, SimulatedContext
from worker.runtime.simulation import Simulation
from worker.runtime.tensors import NUMPY_TYPES, Tensor, TensorSpec, byte_size, parse_tensor_spec, shape_fits
from worker.runtime.torch_context import PRECISIONS, TorchContext

__all__ = [
    "DEFAULT_SPECIFICATION",
    "NUMPY_TYPES",
    "PRECISIONS",
    "CoupledOrdinal",
    "ExecutionContext",
    "ForwardPass",
    "SimulatedContext",
    "Simulation",
    "Specification",
    "Tensor",
    "TensorSpec",
    "TorchContext",
    "WarmUp",
    "byte_size",
    "coupling_table",
    "export_model",
    "file_sha256",
    "parse_coupling",
    "parse_tensor_spec",
    "read_specification",
    "shape_fits",
    "verified_copy",
]
