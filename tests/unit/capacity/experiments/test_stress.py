"""What a stress scenario says follows from its runs' logs and its processes' samples; wrong input is one line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from capacity.__main__ import main
from capacity.comparison import target_skews
from capacity.experiments.stress import (
    ChartPanel,
    ProcessSample,
    ResultTable,
    RunWindow,
    StressResult,
    TargetMark,
    check_accounted,
    check_growth,
    mean_growth,
    p99_growth,
    run_window,
)
from capacity.experiments.stress.scenarios.burst import bursts_within, drain_seconds
from capacity.experiments.stress.scenarios.loss import check_recovery
from capacity.measures import LATENCY_ERROR, HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.reporting import write_stress_page
from capacity.rundir import Interval, IntervalLogWriter, Measure, Run, Timeline, build_run_file, series_tag
from capacity.statistics import Check, Histogram

SERIES = Series(HardwareCombination("host", "sim"), "m", "sim:0 @ a:1", True)
MIB = 2**20


def run_of(directory: Path, seconds: list[tuple[float, int, int]]) -> Run:
    """A run of one second after another: (latency in ms, answered, failed)."""
    tally = Tally()
    directory.mkdir()
    with IntervalLogWriter(directory / "run.hlog", 0.0) as log:
        for at, (ms, answered, failed) in enumerate(seconds):
            for measure, count in (("latency", answered), (LATENCY_ERROR, failed)):
                if count:
                    histogram = Histogram()
                    histogram.record_ns(np.full(count, round(ms * 1e6)))
                    tally.histograms[measure].add(histogram)
                    log.write(float(at), 1.0, series_tag(SERIES, measure), histogram)
            tally.due, tally.answered = tally.due + answered + failed, tally.answered + answered
            if failed:
                tally.errors["UNAVAILABLE"] = tally.errors.get("UNAVAILABLE", 0) + failed
    build_run_file(
        started=datetime(2026, 11, 24, tzinfo=UTC),
        options={"arrivals": "poisson"},
        conditions={},
        targets=[],
        tallies={SERIES: tally},
        warmups={},
        first_requests_ns={},
        duration_s=float(len(seconds)),
        slo=None,
        catalogue=Catalogue.load(),
        checks=[],
        generators=[],
    ).save(directory)
    return Run.load(directory)


def test_a_window_has_what_its_seconds_have_and_failures_count_as_beyond(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [(10, 400, 0)] * 3 + [(50, 300, 100)] * 2 + [(10, 400, 0)] * 3)
    before, during = run_window(run, 0, 3), run_window(run, 3, 5)
    assert (before.answered, before.failed, before.answered_rps) == (1200, 0, 400)
    assert before.p99_us == pytest.approx(10_000, rel=2e-3)
    assert (during.answered, during.failed, during.answered_rps) == (600, 200, 300)
    assert during.p50_us == pytest.approx(50_000, rel=2e-3)
    assert during.p99_us is None
    assert check_accounted(run).status == "PASS"


def test_goodput_after_a_loss_is_claimed_only_where_it_was_measured() -> None:
    before, after = RunWindow(0, 5, 5.0, 500, 0, None, None), RunWindow(9, 14, 5.0, 480, 20, None, None)
    assert (
        check_recovery(before, after, recovered=True).value,
        check_recovery(before, after, recovered=True).status,
    ) == ("96.0 %", "PASS")
    poor = check_recovery(before, RunWindow(9, 14, 5.0, 470, 30, None, None), recovered=True)
    assert (poor.value, poor.status) == ("94.0 %", "FAIL")
    none_left = check_recovery(before, RunWindow(14.2, 15, 0.0, 0, 0, None, None), recovered=True)
    assert none_left.status == "FAIL"
    assert "not measured" in str(none_left.value)
    assert "--for" in str(none_left.value)
    gone = check_recovery(before, after, recovered=False)
    assert (gone.value, gone.status) == ("the worker was not up before the end", "FAIL")


def test_a_backlog_is_drained_when_a_second_is_as_it_was_before(tmp_path: Path) -> None:
    quiet, burst, late = (10.0, 100, 0), (200.0, 150, 0), (100.0, 100, 0)
    run = run_of(tmp_path / "run", [quiet] * 8 + [burst] * 3 + [late] * 2 + [quiet] * 6)
    assert drain_seconds(run, 11.0, [11.0]) == 2
    never = run_of(tmp_path / "never", [quiet] * 8 + [burst] * 3 + [late] * 8)
    assert drain_seconds(never, 11.0, [11.0]) is None


def samples(rss: list[float], descriptors: int = 20, threads: int = 9) -> list[ProcessSample]:
    return [ProcessSample(float(at), round(mib * MIB), descriptors, threads) for at, mib in enumerate(rss)]


def test_a_square_wave_has_as_many_bursts_as_there_is_time_for() -> None:
    assert [bursts_within(seconds) for seconds in (None, 21, 31, 32, 43, 120)] == [3, 1, 1, 2, 3, 10]
    with pytest.raises(ValueError, match="too short for a burst"):
        bursts_within(20.9)


def test_what_fills_up_at_first_is_flat_and_what_goes_on_growing_is_not() -> None:
    fills = [min(100 + 10 * at, 150) for at in range(100)]
    leaks = [100 + 0.5 * at for at in range(100)]
    assert {check.status for check in check_growth("w", samples(fills))} == {"PASS"}
    assert {check.name: check.status for check in check_growth("w", samples(leaks))}["memory of w"] == "FAIL"
    growing = [ProcessSample(float(at), 100 * MIB, 20 + at, 9) for at in range(100)]
    assert {check.name: check.status for check in check_growth("w", growing)}["file descriptors of w"] == "FAIL"


def test_ratios_come_with_the_interval_of_both_runs() -> None:
    before = Measure(samples=1000, mean=100, mean_interval=(97, 103), p99=200, p99_interval=(190, 215))
    later = Measure(samples=1000, mean=110, mean_interval=(106, 114), p99=260, p99_interval=(240, 290))
    mean, p99 = mean_growth(later, before), p99_growth(later, before)
    assert mean.value == pytest.approx(0.1)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < 0.1 < mean.high < 0.16
    assert p99.value == pytest.approx(0.3)
    assert p99.low is not None
    assert p99.low > 0
    assert mean_growth(later, Measure()).value is None


def pool(generator: np.random.Generator, slow: float, ordinals: int = 8, seconds: int = 40) -> list[bool]:
    """Whom the product's test calls slower, of simulated ordinals with two in flight; the first is slower by `slow`."""
    members = [
        Series(HardwareCombination("host", "sim", ordinals), "m", f"sim:{n} @ a:{n}", True) for n in range(ordinals)
    ]
    course = Timeline(0.0, 1.0, np.zeros(seconds))
    # What disturbs all of them: the host is slower in some seconds than in others.
    shared = 1 + 0.02 * generator.standard_normal(seconds)
    for n, series in enumerate(members):
        for at in range(seconds):
            mean_ms = 10 * shared[at] * (1 + (slow if n == 0 else 0.0))
            answered = int(1000 / mean_ms)
            histogram = Histogram()
            histogram.record_ns((2e6 * mean_ms * np.exp(0.1 * generator.standard_normal(answered))).astype(np.int64))
            course.add(Interval(series_tag(series, "latency"), float(at), 1.0, histogram), series, "latency")
    return [sibling.slower for sibling in target_skews(course, members, by_rate=True)]


def test_one_of_eight_that_is_a_tenth_slower_is_found_and_equal_ones_are_left_alone() -> None:
    generator = np.random.default_rng(5)
    assert [pool(generator, 0.1) for _ in range(5)] == [[True, *[False] * 7]] * 5
    assert [pool(generator, 0.0) for _ in range(5)] == [[False] * 8] * 5


def findings(status: str) -> StressResult:
    return StressResult(
        scenario="loss",
        started=datetime(2026, 11, 24, tzinfo=UTC),
        command=["python", "-m", "capacity", "stress", "loss"],
        simulated=True,
        conditions={"made by": "<script>alert(1)</script>"},
        summary=["One was lost."],
        checks=[Check(name="noticed", value="0.2 s", threshold="within 1 s", status=status)],  # type: ignore[arg-type]
        tables=[ResultTable(title="Parts", columns=["part", "P99"], rows=[["before", "27.9"]])],
        panels=[ChartPanel(title="P99", curves={"P99": [(0.0, 1.0), (1.0, 2.0)]})],
        marks=[TargetMark(at_s=0.5, down=True)],
        runs=["loss"],
    )


def test_findings_are_a_file_for_programs_and_one_page_that_needs_no_network(tmp_path: Path) -> None:
    result = findings("PASS")
    assert StressResult.load(result.save(tmp_path)) == result
    text = write_stress_page(result, tmp_path).read_text()
    for words in ("simulated", "One was lost.", "noticed", "27.9", "loss/report.html", "Passed", 'class="mark"'):
        assert words in text
    assert "<script>" not in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert findings("WARN").passed
    assert not findings("FAIL").passed
    assert "Not passed" in write_stress_page(findings("FAIL"), tmp_path).read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["storm", "--accelerators", "sim:0"], "unknown scenario 'storm'"),
        (["skew"], "no workers to put under stress"),
        (["skew", "--accelerators", "sim:0", "--targets", "a:1"], "no workers to put under stress"),
        (["loss", "--targets", "a:1,b:2", "--fault", "drown"], "--fault drown"),
        (["loss", "--targets", "a:1,b:2"], "no process of this host"),
        (["soak", "--targets", "a:1", "--at", "lots"], "--at lots"),
        (["soak", "--targets", "a:1", "--for", "long"], "is not a duration"),
        (["soak", "--targets", "a:1", "--for", "xh"], "is not a duration"),
        (["skew", "--targets", "a:1,b:2", "--at", "50%"], "--at is for soak, loss, burst, overload, not for skew"),
        (["soak", "--targets", "a:1", "--fault", "kill"], "--fault is for loss, not for soak"),
        (["skew", "--targets", "a:1,b:2", "--sim", "fixed:1ms"], "--sim is for workers that --accelerators starts"),
        (["burst", "--targets", "a:1", "--for", "20s"], "is too short for a burst"),
        (["burst", "--targets", "a:1", "--trace", "t.csv", "--for", "60s"], "--for and --at are for the square wave"),
        (["skew", "--targets", "@none.json"], "targets file none.json"),
        (["burst", "--targets", "a:1", "--trace", "none.csv"], "--trace none.csv"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["capacity", "stress", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("stress: ")]
    assert len(lines) == 1
    assert words in lines[0]
