"""Run directories as a load of single requests would leave them, from service times that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import IntervalLogWriter, Run, TargetInfo, build_run_file, series_tag
from capacity.statistics import Check

N = 5_000


@dataclass(frozen=True)
class Measured:
    """A combination and its service time: mean in ms, coefficient of variation of a lognormal (0: always the same)."""

    hardware: str
    mean_ms: float
    variation: float = 0.1
    overhead_us: float = 300.0
    peak_bytes: int | None = None


def lognormal_us(mean_ms: float, variation: float, n: int, seed: int) -> np.ndarray:
    sigma = np.sqrt(np.log1p(variation**2))
    times: np.ndarray = np.random.default_rng(seed).lognormal(np.log(mean_ms * 1e3) - sigma**2 / 2, sigma, n)
    return times


def measured_run(
    directory: Path,
    rows: Sequence[Measured],
    *,
    simulated: bool = True,
    model: str = "gpt",
    valid: bool = True,
    n: int = N,
    catalogue: Catalogue | None = None,
) -> Path:
    """One target per ordinal of each row, one request at a time; returns the directory."""
    tallies, targets = {}, []
    for row in rows:
        hardware = HardwareCombination.parse(row.hardware)
        for ordinal in range(hardware.count):
            series = Series(hardware, model, f"x:{ordinal} @ 10.0.{len(tallies)}.1:1", simulated)
            compute = lognormal_us(row.mean_ms, row.variation, n, seed=len(tallies))
            tally = Tally(n, n)
            service_ns = (compute + row.overhead_us) * 1000
            for name, ns in (
                ("compute", compute * 1000),
                ("queue", np.zeros(n)),
                ("service", service_ns),
                ("latency", service_ns),
                ("lateness", np.zeros(n)),
            ):
                tally.histograms[name].record_ns(ns.astype(np.int64))
            tallies[series] = tally
            targets.append(
                TargetInfo(
                    label=series.target,
                    address="a",
                    model=model,
                    simulated=simulated,
                    process_peak_bytes=None if simulated else row.peak_bytes,
                    model_parameter_bytes=row.peak_bytes if simulated else None,
                )
            )
    status = "PASS" if valid else "FAIL"
    file = build_run_file(
        started=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        options={"arrivals": "closed"},
        conditions={},
        targets=targets,
        tallies=tallies,
        warmups={},
        first_requests_ns={},
        duration_s=60.0,
        slo=None,
        catalogue=catalogue or Catalogue.load(),
        checks=[Check(name="lateness", value="1 ms", threshold="under 1 ms", status=status)],
        generators=[],
    )
    file.save(directory)
    with IntervalLogWriter(directory / "run.hlog", 1_795_000_000) as log:
        for series, tally in tallies.items():
            for name, histogram in tally.histograms.items():
                log.write(0.0, 60.0, series_tag(series, name), histogram)
    return Run.load(directory).directory
