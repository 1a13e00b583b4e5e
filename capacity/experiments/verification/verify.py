"""Verifying a plan: its fleet, or as much of it as this machine can run, under load, beside the prediction."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from capacity.experiments import run_load, start_fleet
from capacity.experiments.verification.local_capacity import LocalCapacity, scale_fleet, scaled_rate
from capacity.experiments.verification.worker_groups import WorkerGroup, worker_groups
from capacity.planning import (
    Counts,
    PercentileComparison,
    PlanningProblem,
    PlanRow,
    PoolPrediction,
    ServiceConditions,
    Verification,
)
from capacity.rundir import Run
from capacity.statistics import Histogram, judge_slo, samples_needed
from worker.wire import display_duration, format_duration

WARMUP_S = 3.0
_PERCENTILES = (50.0, 90.0, 99.0)


def verify_plan(
    problem: PlanningProblem,
    rows: Sequence[PlanRow],
    rate: float,
    out: Path,
    seconds: float = 30.0,
    model_file: Path | None = None,
    capacity: LocalCapacity | None = None,
) -> Verification:
    """Runs the fleet of `rows` for `seconds` under Poisson arrivals of `rate` requests a second.

    A fleet that is too large for this machine is scaled down, and its rate with it. Workers are real where this machine
    has the measured ordinals and `model_file` is the measured model, else simulated by replaying the measured times.
    The run directory is `out`/verify; one that is there is replaced. Raises InputError where nothing of the fleet can
    be run. All processes that it started have ended when it returns or raises.
    """
    capacity = capacity or LocalCapacity.of_this_machine()
    offers, service = problem.offers, problem.requirements.service
    planned = problem.counts(rows)
    counts, _share = scale_fleet(planned, [offer.ordinals for offer in offers], rate, capacity)
    rate, prediction = scaled_rate(problem, counts, planned, rate, capacity)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inferload-verify-") as folder, contextlib.ExitStack() as stack:
        groups = [
            group
            for number, (offer, count) in enumerate(zip(offers, counts, strict=True))
            if count
            for group in worker_groups(offer, count * offer.ordinals, Path(folder), number, model_file, service)
        ]
        fleets = [stack.enter_context(start_fleet(group.arguments, Path(folder))) for group in groups]
        addresses = [address for fleet in fleets for address in fleet.addresses]
        run = _run_load(addresses, rate, service, seconds, out / "verify")
    return _compare(problem, run, groups, rate, planned, counts, prediction, seconds)


def _run_load(targets: Sequence[str], rate: float, service: ServiceConditions, seconds: float, directory: Path) -> Run:
    shutil.rmtree(directory, ignore_errors=True)
    users = len(targets)
    deadline = format_duration(round(service.deadline_us * 1000)) if math.isfinite(service.deadline_us) else "10s"
    arguments = [
        *("-u", str(users), "--user-rate", repr(rate / users), "--arrivals", "poisson", "--router", service.router),
        *("--warmup", f"{WARMUP_S:g}s", "--seed", str(service.seed), "--slo", str(service.slo), "--deadline", deadline),
    ]
    return run_load(targets, directory, arguments, seconds + WARMUP_S)


def _compare(
    problem: PlanningProblem,
    run: Run,
    groups: Sequence[WorkerGroup],
    rate: float,
    planned: Counts,
    counts: Counts,
    prediction: PoolPrediction,
    seconds: float,
) -> Verification:
    latency, due, answered = Histogram(), 0, 0
    for row in run.file.rows:
        latency.add(run.histogram(row, "latency") or Histogram())
        due, answered = due + row.due, answered + row.answered
    lost = due - answered
    autocorrelation_time = max((row.autocorrelation_time for row in run.file.rows), default=1.0)
    verdict = judge_slo(problem.requirements.service.slo, latency, lost, autocorrelation_time)
    real = sum(group.workers for group in groups if group.real)
    simulated = sum(group.workers for group in groups if not group.real)
    return Verification(
        description=_describe(sum(counts), sum(planned), real, simulated, rate, seconds),
        whole_fleet=counts == planned,
        rows=problem.rows(counts),
        real_workers=real,
        simulated_workers=simulated,
        rps=rate,
        seconds=seconds,
        requests=due,
        answered=answered,
        percentiles=_compare_percentiles(latency, lost, prediction),
        predicted_meets_slo=prediction.meets_slo,
        verdict=verdict.status,
        verdict_reasons=list(verdict.reasons),
        valid=run.file.valid,
        failures=[f"{check.name} {check.value} (expected {check.threshold})" for check in run.file.failures],
        run_dir=str(run.directory),
    )


def _compare_percentiles(latency: Histogram, lost: int, prediction: PoolPrediction) -> list[PercentileComparison]:
    predictions = dict(prediction.percentiles)
    comparisons = []
    for percentile in _PERCENTILES:
        enough = latency.count + lost >= samples_needed(percentile)
        measured = latency.percentile_us(percentile, lost) if enough else None
        predicted = predictions.get(percentile)
        error = predicted / measured - 1 if predicted is not None and measured else None
        comparisons.append(
            PercentileComparison(name=f"P{percentile:g}", predicted=predicted, measured=measured, error=error)
        )
    return comparisons


def _describe(instances: int, planned: int, real: int, simulated: int, rate: float, seconds: float) -> str:
    whole = instances == planned
    fleet = "the whole fleet" if whole else f"{instances} of {planned} instances, as many as this machine can run,"
    workers = [f"{real} real worker{'s' * (real > 1)}"] if real else []
    if simulated:
        replay = "workers that replay" if simulated > 1 else "worker that replays"
        workers.append(f"{simulated} simulated {replay} the measured times")
    note = "" if whole else "; the prediction is that of this smaller fleet"
    load = f"{rate:,.4g} requests/s of Poisson arrivals for {display_duration(seconds)}"
    return f"{fleet} on {' and '.join(workers)}, {load}{note}"
