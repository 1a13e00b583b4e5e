"""A profile says what the runs say, of the hardware that was asked for, and refuses what they cannot say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from capacity.measures.combination import HardwareCombination
from capacity.measures.tally import Series, Tally
from capacity.pricing.catalogue import Catalogue
from capacity.rundir import Run, build_run_file
from capacity.rundir.interval_log import IntervalLogWriter, series_tag
from capacity.simulation.distribution import Distribution, mix
from capacity.simulation.profile import Profile
from capacity.statistics import Check, Histogram

CATALOGUE = Catalogue.parse('[hosts.box]\nprice = 0.6\naccelerator = "chip"\naccelerators = 4\n', "test")
MS = 1_000_000
PAIR = HardwareCombination("box", "chip", 2)

Write = Callable[..., Run]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A run of a pool: of each ordinal the forward passes by rows, and what requests waited and took beside, in ms."""

    def write_run(
        passes: dict[int, list[float]],
        *,
        hardware: HardwareCombination = PAIR,
        queue: float = 0.01,
        beside: float = 1.0,
        valid: bool = True,
        simulated: bool = False,
        reports_passes: bool = True,
        seconds: float = 10.0,
    ) -> Run:
        directory = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        directory.mkdir()
        tallies = {}
        with IntervalLogWriter(directory / "run.hlog", 1_700_000_000.0) as log:
            for ordinal in range(hardware.count):
                series = Series(hardware, "gpt", f"chip:{ordinal} @ host:{ordinal}", simulated)
                times = (
                    np.array([ms for rows, durations in passes.items() for ms in durations for _ in range(rows)]) * MS
                )
                tally = Tally(due=times.size, answered=times.size)
                for measure, extra in (("compute", 0.0), ("service", queue + beside), ("latency", queue + beside)):
                    tally.histograms[measure].record_ns((times + extra * MS).astype(np.int64))
                tally.histograms["queue"].record_ns([round(queue * MS)] * times.size)
                if reports_passes:
                    for rows, durations in passes.items():
                        tally.histograms[f"pass-{rows}"] = Histogram()
                        tally.histograms[f"pass-{rows}"].record_ns([round(ms * MS) for ms in durations])
                for measure, histogram in tally.histograms.items():
                    if histogram.count:
                        log.write(0.0, seconds, series_tag(series, measure), histogram)
                tallies[series] = tally
        build_run_file(
            started=datetime(2026, 11, 24, tzinfo=UTC),
            options={},
            conditions={},
            targets=[],
            tallies=tallies,
            warmups={},
            first_requests_ns={},
            duration_s=seconds,
            slo=None,
            catalogue=CATALOGUE,
            checks=[] if valid else [Check(name="lateness", value=9, threshold="1 ms", status="FAIL")],
            generators=[],
        ).save(directory)
        return Run.load(directory)

    return write_run


def test_passes_overhead_and_price_are_the_runs(write: Write) -> None:
    profile = Profile.from_runs([write({1: [10.0, 12.0] * 100, 4: [20.0] * 50})], PAIR, "gpt")
    assert profile.sizes == (1, 4)
    assert profile.pass_time(1).mean_us == pytest.approx(11_000)
    assert profile.pass_time(4).mean_us == pytest.approx(20_000)
    assert profile.overhead.mean_us == pytest.approx(1_010, rel=0.001)
    # The host costs 0.6 an hour, and two of its four chips are used.
    assert profile.price_per_hour == pytest.approx(0.3)
    assert profile.saturation_rps() == pytest.approx(1000 / 11)
    assert profile.saturation_rps(4) == pytest.approx(4 * 50)


def test_sizes_between_measured_ones_lie_between_them_and_none_is_made_up_beyond(write: Write) -> None:
    profile = Profile.from_runs([write({1: [10.0] * 100, 4: [16.0] * 100})], PAIR, "gpt")
    assert profile.pass_time(2).mean_us == pytest.approx(12_000)
    with pytest.raises(ValueError, match=r"batches of 1 to 4, none of 8: measure with --max-batch-size 8"):
        profile.pass_time(8)


def test_passes_are_the_busiest_runs_and_overhead_that_of_the_run_without_a_queue(write: Write) -> None:
    calm = write({1: [10.0] * 100}, beside=2.0)
    busy = write({1: [11.0] * 400}, queue=20.0, beside=5.0)
    profile = Profile.from_runs([calm, busy], PAIR, "gpt")
    assert profile.pass_time(1).mean_us == pytest.approx(11_000)
    # A lone request took 12.01 ms in all: what computing takes longer under load is not counted twice.
    assert profile.pass_time(1).mean_us + profile.overhead.mean_us == pytest.approx(12_010, rel=0.001)


def test_where_all_runs_have_queues_the_overheads_mean_is_known(write: Write) -> None:
    profile = Profile.from_runs([write({1: [10.0] * 400}, queue=20.0, beside=3.0)], PAIR, "gpt")
    assert profile.overhead.percentile_us(1) == pytest.approx(3_000, rel=0.001)
    assert profile.overhead.percentile_us(99) == pytest.approx(3_000, rel=0.001)


def test_computing_stands_in_where_workers_tell_no_passes(write: Write) -> None:
    profile = Profile.from_runs([write({1: [10.0] * 100}, reports_passes=False)], PAIR, "gpt")
    assert profile.pass_time(1).mean_us == pytest.approx(10_000)


def test_a_host_with_more_ordinals_loaded_is_another_profile(write: Write) -> None:
    one = write({1: [10.0] * 100}, hardware=HardwareCombination("box", "chip", 1))
    two = write({1: [13.0] * 100})
    assert Profile.from_runs([one, two], PAIR, "gpt").pass_time(1).mean_us == pytest.approx(13_000)
    lone = HardwareCombination("box", "chip", 3, 3)
    assert Profile.from_runs([one, two], lone, "gpt").pass_time(1).mean_us == pytest.approx(10_000)
    with pytest.raises(ValueError, match=r"no run of gpt loads 4 ordinals of one box at once.*they load 1, 2"):
        Profile.from_runs([one, two], HardwareCombination("box", "chip", 4), "gpt")


def test_simulated_ordinals_share_nothing(write: Write) -> None:
    run = write({1: [10.0] * 100}, simulated=True)
    profile = Profile.from_runs([run], HardwareCombination("box", "chip", 16), "gpt")
    assert profile.simulated


@pytest.mark.parametrize(
    ("hardware", "model", "words"),
    [
        (PAIR, "resnet18", r"no run has the model resnet18 \(they have gpt\)"),
        (
            HardwareCombination("box", "other"),
            "gpt",
            r"no run has gpt on box \+ other \(they have it on box \+ 2 × chip\)",
        ),
    ],
)
def test_what_no_run_has_is_said(write: Write, hardware: HardwareCombination, model: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Profile.from_runs([write({1: [10.0] * 100})], hardware, model)


def test_runs_that_are_not_valid_say_nothing(write: Write) -> None:
    with pytest.raises(ValueError, match="is valid"):
        Profile.from_runs([write({1: [10.0] * 100}, valid=False)], PAIR, "gpt")


def test_a_slower_ordinal_takes_so_much_longer(write: Write) -> None:
    profile = Profile.from_runs([write({1: [10.0] * 100})], PAIR, "gpt").with_slower_passes(1.2)
    assert profile.pass_time(1).mean_us == pytest.approx(12_000)
    assert profile.overhead.mean_us == pytest.approx(1_010, rel=0.001)


def test_a_distribution_has_its_histograms_mean_and_quantiles() -> None:
    values = np.random.default_rng(1).lognormal(9, 0.7, 50_000)
    histogram = Histogram()
    histogram.record_ns((values * 1000).astype(np.int64))
    made = Distribution.of_histogram(histogram)
    assert made.mean_us == pytest.approx(values.mean(), rel=1e-6)
    for p in (1, 50, 90, 99, 99.9):
        assert made.percentile_us(p) == pytest.approx(np.percentile(values, p), rel=0.01)


def test_a_mixture_draws_each_part_by_its_weight() -> None:
    both = mix([(Distribution.constant(1.0), 3.0), (Distribution.constant(5.0), 1.0)])
    assert both.mean_us == pytest.approx(2.0)
    assert (both.percentile_us(70), both.percentile_us(80)) == (1.0, 5.0)
