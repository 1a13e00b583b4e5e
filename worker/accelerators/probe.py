"""Questions about devices to torch and to vendors' tools, each in a process of its own."""

import contextlib
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worker.accelerators.kind import Accelerator

PROBE_TIMEOUT_S = 120
_MARK = "DEVICES"

# Importing torch in this process would be too early: a kind must bind the process to its ordinal before. And a driver
# that brings its process down brings down nothing else.
_PROBE = f"""
import json, warnings
warnings.simplefilter("ignore")
import torch
devices = {{"cuda": [], "xpu": [], "mps": []}}
if torch.cuda.is_available():
    for n in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(n)
        devices["cuda"].append([p.name, p.total_memory, str(getattr(p, "uuid", ""))])
if hasattr(torch, "xpu") and torch.xpu.is_available():
    for n in range(torch.xpu.device_count()):
        p = torch.xpu.get_device_properties(n)
        devices["xpu"].append([p.name, p.total_memory, str(getattr(p, "uuid", ""))])
if hasattr(torch.backends, "mps") and torch.backends.mps.is_available():
    devices["mps"].append(["apple", torch.mps.recommended_max_memory(), ""])
print("{_MARK}" + json.dumps(devices))
"""


@functools.cache
def torch_devices() -> Mapping[str, Sequence[tuple[str, int, str]]]:
    """Returns what torch sees by kind (cuda, xpu, mps): name, memory in bytes and identity of each device, in order.

    Empty where torch is missing, or fails. Takes as long as importing torch, once per process.
    """
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, StopIteration):
        process = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        )
        line = next(line for line in process.stdout.splitlines() if line.startswith(_MARK))
        devices = json.loads(line.removeprefix(_MARK))
        return {kind: [tuple(device) for device in of_kind] for kind, of_kind in devices.items()}
    return {}


def torch_accelerators(kind: str) -> list[Accelerator]:
    """Returns the devices of a kind that torch itself sees."""
    return [
        Accelerator(kind, ordinal, type_name(name), identity or f"{kind}-{ordinal}", int(memory))
        for ordinal, (name, memory, identity) in enumerate(torch_devices().get(kind, ()))
    ]


def tool_devices(
    command: Sequence[str], select: Callable[[Any], list[dict[str, Any]]], environment: dict[str, str]
) -> list[dict[str, Any]]:
    """Returns the devices that a vendor's tool lists: what `select` takes from the JSON document that it prints.

    Empty where the tool is not installed, fails, or prints something else.
    """
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        process = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment)
        return [device for device in select(json.loads(process.stdout)) if isinstance(device, dict)]
    return []


def restrict_visible(mask: str | None, ordinal: int) -> str:
    """Returns the value for a mask of visible devices that leaves only `ordinal` of those visible now."""
    visible = [part.strip() for part in mask.split(",")] if mask else []
    return visible[ordinal] if ordinal < len(visible) else str(ordinal)


def type_name(device: str) -> str:
    """Returns a device's short name as instance tables use it: "NVIDIA A10G" -> "a10g", "Tesla T4" -> "t4"."""
    words = re.sub(r"\((R|TM)\)|\b(NVIDIA|AMD|Intel|Tesla|GeForce|Instinct|Graphics)\b", " ", device, flags=re.I)
    return "-".join(words.split()).lower() or device
