"""The kind `xpu`: an Intel GPU."""

import os
from typing import ClassVar

from worker.accelerators.kind import Accelerator, AcceleratorKind
from worker.accelerators.probe import restrict_visible, torch_accelerators


class Xpu(AcceleratorKind):
    """An Intel GPU. The process sees no other, so torch calls it xpu:0 whatever its ordinal."""

    name: ClassVar[str] = "xpu"
    device: ClassVar[str] = "xpu:0"

    def discover(self) -> list[Accelerator]:
        return torch_accelerators(self.name)

    def bind(self, ordinal: int) -> Accelerator:
        accelerator = self.find(ordinal)
        os.environ["ZE_AFFINITY_MASK"] = restrict_visible(os.environ.get("ZE_AFFINITY_MASK"), ordinal)
        return accelerator

    def synchronize(self) -> None:
        import torch

        torch.xpu.synchronize()

    def peak_bytes(self) -> int:
        import torch

        return int(torch.xpu.max_memory_reserved())
