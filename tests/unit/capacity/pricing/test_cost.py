"""The choice goes through the article's three steps, and everyone who loses one is told why."""

from typing import Any

import pytest

from capacity.pricing import Candidate, format_bytes, format_hourly, format_money, format_seconds, sequential_per_100k
from capacity.pricing.choice import choose
from capacity.rundir import CostPer100k, Measure, Row
from capacity.rundir.row import Memory
from capacity.statistics import Slo

SLO = Slo.parse("p90=15ms")
GIB = 2**30


def entry(
    name: str, p90_ms: float, mean_ms: float, price: float | None, *, invalid: str = "", **changes: Any
) -> Candidate:
    host, _, accelerator = name.partition(" + ")
    cost = None if price is None else sequential_per_100k(price, mean_ms * 1000)
    reasons = {} if price is not None else {"sequential": f"no price for the host '{host}' in the catalogue"}
    meets = p90_ms <= 15
    row = {
        "hardware": name,
        "host": host,
        "accelerator": accelerator,
        "kind": "eia" if accelerator else "cpu",
        "model": "gpt",
        "simulated": False,
        "due": 1000,
        "requests": 1000,
        "answered": 1000,
        "offered_rps": 1,
        "throughput_rps": 1,
        "latency_us": Measure(samples=1000, mean=mean_ms * 1000, p90=p90_ms * 1000),
        "price_per_hour": price,
        "currency": "USD" if price is not None else "",
        "cost_per_100k": CostPer100k(sequential=cost, reasons=reasons),
        "verdict": "met" if meets else "missed",
        "verdict_reasons": [] if meets else [f"P90 {p90_ms:g} ms > 15ms"],
    }
    return Candidate(name, Row(**(row | changes)), invalid)


MEDIUM = entry("c5.large + eia2.medium", 9.89, 10.03, 0.21)
LARGE = entry("c5.large + eia2.large", 9.05, 8.77, 0.33)


def excluded(candidates: list[Candidate], step: str, slo: Slo | None = SLO) -> dict[str, str]:
    entries = next(entry for entry in choose(candidates, slo).steps if entry.name == step).excluded
    return {entry.label: entry.reason for entry in entries}


def test_the_article_chooses_c5_large_with_eia2_medium() -> None:
    assert f"{MEDIUM.row.cost_per_100k.sequential:.2f}" == "0.06"
    assert f"{LARGE.row.cost_per_100k.sequential:.2f}" == "0.08"
    cpu = entry("c5.xlarge", 30, 28, 0.17)
    choice = choose([LARGE, MEDIUM, cpu], SLO)
    assert choice.winner == MEDIUM
    assert [step.name for step in choice.steps] == ["memory", "latency", "cost"]
    assert excluded([LARGE, MEDIUM, cpu], "memory") == {}
    assert excluded([LARGE, MEDIUM, cpu], "latency") == {"c5.xlarge": "P90 30 ms > 15ms"}
    assert excluded([LARGE, MEDIUM, cpu], "cost") == {"c5.large + eia2.large": "$0.08 per 100,000: 37 % more"}
    assert choice.sentence == (
        "c5.large + eia2.medium: the lowest sequential price under p90=15ms, $0.06 per 100,000 inferences."
    )


def test_equal_prices_go_to_the_lower_p90() -> None:
    slower = entry("m5.large + eia2.medium", 9.95, 10.03, 0.21)
    assert choose([slower, MEDIUM], SLO).winner == MEDIUM
    assert excluded([slower, MEDIUM], "cost") == {slower.label: "$0.06 per 100,000: the same, and slower"}


def test_prices_whose_intervals_overlap_have_no_significant_difference() -> None:
    def near(name: str, mean_ms: float, half: float) -> Candidate:
        made = entry(name, 10, mean_ms, 0.21, offered_rps=10.0)
        cost = made.row.cost_per_100k.sequential
        assert cost is not None
        ends = CostPer100k(sequential=cost, sequential_interval=(cost - half, cost + half))
        return Candidate(name, made.row.model_copy(update={"cost_per_100k": ends}))

    first, second = near("a + eia", 10, 0.0005), near("b + eia", 10.1, 0.0005)
    # The gap is 0.00058 and the halves add up to 0.001: 2.94 times the 100 s that were measured.
    reason = "$0.06 per 100,000: 1 % more, no significant difference; about 4 min more would decide it"
    assert excluded([first, second], "cost") == {"b + eia": reason}
    assert "no significant difference" not in excluded([first, near("b + eia", 12, 0.0005)], "cost")["b + eia"]
    same = excluded([first, near("b + eia", 10, 0.0005)], "cost")["b + eia"]
    assert same == "$0.06 per 100,000: the same, and slower, no significant difference"


def test_without_an_slo_every_latency_will_do() -> None:
    slow = entry("c5.xlarge", 30, 28, 0.001)
    choice = choose([MEDIUM, slow], None)
    assert choice.winner == slow
    assert "under" not in choice.sentence


def test_too_little_memory_loses_the_first_step_by_what_was_seen_or_by_model_and_input() -> None:
    seen = entry("a + x", 1, 1, 1, memory=Memory(host_bytes=4 * GIB, host_peak_bytes=5 * GIB))
    least = entry("b + x", 1, 1, 1, memory=Memory(model_bytes=2 * GIB, input_bytes=GIB, accelerator_bytes=2 * GIB))
    cpu = entry("c", 1, 1, 1, memory=Memory(model_bytes=9 * GIB, host_bytes=8 * GIB))
    assert excluded([MEDIUM, seen, least, cpu], "memory") == {
        "a + x": "needs 5 GiB of host memory and has 4 GiB",
        "b + x": "needs 3 GiB of accelerator memory and has 2 GiB",
        "c": "needs 9 GiB of host memory and has 8 GiB",
    }
    assert choose([seen], SLO).sentence == "No combination has enough memory."


def test_tight_or_unknown_memory_is_remarked_and_kept() -> None:
    tight = entry("a + x", 1, 1, 1, memory=Memory(host_bytes=10 * GIB, host_peak_bytes=9 * GIB))
    unknown = entry("b + x", 1, 1, 1, memory=Memory(host_peak_bytes=GIB))
    step = choose([tight, unknown], SLO).steps[0]
    assert step.remaining == ("a + x", "b + x")
    assert {remark.label: remark.reason for remark in step.remarks} == {
        "a + x": "tight: 9 GiB of 10 GiB of host memory",
        "b + x": "needs 1 GiB of host memory; the memory of the host is unknown",
    }


def test_an_unknown_price_loses_the_last_step_by_name() -> None:
    laptop = entry("laptop", 1, 1, None)
    assert excluded([MEDIUM, laptop], "cost") == {"laptop": "no price for the host 'laptop' in the catalogue"}
    choice = choose([laptop, entry("server", 2, 2, None)], SLO)
    assert choice.winner is None
    assert choice.sentence == (
        "No price is known, so no combination can be chosen by cost. "
        "The lowest P90 under p90=15ms is that of laptop: 1 ms."
    )


def test_the_only_one_left_needs_no_price_to_compare() -> None:
    laptop, slow = entry("laptop", 1, 1, None), entry("server", 20, 20, 1)
    choice = choose([laptop, slow], SLO)
    assert choice.winner == laptop
    assert choice.sentence == "laptop: the only combination that meets p90=15ms; its price is unknown."
    assert choose([MEDIUM, slow], SLO).reason == (
        "the only combination that meets p90=15ms, $0.06 per 100,000 inferences."
    )


def test_slices_of_one_host_are_compared_without_its_price() -> None:
    one = entry("laptop + 2 × cpu-1c", 12, 12, None, host="laptop", accelerator="cpu-1c", count=2, kind="cpu")
    two = entry("laptop + cpu-2c", 8, 8, None, host="laptop", accelerator="cpu-2c", kind="cpu")
    choice = choose([two, one], SLO)
    assert choice.winner == one
    assert excluded([two, one], "cost") == {two.label: "33 % more time of the host per inference"}
    assert choice.reason == (
        "the shortest time of the host per inference under p90=15ms, 6 ms. All are parts of one host of unknown price."
    )
    elsewhere = entry("server + cpu-1c", 8, 8, None, host="server", accelerator="cpu-1c", kind="cpu")
    assert choose([two, elsewhere], SLO).winner is None


def test_an_invalid_run_never_wins_and_never_loses_as_hardware() -> None:
    broken = entry("c5.large + eia2.large", 1, 1, 0.01, invalid="lateness 12 ms")
    assert choose([MEDIUM, broken], SLO).winner == MEDIUM
    assert excluded([MEDIUM, broken], "validity") == {broken.label: "its run is not valid: lateness 12 ms"}
    nobody = choose([broken], SLO)
    assert nobody.winner is None
    assert nobody.sentence == "No run is valid, so there is no result about the hardware."


def test_a_sample_too_small_to_tell_is_not_a_pass_and_not_a_failure() -> None:
    few = entry("a", 1, 1, 0.01, verdict="inconclusive", verdict_reasons=["P90: not enough samples (10 < 29)"])
    choice = choose([few], SLO)
    assert choice.winner is None
    assert "some verdicts are inconclusive" in choice.sentence
    assert excluded([few], "latency") == {"a": "P90: not enough samples (10 < 29)"}
    longer = entry(
        "a", 1, 1, 1, verdict="inconclusive", verdict_reasons=["P90 too close"], more_samples=90, more_seconds=8.2
    )
    assert excluded([longer], "latency") == {"a": "P90 too close; about 9 s more would decide it"}
    assert choose([entry("b", 20, 20, 1)], SLO).sentence == "No combination meets p90=15ms."


def test_two_currencies_are_not_compared() -> None:
    euro = entry("a", 1, 1, 0.1, currency="EUR")
    choice = choose([MEDIUM, euro], SLO)
    assert choice.winner is None
    assert "different currencies" in choice.sentence
    assert excluded([MEDIUM, euro], "cost") == {MEDIUM.label: "priced in USD", "a": "priced in EUR"}


def test_a_simulated_winner_is_called_simulated() -> None:
    assert "(simulated)" in choose([entry("a", 1, 1, 1, simulated=True)], SLO).sentence


def test_models_are_not_mixed() -> None:
    other = entry("a", 1, 1, 1, model="resnet18")
    with pytest.raises(ValueError, match="rows of one model"):
        choose([MEDIUM, other], SLO)


def test_amounts_read_well() -> None:
    assert [format_money(amount, "USD") for amount in (0, 0.0571, 12.3, 0.0042, 0.00031)] == [
        "$0.00",
        "$0.06",
        "$12.30",
        "$0.0042",
        "$0.00031",
    ]
    assert [format_hourly(amount, "USD") for amount in (0.205, 3.06, 0, 55.04, 0.8048)] == [
        "$0.205",
        "$3.06",
        "$0.00",
        "$55.04",
        "$0.8048",
    ]
    assert [format_seconds(seconds) for seconds in (0.2, 100, 121, 7201)] == ["1 s", "100 s", "3 min", "3 h"]
    assert format_money(1.2, "EUR") == "€1.20"
    assert format_money(1.2, "CHF") == "CHF 1.20"
    assert [format_bytes(count) for count in (12, 1536, 1.5 * GIB)] == ["12 B", "1.5 KiB", "1.5 GiB"]
