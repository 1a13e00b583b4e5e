"""Two runs are compared in words with intervals; equal ones do not differ, and a limit fails on a real change."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capacity.__main__ import main
from capacity.comparison import ChangeLimit, compare_runs, differing_conditions
from capacity.comparison.run_comparison import MEASURES, Blocks, Difference, row_differences
from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import IntervalLogWriter, Run, build_run_file, series_tag
from capacity.statistics import Check, Histogram

CATALOGUE = Catalogue.parse('[hosts.box]\nprice = 0.36\n[hosts."box.large"]\nprice = 0.72\n', "test")


def make(
    directory: Path,
    scale: float = 1.0,
    *,
    seed: int = 1,
    seconds: int = 30,
    hardware: str = "box + cpu-1c",
    models: tuple[str, ...] = ("gpt",),
    failed: int = 0,
    begins_s: int = 0,
    **changes: Any,
) -> Run:
    """A run of 50 answered requests a second, exponential latencies of a mean of 10 ms × scale, from 5 ms on."""
    generator, tallies = np.random.default_rng(seed), {}
    directory.mkdir(parents=True)
    with IntervalLogWriter(directory / "run.hlog", 0.0) as log:
        for model in models:
            series = Series(HardwareCombination.parse(hardware), model, "cpu:0 @ a:1", False)
            tally = tallies[series] = Tally()
            for second in range(seconds):
                gained = Tally(50 + failed, 50, 0, {"UNAVAILABLE": failed} if failed else {})
                values = (scale * (5 + generator.exponential(5, 50)) * 1e6).astype(np.int64)
                gained.histograms["latency"].record_ns(values)
                gained.histograms["latency-error"].record_ns([1_000] * failed)
                for name in ("latency", "latency-error"):
                    log.write(begins_s + second, 1, series_tag(series, name), gained.histograms[name])
                tally.add(gained)
    defaults: dict[str, Any] = {"conditions": {"transport": "wire"}, "checks": []}
    file = build_run_file(
        started=datetime(2026, 11, 24, tzinfo=UTC),
        options={"arrivals": "poisson"},
        targets=[],
        tallies=tallies,
        warmups={},
        first_requests_ns={},
        duration_s=float(seconds),
        slo=None,
        catalogue=CATALOGUE,
        generators=[],
        **(defaults | changes),
    )
    file.save(directory)
    return Run.load(directory)


def row_differences_of(first: Run, second: Run) -> dict[str, Difference]:
    (pair,) = compare_runs(first, second)
    return {difference.measure: difference for difference in pair.differences}


def test_a_run_compared_with_itself_shows_no_difference(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    for difference in row_differences_of(run, run).values():
        assert difference.ratio in (None, pytest.approx(1.0))
        assert not difference.distinguishable


def test_a_slower_run_is_called_slower_by_how_much(tmp_path: Path) -> None:
    by = row_differences_of(make(tmp_path / "a"), make(tmp_path / "b", 1.3, seed=2))
    assert list(by) == list(MEASURES)
    for measure in ("mean", "p50", "p90", "p95", "p99", "cost"):
        ratio, interval = by[measure].ratio, by[measure].interval
        assert ratio is not None
        assert interval is not None
        assert interval[0] < 1.3 < interval[1]
        assert by[measure].distinguishable or measure == "p99"
    assert "slower (+" in by["p90"].sentence
    assert "more expensive" in by["cost"].sentence
    assert by["throughput"].sentence == "throughput: no significant difference (+0.0 % to +0.0 %)"
    assert by["p999"].sentence == "p999: not enough samples (1500 < 2995)"
    back = row_differences_of(make(tmp_path / "c", 1.3, seed=2), make(tmp_path / "d"))
    assert "faster (-" in back["mean"].sentence


def sampled(generator: np.random.Generator, blocks: int = 30) -> Blocks:
    """Blocks of 40 lognormal latencies; each block has a level of its own, so that its samples are alike."""
    level = generator.normal(0, 0.05, (blocks, 1))
    values = np.exp(level + generator.normal(9, 0.4, (blocks, 40))) * 1000
    counts, sums = [], []
    for block in values.astype(np.int64):
        histogram = Histogram()
        histogram.record_ns(block)
        counts.append(histogram.counts)
        sums.append(histogram.sum_ns / 1000)
    return Blocks(np.stack(counts).astype(float), np.array(sums), np.zeros(blocks), 1.0)


def test_runs_that_are_alike_are_told_apart_about_as_seldom_as_promised(tmp_path: Path) -> None:
    """In any measure at all: the intervals hold together."""
    (row,) = make(tmp_path / "a").file.rows
    generator, called = np.random.default_rng(4), 0
    for _ in range(100):
        result = row_differences(row, row, sampled(generator), sampled(generator), generator, 200)
        called += any(difference.distinguishable for difference in result)
    assert 1 <= called <= 12


def test_errors_are_beyond_the_percentiles_they_reach(tmp_path: Path) -> None:
    by = row_differences_of(make(tmp_path / "a"), make(tmp_path / "b", seed=2, failed=10))
    assert by["p50"].distinguishable
    assert by["p90"].sentence == "p90: beyond all answered requests"


def test_a_run_too_short_to_tell_says_so(tmp_path: Path) -> None:
    by = row_differences_of(make(tmp_path / "a", seconds=5), make(tmp_path / "b", seconds=5))
    assert by["mean"].sentence == "mean: too short: 5 s, at least 8 s are needed"


def test_a_log_that_begins_before_the_measured_part_is_cut_in_the_same_blocks(tmp_path: Path) -> None:
    plain, late = make(tmp_path / "a"), make(tmp_path / "b", 1.3, seed=2)
    shifted = make(tmp_path / "c", 1.3, seed=2, begins_s=100)
    assert row_differences_of(plain, late) == row_differences_of(plain, shifted)


def test_rows_pair_by_combination_else_by_the_only_model(tmp_path: Path) -> None:
    one, two = make(tmp_path / "a"), make(tmp_path / "b", hardware="box.large + cpu-1c")
    by = row_differences_of(one, two)
    assert by["cost"].ratio == pytest.approx(2 * (by["mean"].ratio or 0))
    both = make(tmp_path / "c", models=("gpt", "resnet18"))
    assert [pair.second.model for pair in compare_runs(both, both)] == ["gpt", "resnet18"]
    with pytest.raises(ValueError, match="no combination and no model in common"):
        compare_runs(one, make(tmp_path / "d", models=("other",)))


def test_conditions_that_differ_are_named(tmp_path: Path) -> None:
    one, two = make(tmp_path / "a"), make(tmp_path / "b", conditions={"transport": "grpcio", "threads": "2"})
    assert differing_conditions(one, two) == [("transport", "wire", "grpcio"), ("threads", "–", "2")]


def test_an_invalid_run_and_one_without_a_log_are_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "a")
    failed = Check(name="lateness", value=1, threshold="0", status="FAIL")
    with pytest.raises(ValueError, match="is not valid"):
        compare_runs(run, make(tmp_path / "b", checks=[failed]))
    (run.directory / "run.hlog").unlink()
    with pytest.raises(ValueError, match=r"has no run\.hlog"):
        compare_runs(run, run)


def test_a_limit_is_broken_only_by_a_change_that_is_told_apart() -> None:
    limit = ChangeLimit.parse("p99 > +5%")
    assert str(limit) == "p99 > +5%"
    assert limit.is_exceeded_by(Difference("p99", 1.08, (1.02, 1.15)))
    assert not limit.is_exceeded_by(Difference("p99", 1.08, (0.99, 1.15)))
    assert not limit.is_exceeded_by(Difference("p99", 1.03, (1.01, 1.05)))
    assert not limit.is_exceeded_by(Difference("p90", 1.08, (1.02, 1.15)))
    assert not limit.is_exceeded_by(Difference("p99", None, None, "why"))
    assert ChangeLimit.parse("throughput<-3%").is_exceeded_by(Difference("throughput", 0.9, (0.8, 0.95)))
    for text in ("p98 > 5%", "p99 = 5%", "p99 > 5", ""):
        with pytest.raises(ValueError, match="is not a limit such as"):
            ChangeLimit.parse(text)


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["capacity", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_command_says_it_and_its_exit_code_is_a_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = str(make(tmp_path / "a").directory), str(make(tmp_path / "b", 1.3, seed=2).directory)
    assert run_main(monkeypatch, "compare", a, b) == 0
    output = capsys.readouterr().out
    assert "gpt, box + cpu-1c" in output
    assert "mean: B is 28.3 % slower (+22.6 % to +34.3 %)" in output
    assert run_main(monkeypatch, "compare", a, b, "--fail-if", "p90 > +10%", "--fail-if", "mean > +60%") == 1
    assert capsys.readouterr().out.count("FAIL") == 1
    assert run_main(monkeypatch, "compare", a, a, "--fail-if", "p90 > +10%") == 0
    assert run_main(monkeypatch, "compare", a, b, "--fail-if", "soon") == 2
