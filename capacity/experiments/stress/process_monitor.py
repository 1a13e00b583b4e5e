"""Memory, file descriptors and threads of processes over time, and whether they grow."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import psutil

from capacity.experiments import RunningLoad
from capacity.experiments.stress.result import ChartPanel
from capacity.statistics import Check

#: Time between two samples, in seconds.
SAMPLE_S = 1.0
#: The allowed growth of memory after the first quarter: the larger of a share and a number of bytes.
MAX_GROWTH_SHARE, MAX_GROWTH_BYTES = 0.05, 8 * 2**20
#: The allowed growth of counts: gRPC and gevent open and close a few of these all the time.
MAX_GROWTH_DESCRIPTORS, MAX_GROWTH_THREADS = 8, 4
_MIN_SAMPLES = 8


class ProcessSample(NamedTuple):
    """One process at one time, in seconds of time.time()."""

    at_unix: float
    rss_bytes: int
    descriptors: int
    threads: int


class ProcessMonitor:
    """Samples processes once a second while it is entered; those that have ended are left out."""

    def __init__(self, process_ids: dict[str, int]) -> None:
        self._process_ids = dict(process_ids)
        self.samples: dict[str, list[ProcessSample]] = defaultdict(list)
        #: (time.time(), processor clock in MHz)
        self.clocks_mhz: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="process-monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def begin_unix(self) -> float:
        """The time of the first sample, in seconds of time.time(); 0 without samples."""
        return min((samples[0].at_unix for samples in self.samples.values() if samples), default=0.0)

    def follow(self, load: RunningLoad, seconds: float) -> None:
        """Samples the generator too while it sends, and not while it writes its report."""
        load.wait_until_started()
        self._process_ids["generator"] = load.process.pid
        load.wait(seconds - SAMPLE_S)
        del self._process_ids["generator"]

    def _sample_until_stopped(self) -> None:
        processes: dict[str, psutil.Process] = {}
        while True:
            for name, pid in list(self._process_ids.items()):
                with contextlib.suppress(psutil.Error):
                    process = processes.get(name)
                    if process is None or process.pid != pid:
                        process = processes[name] = psutil.Process(pid)
                    self.samples[name].append(_sample(process))
            with contextlib.suppress(psutil.Error, OSError, NotImplementedError):
                if (clock := psutil.cpu_freq()) is not None and clock.current:
                    self.clocks_mhz.append((time.time(), float(clock.current)))
            if self._stop.wait(SAMPLE_S):
                return

    def memory_panel(self) -> ChartPanel:
        """Returns the resident memory of each process over time."""
        curves = {
            name: [(sample.at_unix - self.begin_unix, sample.rss_bytes / 2**20) for sample in samples]
            for name, samples in self.samples.items()
            if samples
        }
        return ChartPanel(title="Resident memory, MiB", curves=curves)


def _sample(process: psutil.Process) -> ProcessSample:
    with process.oneshot():
        memory = process.memory_info().rss
        return ProcessSample(time.time(), memory, process.num_fds(), process.num_threads())


def check_growth(name: str, samples: Sequence[ProcessSample]) -> list[Check]:
    """Checks that a process holds no more at its end than after its first quarter: memory, descriptors, threads.

    Medians of a quarter of the remaining samples are compared. There is no check with fewer than eight samples.
    """
    if len(samples) < _MIN_SAMPLES:
        return []
    remaining = samples[len(samples) // 4 :]
    quarter = max(len(remaining) // 4, 1)
    first, last = remaining[:quarter], remaining[-quarter:]

    def medians(field: str) -> tuple[float, float]:
        begin, end = (float(np.median([getattr(sample, field) for sample in part])) for part in (first, last))
        return begin, end

    def format_value(field: str, value: float) -> str:
        return f"{value / 2**20:.1f} MiB" if field == "rss_bytes" else f"{value:.0f}"

    checks = []
    for what, field, allowed in (
        ("memory", "rss_bytes", max(MAX_GROWTH_BYTES, MAX_GROWTH_SHARE * medians("rss_bytes")[0])),
        ("file descriptors", "descriptors", float(MAX_GROWTH_DESCRIPTORS)),
        ("threads", "threads", float(MAX_GROWTH_THREADS)),
    ):
        begin, end = medians(field)
        checks.append(
            Check(
                name=f"{what} of {name}",
                value=f"{format_value(field, begin)} to {format_value(field, end)}",
                threshold=f"grows by at most {format_value(field, allowed)}",
                status="PASS" if end - begin <= allowed else "FAIL",
            )
        )
    return checks
