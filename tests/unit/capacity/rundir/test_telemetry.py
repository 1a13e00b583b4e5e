"""telemetry.csv, read back; energy from power; the panels under the latency."""

from pathlib import Path

import pytest
from unit.capacity.reporting.test_report import make, printed

from capacity.errors import InputError
from capacity.reporting import write_report
from capacity.rundir import (
    IntervalLogWriter,
    Run,
    RunFile,
    TelemetryReading,
    TelemetryWriter,
    joules_per_inference,
    series_tag,
)
from capacity.rundir.telemetry import TelemetrySample, read_telemetry

UUID = "0a1b2c3d-0000-1111-2222-333344445555"


def with_gpu(directory: Path, power_w: float | None) -> Run:
    """1,000 answered requests in 1,000 s on one GPU that its worker names, beside a GPU of somebody else."""
    run = make(directory, [("g5.xlarge + a10g", 10.0)])
    (worker,) = run.file.targets
    workers = [worker.model_copy(update={"accelerator_id": UUID})]
    RunFile.model_validate(run.file.model_dump(by_alias=True) | {"targets": workers}).save(directory)
    writer = TelemetryWriter(directory)
    for second in (0.0, 400.0, 800.0):
        readings = [
            TelemetryReading("cuda:1", "GPU-other", "power_w", 999.0),
            TelemetryReading("cpu", "", "utilisation_percent", 40.0),
        ]
        if power_w is not None:
            readings.append(TelemetryReading("cuda:0", f"GPU-{UUID}", "power_w", power_w))
        writer.write(second, "h", readings)
    writer.close()
    return Run.load(directory)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    writer = TelemetryWriter(tmp_path)
    writer.write(1.25, "a,b", [TelemetryReading("cuda:0", "GPU-1", "power_w", 71.5), ("cpu", "", "x", float("nan"))])
    writer.write(2.25, "a,b", [["cpu", "", "utilisation_percent", "much"]])
    writer.close()
    assert read_telemetry(tmp_path) == [
        TelemetrySample(1.25, "a,b", TelemetryReading("cuda:0", "GPU-1", "power_w", 71.5))
    ]


def test_no_file_is_no_samples_and_a_broken_one_is_named(tmp_path: Path) -> None:
    assert read_telemetry(tmp_path) == []
    path = tmp_path / "telemetry.csv"
    path.write_text("something,else\n")
    with pytest.raises(ValueError, match=r"telemetry\.csv: not a telemetry\.csv"):
        read_telemetry(tmp_path)
    path.write_bytes(b"seconds,host,device,id,measure,value\n1,\xff,cpu,,x,1\n")
    with pytest.raises(InputError, match=r"telemetry\.csv is not a CSV file"):
        read_telemetry(tmp_path)
    path.write_text("seconds,host,device,id,measure,value\n1,h,cpu,,x,none\n")
    with pytest.raises(ValueError, match=r"telemetry\.csv, line 2: not a line of telemetry"):
        read_telemetry(tmp_path)


def test_energy_is_power_times_time_over_answers(tmp_path: Path) -> None:
    run = with_gpu(tmp_path / "a", 50.0)
    joules = joules_per_inference(run.file, run.file.rows[0], run.telemetry, 0.0)
    assert joules == pytest.approx(50.0)
    text = printed(run)
    assert "J per inference" in text
    assert " 50 " in text


def test_energy_is_not_guessed(tmp_path: Path) -> None:
    run = with_gpu(tmp_path / "a", None)
    assert joules_per_inference(run.file, run.file.rows[0], run.telemetry, 0.0) is None
    assert "J per inference" not in printed(run)
    simulated = with_gpu(tmp_path / "b", 50.0)
    row = simulated.file.rows[0].model_copy(update={"simulated": True})
    assert joules_per_inference(simulated.file, row, simulated.telemetry, 0.0) is None


def test_telemetry_is_drawn_under_the_latency(tmp_path: Path) -> None:
    run = with_gpu(tmp_path / "a", 50.0)
    (series,) = {series for series, _measure in run.histograms}
    with IntervalLogWriter(run.directory / "run.hlog", 0.0) as log:
        for second in range(0, 1000, 100):
            log.write(second, 100, series_tag(series, "latency"), run.histograms[series, "latency"])
    html = write_report(Run.load(run.directory), tmp_path / "out").read_text()
    assert html.index("P90 latency, ms, and P50 (thin)") < html.index("Utilisation, %")
    assert "Power, W" in html
    assert "telemetry.csv" in html
