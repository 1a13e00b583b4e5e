"""The simulator: against closed forms and another simulator, three engines against one another, and by hand."""

from __future__ import annotations

import math
from typing import Any

import ciw
import numpy as np
import pytest

from capacity.measures.combination import HardwareCombination
from capacity.simulation.arrivals import arrival_times, arrival_times_by_source
from capacity.simulation.distribution import SIZE, Distribution
from capacity.simulation.engines import simulate_by_lindley, simulate_by_request
from capacity.simulation.event_engine import simulate_by_event
from capacity.simulation.highest_rate import find_highest_rate
from capacity.simulation.pool import Pool, Router, simulate
from capacity.simulation.profile import Profile
from capacity.simulation.queue_work import DEADLINE_EXCEEDED, OK, UNAVAILABLE, Batching, QueueWork
from capacity.statistics.slo import Slo

HARDWARE = HardwareCombination("host", "chip")
NO_OVERHEAD = Distribution.constant(0.0)
MS = 1000.0


def profile(*passes: Distribution, overhead: Distribution = NO_OVERHEAD) -> Profile:
    """Passes of 1, 2, … rows."""
    return Profile(HARDWARE, "model", dict(enumerate(passes, 1)), overhead)


def fixed(*ms: float) -> Profile:
    return profile(*(Distribution.constant(duration * MS) for duration in ms))


def exponential(mean_ms: float) -> Profile:
    return profile(Distribution(-mean_ms * MS * np.log1p(-(np.arange(SIZE) + 0.5) / SIZE)))


def erlang_c(servers: int, load: float) -> float:
    """Probability that an M/M/c queue makes a request wait; `load` is in servers."""
    terms = [load**i / math.factorial(i) for i in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


def within(blocks: np.ndarray[Any, Any], expected: float, sigmas: float = 4.0) -> bool:
    """Whether the mean of independent repetitions agrees with what is expected, by their own spread."""
    return bool(abs(blocks.mean() - expected) < sigmas * blocks.std(ddof=1) / math.sqrt(blocks.size))


def repeated(pool: Pool, rate: float, figure: Any, n: int = 40_000, times: int = 12) -> np.ndarray[Any, Any]:
    """A figure of independent repetitions."""
    return np.array([figure(simulate(pool, arrival_times("poisson", rate, n=n, seed=s), s)) for s in range(times)])


@pytest.mark.parametrize("load", [0.5, 0.85])
def test_the_mean_of_m_d_1_is_pollaczek_and_khinchins(load: float) -> None:
    waits = repeated(Pool((fixed(10),)), load * 100, lambda result: result.settled_us().mean() / MS - 10)
    assert within(waits, 10 * load / (2 * (1 - load)))


def test_the_waiting_of_m_d_1_is_distributed_by_erlangs_formula() -> None:
    """P(wait ≤ t) = (1 - ρ) Σ (-λ(t - jD))^j / j! · exp(λ(t - jD)), j up to t / D."""
    load, t = 0.8, 2.5
    expected = (1 - load) * sum(
        (-load * (t - j)) ** j / math.factorial(j) * math.exp(load * (t - j)) for j in range(math.floor(t) + 1)
    )
    shares = repeated(
        Pool((fixed(10),)), load * 100, lambda result: float(np.mean(result.settled_us() <= (10 + t * 10) * MS))
    )
    assert within(shares, expected)


@pytest.mark.parametrize("servers", [1, 4])
def test_independent_queues_of_m_m_1_wait_as_theory_says(servers: int) -> None:
    pool = Pool((exponential(10),) * servers, "random")
    assert within(repeated(pool, 70 * servers, lambda result: result.settled_us().mean() / MS), 10 / (1 - 0.7))


def test_least_outstanding_waits_between_one_shared_queue_and_queues_apart() -> None:
    """Erlang C is what no router can beat; joining the shortest queue comes near it, random routing does not."""
    servers, load = 4, 0.8
    shared = 10 + erlang_c(servers, servers * load) * 10 / (servers * (1 - load))
    apart = 10 / (1 - load)
    pool = Pool((exponential(10),) * servers, "least-outstanding")
    mean = repeated(pool, 100 * servers * load, lambda result: result.settled_us().mean() / MS).mean()
    assert shared < mean < shared + (apart - shared) / 4


def test_lindley_by_hand() -> None:
    result = simulate(Pool((fixed(10),)), np.array([0.0, 0.004, 0.005, 0.1]), 1)
    assert result.latency_us / MS == pytest.approx([10, 16, 25, 10])
    assert result.busy_share == pytest.approx([40 / 110])


def test_overhead_is_added_and_holds_nobody_up() -> None:
    pool = Pool((profile(Distribution.constant(10 * MS), overhead=Distribution.constant(3 * MS)),))
    assert simulate(pool, np.array([0.0, 0.0]), 1).latency_us / MS == pytest.approx([13, 23])


class _Server(ciw.dists.Distribution):  # type: ignore[misc]  # ciw has no types
    """Erlang's mixture as the profile has it, drawn by ciw's own generator."""

    def __init__(self, table_us: Any) -> None:
        self._table = table_us

    def sample(self, t: Any = None, ind: Any = None) -> float:
        return float(self._table[int(ciw.random.random() * SIZE)]) / MS


@pytest.mark.parametrize(("servers", "load"), [(1, 0.85), (3, 0.85)])
def test_it_agrees_with_ciw(servers: int, load: float) -> None:
    """Service times of two kinds, the longer four times the other; ciw's servers share one queue, as ours do not, so
    that several of ours stand each before a share of the arrivals."""
    times = profile(Distribution(np.where(np.arange(SIZE) < 3 * SIZE // 4, 5 * MS, 20 * MS)))
    mean = times.passes[1].mean_us / MS
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(load / mean)] * servers,
        service_distributions=[_Server(times.passes[1].table_us)] * servers,
        number_of_servers=[1] * servers,
        routing=[[0.0] * servers for _ in range(servers)],
    )
    theirs = []
    for seed in range(8):
        ciw.seed(seed)
        simulation = ciw.Simulation(network)
        simulation.simulate_until_max_customers(4_000)
        records = sorted(simulation.get_all_records(), key=lambda record: record.arrival_date)
        theirs.append(np.mean([record.waiting_time for record in records[400:]]))
    pool = Pool((times,) * servers, "random")
    ours = repeated(pool, 1000 * servers * load / mean, lambda o: o.settled_us().mean() / MS - mean, n=4_000, times=64)
    spread = math.hypot(np.std(theirs, ddof=1) / math.sqrt(len(theirs)), ours.std(ddof=1) / 8)
    assert abs(np.mean(theirs) - ours.mean()) < 4 * spread


def work(**changes: Any) -> QueueWork:
    generator = np.random.default_rng(3)
    n, k = 3_000, 3
    table = np.sort(generator.lognormal(2, 0.8, SIZE) * MS).tolist()
    fields = {
        "due": np.cumsum(generator.exponential(4.5 * MS, n)),
        "quantile": generator.integers(0, SIZE, n),
        "overhead_quantile": generator.integers(0, SIZE, n),
        "passes": lambda ordinal, rows: table,
        "overheads": [np.linspace(0, 300, SIZE).tolist()] * k,
        "routes": generator.integers(0, k, n),
        "batching": Batching(),
    }
    return QueueWork(**(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"routes": None},
        {"batching": Batching(queue_limit=2)},
        {"batching": Batching(queue_limit=2), "routes": None},
        {"deadline_us": 40 * MS},
        {"deadline_us": 40 * MS, "routes": None},
        {"deadline_us": 25 * MS, "batching": Batching(queue_limit=3), "routes": None},
    ],
    ids=str,
)
def test_the_engines_agree_to_the_last_request(changes: dict[str, Any]) -> None:
    this = work(**changes)
    first, second = simulate_by_request(this), simulate_by_event(this)
    np.testing.assert_array_equal(first.code, second.code)
    np.testing.assert_array_equal(first.ordinal, second.ordinal)
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_allclose(first.latency_us, second.latency_us, atol=1e-3)
    np.testing.assert_allclose(first.busy_us, second.busy_us)
    assert first.passes == second.passes
    if "deadline_us" in changes:
        assert {DEADLINE_EXCEEDED} <= set(first.code.tolist())
    if "batching" in changes:
        assert {UNAVAILABLE} <= set(first.code.tolist())


def test_the_recursion_agrees_with_the_loop() -> None:
    quick, slow = simulate_by_lindley(work()), simulate_by_request(work())
    assert quick is not None
    np.testing.assert_allclose(quick.latency_us, slow.latency_us, atol=1e-3)
    np.testing.assert_allclose(quick.busy_us, slow.busy_us)


def test_the_recursion_leaves_deadlines_that_bind_to_the_loop() -> None:
    assert simulate_by_lindley(work(deadline_us=40 * MS)) is None
    assert simulate_by_lindley(work(deadline_us=1e9)) is not None


def test_a_batch_waits_for_its_delay_and_leaves_at_once_when_full() -> None:
    pool = Pool((fixed(10, 12, 14, 16),), batching=Batching(4, 5 * MS))
    result = simulate(pool, np.array([0, 0.001, 0.1, 0.1, 0.1, 0.1]), 1)
    assert result.batch_sizes.tolist() == [2, 2, 4, 4, 4, 4]
    assert result.latency_us / MS == pytest.approx([17, 16, 16, 16, 16, 16])


def test_a_preferred_size_is_formed_as_soon_as_it_can_be() -> None:
    pool = Pool((fixed(10, 12, 14, 16),), batching=Batching(4, 5 * MS, preferred=(2,)))
    result = simulate(pool, np.array([0, 0.001, 0.002]), 1)
    assert result.batch_sizes.tolist() == [2, 2, 1]
    # The third begins when the pass of the two is over, at 13 ms, and its delay has passed by then.
    assert result.latency_us / MS == pytest.approx([13, 12, 21])


def test_a_request_at_a_full_queue_fails_at_once() -> None:
    pool = Pool((fixed(10),), batching=Batching(queue_limit=1))
    result = simulate(pool, np.array([0, 0.001, 0.002, 0.011]), 1)
    assert result.code.tolist() == [OK, OK, UNAVAILABLE, OK]
    assert result.latency_us[2] == math.inf


def test_a_request_that_expires_in_the_queue_is_never_executed() -> None:
    pool = Pool((fixed(10),), deadline_us=15 * MS)
    result = simulate(pool, np.array([0, 0.001, 0.002, 0.003]), 1)
    # The second ends too late, the others are too late to begin.
    assert result.code.tolist() == [OK, DEADLINE_EXCEEDED, DEADLINE_EXCEEDED, DEADLINE_EXCEEDED]
    assert result.batch_sizes.tolist() == [1, 1, 0, 0]
    assert result.passes == {1: 2}


def test_requests_at_a_failed_ordinal_fail() -> None:
    pool = Pool((fixed(10),), failures=((0, 0.005, 0.05),))
    result = simulate(pool, np.array([0, 0.001, 0.02, 0.05]), 1)
    assert result.code.tolist() == [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, OK]
    assert result.latency_us[3] / MS == pytest.approx(10)


@pytest.mark.parametrize("router", ["least-outstanding", "round-robin", "random", "pinned"])
def test_a_router_avoids_a_failed_ordinal_after_detection(router: Router) -> None:
    pool = Pool((fixed(1),) * 4, router, failures=((2, 1.0, 3.0),), detection_s=0.5)
    times = np.arange(4_000) / 1_000
    result = simulate(pool, times, 1, np.arange(4_000))
    parts = {"before": (0.0, 1.0), "undetected": (1.0, 1.5), "detected": (1.5, 3.0), "after": (3.0, 4.0)}
    to_it = {
        name: float(np.mean(result.ordinal[(times >= low) & (times < high)] == 2))
        for name, (low, high) in parts.items()
    }
    failed = times[result.code == UNAVAILABLE]
    assert to_it["before"] == pytest.approx(0.25, abs=0.05)
    assert to_it["after"] == pytest.approx(0.25, abs=0.05)
    if router == "pinned":
        assert to_it["detected"] == 0.25
        assert failed.max() > 2.9
    else:
        assert to_it["detected"] == 0.0
        # What the others take instead is shared alike.
        detected = (times >= 1.5) & (times < 3.0)
        assert np.bincount(result.ordinal[detected], minlength=4)[[0, 1, 3]] == pytest.approx(500, abs=60)
        assert failed.size
        assert 1.0 - 0.002 <= failed.min() <= failed.max() < 1.5
    # One that refuses at once is never busy: whoever counts only what is outstanding sends it more than its share.
    assert to_it["undetected"] >= 0.2


def test_an_ordinal_whose_failures_overlap_is_back_when_the_last_is_over() -> None:
    pool = Pool((fixed(1),) * 2, failures=((0, 1.0, 3.0), (0, 2.0, 5.0)), detection_s=0.1)
    times = np.arange(6_000) / 1_000
    result = simulate(pool, times, 1)
    assert times[result.code == UNAVAILABLE].max() < 1.1
    assert 0 not in result.ordinal[(times >= 1.1) & (times < 5.0)]
    assert 0 in result.ordinal[times >= 5.0]


def test_where_all_ordinals_are_down_all_are_candidates() -> None:
    pool = Pool((fixed(1),) * 2, failures=((0, 0.0, 9.0), (1, 0.0, 9.0)), detection_s=0.0)
    result = simulate(pool, np.arange(100) / 100, 1)
    assert (result.code == UNAVAILABLE).all()
    assert set(result.ordinal.tolist()) == {0, 1}


def test_least_outstanding_takes_the_idle_and_ties_go_round() -> None:
    result = simulate(Pool((fixed(10),) * 3), np.array([0, 0.001, 0.002, 0.003, 0.0115, 0.03]), 1)
    # The first is with ordinal 1, as the product's turn begins with the second target; at 11.5 ms 1 and 2 are idle, and
    # the turn is at 2.
    assert result.ordinal.tolist() == [1, 2, 0, 1, 2, 0]


def test_pinned_users_go_to_their_own_ordinal() -> None:
    times, users = arrival_times_by_source("poisson", 100, n=1_000, users=4)
    result = simulate(Pool((fixed(1),) * 2, "pinned"), times, 1, users)
    np.testing.assert_array_equal(result.ordinal, users % 2)


@pytest.mark.parametrize("pattern", ["poisson", "constant"])
def test_users_together_offer_the_rate(pattern: str) -> None:
    times, users = arrival_times_by_source(pattern, 100, seconds=200, users=5)
    assert abs(times.size - 20_000) < 4 * math.sqrt(20_000)
    assert np.all(np.diff(times) >= 0)
    assert times[-1] < 200
    assert set(users.tolist()) == set(range(5))


def test_a_longer_schedule_begins_with_the_shorter() -> None:
    short, long = (arrival_times_by_source("poisson", 50, n=n, users=3)[0] for n in (1_000, 5_000))
    np.testing.assert_array_equal(short, long[:1_000])


@pytest.mark.parametrize("slo", ["p90=30ms", "p99=60ms,p50=20ms"])
def test_the_highest_rate_is_where_the_slo_begins_to_be_missed(slo: str) -> None:
    pool = Pool((exponential(5),) * 2, "least-outstanding")
    rate = find_highest_rate(pool, Slo.parse(slo))
    assert rate.interval[0] <= rate.met_rps < rate.missed_rps <= rate.interval[1]
    assert rate.missed_rps < 1.005 * rate.met_rps

    def met(rate: float) -> bool:
        latency = simulate(pool, arrival_times("poisson", rate, n=400_000, seed=9), 9).settled_us()
        return all(np.mean(latency > ns / 1000) <= 1 - p / 100 for p, ns in Slo.parse(slo).bounds)

    assert met(rate.interval[0] * 0.99)
    assert not met(rate.interval[1] * 1.01)


def test_the_highest_rate_of_m_d_1_is_theorys() -> None:
    """P90 ≤ 30 ms of M/D/1 with 10 ms: the wait's P90 is 20 ms, where Erlang's formula crosses 0.9."""

    def within_bound(load: float) -> float:
        terms = [(-load * (2 - j)) ** j / math.factorial(j) * math.exp(load * (2 - j)) for j in range(3)]
        return (1 - load) * sum(terms)

    low, high = 0.1, 0.9
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if within_bound(middle) >= 0.9 else (low, middle)
    rate = find_highest_rate(Pool((fixed(10),)), Slo.parse("p90=30ms"), requests=400_000)
    assert rate.interval[0] < 100 * low < rate.interval[1]
    assert rate.met_rps == pytest.approx(100 * low, rel=0.02)


def test_a_pool_that_cannot_meet_the_slo_has_no_rate() -> None:
    rate = find_highest_rate(Pool((fixed(10),)), Slo.parse("p90=5ms"))
    assert rate.met_rps == 0
    assert rate.interval[0] == 0


@pytest.mark.parametrize("bound_ms", [55, 75])
def test_a_slow_pool_is_followed_down_to_a_rate_that_surely_meets_the_slo(bound_ms: int) -> None:
    """The lowest rate that was tried met it here, but not beyond chance: that is no rate to call 0."""
    rate = find_highest_rate(Pool((fixed(44),)), Slo.parse(f"p95={bound_ms}ms"), requests=4_000)
    assert rate.interval[0] == pytest.approx(rate.met_rps, rel=0.15)
    assert 0 < rate.interval[0] < rate.met_rps


def test_a_pool_that_refuses_nothing_has_no_rate_above_saturation() -> None:
    rate = find_highest_rate(Pool((fixed(10),)), Slo.parse("p90=100s"))
    assert rate.met_rps == pytest.approx(100)


def test_it_repeats_itself() -> None:
    pool = Pool((exponential(10),) * 3, "random")
    times = arrival_times("poisson", 150, n=2_000, seed=4)
    np.testing.assert_array_equal(simulate(pool, times, 5).latency_us, simulate(pool, times, 5).latency_us)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pool(()), "at least one ordinal"),
        (lambda: Pool((fixed(1),), "fastest"), "unknown router 'fastest'"),  # type: ignore[arg-type]
        (lambda: Pool((fixed(1),), failures=((1, 0, 1),)), "an ordinal of the pool"),
        (lambda: Batching(0), "at least 1"),
        (lambda: Batching(4, preferred=(8,)), "expected 1 to 4"),
        (lambda: simulate(Pool((fixed(1),)), np.array([1.0, 0.5]), 1), "ascending"),
        (lambda: arrival_times("poisson", 0, n=1), "above 0"),
        (lambda: arrival_times("closed", 1, n=1), "unknown arrivals 'closed'"),
        (lambda: arrival_times("poisson", 1), "a length"),
        (lambda: find_highest_rate(Pool((fixed(1),)), Slo.parse("p99.9=1s"), requests=1_000), "needs at least"),
        (lambda: simulate(Pool((fixed(1, 2),), batching=Batching(3)), np.zeros(4), 1), "none of 3"),
    ],
)
def test_wrong_input_is_one_sentence(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
