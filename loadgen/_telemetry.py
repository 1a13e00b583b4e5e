"""What this host's processors and accelerators do: psutil everywhere, NVML where the extra `gpu` and a driver are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import gevent
import psutil

from capacity.telemetry import Reading


class Sampler:
    """Readings of this host, of this process as `generator` (by its client id), and of its NVIDIA GPUs.

    Once a second is meant: processor shares are since the sample before.
    """

    def __init__(self, client: str, nvml: Any | None = None) -> None:
        self._client = client
        self._process = psutil.Process()
        self._gpus = _Gpus(nvml) if nvml is not None else _gpus()
        # The first call of each gives 0: there is no sample before.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self) -> list[Reading]:
        """The readings now. GPUs are asked in a thread: a driver takes its time, in which requests must go on."""
        readings = [
            Reading("generator", self._client, "utilisation_percent", self._process.cpu_percent()),
            Reading("cpu", "", "utilisation_percent", psutil.cpu_percent()),
            Reading("cpu", "", "memory_bytes", float(psutil.virtual_memory().used)),
        ]
        if self._gpus is not None:
            readings += gevent.get_hub().threadpool.apply(self._gpus.sample)
        return readings

    def close(self) -> None:
        """Lets go of NVML."""
        if self._gpus is not None:
            self._gpus.close()


class _Gpus:
    """All GPUs that NVML shows. What one of them cannot tell, as many cannot tell their power, is left out."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._devices = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            identity = nvml.nvmlDeviceGetUUID(handle)
            self._devices.append(
                (f"cuda:{index}", identity.decode() if isinstance(identity, bytes) else identity, handle)
            )

    def sample(self) -> list[Reading]:
        nvml, found = self._nvml, []
        # Milliwatts, as NVML gives it.
        measures: Sequence[tuple[str, Callable[[Any], float]]] = (
            ("utilisation_percent", lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            ("memory_bytes", lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            ("power_w", lambda handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            ("temperature_c", lambda handle: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            ("clock_mhz", lambda handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        )
        for device, identity, handle in self._devices:
            for measure, ask in measures:
                try:
                    found.append(Reading(device, identity, measure, float(ask(handle))))
                except nvml.NVMLError:
                    continue
        return found

    def close(self) -> None:
        self._nvml.nvmlShutdown()


def _gpus() -> _Gpus | None:
    """None where the extra `gpu` is not installed, or there is no NVIDIA driver."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        return _Gpus(nvml)
    except nvml.NVMLError:
        return None
