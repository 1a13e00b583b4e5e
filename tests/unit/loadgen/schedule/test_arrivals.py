"""Due times: the right rate, the right shape, the same for the same seed, and none early."""

import time
from itertools import islice
from pathlib import Path

import gevent
import numpy as np
import pytest
from scipy import stats

from capacity.errors import InputError as CapacityInputError
from capacity.simulation import OPEN_ARRIVALS, Arrival, arrival_offsets, read_trace, trace_offsets
from capacity.simulation.arrivals import constant_offsets, poisson_offsets
from loadgen._errors import InputError
from loadgen.schedule._convert import convert_azure_trace
from loadgen.schedule._pacer import Pacer
from loadgen.schedule._trace import open_trace


def test_constant_arrivals_do_not_drift() -> None:
    due = list(islice(constant_offsets(3.0), 3_000_001))

    assert due[0] == 0
    assert due[-1] == pytest.approx(1_000_000 * 1e9, abs=1)


@pytest.mark.parametrize("sources", [2, 3, 8, 50])
def test_constant_sources_interleave(sources: int) -> None:
    phases = sorted(next(constant_offsets(1.0, source)) for source in range(sources))

    gaps = np.diff([*phases, phases[0] + 1_000_000_000])
    # Golden-ratio steps leave gaps of at most three lengths, none under a third of the even one.
    assert gaps.min() > 1e9 / sources / 3


def test_poisson_arrivals_have_exponential_gaps_of_the_right_mean() -> None:
    due = np.array(list(islice(poisson_offsets(500.0, 2, (1,)), 20_000)))

    gaps = np.diff(due) / 1e9
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.03)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 500)).pvalue > 0.01


def test_poisson_sources_add_up_to_a_poisson_process() -> None:
    merged = np.sort(np.concatenate([np.array(list(islice(poisson_offsets(10.0, s, (7,)), 2000))) for s in range(20)]))
    window = merged[merged < 150e9]

    counts = np.bincount((window // 1_000_000_000).astype(int), minlength=150)
    assert counts.mean() == pytest.approx(200, rel=0.03)
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.35)


def test_the_same_seed_gives_the_same_arrivals_and_another_one_others() -> None:
    first = list(islice(poisson_offsets(100.0, 0, (3,)), 2000))

    assert first == list(islice(poisson_offsets(100.0, 0, (3,)), 2000))
    assert first != list(islice(poisson_offsets(100.0, 1, (3,)), 2000))


def test_a_trace_is_scaled_and_thinned_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,model,size\n0,gpt,7\n0.5,,\n2.25,resnet18,1\n")
    rows = read_trace(tmp_path / "t.csv")

    assert rows == [Arrival(0.0, "gpt", 7), Arrival(0.5), Arrival(2.25, "resnet18", 1)]
    assert [due for due, _ in trace_offsets(rows, scale=2)] == [0, 250_000_000, 1_125_000_000]
    thinned = list(trace_offsets([Arrival(float(n)) for n in range(10_000)], keep=0.25, seed=5))
    assert len(thinned) == pytest.approx(2500, rel=0.1)
    assert all(due == int(arrival.arrival_s * 1e9) for due, arrival in thinned)


def test_azures_llm_trace_becomes_one_of_ours(tmp_path: Path) -> None:
    rows = "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9599600,7,9\n"
    (tmp_path / "azure.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")

    assert convert_azure_trace(tmp_path / "azure.csv", tmp_path / "ours.csv") == 3

    assert read_trace(tmp_path / "ours.csv") == [
        Arrival(0.0, "", 7),
        Arrival(0.02, "", 4808),
        Arrival(0.072, "", 3180),
    ]


def test_what_is_not_azures_trace_is_refused_with_its_line(tmp_path: Path) -> None:
    for text, sentence in (
        ("a,b\n1,2\n", "not Azure's LLM trace"),
        ("TIMESTAMP,ContextTokens\n", "no rows"),
        ("TIMESTAMP,ContextTokens\nyesterday,5\n", "line 2"),
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:17:03,many\n", "line 2"),
    ):
        (tmp_path / "azure.csv").write_text(text)
        with pytest.raises(InputError, match=sentence):
            convert_azure_trace(tmp_path / "azure.csv", tmp_path / "ours.csv")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected the columns arrival_s"),
        ("time\n1\n", "expected the columns arrival_s"),
        ("arrival_s\n", "no arrivals"),
        ("arrival_s\n1\nx\n", "line 3: not a number"),
        ("arrival_s\n2\n1\n", "line 3: arrival_s must not fall"),
        ("arrival_s\nnan\n", "line 2"),
        ("arrival_s\n-1\n", "line 2"),
    ],
)
def test_a_broken_trace_is_refused_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)

    with pytest.raises(ValueError, match=sentence):
        read_trace(tmp_path / "t.csv")


def test_a_trace_that_is_no_text_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"arrival_s\n\xff\n")

    with pytest.raises(CapacityInputError, match=r"t\.csv is not a CSV file"):
        read_trace(tmp_path / "t.csv")


def test_the_pacer_fires_every_due_time_once_in_order_and_never_early() -> None:
    fired: list[tuple[int, int]] = []
    pacer = Pacer()
    start = time.monotonic_ns()
    done = gevent.event.Event()

    def fire(due: int) -> None:
        fired.append((due, time.monotonic_ns()))
        if len(fired) == 300:
            done.set()

    for source in range(3):
        pacer.add(start, islice(constant_offsets(1000.0, source), 100), fire)
    assert done.wait(10)
    pacer.close()

    assert all(at >= due for due, at in fired)
    assert [due for due, _ in fired] == sorted(due for due, _ in fired)
    assert len({due for due, _ in fired}) == 300


def test_a_stall_is_caught_up_with_the_due_times_of_the_schedule() -> None:
    fired: list[int] = []
    pacer = Pacer()
    start = time.monotonic_ns()
    pacer.add(start, islice(constant_offsets(1000.0), 200), fired.append)

    time.sleep(0.25)  # the whole process stalls, past the last due time: that is what is tested
    gevent.sleep(0.05)
    pacer.close()

    assert fired == [start + n * 1_000_000 for n in range(200)]


def test_closing_fires_what_is_overdue_and_nothing_of_a_removed_source() -> None:
    fired: list[int] = []
    pacer = Pacer()
    start = time.monotonic_ns() - 10_000_000
    removed = pacer.add(start, constant_offsets(1000.0), lambda due: fired.append(-due))
    pacer.remove(removed)
    pacer.add(start, iter([0, 5_000_000, 3_600_000_000_000]), fired.append)

    pacer.close()

    assert fired == [start, start + 5_000_000]


@pytest.mark.parametrize("pattern", OPEN_ARRIVALS)
def test_every_open_pattern_ascends_at_its_rate_and_differs_by_source(pattern: str) -> None:
    due = list(islice(arrival_offsets(pattern, 1000.0, 3, (1,)), 10_000))

    assert due == sorted(due)
    assert due[-1] == pytest.approx(10e9, rel=0.05)
    assert due == list(islice(arrival_offsets(pattern, 1000.0, 3, (1,)), 10_000))
    assert due != list(islice(arrival_offsets(pattern, 1000.0, 4, (1,)), 10_000))


def test_a_trace_is_dealt_out_to_all_generators_and_every_row_is_sent_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,model,size\n0,gpt,1\n1,,2\n2,gpt,3\n3,resnet18,4\n4,gpt,5\n")
    ended: list[int] = []
    sent: dict[int, int] = {}
    for number in range(2):
        player = open_trace(tmp_path / "t.csv", scale=1.0, keep=1.0, seed=1, share=(number, 2))
        assert player.models == {"gpt", "resnet18"}
        for due in player.offsets(lambda number=number: ended.append(number)):  # type: ignore[misc]
            sent[due] = player.next_row().size or 0

    assert sent == {second * 1_000_000_000: second + 1 for second in range(5)}
    assert ended == [0, 1]


def test_a_trace_that_cannot_be_read_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--arrivals trace"):
        open_trace(tmp_path / "nowhere.csv", scale=1.0, keep=1.0, seed=1, share=(0, 1))
