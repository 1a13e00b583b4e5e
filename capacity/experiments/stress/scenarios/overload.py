"""overload: more is offered than the pool can answer; queues stay bounded, rejections come fast, goodput stays high."""

from __future__ import annotations

from capacity.experiments import RunningLoad
from capacity.experiments.stress import (
    WARMUP_S,
    ProcessMonitor,
    ResultTable,
    ScenarioResult,
    StressEnvironment,
    check_accounted,
    check_growth,
    check_valid_runs,
    count_errors,
    format_errors,
    format_ms,
    throughput,
    timeline_panels,
)
from capacity.measures import LATENCY_ERROR
from capacity.rundir import Run
from capacity.statistics import Check, Histogram
from worker.wire import display_duration

SECONDS, LOAD_SHARE = 20.0, 1.5
CAPACITY_S = 8.0
#: The least goodput, as a share of the saturated throughput.
MIN_GOODPUT = 0.95
#: A rejection comes at once: its P99 is below this share of the answers' median.
MAX_REJECTION_SHARE = 0.5


def run_overload(environment: StressEnvironment) -> ScenarioResult:
    """Measures the saturated throughput, then offers more than that."""
    options = environment.options
    seconds, share = options.seconds or SECONDS, options.load_share or LOAD_SHARE
    capacity = environment.measure_capacity("saturated", min(CAPACITY_S, seconds / 2))
    environment.progress(
        f"{share * capacity:.4g} requests a second, {100 * share:.0f} % of {capacity:.4g}, for "
        f"{display_duration(seconds)}"
    )
    monitor = ProcessMonitor(environment.process_ids())

    def during(load: RunningLoad) -> None:
        monitor.follow(load, WARMUP_S + seconds)

    with monitor:
        run = environment.run_open("overload", share * capacity, seconds, during=during)
    goodput = throughput(run)
    answered, rejected = _merged(run, "latency"), _merged(run, LATENCY_ERROR)
    checks = [
        check_valid_runs([run], expected_failure="backlog"),
        check_accounted(run),
        Check(
            name="goodput against saturated throughput",
            value=f"{100 * goodput / capacity:.1f} %",
            threshold=f"at least {100 * MIN_GOODPUT:.0f} %",
            status="PASS" if goodput >= MIN_GOODPUT * capacity else "FAIL",
        ),
        *_check_rejections(answered, rejected),
        *(_check_queue(run, options.max_queue_size) if options.accelerators else []),
    ]
    for name, samples in monitor.samples.items():
        checks += [check for check in check_growth(name, samples) if check.name.startswith("memory")]
    return ScenarioResult(
        summary=[
            f"At {100 * share:.0f} % of its saturated throughput of {capacity:.4g} requests a second the pool answers "
            f"{goodput:.4g}, {100 * goodput / capacity:.1f} %; rejected: {format_errors(count_errors(run))}."
        ],
        checks=checks,
        tables=[
            ResultTable(
                title="Answers and rejections",
                columns=["", "requests", "P50, ms", "P99, ms", "max, ms"],
                rows=[_row("answered", answered), _row("rejected", rejected)],
            )
        ],
        panels=[*timeline_panels(run), monitor.memory_panel()],
        figures={"capacity_rps": capacity, "goodput_rps": goodput, "offered_rps": share * capacity},
    )


def _row(name: str, histogram: Histogram) -> list[str]:
    if not histogram.count:
        return [name, "0", "–", "–", "–"]
    percentiles = [format_ms(histogram.percentile_us(p)) for p in (50, 99)]
    return [name, str(histogram.count), *percentiles, format_ms(histogram.max_us)]


def _check_rejections(answered: Histogram, rejected: Histogram) -> list[Check]:
    median = answered.percentile_us(50) if answered.count else None
    p99 = rejected.percentile_us(99) if rejected.count else None
    if p99 is None or median is None:
        return []
    limit = MAX_REJECTION_SHARE * median
    return [
        Check(
            name="P99 of rejections",
            value=f"{format_ms(p99)} ms",
            threshold=f"at most {100 * MAX_REJECTION_SHARE:.0f} % of the answers' median, {format_ms(limit)} ms",
            status="PASS" if p99 <= limit else "FAIL",
        )
    ]


def _check_queue(run: Run, max_queue_size: int) -> list[Check]:
    """A request waits for at most those that the queue holds, and the one that is executed."""
    queue, compute = _merged(run, "queue"), _merged(run, "compute")
    if not queue.count or compute.max_us is None or queue.max_us is None:
        return []
    limit = (max_queue_size + 1) * compute.max_us
    return [
        Check(
            name="longest wait in a queue",
            value=f"{format_ms(queue.max_us)} ms",
            threshold=f"at most {max_queue_size} requests and the one in execution, {format_ms(limit)} ms",
            status="PASS" if queue.max_us <= limit else "FAIL",
        )
    ]


def _merged(run: Run, measure: str) -> Histogram:
    """One measure over all series of a run."""
    total = Histogram()
    for (_series, name), histogram in run.histograms.items():
        if name == measure:
            total.add(histogram)
    return total
