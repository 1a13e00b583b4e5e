"""The kind `sim`: a simulated accelerator. Its service times are drawn by worker/runtime, and no model runs."""

from typing import ClassVar

from worker.accelerators.kind import Accelerator, AcceleratorKind


class Sim(AcceleratorKind):
    """A simulated accelerator. Every ordinal exists, so that discovery lists none."""

    name: ClassVar[str] = "sim"
    simulated: ClassVar[bool] = True

    def discover(self) -> list[Accelerator]:
        return []

    def find(self, ordinal: int) -> Accelerator:
        return Accelerator(self.name, ordinal, "sim", f"sim-{ordinal}", 0)
