"""What the generator samples of its host. NVML is stood in for, and the stand-in says so."""

# ruff: noqa: N802  (the names are NVML's)

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen._telemetry import Sampler, _Gpus


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

    def nvmlShutdown(self) -> None:
        self.open = False

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:
        return "GPU-aa" if handle == 0 else b"GPU-bb"

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


def test_each_gpu_tells_what_it_can() -> None:
    nvml = StandInForNvml()
    gpus = _Gpus(nvml)
    found = {(reading.device, reading.id, reading.measure): reading.value for reading in gpus.sample()}
    assert found["cuda:0", "GPU-aa", "power_w"] == 71.5
    assert found["cuda:0", "GPU-aa", "memory_bytes"] == 3 << 30
    assert found["cuda:1", "GPU-bb", "utilisation_percent"] == 89
    assert ("cuda:1", "GPU-bb", "power_w") not in found
    assert len(found) == 9
    gpus.close()
    assert nvml.open is False


def test_a_host_without_nvml_has_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = Sampler("me_1")
    readings = sampler.sample()
    assert {(reading.device, reading.id, reading.measure) for reading in readings} == {
        ("generator", "me_1", "utilisation_percent"),
        ("cpu", "", "utilisation_percent"),
        ("cpu", "", "memory_bytes"),
    }
    assert all(reading.value >= 0 for reading in readings)
    sampler.close()


def test_readings_travel_as_plain_lists_under_gevent(tmp_path: Path) -> None:
    """As Locust runs it: the sampler in a patched process asks the GPUs in a thread, and the file reads back."""
    script = f"""
from gevent import monkey; monkey.patch_all()
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_web_telemetry import StandInForNvml
from loadgen._telemetry import Sampler
from capacity.telemetry import TelemetryWriter, read
sampler = Sampler("me", StandInForNvml())
writer = TelemetryWriter(Path("."))
writer.write(1.0, "h", json.loads(json.dumps(sampler.sample())))
writer.close()
print(json.dumps(sorted({{s.reading.device for s in read(Path("."))}})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["cpu", "cuda:0", "cuda:1", "generator"]
