"""A simulated accelerator takes the configured times, and refuses an unknown simulation in one line."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from worker.errors import InputError
from worker.runtime import SimulatedContext, Simulation, Tensor
from worker.runtime.simulated_context import InjectedError
from worker.runtime.simulation import parse_service_time

ROW = [Tensor("FP32", (1, 16), bytes(64))]


def draws(text: str, count: int = 20_000) -> list[int]:
    service_time, rng = parse_service_time(text), random.Random(7)
    return [service_time(rng) for _ in range(count)]


def test_fixed_is_one_time() -> None:
    assert set(draws("fixed:10ms", 10)) == {10_000_000}


def test_lognormal_has_the_mean_and_the_variation_of_the_option() -> None:
    values = np.array(draws("lognormal:5ms,0.2"))
    assert values.mean() == pytest.approx(5e6, rel=0.01)
    assert values.std() / values.mean() == pytest.approx(0.2, rel=0.03)
    assert set(draws("lognormal:5ms,0", 10)) == {5_000_000}


def hlog(directory: Path, **tags: list[list[int]]) -> Path:
    """A run directory whose log holds, for each tag, one interval a list of microseconds."""
    lines = ["#[Histogram log format version 1.3]", '"StartTimestamp","Interval_Length"']
    for tag, intervals in tags.items():
        for number, values in enumerate(intervals):
            histogram = HdrHistogram(1, 3_600_000_000, 3)
            for value in values:
                histogram.record_value(value)
            lines.append(f"Tag={tag},{number}.0,1.0,{max(values)},{histogram.encode().decode()}")
    (directory / "run.hlog").write_text("\n".join(lines) + "\n")
    return directory


def test_replay_draws_what_was_recorded_as_often_as_it_was(tmp_path: Path) -> None:
    hlog(tmp_path, service=[[1000] * 30, [1000] * 45 + [3000] * 25], other=[[9]])
    values = np.array(draws(f"replay:{tmp_path}:service"))
    assert set((values / 1e6).round(1)) == {1.0, 3.0}
    assert np.mean(values > 2e6) == pytest.approx(0.25, abs=0.02)
    assert draws(f"replay:{tmp_path}/run.hlog:service", 5) == values[:5].tolist()


def test_a_part_of_a_tag_is_enough_where_only_one_has_it(tmp_path: Path) -> None:
    hlog(tmp_path, **{"c5.large|service": [[10]], "c5.large|latency": [[20]]})
    assert draws(f"replay:{tmp_path}:service", 1) == [10_000]
    with pytest.raises(InputError, match="matches more than one tag of"):
        parse_service_time(f"replay:{tmp_path}:c5.large")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fixed",
        "fixed:10",
        "fixed:-1ms",
        "lognormal:5ms",
        "lognormal:0ms,0.2",
        "lognormal:5ms,-1",
        "lognormal:5ms,nan",
        "replay:/nowhere:tag",
        "uniform:1ms",
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_service_time(text)
    assert "\n" not in str(raised.value)


def test_replay_names_the_tags_of_the_log(tmp_path: Path) -> None:
    hlog(tmp_path, service=[[10]])
    with pytest.raises(InputError, match=r"'queue' is not a tag of .* \(choose one of service\)"):
        parse_service_time(f"replay:{tmp_path}:queue")
    (tmp_path / "run.hlog").write_text("Tag=service,0,1,1,rubbish\n")
    with pytest.raises(InputError, match="not a histogram"):
        parse_service_time(f"replay:{tmp_path}:service")


def test_a_pass_takes_its_time_and_gives_the_shape_of_the_specification() -> None:
    context = SimulatedContext(Simulation("fixed:2ms", per_row_ns=1_000_000))
    context.load()
    begin = time.perf_counter_ns()
    forward_pass = context.run([[Tensor("FP32", (2, 16), bytes(128))], ROW])
    assert time.perf_counter_ns() - begin >= 4_000_000  # 2 ms, and 1 ms for each of the two further rows
    assert forward_pass.infer_ns >= 4_000_000
    assert [output.shape for (output,) in forward_pass.outputs] == [(2, 16), (1, 16)]
    assert [len(output.data) for (output,) in forward_pass.outputs] == [128, 64]


def test_failures_and_stalls_come_as_often_as_configured_and_the_same_each_time() -> None:
    def failures() -> list[int]:
        context = SimulatedContext(Simulation("fixed:0ms", failure_rate=0.25, seed=3))
        numbers = []
        for number in range(400):
            try:
                context.run([ROW])
            except InjectedError:
                numbers.append(number)
        return numbers

    assert failures() == failures()
    assert 70 <= len(failures()) <= 130
    stalled = SimulatedContext(Simulation("fixed:0ms", stall_rate=1.0, stall_ns=3_000_000))
    assert stalled.run([ROW]).infer_ns >= 3_000_000
