"""Merged runs are one run: exact sums, percentiles of the pooled samples, and no run counted twice."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capacity.__main__ import main
from capacity.measures import HardwareCombination, Series, Tally
from capacity.merging import merge_runs
from capacity.pricing import Catalogue
from capacity.rundir import IntervalLogWriter, Run, RunFile, TargetInfo, build_run_file, read_interval_log, series_tag
from capacity.statistics import Check, Slo

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CATALOGUE = Catalogue.parse("[hosts.box]\nprice = 0.36\n[hosts.other]\nprice = 0.1\n", "test")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(
    directory: Path,
    values_us: Any,
    *,
    minute: float = 0,
    hardware: str = "box + cpu-1c",
    workers: tuple[str, ...] = ("cpu:0 @ a:1",),
    instance: str = "one",
    sha: str = "9f",
    host: str = "a",
    price: Catalogue = CATALOGUE,
    slo: str = "p90=15ms",
    arrivals: str = "poisson",
    checks: tuple[Check, ...] = (),
    conditions: dict[str, str] | None = None,
) -> Run:
    """A run of 10 s whose workers each answered these latencies, with one error and one unsent request beside."""
    values = np.asarray(values_us, np.int64) * 1000
    tallies, started = {}, NOON + timedelta(minutes=minute)
    directory.mkdir(parents=True)
    with IntervalLogWriter(directory / "run.hlog", started.timestamp()) as log:
        for worker in workers:
            series = Series(HardwareCombination.parse(hardware), "gpt", worker, False)
            tally = tallies[series] = Tally(values.size + 2, values.size, 1, {"UNAVAILABLE": 1}, bytes_out=0)
            tally.histograms["latency"].record_ns(values)
            tally.histograms["latency-error"].record_ns([1_000])
            for second, part in enumerate(np.array_split(values, 10)):
                gained = Tally()
                gained.histograms["latency"].record_ns(part)
                log.write(second, 1, series_tag(series, "latency"), gained.histograms["latency"])
            log.write(0, 10, series_tag(series, "latency-error"), tally.histograms["latency-error"])
    warmup = Tally(4, 4)
    warmup.histograms["latency"].record_ns([2_000_000] * 4)
    build_run_file(
        started=started,
        options={"arrivals": arrivals},
        conditions=conditions or {"transport": "wire"},
        targets=[
            TargetInfo(label=worker, address="a", model="gpt", model_sha256=sha, instance_id=instance, host_name=host)
            for worker in workers
        ],
        tallies=tallies,
        warmups=dict.fromkeys(tallies, warmup),
        first_requests_ns=dict.fromkeys(tallies, 9_000_000),
        duration_s=10.0,
        slo=Slo.parse(slo),
        catalogue=price,
        checks=list(checks),
        generators=[{"client": directory.name}],
    ).save(directory)
    return Run.load(directory)


def test_repeats_add_their_samples_to_one_row(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    first, second = generator.integers(1_000, 9_000, 1000), generator.integers(5_000, 90_000, 400)
    merged = merge_runs([make(tmp_path / "a", first), make(tmp_path / "b", second, minute=60)], tmp_path / "m")
    (row,) = merged.rows
    assert (row.due, row.requests, row.answered, row.errors, row.unsent) == (1404, 1402, 1400, {"UNAVAILABLE": 2}, 2)
    pooled = np.sort(np.concatenate([first, second]))
    for name, rank in (("p50", 702), ("p90", 1264), ("p99", 1390)):
        assert getattr(row.latency_us, name) == pytest.approx(pooled[rank - 1], rel=1e-3)
    assert row.latency_us.mean == pytest.approx(pooled.mean(), abs=0.001)
    assert (row.throughput_rps, merged.duration_s) == (70, 20)
    assert (row.hardware, row.price_per_hour) == ("box + cpu-1c", 0.36)
    assert (row.warmup.requests, row.warmup.mean_us, row.first_request_us) == (8, 2000, 9000)
    assert merged.options["merged"] == ["a", "b"]


def test_the_merged_directory_is_a_run_like_any_other(tmp_path: Path) -> None:
    values = np.arange(1_000, 2_000)
    runs = [make(tmp_path / "a", values), make(tmp_path / "b", values, minute=1)]
    merged = merge_runs(runs, tmp_path / "m")
    again = Run.load(tmp_path / "m")
    assert again.file == merged
    latency = again.histogram(again.file.rows[0], "latency")
    assert latency is not None
    assert latency.exact == (2000, 2 * int(values.sum()) * 1000, 1_000_000, 1_999_000, 0)
    starts = [
        interval.start_s
        for interval in read_interval_log(tmp_path / "m" / "run.hlog")
        if interval.tag.endswith("latency")
    ]
    assert starts == [*range(10), *range(60, 70)]
    third = make(tmp_path / "c", values, minute=5)
    assert merge_runs([again, third], tmp_path / "n").rows[0].answered == 3000


def test_different_combinations_stand_side_by_side_at_their_own_rates(tmp_path: Path) -> None:
    runs = [
        make(tmp_path / "a", [9_000] * 100),
        make(tmp_path / "b", [5_000] * 300, minute=9, hardware="other + cpu-1c"),
    ]
    merged = merge_runs(runs, tmp_path / "m")
    assert [(row.hardware, row.throughput_rps, row.price_per_hour) for row in merged.rows] == [
        ("box + cpu-1c", 10, 0.36),
        ("other + cpu-1c", 30, 0.1),
    ]


def test_runs_at_the_same_time_with_workers_of_their_own_were_one_pool(tmp_path: Path) -> None:
    runs = [
        make(tmp_path / "a", [9_000] * 100),
        make(tmp_path / "b", [5_000] * 100, minute=0.1, workers=("cpu:0 @ b:1",), host="b"),
    ]
    merged = merge_runs(runs, tmp_path / "m")
    assert [(row.hardware, row.answered) for row in merged.rows] == [("2 × box + 2 × cpu-1c", 200)]
    assert [row.target for row in merged.target_rows] == ["cpu:0 @ a:1", "cpu:0 @ b:1"]
    assert merged.duration_s == 16
    assert Run.load(tmp_path / "m").histogram(merged.rows[0], "latency") is not None


def test_two_generators_on_the_same_workers_add_up(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a", [9_000] * 100), make(tmp_path / "b", [5_000] * 100, minute=0.05)]
    merged = merge_runs(runs, tmp_path / "m")
    assert [(row.hardware, row.answered) for row in merged.rows] == [("box + cpu-1c", 200)]


def test_every_check_is_kept_and_one_invalid_run_makes_the_whole_invalid(tmp_path: Path) -> None:
    good = Check(name="lateness", value=1, threshold="2", status="PASS")
    bad = Check(name="lateness", value=9, threshold="2", status="FAIL")
    runs = [make(tmp_path / "a", [1] * 9, checks=(good,)), make(tmp_path / "b", [1] * 9, minute=1, checks=(bad,))]
    merged = merge_runs(runs, tmp_path / "m")
    assert not merged.valid
    assert [(check.name, check.status) for check in merged.checks] == [("a: lateness", "PASS"), ("b: lateness", "FAIL")]
    assert merged.generators == [{"client": "a"}, {"client": "b"}]


def test_conditions_that_differ_are_all_kept(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a", [1] * 9), make(tmp_path / "b", [1] * 9, minute=1, conditions={"transport": "grpcio"})]
    assert merge_runs(runs, tmp_path / "m").conditions == {"transport": "wire / grpcio"}


def refused(tmp_path: Path, runs: list[Run], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        merge_runs(runs, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = make(tmp_path / "a", [1] * 9)
    later: dict[str, Any] = {"minute": 1}
    refused(tmp_path, [one], "at least two runs")
    refused(tmp_path, [one, one], "named twice")
    refused(tmp_path, [one, make(tmp_path / "copy", [1] * 9)], "named twice")
    refused(
        tmp_path,
        [one, make(tmp_path / "b", [1] * 9, slo="p90=9ms", **later)],
        "different SLOs cannot be merged: p90=15ms and p90=9ms",
    )
    refused(tmp_path, [one, make(tmp_path / "c", [1] * 9, arrivals="closed", **later)], "different arrivals")
    refused(tmp_path, [one, make(tmp_path / "g", [1] * 9, sha="1c", **later)], "different files as the model gpt")
    dear = Catalogue.parse("[hosts.box]\nprice = 9\n", "test")
    refused(tmp_path, [one, make(tmp_path / "d", [1] * 9, price=dear, **later)], "different prices of box \\+ cpu-1c")
    shared = make(tmp_path / "e", [1] * 9, minute=0.1, workers=("cpu:0 @ a:1", "cpu:1 @ a:2"))
    refused(tmp_path, [one, shared], "share some of their targets")
    twin = make(tmp_path / "f", [1] * 9, minute=0.1, instance="two")
    refused(tmp_path, [one, twin], "two processes had the same address")


def test_a_run_whose_files_disagree_is_refused(tmp_path: Path) -> None:
    one, two = make(tmp_path / "a", [1] * 90), make(tmp_path / "b", [1] * 90, minute=1)
    log = two.directory / "run.hlog"
    log.write_text("\n".join(log.read_text().splitlines()[:-4]) + "\n")
    refused(
        tmp_path,
        [one, Run.load(two.directory)],
        r"not complete: of cpu:0 @ a:1, run\.hlog holds 81 answers and run\.json says 90",
    )
    log.unlink()
    refused(tmp_path, [one, Run.load(two.directory)], r"has no run\.hlog")


def test_a_directory_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a", [1] * 9), make(tmp_path / "b", [1] * 9, minute=1)]
    with pytest.raises(ValueError, match="holds a run already"):
        merge_runs(runs, runs[0].directory)


def test_the_command_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", [1] * 9)
    make(tmp_path / "b", [1] * 9, minute=1)
    monkeypatch.setattr("sys.argv", ["capacity", "merge", "a", "b", "--out", "m"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert "merged: m, 20 requests in 1 rows" in capsys.readouterr().out
    assert RunFile.load(tmp_path / "m" / "run.json").rows[0].requests == 20
