"""Telemetry: utilisation, memory, power and temperature now, by psutil, and by NVML where the kind is cuda."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

import psutil

from worker.accelerators import Accelerator
from worker.wire.accelerator_pb2 import Reading


class Telemetry:
    """Readings of this process, its host and its accelerator; processor shares are since the previous call.

    `nvml` stands in for pynvml in tests. Without the extra `gpu` or a driver a GPU has no readings, which is no error.
    """

    def __init__(self, accelerator: Accelerator, nvml: Any | None = None) -> None:
        self._accelerator = accelerator
        self._process = psutil.Process()
        self._gpu = _Gpu.find(accelerator, nvml) if accelerator.kind == "cuda" else None
        # The first call of each gives 0: there is no sample before.
        psutil.cpu_percent()
        self._process.cpu_percent()

    async def readings(self) -> list[Reading]:
        """Returns the readings now. A GPU is read in a thread: a driver is slow, and requests must go on meanwhile."""
        name = f"{self._accelerator.kind}:{self._accelerator.ordinal}"
        readings = [
            Reading(device="worker", id=name, measure="utilisation_percent", value=self._process.cpu_percent()),
            Reading(device="worker", id=name, measure="memory_bytes", value=self._process.memory_info().rss),
            Reading(device="cpu", measure="utilisation_percent", value=psutil.cpu_percent()),
            Reading(device="cpu", measure="memory_bytes", value=psutil.virtual_memory().used),
        ]
        if self._gpu is not None:
            for measure, value in (await asyncio.to_thread(self._gpu.sample)).items():
                readings.append(Reading(device=name, id=self._accelerator.id, measure=measure, value=value))
        return readings


class _Gpu:
    """One GPU by its UUID. Measures that it does not support, such as power on many, are left out."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def find(cls, accelerator: Accelerator, nvml: Any | None) -> "_Gpu | None":
        """Returns None without the extra `gpu` or an NVIDIA driver, or where the driver has no such UUID."""
        try:
            nvml = nvml or import_module("pynvml")
        except ImportError:
            return None
        try:
            nvml.nvmlInit()
            # By UUID: an ordinal is renumbered by CUDA_VISIBLE_DEVICES. NVML writes GPU- before what torch gives.
            return cls(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{accelerator.id.removeprefix('GPU-')}"))
        except nvml.NVMLError:
            return None

    def sample(self) -> dict[str, float]:
        """Returns the value of each measure by its name."""
        nvml, values = self._nvml, {}
        # Power comes in milliwatts.
        measures: tuple[tuple[str, Callable[[Any], float]], ...] = (
            ("utilisation_percent", lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            ("memory_bytes", lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            ("power_w", lambda handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            ("temperature_c", lambda handle: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            ("clock_mhz", lambda handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        )
        for measure, read in measures:
            try:
                values[measure] = float(read(self._handle))
            except nvml.NVMLError:
                continue
        return values
