"""The kind `mps`: the one GPU of an Apple computer."""

from typing import ClassVar

from worker.accelerators.kind import Accelerator, AcceleratorKind
from worker.accelerators.probe import torch_accelerators


class Mps(AcceleratorKind):
    """Apple's Metal Performance Shaders. There is one device, so that the process needs no binding."""

    name: ClassVar[str] = "mps"
    device: ClassVar[str] = "mps"

    def discover(self) -> list[Accelerator]:
        return torch_accelerators(self.name)

    def synchronize(self) -> None:
        import torch

        torch.mps.synchronize()

    def peak_bytes(self) -> int:
        import torch

        return int(torch.mps.driver_allocated_memory())
