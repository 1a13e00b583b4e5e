"""What a kind of accelerator is: one device as discovery finds it, and the questions that each kind answers."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from worker.errors import InputError

if TYPE_CHECKING:
    import torch

EI_TOOL = Path("/opt/amazon/ei/ei_tools/bin/ei")


@dataclass(frozen=True)
class Accelerator:
    """One device found by discovery. `memory_bytes` is 0 where the kind cannot say."""

    kind: str
    ordinal: int
    type: str
    id: str
    memory_bytes: int
    status: str = "healthy"

    @property
    def name(self) -> str:
        """KIND:ORDINAL, such as cuda:0."""
        return f"{self.kind}:{self.ordinal}"


@dataclass(frozen=True)
class KindOptions:
    """Options of the command line that kinds read."""

    cores_per_ordinal: int = 1
    ei_tool: Path = EI_TOOL


class AcceleratorKind:
    """The questions that a kind of accelerator answers, with the answers for a device that torch itself knows.

    To add a kind: write one file with one subclass, which sets `name`, defines `discover`, and overrides what differs;
    add one line to `KINDS` in registry.py; and add one test. The worker calls `discover` and `bind` before torch is
    imported, and the rest afterwards, in the one thread that runs the model. No kind falls back to another: what cannot
    be had is an InputError.
    """

    #: The first part of KIND:ORDINAL.
    name: ClassVar[str]
    #: What torch calls the device once the process is bound to it.
    device: ClassVar[str] = "cpu"
    #: False where the model's graph must stay as it was compiled for the device.
    freezes: ClassVar[bool] = True
    #: False where only the device's own compiler may choose the number format.
    casts: ClassVar[bool] = True
    #: True where copies use page-locked memory and CUDA events measure the parts of a forward pass.
    is_cuda: ClassVar[bool] = False
    #: True where service times are drawn and no model runs.
    simulated: ClassVar[bool] = False

    def __init__(self, options: KindOptions | None = None) -> None:
        self._options = options or KindOptions()

    def discover(self) -> list[Accelerator]:
        """Returns the devices of this kind on this host, by ordinal; none where its driver or tool is missing."""
        raise NotImplementedError

    def find(self, ordinal: int) -> Accelerator:
        """Returns the device of this ordinal. Raises InputError where this host has none."""
        accelerators = self.discover()
        for accelerator in accelerators:
            if accelerator.ordinal == ordinal:
                return accelerator
        raise InputError(f"this host has no {self.name}:{ordinal} ({_choice(self.name, accelerators)})")

    def bind(self, ordinal: int) -> Accelerator:
        """Binds this process to the ordinal before torch is imported, and returns the device. Raises InputError."""
        return self.find(ordinal)

    @property
    def threads(self) -> int:
        """Threads of one forward pass; 0: as many as torch chooses."""
        return 0

    def load(self, path: Path, ordinal: int) -> "torch.jit.ScriptModule":
        """Loads a TorchScript file onto the device. Raises RuntimeError as torch does, or InputError."""
        import torch

        return torch.jit.load(str(path), map_location=self.device)

    def forward_context(self, ordinal: int) -> contextlib.AbstractContextManager[Any]:
        """Returns the context that surrounds every forward pass.

        It is entered once, in the thread that runs the model, and never left: torch's contexts are thread-local.
        """
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        """Returns once the forward pass has finished on the device."""

    def peak_bytes(self) -> int:
        """Returns the most memory held on the device so far; 0 where the kind cannot say."""
        return 0

    def versions(self) -> dict[str, str]:
        """Returns the versions of the device's own libraries by name."""
        return {}


def _choice(kind: str, accelerators: Iterable[Accelerator]) -> str:
    names = ", ".join(accelerator.name for accelerator in accelerators)
    return f"choose one of {names}" if names else f"it has no accelerator of kind {kind}"
