"""The kind `eia`: an Amazon Elastic Inference accelerator, which is attached to a host over the network."""

import contextlib
import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from worker.accelerators.kind import Accelerator, AcceleratorKind
from worker.accelerators.probe import tool_devices
from worker.errors import InputError

if TYPE_CHECKING:
    import torch

_MASK = "EI_VISIBLE_DEVICES"


class ElasticInference(AcceleratorKind):
    """An Elastic Inference accelerator: the host's processor holds the model, the service runs it."""

    name: ClassVar[str] = "eia"
    freezes: ClassVar[bool] = False
    casts: ClassVar[bool] = False

    def discover(self) -> list[Accelerator]:
        # EI_VISIBLE_DEVICES masks and renumbers. The tool runs without it, so that it does not matter whether the
        # tool heeds it too.
        environment = {name: value for name, value in os.environ.items() if name != _MASK}
        command = [str(self._options.ei_tool), "describe-accelerators", "--json"]
        devices = {
            int(device["ordinal"]): device
            for device in tool_devices(command, lambda document: document["devices"], environment)
            if "ordinal" in device
        }
        mask = os.environ.get(_MASK)
        if mask is None:
            return [self._accelerator(number, devices[number]) for number in sorted(devices)]
        visible = [int(number) for number in re.findall(r"\d+", mask) if int(number) in devices]
        return [self._accelerator(ordinal, devices[number]) for ordinal, number in enumerate(visible)]

    def load(self, path: Path, ordinal: int) -> "torch.jit.ScriptModule":
        import torch

        module = super().load(path, ordinal)
        if not _attaches_models():
            return module
        # The 1.5.1 build attaches the model instead of naming a target; its guide turns the profiling executor off.
        torcheia = importlib.import_module("torcheia")
        if hasattr(torch._C, "_jit_set_profiling_executor"):
            torch._C._jit_set_profiling_executor(False)
        attached_module: torch.jit.ScriptModule = torcheia.jit.attach_eia(module, ordinal)
        return attached_module

    def forward_context(self, ordinal: int) -> contextlib.AbstractContextManager[Any]:
        import torch

        # By name: torch's own types know the stock function only, which has a single parameter.
        optimized: Callable[..., contextlib.AbstractContextManager[Any]] = vars(torch.jit)["optimized_execution"]
        if _attaches_models():
            return optimized(True)
        try:
            return optimized(True, {"target_device": f"eia:{ordinal}"})
        except TypeError:
            raise InputError(
                f"this PyTorch ({torch.__version__}) was not built for Elastic Inference: it has neither "
                "optimized_execution with a target device nor torcheia"
            ) from None

    def _accelerator(self, ordinal: int, device: dict[str, Any]) -> Accelerator:
        return Accelerator(
            self.name,
            ordinal,
            str(device.get("type", "eia")),
            str(device.get("id", "")),
            0,
            str(device.get("status", "unknown")),
        )


def _attaches_models() -> bool:
    """True where this PyTorch is the later build for Elastic Inference, which has the package torcheia."""
    return importlib.util.find_spec("torcheia") is not None
