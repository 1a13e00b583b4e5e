"""soak: hours at a fraction of capacity; what drifts, what leaks, and settled capacity against cold."""

from __future__ import annotations

from typing import Any

from capacity.experiments.load import RunningLoad
from capacity.experiments.stress.figures import Window, accounted, course_panels, flat, memory_panel, ms, valid, window
from capacity.experiments.stress.findings import Drawn, Table
from capacity.experiments.stress.setup import WARMUP_S, Bench, Watch, throughput
from capacity.statistics import Check

SECONDS, AT = 1800.0, 0.7
#: Of each measurement of capacity, cold and settled.
CAPACITY_S = 15.0
#: The last quarter's P99 may be so much above the first's, and settled capacity so much below cold.
P99_GROWTH, CAPACITY_LOSS = 0.25, 0.05
_PARTS = 8


def run(bench: Bench) -> dict[str, Any]:
    """Cold capacity, the long run, settled capacity."""
    asked = bench.asked
    seconds, at = asked.for_s or SECONDS, asked.at or AT
    part_s = min(CAPACITY_S, max(seconds / 4, 3.0))
    bench.say(f"cold capacity, {part_s:g} s")
    cold = throughput(bench.saturated("cold", bench.addresses, part_s))
    if cold <= 0:
        raise ValueError("nothing was answered: there is no capacity to take a fraction of")
    rate = at * cold
    bench.say(f"{rate:.4g} requests a second, {100 * at:.0f} % of {cold:.4g}, for {seconds:g} s")
    watch = Watch(bench.processes())

    def during(load: RunningLoad) -> None:
        watch.follow(load, WARMUP_S + seconds)

    with watch:
        long = bench.open("soak", rate, seconds, during=during)
    bench.say(f"settled capacity, {part_s:g} s")
    settled = throughput(bench.saturated("settled", bench.addresses, part_s))
    parts = [
        window(long, long.file.duration_s * n / _PARTS, long.file.duration_s * (n + 1) / _PARTS) for n in range(_PARTS)
    ]
    quarters = [
        window(long, 0.0, long.file.duration_s / 4),
        window(long, 0.75 * long.file.duration_s, long.file.duration_s),
    ]
    checks = [
        valid(bench.runs),
        accounted(long),
        Check(
            name="settled capacity against cold",
            value=f"{100 * (settled / cold - 1):+.1f} %",
            threshold=f"at least -{100 * CAPACITY_LOSS:.0f} %",
            status="PASS" if settled >= (1 - CAPACITY_LOSS) * cold else "FAIL",
        ),
    ]
    checks += _drift(*quarters)
    for name, samples in watch.samples.items():
        checks += flat(name, samples)
    begin = min((one[0].at for one in watch.samples.values() if one), default=0.0)
    panels = [*course_panels(long), memory_panel(watch.samples, begin)]
    if watch.clocks_mhz:
        first_clock = watch.clocks_mhz[0][0]
        panels.append(
            Drawn(
                heading="Processor clock, MHz",
                curves={"clock": [(at - first_clock, mhz) for at, mhz in watch.clocks_mhz]},
            )
        )
    rows = [
        [
            f"{part.from_s:.0f} to {part.to_s:.0f} s",
            f"{part.goodput_rps:.4g}",
            str(part.failed),
            ms(part.p50_us),
            ms(part.p99_us),
        ]
        for part in parts
    ]
    drifts = "; ".join(f"{check.name} {check.value}" for check in checks if check.status == "FAIL")
    return {
        "sentences": [
            f"{seconds:g} s at {100 * at:.0f} % of capacity: settled capacity is {settled:.4g} requests a second, "
            f"cold {cold:.4g}. " + (f"Not steady: {drifts}." if drifts else "Nothing drifts, nothing leaks.")
        ],
        "checks": checks,
        "tables": [
            Table(
                title="The run in eighths", columns=["when", "answered /s", "failed", "P50, ms", "P99, ms"], rows=rows
            )
        ],
        "panels": panels,
        "figures": {
            "cold_rps": cold,
            "settled_rps": settled,
            "offered_rps": rate,
            "p99_first_us": quarters[0].p99_us,
            "p99_last_us": quarters[1].p99_us,
        },
    }


def _drift(first: Window, last: Window) -> list[Check]:
    """P99 of the last quarter against the first; beyond chance where even the near ends of both intervals say so."""
    if first.p99_us is None or last.p99_us is None:
        return []
    ends = first.p99_interval, last.p99_interval
    certain = False
    if ends[0] is not None and ends[1] is not None and ends[0][1] is not None:
        certain = ends[1][0] > (1 + P99_GROWTH) * ends[0][1]
    return [
        Check(
            name="P99 of the last quarter against the first",
            value=f"{100 * (last.p99_us / first.p99_us - 1):+.1f} %",
            threshold=f"not above +{100 * P99_GROWTH:.0f} % beyond chance",
            status="FAIL" if certain else "PASS",
        )
    ]
