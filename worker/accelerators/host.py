"""The machine that the accelerator sits in: its type as its cloud names it, its cores, its memory."""

import contextlib
import ctypes
import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29

# Words of a processor's marketing name that do not tell one from another.
_NOISE = re.compile(
    r"\((?:R|TM|tm)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*$|\bwith Radeon.*$|\b\d+(?:st|nd|rd|th) Gen\b",
    re.IGNORECASE,
)


def host_type(override: str | None = None, root: Path = Path("/")) -> str:
    """The instance type, as whoever sells it names it.

    In order: `override`; the identity files of the cloud (EC2's Nitro hosts carry the type in DMI, cloud-init keeps
    what EC2 and Azure said at boot); the processor and the number of cores, for example "AMD EPYC 2-core".
    `root` is where the files are looked for.
    """
    if override is not None:
        return override
    return _cloud_type(root) or f"{processor(root)} {os.cpu_count() or 1}-core"


def _cloud_type(root: Path) -> str | None:
    dmi = root / "sys/class/dmi/id"
    if _read(dmi / "sys_vendor") == "Amazon EC2" and (name := _read(dmi / "product_name")):
        return name
    with contextlib.suppress(ValueError):
        said = json.loads(_read(root / "run/cloud-init/instance-data.json") or "null")
        for path in (("ds", "meta_data", "instance-type"), ("ds", "meta_data", "imds", "compute", "vmSize")):
            value = said
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, str) and value:
                return value
    return None


def processor(root: Path = Path("/")) -> str:
    """The processor's name without its trade marks and clock rate; the machine's architecture where it has none."""
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return " ".join(_NOISE.sub(" ", value).split())
    return os.uname().machine


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def memory_bytes() -> int:
    """What this process may use: the machine's memory, or less where its control group has a bound."""
    total = int(psutil.virtual_memory().total)
    limit = _read(Path("/sys/fs/cgroup/memory.max"))
    return min(total, int(limit)) if limit and limit.isdigit() else total


@dataclass(frozen=True)
class Slice:
    """The cores of one cpu ordinal, all on one NUMA node where that is possible."""

    cores: tuple[int, ...]
    node: int

    @property
    def name(self) -> str:
        return f"node{self.node}-cores{','.join(map(str, self.cores))}"


def slices(width: int, cores: Sequence[int] | None = None, root: Path = Path("/")) -> list[Slice]:
    """Cuts the cores that this process may use into slices of `width`; what does not fill a slice is left out.

    Slices are cut within NUMA nodes; one wider than any node is cut across them.
    """
    usable = available_cores() if cores is None else list(cores)
    node_of = _numa_nodes(root)
    nodes: dict[int, list[int]] = {}
    for core in sorted(usable, key=lambda core: (node_of.get(core, 0), core)):
        nodes.setdefault(node_of.get(core, 0), []).append(core)
    if all(len(members) < width for members in nodes.values()):
        nodes = {min(nodes, default=0): [core for members in nodes.values() for core in members]}
    return [
        Slice(tuple(members[start : start + width]), node)
        for node, members in nodes.items()
        for start in range(0, len(members) - width + 1, width)
    ]


def available_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _numa_nodes(root: Path) -> dict[int, int]:
    found: dict[int, int] = {}
    for directory in (root / "sys/devices/system/node").glob("node[0-9]*"):
        for part in (_read(directory / "cpulist") or "").split(","):
            first, _, last = part.partition("-")
            if first.strip().isdigit():
                for core in range(int(first), int(last or first) + 1):
                    found[core] = int(directory.name.removeprefix("node"))
    return found


def pin(cores: Sequence[int]) -> bool:
    """Binds this process, and every thread it starts later, to `cores`. False where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, cores)
    return True


def die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGTERM when the parent dies, however it dies; call it in the child, before exec.

    `parent` is the parent's process id: where it is gone already, the child ends at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def take_turns() -> None:
    """Lets the threads of this process, on a core of its own, finish what they do instead of interrupting each other.

    Without it the thread in which gRPC waits for the network preempts the event loop at each of its own events, some
    six times a request, only to hand it one more: a quarter of the processor time of a small request.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def sleep_precisely() -> None:
    """Takes this thread's timer slack from 50 µs to the least there is, so that a sleep ends when it should."""
    _prctl(_PR_SET_TIMERSLACK, 1)


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _prctl(option: int, value: int) -> None:
    if _libc is not None:
        _libc.prctl(option, value, 0, 0, 0)
