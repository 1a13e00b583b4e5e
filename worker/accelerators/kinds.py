"""Which accelerators are here, by ordinal, and one small class per kind that binds a process to one of them.

Each kind answers five questions: what is there (`discover`), what must hold before torch is imported (`environment`),
how a model gets onto the device (`load`), what must surround forward (`context`), and when forward is over
(`synchronize`). No kind falls back to another.
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from worker.accelerators import host
from worker.errors import UsageError

if TYPE_CHECKING:
    import torch

EI_TOOL = Path("/opt/amazon/ei/ei_tools/bin/ei")
PROBE_SECONDS = 120

# What torch sees, asked in a process of its own: importing torch here would be too early for `environment`, and a
# driver that brings its process down brings down nothing else.
_PROBE = """
import json, warnings
warnings.simplefilter("ignore")
import torch
found = {"cuda": [], "xpu": [], "mps": []}
if torch.cuda.is_available():
    for n in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(n)
        found["cuda"].append([p.name, p.total_memory, str(getattr(p, "uuid", ""))])
if hasattr(torch, "xpu") and torch.xpu.is_available():
    for n in range(torch.xpu.device_count()):
        p = torch.xpu.get_device_properties(n)
        found["xpu"].append([p.name, p.total_memory, str(getattr(p, "uuid", ""))])
if hasattr(torch.backends, "mps") and torch.backends.mps.is_available():
    found["mps"].append(["apple", torch.mps.recommended_max_memory(), ""])
print("FOUND" + json.dumps(found))
"""


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
        return f"{self.kind}:{self.ordinal}"


class Kind:
    """The answers that suit a device of torch's own; each kind replaces those that do not suit it."""

    name: ClassVar[str]
    # What torch calls the device once the process is bound to it.
    device: ClassVar[str] = "cpu"
    # False where the model's graph must stay as it was compiled for the device.
    freezes: ClassVar[bool] = True
    # False where only the device's own compiler may choose the number format.
    casts: ClassVar[bool] = True

    def discover(self) -> list[Accelerator]:
        raise NotImplementedError

    def environment(self, ordinal: int) -> Accelerator:
        """Binds this process to the ordinal, before torch is imported. UsageError where it is not there."""
        return self.find(ordinal)

    def find(self, ordinal: int) -> Accelerator:
        found = self.discover()
        for accelerator in found:
            if accelerator.ordinal == ordinal:
                return accelerator
        names = [a.name for a in found or discover()]
        raise UsageError(f"{self.name}:{ordinal} is not there; this host has {', '.join(names) or 'none'}")

    def load(self, path: Path, ordinal: int) -> "torch.jit.ScriptModule":
        import torch

        return torch.jit.load(str(path), map_location=self.device)

    def context(self, ordinal: int) -> contextlib.AbstractContextManager[Any]:
        """Entered once, in the thread that calls forward, which never leaves it: the contexts are thread-local."""
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        """Returns once forward has finished on the device."""

    def peak_bytes(self) -> int:
        """The most memory held on the device so far; 0 where the kind cannot say."""
        return 0

    def versions(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class Cpu(Kind):
    """An ordinal is a slice of cores, pinned before torch is imported so that its thread pool is born inside it."""

    name: ClassVar[str] = "cpu"
    cores_per_ordinal: int = 1

    def discover(self) -> list[Accelerator]:
        memory = host.memory_bytes()
        return [
            Accelerator(self.name, ordinal, f"cpu-{self.cores_per_ordinal}c", piece.name, memory)
            for ordinal, piece in enumerate(host.slices(self.cores_per_ordinal))
        ]

    def environment(self, ordinal: int) -> Accelerator:
        found = self.find(ordinal)
        host.pin(host.slices(self.cores_per_ordinal)[ordinal].cores)
        host.take_turns()
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(self.cores_per_ordinal)
        return found


@dataclass(frozen=True)
class Cuda(Kind):
    """A CUDA device, or a ROCm one, which torch reports as cuda. The process sees no other: its name is cuda:0."""

    name: ClassVar[str] = "cuda"
    device: ClassVar[str] = "cuda:0"
    visible: ClassVar[str] = "CUDA_VISIBLE_DEVICES"

    def discover(self) -> list[Accelerator]:
        return _probed(self.name)

    def environment(self, ordinal: int) -> Accelerator:
        found = self.find(ordinal)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        os.environ[self.visible] = masked(os.environ.get(self.visible), ordinal)
        return found

    def context(self, ordinal: int) -> contextlib.AbstractContextManager[Any]:
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

        found = {"cuda": torch.version.cuda, "rocm": torch.version.hip, "cudnn": torch.backends.cudnn.version()}
        return {name: str(version) for name, version in found.items() if version}


@dataclass(frozen=True)
class Xpu(Kind):
    """An Intel GPU."""

    name: ClassVar[str] = "xpu"
    device: ClassVar[str] = "xpu:0"

    def discover(self) -> list[Accelerator]:
        return _probed(self.name)

    def environment(self, ordinal: int) -> Accelerator:
        found = self.find(ordinal)
        os.environ["ZE_AFFINITY_MASK"] = masked(os.environ.get("ZE_AFFINITY_MASK"), ordinal)
        return found

    def synchronize(self) -> None:
        import torch

        torch.xpu.synchronize()

    def peak_bytes(self) -> int:
        import torch

        return int(torch.xpu.max_memory_reserved())


@dataclass(frozen=True)
class Mps(Kind):
    """The one GPU of an Apple computer."""

    name: ClassVar[str] = "mps"
    device: ClassVar[str] = "mps"

    def discover(self) -> list[Accelerator]:
        return _probed(self.name)

    def synchronize(self) -> None:
        import torch

        torch.mps.synchronize()

    def peak_bytes(self) -> int:
        import torch

        return int(torch.mps.driver_allocated_memory())


@dataclass(frozen=True)
class Neuron(Kind):
    """One NeuronCore of an AWS Inferentia or Trainium device; the model was compiled for it beforehand."""

    name: ClassVar[str] = "neuron"
    freezes: ClassVar[bool] = False
    casts: ClassVar[bool] = False
    tool: str = "neuron-ls"

    def discover(self) -> list[Accelerator]:
        found: list[Accelerator] = []
        for device in _tool_json([self.tool, "--json-output"], lambda said: said, dict(os.environ)):
            cores = int(device.get("nc_count", 1))
            for _ in range(cores):
                memory = int(device.get("memory_size", 0)) // cores
                identity = f"neuron-device-{device.get('neuron_device', '?')}"
                found.append(Accelerator(self.name, len(found), "neuroncore", identity, memory))
        return found

    def environment(self, ordinal: int) -> Accelerator:
        found = self.find(ordinal)
        os.environ["NEURON_RT_VISIBLE_CORES"] = str(ordinal)
        return found

    def load(self, path: Path, ordinal: int) -> "torch.jit.ScriptModule":
        for library in ("torch_neuronx", "torch_neuron"):
            if importlib.util.find_spec(library) is not None:
                importlib.import_module(library)  # makes the compiled operators known to torch
                return super().load(path, ordinal)
        raise UsageError("neuron needs the package torch_neuronx or torch_neuron beside torch, and neither is here")


@dataclass(frozen=True)
class Eia(Kind):
    """An Amazon Elastic Inference accelerator: the client's processor holds the model, the service runs it."""

    name: ClassVar[str] = "eia"
    freezes: ClassVar[bool] = False
    casts: ClassVar[bool] = False
    tool: Path = EI_TOOL

    def discover(self) -> list[Accelerator]:
        # EI_VISIBLE_DEVICES masks and renumbers. The tool is asked without it, so that it does not matter whether
        # the tool heeds it too.
        environment = {key: value for key, value in os.environ.items() if key != "EI_VISIBLE_DEVICES"}
        command = [str(self.tool), "describe-accelerators", "--json"]
        devices = _tool_json(command, lambda said: said["devices"], environment)
        found = {
            int(device["ordinal"]): Accelerator(
                self.name,
                int(device["ordinal"]),
                str(device.get("type", "eia")),
                str(device.get("id", "")),
                0,
                str(device.get("status", "unknown")),
            )
            for device in devices
            if "ordinal" in device
        }
        mask = os.environ.get("EI_VISIBLE_DEVICES")
        visible = sorted(found) if mask is None else [int(n) for n in re.findall(r"\d+", mask) if int(n) in found]
        return (
            [
                Accelerator(self.name, position, found[n].type, found[n].id, found[n].memory_bytes, found[n].status)
                for position, n in enumerate(visible)
            ]
            if mask is not None
            else [found[n] for n in visible]
        )

    def load(self, path: Path, ordinal: int) -> "torch.jit.ScriptModule":
        import torch

        module = super().load(path, ordinal)
        if importlib.util.find_spec("torcheia") is None:
            return module
        # The 1.5.1 build attaches the model instead of naming a target; its guide turns the profiling executor off.
        torcheia = importlib.import_module("torcheia")
        if hasattr(torch._C, "_jit_set_profiling_executor"):
            torch._C._jit_set_profiling_executor(False)
        attached: torch.jit.ScriptModule = torcheia.jit.attach_eia(module, ordinal)
        return attached

    def context(self, ordinal: int) -> contextlib.AbstractContextManager[Any]:
        import torch

        # By name: torch's own types know the stock function only, which has a single parameter.
        optimized: Callable[..., contextlib.AbstractContextManager[Any]] = vars(torch.jit)["optimized_execution"]
        if importlib.util.find_spec("torcheia") is not None:
            return optimized(True)
        try:
            return optimized(True, {"target_device": f"eia:{ordinal}"})
        except TypeError:
            raise UsageError(
                f"this PyTorch ({torch.__version__}) was not built for Elastic Inference: it has neither "
                "optimized_execution with a target device nor torcheia"
            ) from None


KINDS = ("cpu", "cuda", "eia", "xpu", "mps", "neuron", "sim")


def make(kind: str, *, cores_per_ordinal: int = 1, ei_tool: Path = EI_TOOL) -> Kind:
    """The class of a kind of hardware. `sim` is none: it lives in worker.sim."""
    if kind == "cpu":
        return Cpu(cores_per_ordinal)
    if kind == "eia":
        return Eia(ei_tool)
    others: dict[str, type[Kind]] = {"cuda": Cuda, "xpu": Xpu, "mps": Mps, "neuron": Neuron}
    if kind not in others:
        raise UsageError(f"{kind!r} is not a kind of accelerator; the kinds are {', '.join(KINDS)}")
    return others[kind]()


def discover(*, cores_per_ordinal: int = 1, ei_tool: Path = EI_TOOL) -> list[Accelerator]:
    """Every accelerator of every kind of hardware, in the order of KINDS. Takes as long as importing torch."""
    kinds = [make(name, cores_per_ordinal=cores_per_ordinal, ei_tool=ei_tool) for name in KINDS if name != "sim"]
    return [accelerator for kind in kinds for accelerator in kind.discover()]


def parse(text: str) -> tuple[str, int]:
    """`KIND:ORDINAL` -> both. UsageError in one sentence."""
    kind, _, ordinal = text.partition(":")
    if kind not in KINDS:
        raise UsageError(f"{text!r} names no accelerator: the kinds are {', '.join(KINDS)}, as in cpu:0")
    if not ordinal.isascii() or not ordinal.isdigit():
        raise UsageError(f"{text!r} names no accelerator: the ordinal is a whole number, as in {kind}:0")
    return kind, int(ordinal)


def masked(mask: str | None, ordinal: int) -> str:
    """What to set a mask of visible devices to, so that only `ordinal` of those visible now is left."""
    visible = [part.strip() for part in mask.split(",")] if mask else []
    return visible[ordinal] if ordinal < len(visible) else str(ordinal)


def type_name(device: str) -> str:
    """A short name as instance tables use it: "NVIDIA A10G" -> "a10g", "Tesla T4" -> "t4"."""
    words = re.sub(r"\((R|TM)\)|\b(NVIDIA|AMD|Intel|Tesla|GeForce|Instinct|Graphics)\b", " ", device, flags=re.I)
    return "-".join(words.split()).lower() or device


_probe_result: dict[str, list[list[Any]]] | None = None


def _probed(kind: str) -> list[Accelerator]:
    global _probe_result
    if _probe_result is None:
        _probe_result = {}
        with contextlib.suppress(OSError, subprocess.TimeoutExpired, StopIteration):
            ran = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS)
            line = next(line for line in ran.stdout.splitlines() if line.startswith("FOUND"))
            _probe_result = json.loads(line.removeprefix("FOUND"))
    return [
        Accelerator(kind, ordinal, type_name(name), identity or f"{kind}-{ordinal}", int(memory))
        for ordinal, (name, memory, identity) in enumerate((_probe_result or {}).get(kind, []))
    ]


def _tool_json(
    command: Sequence[str], devices: Callable[[Any], list[dict[str, Any]]], environment: dict[str, str]
) -> list[dict[str, Any]]:
    """What a vendor's tool lists; nothing where the tool is not installed, fails, or says something else."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, env=environment)
        return [device for device in devices(json.loads(ran.stdout)) if isinstance(device, dict)]
    return []
