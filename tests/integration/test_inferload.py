"""The command `inferload` from a fleet to a report: serve, load and report in three subcommands."""

import json
import subprocess
import sys
from pathlib import Path

INFERLOAD = (sys.executable, "-m", "inferload")


def test_a_fleet_is_loaded_and_reported_by_subcommands_of_inferload(tmp_path: Path) -> None:
    fleet = (*INFERLOAD, "fleet", "--accelerators", "sim:0,sim:1", "--sim", "fixed:5ms", "--sim-host", "c5.large")
    load = (*INFERLOAD, "load", "--headless", "--only-summary", "--requests", "50", "-t", "60s", "--run-dir", "run")

    loaded = subprocess.run(
        [*fleet, "--", *load], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    report = subprocess.run(
        [*INFERLOAD, "report", "run"], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )

    # 1 is a run that a busy machine made invalid; its counts must hold nevertheless.
    assert loaded.returncode in (0, 1), loaded.stderr
    (row,) = json.loads((tmp_path / "run" / "run.json").read_text())["rows"]
    assert (row["hardware"], row["answered"]) == ("c5.large + 2 × sim", 100)
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "run" / "report.html").is_file()
