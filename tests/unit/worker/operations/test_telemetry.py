"""Readings of a worker's process, host and accelerator. A stand-in replaces NVML."""

# ruff: noqa: N802  (the names are NVML's)

import asyncio
from types import SimpleNamespace
from typing import Any

from worker.accelerators import Accelerator
from worker.operations import Telemetry


class StandInForNvml:
    """Stands in for pynvml on a host with two GPUs, the second of which has no power sensor."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        """What pynvml raises."""

    def __init__(self) -> None:
        self.open = False

    def nvmlInit(self) -> None:
        self.open = True

    def nvmlDeviceGetHandleByUUID(self, identity: str) -> int:
        if identity not in ("GPU-aa", "GPU-bb"):
            raise self.NVMLError("not found")
        return ("GPU-aa", "GPU-bb").index(identity)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=90 - handle, memory=10)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=3 << 30, total=16 << 30)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle == 1:
            raise self.NVMLError("not supported")
        return 71_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 60

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        assert kind == self.NVML_CLOCK_SM
        return 1410


def readings(accelerator: Accelerator) -> dict[tuple[str, str, str], float]:
    messages = asyncio.run(Telemetry(accelerator, StandInForNvml()).readings())
    return {(one.device, one.id, one.measure): one.value for one in messages}


def test_a_gpu_has_the_readings_that_it_supports_by_its_uuid() -> None:
    first = readings(Accelerator("cuda", 0, "a10g", "aa", 24 << 30))
    assert first["cuda:0", "aa", "power_w"] == 71.5
    assert first["cuda:0", "aa", "memory_bytes"] == 3 << 30
    assert first["cuda:0", "aa", "temperature_c"] == 60
    assert first["cuda:0", "aa", "clock_mhz"] == 1410
    # Renumbered by CUDA_VISIBLE_DEVICES: the second device, which the worker calls its first.
    second = readings(Accelerator("cuda", 0, "a10g", "bb", 24 << 30))
    assert second["cuda:0", "bb", "utilisation_percent"] == 89
    assert ("cuda:0", "bb", "power_w") not in second


def test_unknown_gpus_and_other_kinds_have_the_readings_of_process_and_host() -> None:
    for accelerator in (Accelerator("cuda", 3, "a10g", "cc", 0), Accelerator("cpu", 3, "cpu-1c", "", 0)):
        values = readings(accelerator)
        assert {(device, measure) for device, _id, measure in values} == {
            ("worker", "utilisation_percent"),
            ("worker", "memory_bytes"),
            ("cpu", "utilisation_percent"),
            ("cpu", "memory_bytes"),
        }
        assert values["worker", f"{accelerator.kind}:3", "memory_bytes"] > 1 << 20
