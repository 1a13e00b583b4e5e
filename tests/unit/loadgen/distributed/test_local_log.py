"""A generator's own log: it can be read back, and a log that cannot be written is reported once and stops nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from capacity.measures import HardwareCombination, Series
from capacity.rundir import GeneratorLog, GeneratorLogEnd, RunDescription, series_tag
from loadgen.distributed._local_log import LocalLog
from loadgen.measure import Recorder

SERIES = Series(HardwareCombination.parse("box + cpu-1c"), "gpt", "cpu:0 @ a:1", False)
DESCRIPTION = RunDescription(
    run="run-1", started=datetime(2026, 1, 1, tzinfo=UTC), clients=["host_1"], tags=[series_tag(SERIES, "latency")]
)


def end() -> GeneratorLogEnd:
    return GeneratorLogEnd(checks=[], autocorrelation_times={}, offset_us=None, round_trip_us=None)


def test_a_log_lies_in_the_directory_of_its_run_and_client_and_can_be_read(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = LocalLog(tmp_path, "host_1", DESCRIPTION, warnings.append)

    log.write(1, {}, Recorder({}), 0.5)
    log.end(end())

    stored = GeneratorLog.load(tmp_path / "run-1" / "host_1")
    assert stored.last is not None
    assert stored.last.sequence == 1
    assert stored.end is not None
    assert not warnings


def test_a_log_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "run-1").write_text("a file where the directory should be")
    warnings: list[str] = []

    log = LocalLog(tmp_path, "host_1", DESCRIPTION, warnings.append)
    log.write(1, {}, Recorder({}), 0.5)
    log.end(end())

    (warning,) = warnings
    assert warning.startswith("warning: this generator writes no log of its own: ")
