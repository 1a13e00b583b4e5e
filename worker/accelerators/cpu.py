"""The kind `cpu`: an ordinal is a slice of the cores that this process may use, cut within NUMA nodes."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from worker.accelerators.kind import Accelerator, AcceleratorKind

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Cpu(AcceleratorKind):
    """A slice of cores, pinned before torch is imported so that its thread pool starts inside the slice."""

    name: ClassVar[str] = "cpu"

    @property
    def threads(self) -> int:
        return self._options.cores_per_ordinal

    def discover(self) -> list[Accelerator]:
        width, memory = self._options.cores_per_ordinal, usable_memory_bytes()
        return [
            Accelerator(self.name, ordinal, f"cpu-{width}c", core_slice.name, memory)
            for ordinal, core_slice in enumerate(core_slices(width))
        ]

    def bind(self, ordinal: int) -> Accelerator:
        accelerator = self.find(ordinal)
        width = self._options.cores_per_ordinal
        _pin(core_slices(width)[ordinal].cores)
        _schedule_as_batch()
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(width)
        return accelerator


@dataclass(frozen=True)
class CoreSlice:
    """The cores of one ordinal, all on one NUMA node where that is possible."""

    cores: tuple[int, ...]
    node: int

    @property
    def name(self) -> str:
        """Such as node0-cores2,3."""
        return f"node{self.node}-cores{','.join(map(str, self.cores))}"


def core_slices(width: int, cores: Sequence[int] | None = None, root: Path = Path("/")) -> list[CoreSlice]:
    """Cuts `cores` (default: those that this process may use) into slices of `width`; the rest is left out.

    Slices are cut within NUMA nodes; where no node is that wide, across them. `root` is where /sys is looked for.
    """
    usable = available_cores() if cores is None else list(cores)
    node_of = _numa_nodes(root)
    nodes: dict[int, list[int]] = {}
    for core in sorted(usable, key=lambda core: (node_of.get(core, 0), core)):
        nodes.setdefault(node_of.get(core, 0), []).append(core)
    if all(len(members) < width for members in nodes.values()):
        nodes = {min(nodes, default=0): [core for members in nodes.values() for core in members]}
    return [
        CoreSlice(tuple(members[start : start + width]), node)
        for node, members in nodes.items()
        for start in range(0, len(members) - width + 1, width)
    ]


def available_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_memory_bytes() -> int:
    """Returns the memory that this process may use: the host's, or less where its control group sets a limit."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _numa_nodes(root: Path) -> dict[int, int]:
    nodes: dict[int, int] = {}
    for directory in (root / "sys/devices/system/node").glob("node[0-9]*"):
        try:
            ranges = (directory / "cpulist").read_text().strip().split(",")
        except OSError:
            continue
        for part in ranges:
            first, _, last = part.partition("-")
            if first.strip().isdigit():
                for core in range(int(first), int(last or first) + 1):
                    nodes[core] = int(directory.name.removeprefix("node"))
    return nodes


def _pin(cores: Sequence[int]) -> None:
    """Binds this process, and every thread that it starts later, to `cores` where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _schedule_as_batch() -> None:
    """Lets each thread of this process finish its time slice instead of being preempted by the others.

    Without it the thread in which gRPC waits for the network preempts the event loop at each of its events, some six
    times a request, only to hand it one more: a quarter of the processor time of a small request.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
