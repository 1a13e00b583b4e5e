"""The kind `neuron`: one NeuronCore of an AWS Inferentia or Trainium device."""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from worker.accelerators.kind import Accelerator, AcceleratorKind, KindOptions
from worker.accelerators.probe import tool_devices
from worker.errors import InputError

if TYPE_CHECKING:
    import torch

_LIBRARIES = ("torch_neuronx", "torch_neuron")


class Neuron(AcceleratorKind):
    """A NeuronCore. The model was compiled for it beforehand, so that its graph and number format stay as they are."""

    name: ClassVar[str] = "neuron"
    freezes: ClassVar[bool] = False
    casts: ClassVar[bool] = False

    def __init__(self, options: KindOptions | None = None, tool: str = "neuron-ls") -> None:
        super().__init__(options)
        self._tool = tool

    def discover(self) -> list[Accelerator]:
        accelerators: list[Accelerator] = []
        for device in tool_devices([self._tool, "--json-output"], lambda document: document, dict(os.environ)):
            cores = int(device.get("nc_count", 1))
            for _ in range(cores):
                memory = int(device.get("memory_size", 0)) // cores
                identity = f"neuron-device-{device.get('neuron_device', '?')}"
                accelerators.append(Accelerator(self.name, len(accelerators), "neuroncore", identity, memory))
        return accelerators

    def bind(self, ordinal: int) -> Accelerator:
        accelerator = self.find(ordinal)
        os.environ["NEURON_RT_VISIBLE_CORES"] = str(ordinal)
        return accelerator

    def load(self, path: Path, ordinal: int) -> "torch.jit.ScriptModule":
        for library in _LIBRARIES:
            if importlib.util.find_spec(library) is not None:
                importlib.import_module(library)  # makes the compiled operators known to torch
                return super().load(path, ordinal)
        raise InputError("neuron needs a package beside torch: install torch_neuronx or torch_neuron")
