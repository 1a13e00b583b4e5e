"""A profile made of a run: what the worker measured of itself comes through the run directory into the simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capacity.measures.combination import HardwareCombination
from capacity.rundir.run import Run
from capacity.simulation import Profile

CATALOGUE = '[combinations."box + chip"]\nprice = 0.5\n'


def test_a_batching_workers_run_says_how_long_passes_of_each_size_hold_it(
    serve: Callable[..., Any], locust: Callable[..., Any], tmp_path: Path
) -> None:
    batching = ("--max-batch-size", "4", "--max-queue-delay-us", "1000")
    simulated = ("--sim", "fixed:4ms", "--sim-per-row", "2ms", "--sim-host", "box", "--sim-type", "chip")
    worker = serve("--accelerator", "sim:0", *simulated, *batching)
    (tmp_path / "hardware.toml").write_text(CATALOGUE)

    locust("--headless", "-u", "6", "--requests", "400", "--targets", worker.address, "--run-dir", "run")

    run = Run.load(tmp_path / "run")
    (row,) = run.file.rows
    passes = {measure: run.histogram(row, measure) for measure in run.measures(row) if measure.startswith("pass-")}
    rows = sum(int(measure[5:]) * histogram.count for measure, histogram in passes.items() if histogram)
    # The worker was asked when measuring began and after the end; what was in flight at the first is warm-up.
    assert row.answered <= rows <= row.answered + row.warmup.requests
    # Validity is of the machine that the test runs on, not of what is promised here.
    valid = replace(run, file=run.file.model_copy(update={"valid": True}))
    profile = Profile.from_runs([valid], HardwareCombination("box", "chip"), "sim")
    assert 4 in profile.sizes
    assert profile.pass_time(4).percentile_us(0) >= 10_000
    assert profile.simulated
    assert profile.price_per_hour == pytest.approx(0.5)
    with pytest.raises(ValueError, match="none of 5"):
        profile.pass_time(5)
