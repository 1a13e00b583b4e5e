"""The kind `cuda`: an NVIDIA GPU, or an AMD one, which torch built for ROCm reports as cuda."""

import contextlib
import os
from typing import Any, ClassVar

from worker.accelerators.kind import Accelerator, AcceleratorKind
from worker.accelerators.probe import restrict_visible, torch_accelerators


class Cuda(AcceleratorKind):
    """A CUDA device. The process sees no other, so torch calls it cuda:0 whatever its ordinal."""

    name: ClassVar[str] = "cuda"
    device: ClassVar[str] = "cuda:0"
    is_cuda: ClassVar[bool] = True

    def discover(self) -> list[Accelerator]:
        return torch_accelerators(self.name)

    def bind(self, ordinal: int) -> Accelerator:
        accelerator = self.find(ordinal)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        os.environ["CUDA_VISIBLE_DEVICES"] = restrict_visible(os.environ.get("CUDA_VISIBLE_DEVICES"), ordinal)
        return accelerator

    def forward_context(self, ordinal: int) -> contextlib.AbstractContextManager[Any]:
        import torch

        # A stream of its own: the default stream would wait for, and hold up, whatever else runs on the device.
        return torch.cuda.stream(torch.cuda.Stream())

    def synchronize(self) -> None:
        import torch

        torch.cuda.current_stream().synchronize()

    def peak_bytes(self) -> int:
        import torch

        return int(torch.cuda.max_memory_reserved())

    def versions(self) -> dict[str, str]:
        import torch

        libraries = {"cuda": torch.version.cuda, "rocm": torch.version.hip, "cudnn": torch.backends.cudnn.version()}
        return {name: str(version) for name, version in libraries.items() if version}
