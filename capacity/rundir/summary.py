"""From tallies to run.json: one row for each combination and model, and one for each target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from capacity.measures import HardwareCombination, Series, Tally
from capacity.rundir.row import (
    Memory,
    Row,
    Saturation,
    SloRate,
    Warmup,
    judge_row,
    summarize_histogram,
    without_price,
)
from capacity.rundir.run_file import RunFile, SearchResult, TargetEvent, TargetInfo
from capacity.statistics import Check, Slo

_CORES_PREFIX = "cpu-"
# By Little's law some requests were waiting if more than this many were in flight on each accelerator.
_MAX_IN_FLIGHT = 1.1


class RowPricer(Protocol):
    """Prices rows. capacity.pricing.Catalogue, a layer above this one, implements it."""

    @property
    def region(self) -> str:
        """The region whose prices these are."""

    @property
    def date(self) -> str:
        """As of when the prices are."""

    def memory(self, combination: HardwareCombination) -> tuple[int | None, int | None]:
        """Bytes of one host and of one accelerator; None where they are not known."""

    def price_row(self, row: Row) -> Row:
        """The row with its price an hour and its prices of 100,000 inferences, or with why there are none."""


def build_run_file(
    *,
    started: datetime,
    options: dict[str, Any],
    conditions: dict[str, str],
    targets: list[TargetInfo],
    tallies: Mapping[Series, Tally],
    warmups: Mapping[Series, Tally],
    first_requests_ns: Mapping[Series, int],
    duration_s: float,
    slo: Slo | None,
    catalogue: RowPricer,
    checks: list[Check],
    generators: list[dict[str, Any]],
    autocorrelation_times: Mapping[Series, float] | None = None,
    searches: Sequence[SearchResult] = (),
    durations_s: Mapping[tuple[HardwareCombination, str, bool], float] | None = None,
    events: Sequence[TargetEvent] = (),
) -> RunFile:
    """The run.json of a run of `duration_s` seconds; `autocorrelation_times` has one per series, in samples.

    After a search `searches` has its results, and `durations_s` the measured seconds of each pool's row.

    The hardware of a Series is the whole pool that its target is part of, so the targets of a pool share it. Raises
    pydantic's ValidationError where a tally's counts contradict each other.
    """
    infos = {info.label: info for info in targets}
    results = {(result.hardware, result.model, result.simulated): result for result in searches}
    pools: dict[tuple[HardwareCombination, str, bool], list[Series]] = defaultdict(list)
    for series in tallies:
        pools[series.hardware, series.model, series.simulated].append(series)

    def row(members: list[Series], hardware: HardwareCombination, of_target: bool) -> Row:
        pool = members[0].hardware, members[0].model, members[0].simulated
        return _row(
            hardware,
            members,
            target=members[0].target if of_target else None,
            infos=[infos[series.target] for series in members if series.target in infos],
            tally=_sum(tallies[series] for series in members),
            warmup=_sum(warmups[series] for series in members if series in warmups),
            first_ns=max(
                (first_requests_ns[series] for series in members if series in first_requests_ns), default=None
            ),
            duration_s=(durations_s or {}).get(pool, duration_s),
            slo=slo,
            catalogue=catalogue,
            autocorrelation_time=pooled_autocorrelation_time(members, tallies, autocorrelation_times or {}),
            search=None if of_target else results.get((pool[0].name, *pool[1:])),
        )

    rows, target_rows = [], []
    for (hardware, _model, _simulated), members in pools.items():
        members.sort(key=lambda series: series.target)
        rows.append(row(members, hardware, of_target=False))
        single = replace(hardware, count=1, hosts=1) if len(members) > 1 else hardware
        target_rows += [row([series], single, of_target=True) for series in members]
    rows.sort(key=lambda entry: (entry.model, entry.hardware))
    target_rows.sort(key=lambda entry: (entry.model, entry.hardware, entry.target or ""))
    return RunFile(
        started=started,
        duration_s=round(duration_s, 6),
        options=options,
        conditions=conditions,
        slo=str(slo) if slo else None,
        region=catalogue.region,
        prices_as_of=catalogue.date,
        valid=all(check.status != "FAIL" for check in checks),
        checks=checks,
        generators=generators,
        targets=targets,
        rows=rows,
        target_rows=target_rows,
        searches=list(searches),
        events=sorted(events, key=lambda event: event.at_s),
    )


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def _row(
    hardware: HardwareCombination,
    members: list[Series],
    *,
    target: str | None,
    infos: list[TargetInfo],
    tally: Tally,
    warmup: Tally,
    first_ns: int | None,
    duration_s: float,
    slo: Slo | None,
    catalogue: RowPricer,
    autocorrelation_time: float,
    search: SearchResult | None,
) -> Row:
    latency = tally.histograms["latency"]
    lost = tally.failed + tally.unsent
    kind = _kind(hardware, infos)
    memory = _memory(hardware, kind, infos, tally, catalogue)
    peaks = (memory.host_peak_bytes, memory.accelerator_peak_bytes)
    row = Row(
        hardware=hardware.name,
        host=hardware.host,
        accelerator=hardware.accelerator,
        count=hardware.count,
        hosts=hardware.hosts,
        kind=kind,
        model=members[0].model,
        target=target,
        simulated=members[0].simulated,
        due=tally.due,
        requests=tally.requests,
        answered=tally.answered,
        errors=dict(sorted(tally.errors.items())),
        unsent=tally.unsent,
        retries=tally.retries,
        offered_rps=_per_second(tally.due, duration_s),
        throughput_rps=_per_second(tally.answered, duration_s),
        latency_us=summarize_histogram(latency, lost, autocorrelation_time),
        service_us=summarize_histogram(tally.histograms["service"], tally.failed, autocorrelation_time),
        lateness_us=summarize_histogram(tally.histograms["lateness"]),
        queue_us=summarize_histogram(tally.histograms["queue"]),
        compute_us=summarize_histogram(tally.histograms["compute"]),
        first_inference_us=max((info.first_inference_us for info in infos if info.first_inference_us), default=None),
        first_request_us=None if first_ns is None else first_ns / 1000,
        warmup=Warmup(requests=warmup.requests, errors=warmup.failed, mean_us=warmup.histograms["latency"].mean_us),
        memory_bytes=sum(peak or 0 for peak in peaks) or None,
        memory=memory,
        autocorrelation_time=round(autocorrelation_time, 3),
        slo_rate=search.slo_rate if search else SloRate(),
        saturation=search.saturation if search else Saturation(),
    )
    if slo:
        row = judge_row(row, slo, latency)
    priced = catalogue.price_row(row) if target is None else without_price(row, "its pool is priced as one")
    return priced.model_copy(update={"notes": _notes(priced, duration_s)})


def pooled_autocorrelation_time(
    members: list[Series], tallies: Mapping[Series, Tally], times: Mapping[Series, float]
) -> float:
    """Autocorrelation time of the pooled samples: their number over the sum of the members' effective sample sizes."""
    counts = {series: tallies[series].answered for series in members}
    effective = sum(count / times.get(series, 1.0) for series, count in counts.items())
    return max(sum(counts.values()) / effective, 1.0) if effective else 1.0


def _per_second(count: int, duration_s: float) -> float:
    return round(count / duration_s, 3) if duration_s > 0 else 0.0


def _kind(hardware: HardwareCombination, infos: list[TargetInfo]) -> str:
    """The kind that the targets report; for simulated or unknown ones, the kind that their type's name implies."""
    kinds = {info.kind for info in infos if info.kind and info.kind != "sim"}
    if len(kinds) == 1:
        return kinds.pop()
    if hardware.accelerator.startswith("eia"):
        return "eia"
    return "cpu" if not hardware.accelerator or hardware.accelerator.startswith(_CORES_PREFIX) else "cuda"


def _memory(
    hardware: HardwareCombination, kind: str, infos: list[TargetInfo], tally: Tally, catalogue: RowPricer
) -> Memory:
    """The memory of one host and one accelerator, and what is needed of it: measured peaks, or sizes."""
    host_bytes, accelerator_bytes = catalogue.memory(hardware)
    real = [info for info in infos if not info.simulated]

    def highest(values: Iterable[int | None]) -> int | None:
        return max((value for value in values if value), default=None)

    process_bytes = highest(info.process_peak_bytes for info in real)
    per_host = -(-hardware.count // hardware.hosts)
    return Memory(
        model_bytes=highest(info.model_parameter_bytes or info.model_file_bytes for info in infos),
        input_bytes=round(tally.bytes_out / tally.requests) if tally.requests and tally.bytes_out else None,
        host_bytes=highest(info.host_memory_bytes for info in real) or host_bytes,
        host_peak_bytes=process_bytes * per_host if process_bytes else None,
        accelerator_bytes=None
        if kind == "cpu"
        else highest(i.accelerator_memory_bytes for i in real) or accelerator_bytes,
        accelerator_peak_bytes=highest(info.accelerator_peak_bytes for info in real),
    )


def _notes(row: Row, duration_s: float) -> list[str]:
    notes = []
    in_flight = row.throughput_rps * (row.latency_us.mean or 0) / 1e6 / row.count
    if row.cost_per_100k.sequential is not None and in_flight > _MAX_IN_FLIGHT:
        notes.append(
            f"about {in_flight:.2g} requests were in flight on each accelerator: the sequential price includes waiting"
        )
    if row.errors:
        notes.append("errors: " + ", ".join(f"{count} {code}" for code, count in row.errors.items()))
    if row.retries:
        notes.append(f"sent again after a refusal: {row.retries}")
    if row.unsent:
        notes.append(f"due and never sent: {row.unsent}")
    return notes
