"""overload: more is offered than can be done; queues stay bounded, rejections come fast, goodput stays at capacity."""

from __future__ import annotations

from typing import Any

from capacity.experiments.load import RunningLoad
from capacity.experiments.stress.figures import accounted, course_panels, flat, memory_panel, ms, valid
from capacity.experiments.stress.findings import Table
from capacity.experiments.stress.setup import WARMUP_S, Bench, Watch, throughput
from capacity.measures import LATENCY_ERROR
from capacity.rundir import Run
from capacity.statistics import Check, Histogram

SECONDS, AT = 20.0, 1.5
CAPACITY_S = 8.0
GOODPUT = 0.95
#: A rejection says at once that there is no room: its P99 is below this share of the answers' median.
FAST = 0.5


def run(bench: Bench) -> dict[str, Any]:
    """Saturated throughput, then so much more than that."""
    asked = bench.asked
    seconds, at = asked.for_s or SECONDS, asked.at or AT
    part_s = min(CAPACITY_S, seconds / 2)
    bench.say(f"saturated throughput, {part_s:g} s")
    capacity = throughput(bench.saturated("saturated", bench.addresses, part_s))
    if capacity <= 0:
        raise ValueError("nothing was answered: there is no capacity to go beyond")
    bench.say(f"{at * capacity:.4g} requests a second, {100 * at:.0f} % of {capacity:.4g}, for {seconds:g} s")
    watch = Watch(bench.processes())

    def during(load: RunningLoad) -> None:
        watch.follow(load, WARMUP_S + seconds)

    with watch:
        measured = bench.open("overload", at * capacity, seconds, during=during)
    goodput = throughput(measured)
    answered, rejected = _pooled(measured, "latency"), _pooled(measured, LATENCY_ERROR)
    queue, compute = _pooled(measured, "queue"), _pooled(measured, "compute")
    codes: dict[str, int] = {}
    for row in measured.file.rows:
        for code, n in row.errors.items():
            codes[code] = codes.get(code, 0) + n
    median, fast = answered.percentile_us(50), rejected.percentile_us(99) if rejected.count else None
    checks = [
        valid([measured], meant="backlog"),
        accounted(measured),
        Check(
            name="goodput against saturated throughput",
            value=f"{100 * goodput / capacity:.1f} %",
            threshold=f"at least {100 * GOODPUT:.0f} %",
            status="PASS" if goodput >= GOODPUT * capacity else "FAIL",
        ),
    ]
    if fast is not None and median is not None:
        checks.append(
            Check(
                name="P99 of rejections",
                value=f"{ms(fast)} ms",
                threshold=f"below {100 * FAST:.0f} % of the answers' median, {ms(FAST * median)} ms",
                status="PASS" if fast <= FAST * median else "FAIL",
            )
        )
    if asked.accelerators and queue.count and compute.max_us is not None and queue.max_us is not None:
        bound = (asked.max_queue_size + 1) * compute.max_us
        checks.append(
            Check(
                name="longest wait in a queue",
                value=f"{ms(queue.max_us)} ms",
                threshold=f"at most {asked.max_queue_size} requests and the one before, {ms(bound)} ms",
                status="PASS" if queue.max_us <= bound else "FAIL",
            )
        )
    for name, samples in watch.samples.items():
        checks += [check for check in flat(name, samples) if check.name.startswith("memory")]
    begin = min((one[0].at for one in watch.samples.values() if one), default=0.0)
    rows = [
        [
            "answered",
            str(answered.count),
            ms(answered.percentile_us(50)),
            ms(answered.percentile_us(99)),
            ms(answered.max_us),
        ],
        [
            "rejected",
            str(rejected.count),
            ms(rejected.percentile_us(50)) if rejected.count else "–",
            ms(fast),
            ms(rejected.max_us),
        ],
    ]
    return {
        "sentences": [
            f"At {100 * at:.0f} % of its saturated throughput of {capacity:.4g} requests a second the pool answers "
            f"{goodput:.4g}, {100 * goodput / capacity:.1f} %; rejected: "
            + (", ".join(f"{n} {code}" for code, n in sorted(codes.items())) or "none")
            + "."
        ],
        "checks": checks,
        "tables": [
            Table(title="Answers and rejections", columns=["", "requests", "P50, ms", "P99, ms", "max, ms"], rows=rows)
        ],
        "panels": [*course_panels(measured), memory_panel(watch.samples, begin)],
        "figures": {"capacity_rps": capacity, "goodput_rps": goodput, "offered_rps": at * capacity},
    }


def _pooled(measured: Run, measure: str) -> Histogram:
    pooled = Histogram()
    for (_series, name), histogram in measured.histograms.items():
        if name == measure:
            pooled.add(histogram)
    return pooled
