"""`plan --verify` runs the planned fleet with real processes, says what was simulated, and leaves nothing running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tools.measured import Measured, measured_run
from tools.processes import ENVIRONMENT

from capacity.experiments.verification import LocalCapacity
from capacity.experiments.verification.local_capacity import scale_fleet
from capacity.planning import PlanFile
from capacity.rundir import Run


def plan(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "capacity", "plan", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
        timeout=150,
        check=False,
    )


def started_here() -> list[str]:
    """Command lines of workers and loads that this test's processes left behind."""
    own = psutil.Process()
    return [" ".join(child.cmdline()) for child in own.children(recursive=True) if "worker" in child.cmdline()]


def test_a_mixed_fleet_is_run_and_what_was_predicted_stands_beside_what_was_measured(tmp_path: Path) -> None:
    run = measured_run(tmp_path / "run", [Measured("a.large + x", 10.0), Measured("b.large + y", 8.0)])
    (tmp_path / "hardware.toml").write_text(
        "".join(
            f'[hosts."{host}.large"]\nprice = {price}\naccelerator = "{kind}"\naccelerators = 1\n'
            for host, kind, price in (("a", "x", 0.1), ("b", "y", 0.14))
        )
    )

    done = plan(
        tmp_path,
        *(str(run), "--slo", "p90=80ms", "--rate", "120", "--limit", "a.large=1", "--out", "plan"),
        *("--verify", "--verify-seconds", "5"),
    )

    file = PlanFile.load(tmp_path / "plan" / "plan.json")
    check = file.verification
    assert check is not None, done.stderr
    assert check.whole_fleet
    assert check.real_workers == 0
    assert check.simulated_workers == sum(row.instances for row in file.plans[0].rows)
    assert {row.hardware for row in check.rows} == {row.hardware for row in file.plans[0].rows}
    assert "simulated workers that replay the measured times" in check.description
    # Its own run stands behind every figure.
    measured = Run.load(Path(tmp_path / check.run_dir))
    assert check.requests == sum(row.due for row in measured.file.rows)
    assert check.answered == sum(row.answered for row in measured.file.rows)
    assert all(row.simulated for row in measured.file.rows)
    assert {row.hardware.split(" + ")[0] for row in measured.file.rows} <= {"a.large", "b.large"}
    assert measured.file.options["router"] == "least-outstanding"
    assert measured.file.arrivals == "poisson"
    assert [row.name for row in check.percentiles] == ["P50", "P90", "P99"]
    assert all(row.predicted is not None and row.measured is not None for row in check.percentiles)
    assert check.valid == measured.file.valid
    assert (done.returncode == 0) == (check.valid and check.verdict != "missed")
    assert "## Verified" in (tmp_path / "plan" / "plan.md").read_text(encoding="utf-8")
    assert check.description in done.stdout
    assert started_here() == []


def test_a_fleet_too_large_for_this_machine_is_scaled_down_or_refused() -> None:
    capacity = LocalCapacity(workers=16, rps=400)

    assert scale_fleet((3, 2), (1, 2), 300.0, capacity) == ((3, 2), 1.0)
    counts, share = scale_fleet((30, 10), (1, 2), 4000.0, capacity)
    assert share == 0.1
    assert counts == (3, 1)
    assert scale_fleet((1, 0), (4, 1), 4000.0, capacity)[0] == (1, 0)
    with pytest.raises(ValueError, match="one instance is 32 workers, and this machine runs at most 16"):
        scale_fleet((2, 0), (32, 1), 400.0, capacity)
