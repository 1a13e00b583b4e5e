"""A run file says what was measured and no more: identities hold, percentiles need samples, prices have reasons."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue, sequential_per_100k
from capacity.rundir import IntervalLogWriter, Measure, Row, Run, RunFile, TargetInfo, build_run_file, series_tag
from capacity.statistics import Check, Slo

CATALOGUE = Catalogue.parse(
    """
    region = "here"
    date = "2026-11"
    [hosts.box]
    price = 0.36
    memory_gib = 8
    [hosts."c5.large"]
    price = 0.085
    [accelerators."eia2.medium"]
    price = 0.12
    memory_gib = 2
    """,
    "test",
)
POOL = HardwareCombination("box", "cpu-1c", 2)


def tally(latencies_ns: Any, *, errors: int = 0, unsent: int = 0) -> Tally:
    values = np.asarray(latencies_ns, np.int64)
    made = Tally(values.size + errors + unsent, values.size, unsent, {"UNAVAILABLE": errors} if errors else {})
    for measure in ("latency", "service"):
        made.histograms[measure].record_ns(values)
    made.histograms["latency-error"].record_ns([1_000_000] * errors)
    made.bytes_out = 100 * made.requests
    return made


def series(ordinal: int, model: str = "gpt", hardware: HardwareCombination = POOL, simulated: bool = False) -> Series:
    return Series(hardware, model, f"cpu:{ordinal} @ 127.0.0.1:900{ordinal}", simulated)


def built(tallies: dict[Series, Tally], **changes: Any) -> RunFile:
    defaults: dict[str, Any] = {
        "started": datetime(2026, 11, 24, tzinfo=UTC),
        "options": {"arrivals": "closed"},
        "conditions": {"model": "gpt"},
        "targets": [],
        "warmups": {},
        "first_requests_ns": {},
        "duration_s": 10.0,
        "slo": Slo.parse("p90=15ms"),
        "catalogue": CATALOGUE,
        "checks": [],
        "generators": [],
    }
    return build_run_file(tallies=tallies, **(defaults | changes))


def test_workers_of_a_pool_make_one_row_and_one_ordinal_each() -> None:
    file = built({series(0): tally([10_000_000] * 600), series(1): tally([20_000_000] * 400, errors=3, unsent=2)})
    (row,) = file.rows
    assert (row.hardware, row.model, row.kind, row.target) == ("box + 2 × cpu-1c", "gpt", "cpu", None)
    assert (row.due, row.requests, row.answered, row.errors, row.unsent) == (1005, 1003, 1000, {"UNAVAILABLE": 3}, 2)
    assert (row.offered_rps, row.throughput_rps) == (100.5, 100.0)
    assert row.latency_us.mean == 14_000
    assert [(entry.hardware, entry.target, entry.answered) for entry in file.target_rows] == [
        ("box + cpu-1c", "cpu:0 @ 127.0.0.1:9000", 600),
        ("box + cpu-1c", "cpu:1 @ 127.0.0.1:9001", 400),
    ]
    assert row.notes == ["errors: 3 UNAVAILABLE", "due and never sent: 2"]


def test_combinations_and_models_are_kept_apart() -> None:
    other = HardwareCombination("box", "cpu-2c")
    tallies = {
        series(0): tally([1_000_000] * 10),
        series(1, "resnet18"): tally([1_000_000] * 20),
        series(2, hardware=other): tally([1_000_000] * 30),
        series(3, simulated=True): tally([1_000_000] * 40),
    }
    result = [(row.model, row.hardware, row.simulated, row.answered) for row in built(tallies).rows]
    assert result == [
        ("gpt", "box + 2 × cpu-1c", False, 10),
        ("gpt", "box + 2 × cpu-1c", True, 40),
        ("gpt", "box + cpu-2c", False, 30),
        ("resnet18", "box + 2 × cpu-1c", False, 20),
    ]


def test_errors_and_unsent_push_percentiles_up() -> None:
    values = np.arange(1, 1001) * 1_000_000
    plain = built({series(0): tally(values)}).rows[0].latency_us
    pushed = built({series(0): tally(values, errors=60, unsent=30)}).rows[0].latency_us
    assert plain.p90 == pytest.approx(900_000, rel=1e-3)
    assert pushed.p90 == pytest.approx(981_000, rel=1e-3)
    assert (pushed.samples, pushed.beyond) == (1090, 90)
    assert pushed.p95 is None
    assert pushed.p90_interval is not None
    assert pushed.p90_interval[1] is None
    assert pushed.mean == plain.mean
    service = built({series(0): tally(values, errors=60, unsent=30)}).rows[0].service_us
    assert service.beyond == 60


@pytest.mark.parametrize(
    ("n", "there"),
    [
        (5, set()),
        (28, {"p50"}),
        (29, {"p50", "p90"}),
        (59, {"p50", "p90", "p95"}),
        (299, {"p50", "p90", "p95", "p99"}),
        (2995, {"p50", "p90", "p95", "p99", "p999"}),
    ],
)
def test_a_percentile_that_the_sample_cannot_support_is_null(n: int, there: set[str]) -> None:
    latency = built({series(0): tally([1_000_000] * n)}).rows[0].latency_us
    assert {name for name in ("p50", "p90", "p95", "p99", "p999") if getattr(latency, name) is not None} == there


def test_percentiles_agree_with_numpy_over_the_raw_values() -> None:
    values = np.random.default_rng(5).lognormal(16, 0.6, 5000).astype(np.int64)
    latency = built({series(0): tally(values)}).rows[0].latency_us
    for p, name in ((50, "p50"), (90, "p90"), (95, "p95"), (99, "p99")):
        truth = np.percentile(values, p, method="inverted_cdf") / 1000
        assert getattr(latency, name) == pytest.approx(truth, rel=1e-3)
    assert latency.p90_interval is not None
    assert latency.p90 is not None
    low, high = latency.p90_interval
    assert high is not None
    assert low < latency.p90 < high


def test_the_price_is_of_one_request_at_a_time_on_each_accelerator() -> None:
    row = built({series(0): tally([10_000_000] * 100), series(1): tally([10_000_000] * 100)}).rows[0]
    assert row.price_per_hour == 0.36
    assert row.cost_per_100k.sequential == pytest.approx(0.36 / 3600 * 0.010 * 100_000 / 2)
    assert row.cost_per_100k.saturated is None
    assert set(row.cost_per_100k.reasons) == {"saturated", "at_slo"}
    assert row.notes == []


def test_the_price_carries_the_interval_of_the_mean() -> None:
    values = np.random.default_rng(6).exponential(10_000_000, 1000).astype(np.int64)
    row = built({series(0): tally(values)}).rows[0]
    assert row.latency_us.mean_interval is not None
    assert row.cost_per_100k.sequential_interval is not None
    low, high = row.latency_us.mean_interval
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 1000 / np.sqrt(1000), rel=0.01)
    assert row.cost_per_100k.sequential_interval[1] == pytest.approx(0.36 / 36 * high / 1e6 * 1000 / 2, rel=1e-6)


def test_dependent_samples_widen_the_intervals_and_the_advice_is_in_seconds() -> None:
    values = [9_000_000] * 910 + [20_000_000] * 90
    plain = built({series(0): tally(values)}).rows[0]
    wide = built({series(0): tally(values)}, autocorrelation_times={series(0): 4.0}).rows[0]
    assert (plain.autocorrelation_time, wide.autocorrelation_time) == (1.0, 4.0)
    assert plain.latency_us.mean_interval is not None
    assert wide.latency_us.mean_interval is not None
    ratio = np.ptp(wide.latency_us.mean_interval) / np.ptp(plain.latency_us.mean_interval)
    # By the root of four, and by what is not known of the four.
    assert 2 < ratio < 2.3
    assert plain.more_samples is not None
    assert wide.more_samples is not None
    assert wide.more_samples > 2 * plain.more_samples
    assert plain.more_seconds == pytest.approx(plain.more_samples / 100, abs=0.1)
    pooled = built(
        {series(0): tally(values), series(1): tally(values)}, autocorrelation_times={series(0): 4.0, series(1): 1.0}
    ).rows[0]
    assert pooled.autocorrelation_time == 1.6


def test_a_price_from_a_queue_says_so() -> None:
    row = built({series(0): tally([80_000_000] * 1000)}, duration_s=10.0).rows[0]
    assert row.notes == ["about 4 requests were in flight on each accelerator: the sequential price includes waiting"]


def test_a_price_that_is_not_known_is_null_with_its_reason() -> None:
    row = built({series(0, hardware=HardwareCombination("laptop", "cpu-1c")): tally([1_000_000] * 100)}).rows[0]
    assert row.price_per_hour is None
    assert row.cost_per_100k.sequential is None
    assert row.cost_per_100k.reasons["sequential"] == "no price for the host 'laptop' in the catalogue"
    unanswered = built({series(0): tally([], errors=5)}).rows[0]
    assert unanswered.price_per_hour == 0.36
    assert unanswered.cost_per_100k.reasons["sequential"] == "no request was answered"
    file = built({series(0): tally([1_000_000] * 100), series(1): tally([1_000_000] * 100)})
    assert file.target_rows[0].cost_per_100k.reasons["sequential"] == "its pool is priced as one"


def test_the_articles_prices() -> None:
    assert round(sequential_per_100k(0.205, 10_030), 2) == round(sequential_per_100k(0.21, 10_030), 2) == 0.06
    assert round(sequential_per_100k(0.325, 8_770), 2) == round(sequential_per_100k(0.33, 8_770), 2) == 0.08


def test_the_first_inference_and_the_warm_up_stand_apart() -> None:
    workers = [
        TargetInfo(label=series(ordinal).target, address="x", kind="cpu", first_inference_us=1000.0 * (ordinal + 1))
        for ordinal in (0, 1)
    ]
    file = built(
        {series(0): tally([1_000_000] * 9), series(1): tally([1_000_000] * 9)},
        targets=workers,
        warmups={series(0): tally([7_000_000] * 2, errors=1)},
        first_requests_ns={series(0): 5_000_000, series(1): 6_000_000},
    )
    row = file.rows[0]
    assert (row.first_inference_us, row.first_request_us) == (2000, 6000)
    assert (row.warmup.requests, row.warmup.errors, row.warmup.mean_us) == (3, 1, 7000)
    assert row.requests == 18
    assert file.target_rows[1].warmup.requests == 0


def test_memory_is_the_peak_of_all_workers_on_a_host_and_the_worst_accelerator() -> None:
    eia = HardwareCombination("c5.large", "eia2.medium", 2)
    workers = [
        TargetInfo(
            label=series(ordinal).target,
            address="x",
            kind="eia",
            model_parameter_bytes=400,
            process_peak_bytes=1000 + ordinal,
            accelerator_peak_bytes=70 + ordinal,
        )
        for ordinal in (0, 1)
    ]
    tallies = {series(o, hardware=eia): tally([1_000_000] * 9) for o in (0, 1)}
    memory = built(tallies, targets=workers).rows[0].memory
    assert (memory.model_bytes, memory.input_bytes) == (400, 100)
    assert (memory.host_peak_bytes, memory.accelerator_peak_bytes) == (2002, 71)
    assert (memory.host_bytes, memory.accelerator_bytes) == (None, 2 * 2**30)


@pytest.mark.parametrize(
    ("hardware", "told", "kind"),
    [
        (HardwareCombination("c5.large", "eia2.medium"), "sim", "eia"),
        (HardwareCombination("c5.large", "cpu-2c"), "sim", "cpu"),
        (HardwareCombination("g5.xlarge", "a10g"), "sim", "cuda"),
        (HardwareCombination("c5.large", ""), "", "cpu"),
        (HardwareCombination("box", "arc"), "xpu", "xpu"),
    ],
)
def test_the_kind_is_what_describe_says_or_what_a_simulation_stands_for(
    hardware: HardwareCombination, told: str, kind: str
) -> None:
    workers = [TargetInfo(label=series(0).target, address="x", kind=told)]
    assert built({series(0, hardware=hardware): tally([1])}, targets=workers).rows[0].kind == kind


def test_a_failed_check_makes_a_run_invalid_and_a_warning_does_not() -> None:
    def check(status: Any) -> Check:
        return Check(name="lateness", value=3.5, threshold="under 1 ms", status=status)

    tallies = {series(0): tally([1_000_000] * 9)}
    assert built(tallies, checks=[check("PASS"), check("WARN")]).valid
    invalid = built(tallies, checks=[check("PASS"), check("FAIL")])
    assert not invalid.valid
    assert [result.status for result in invalid.failures] == ["FAIL"]


def test_the_slo_is_judged_in_each_row() -> None:
    rows = built(
        {
            series(0, "fast"): tally([9_000_000] * 100),
            series(0, "slow"): tally([19_000_000] * 100),
            series(0, "few"): tally([9_000_000] * 10),
        }
    ).rows
    assert {row.model: row.verdict for row in rows} == {"fast": "met", "slow": "missed", "few": "inconclusive"}
    assert {row.model: row.verdict_reasons for row in rows} == {
        "fast": [],
        "slow": ["P90 19 ms > 15ms"],
        "few": ["P90: not enough samples (10 < 29)"],
    }
    assert built({series(0): tally([1_000_000] * 100)}, slo=None).rows[0].verdict is None


def test_a_run_file_is_saved_whole_and_read_back(tmp_path: Path) -> None:
    file = built({series(0): tally([1_234_567] * 40, errors=2), series(1): tally([2_000_000])})
    path = file.save(tmp_path / "run")
    assert [result.name for result in path.parent.iterdir()] == ["run.json"]
    assert Run.load(path.parent).file == file
    data = json.loads(path.read_text())
    assert data["schema"] == 2
    assert data["rows"][0]["latency_us"]["p90"] == 1235.0
    assert data["rows"][0]["latency_us"]["min"] == 1234.567
    file.save(path.parent)
    assert Run.load(path.parent).name == "run"


def edited(tmp_path: Path, **changes: Any) -> Path:
    path = built({series(0): tally([1_000_000] * 40, errors=2)}).save(tmp_path)
    data = json.loads(path.read_text())
    data["rows"][0] |= changes
    path.write_text(json.dumps(data))
    return tmp_path


@pytest.mark.parametrize("change", [{"due": 41}, {"answered": 41}, {"errors": {}}, {"unsent": 1}, {"requests": 40}])
def test_counts_that_contradict_each_other_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"run\.json: rows\.0: the counts of box \+ 2 × cpu-1c contradict"):
        Run.load(edited(tmp_path, **change))


def test_the_counts_of_a_tally_that_contradict_each_other_are_refused() -> None:
    broken = tally([1_000_000] * 5)
    broken.due += 1
    with pytest.raises(ValueError, match="6 due, 5 requests"):
        built({series(0): broken})


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Measure(mean=math.nan)
    with pytest.raises(ValueError, match="finite"):
        Measure(p90_interval=(1.0, math.inf))
    with pytest.raises(ValueError, match="finite"):
        built({series(0): tally([1])}, duration_s=math.inf)


def test_a_run_directory_that_is_not_whole_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        Run.load(tmp_path / "none")
    with pytest.raises(ValueError, match=r"not a complete run: it has no run\.json$"):
        Run.load(tmp_path)
    (tmp_path / "run.hlog").write_text("")
    with pytest.raises(ValueError, match=r"there is a run\.hlog: the run was cut off"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 3}')
    with pytest.raises(ValueError, match="has schema 3: expected schema 1 or 2"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="has schema None"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 2}')
    with pytest.raises(ValueError, match="started: Field required"):
        Run.load(tmp_path)


def test_histograms_of_a_row_come_from_the_log(tmp_path: Path) -> None:
    tallies = {series(0): tally([1_000_000] * 40), series(1): tally([2_000_000] * 60), series(0, "b"): tally([5] * 7)}
    file = built(tallies)
    file.save(tmp_path)
    with IntervalLogWriter(tmp_path / "run.hlog", 0.0) as log:
        for second in (0, 1):
            for key, made in tallies.items():
                log.write(second, 1, series_tag(key, "latency"), made.histograms["latency"])
    run = Run.load(tmp_path)
    pooled = next(row for row in file.rows if row.model == "gpt")
    result = run.histogram(pooled, "latency")
    assert result is not None
    assert result.exact == (200, 320_000_000, 1_000_000, 2_000_000, 0)
    ordinal = next(row for row in file.target_rows if row.target == series(1).target)
    one = run.histogram(ordinal, "latency")
    assert one is not None
    assert one.count == 120
    assert run.histogram(pooled, "queue") is None


def test_rows_keep_what_they_do_not_know_apart_from_zero() -> None:
    row = Row(
        hardware="a",
        host="a",
        model="m",
        simulated=False,
        due=0,
        requests=0,
        answered=0,
        offered_rps=0,
        throughput_rps=0,
    )
    assert row.memory_bytes is None
    assert row.latency_us.p90 is None
    assert row.price_per_hour is None
