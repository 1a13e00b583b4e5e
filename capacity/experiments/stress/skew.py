"""skew: all ordinals under equal load, a test of equal times, and the odd one with what its hardware says."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psutil

from capacity.comparison import TargetSkew
from capacity.experiments.stress.figures import course_panels, ms, ordinal_row, valid
from capacity.experiments.stress.findings import Table
from capacity.experiments.stress.setup import Bench, Watch
from capacity.pricing import labeled_rows
from capacity.reporting.ordinals import pools
from capacity.rundir import Run
from capacity.statistics import Check

SECONDS = 40.0


def run(bench: Bench) -> dict[str, Any]:
    """One run in a closed loop, pinned, so that each ordinal has the same in flight."""
    seconds = bench.asked.for_s or SECONDS
    if len(bench.workers) < 2:
        raise ValueError("skew needs two ordinals at least")
    bench.say(f"{len(bench.workers)} ordinals under equal load for {seconds:g} s")
    with Watch(bench.processes()) as watch:
        measured = bench.saturated("equal-load", bench.addresses, seconds)
    found = [sibling for pool in pools(labeled_rows([measured], "combination")) for sibling in pool.siblings]
    odd = [sibling for sibling in found if sibling.slower]
    refused = sorted({sibling.reason for sibling in found if sibling.reason})
    telemetry = {sibling.target: _telemetry(measured, sibling.target) for sibling in odd}
    sentences = [
        f"{sibling.sentence}.{' ' + telemetry[sibling.target] if telemetry[sibling.target] else ''}" for sibling in odd
    ]
    if refused or not found:
        sentences.append("; ".join(refused) or "The ordinals were not compared: the run is no result.")
    elif not odd:
        sentences.append("None is slower than its siblings.")
    return {
        "sentences": sentences,
        "checks": [
            valid([measured]),
            Check(
                name="slower ordinals",
                value=", ".join(sibling.target for sibling in odd) or 0,
                threshold="0",
                status="FAIL" if odd else "WARN" if refused or not found else "PASS",
                detail="; ".join(refused),
            ),
        ],
        "tables": [_table(measured, found, watch)],
        "panels": course_panels(measured),
        "figures": {sibling.target: sibling.slower_by for sibling in found},
    }


def _table(measured: Run, found: list[TargetSkew], watch: Watch) -> Table:
    rows = []
    for sibling in found:
        row = ordinal_row(measured, sibling.target)
        low, high = sibling.interval or (None, None)
        samples = watch.samples.get(sibling.target.partition(" @ ")[0], [])
        rows.append(
            [
                sibling.target,
                f"{sibling.throughput_rps:.4g}",
                "–" if sibling.slower_by is None else f"{100 * sibling.slower_by:+.2f} %",
                "–" if low is None or high is None else f"{100 * low:+.2f} to {100 * high:+.2f} %",
                "slower" if sibling.slower else "",
                ms(row.compute_us.p50),
                ms(row.latency_us.p99),
                f"{samples[-1].rss_bytes / 2**20:.0f}" if samples else "–",
            ]
        )
    columns = ["ordinal", "answered /s", "slower by", "95 % interval", "verdict", "compute P50, ms", "P99, ms", "MiB"]
    return Table(title="Each ordinal beside its siblings", columns=columns, rows=rows)


def _telemetry(measured: Run, worker: str) -> str:
    """What the odd one's hardware did: its accelerator where the run sampled it, its cores where it is a cpu slice."""
    info = next((one for one in measured.file.targets if one.label == worker), None)
    if info is None:
        return ""
    if info.simulated:
        return f"It is simulated ({info.simulation})."
    values: dict[str, list[float]] = defaultdict(list)
    device = f"{info.kind}:{info.ordinal}"
    for sample in measured.telemetry:
        if sample.seconds >= measured.measured_from_s and (
            sample.reading.device == device or (info.accelerator_id and sample.reading.id == info.accelerator_id)
        ):
            values[sample.reading.measure].append(sample.reading.value)
    said = [f"{measure} {sum(found) / len(found):.4g}" for measure, found in values.items() if found]
    if info.kind == "cpu" and info.cores:
        said.append(f"cores {', '.join(map(str, info.cores))}")
        clocks = psutil.cpu_freq(percpu=True) or []
        now = [clocks[core].current for core in info.cores if core < len(clocks)]
        said += [f"at {sum(now) / len(now):.0f} MHz"] if now and sum(now) else []
    return f"Its telemetry: {', '.join(said)}." if said else ""
