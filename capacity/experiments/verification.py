"""Runs a planned fleet here and compares: real workers where their ordinals are, simulated ones that replay what was
measured where they are not. Everything that it starts ends with it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity.experiments.fleet import start_fleet
from capacity.experiments.load import run_load
from capacity.experiments.processes import LaunchError, run_worker_command
from capacity.planning.fleet_search import Counts, Verdict
from capacity.planning.offers import Offer
from capacity.planning.plan_file import Compared, PlanRow, Verification
from capacity.planning.pools import Service
from capacity.planning.problem import Ground
from capacity.rundir import IntervalLogWriter, Run
from capacity.statistics import Histogram, judge_slo, samples_needed
from worker.wire import format_duration

WARMUP_S = 3.0
# What a core runs beside the generator without the figures being about the core.
_WORKERS_PER_CORE, _RPS_PER_CORE = 8, 200.0
_TAG = "compute"
# Halvings between a rate that holds and one that may not.
_HALVINGS = 8


@dataclass(frozen=True)
class Room:
    """How large a fleet this machine can run, and at which rate, without being what is measured."""

    workers: int
    rps: float

    @classmethod
    def here(cls) -> Room:
        """By the cores that this process may use."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(_WORKERS_PER_CORE * cores, _RPS_PER_CORE * cores)


@dataclass(frozen=True)
class _Part:
    """Workers of one offer: which ordinals, real or simulated, and the command that starts them."""

    offer: Offer
    real: bool
    command: list[str]
    workers: int


def scaled(counts: Counts, ordinals: Sequence[int], rate: float, room: Room) -> tuple[Counts, float]:
    """The fleet, or as large a share of it as there is room for, and the share; ValueError where none fits."""
    workers = sum(count * each for count, each in zip(counts, ordinals, strict=True))
    share = min(1.0, room.workers / workers, room.rps / rate)
    if share == 1.0:
        return counts, 1.0
    smaller = [math.floor(count * share) for count in counts]
    if not any(smaller):
        most = max(range(len(counts)), key=lambda number: counts[number] * ordinals[number])
        smaller[most] = 1
    if (least := sum(count * each for count, each in zip(smaller, ordinals, strict=True))) > room.workers:
        raise ValueError(
            f"this plan cannot be verified here: one instance is {least} workers, and this machine runs "
            f"{room.workers} at most"
        )
    return tuple(smaller), share


def verify(
    ground: Ground,
    rows: Sequence[PlanRow],
    rate: float,
    out: Path,
    seconds: float = 30.0,
    model_file: Path | None = None,
    room: Room | None = None,
) -> Verification:
    """Runs the fleet of `rows` for `seconds` under Poisson arrivals of `rate` requests a second, its run kept in `out`.

    A fleet too large for this machine is scaled down, its rate to what the simulation gives the smaller one.
    `model_file` is what real workers serve, where it is the file that was measured. ValueError in one sentence where
    nothing can be run; processes are ended whatever happens.
    """
    room, offers, service = room or Room.here(), ground.all, ground.task.service
    planned = ground.counts_of(rows)
    counts, _share = scaled(planned, [offer.ordinals for offer in offers], rate, room)
    whole = counts == planned
    rate, predicted = _rate_for(ground, counts, planned, rate, room)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inferload-verify-") as folder, contextlib.ExitStack() as running:
        parts = [
            part
            for number, (offer, count) in enumerate(zip(offers, counts, strict=True))
            if count
            for part in _parts(offer, count * offer.ordinals, Path(folder), number, model_file, service)
        ]
        fleets = [running.enter_context(start_fleet(part.command, Path(folder))) for part in parts]
        run = _load(
            [address for fleet in fleets for address in fleet.addresses], rate, service, seconds, out / "verify"
        )
    return _verified(run, parts, whole, rate, planned, counts, predicted, seconds, ground)


def _rate_for(ground: Ground, counts: Counts, planned: Counts, rate: float, room: Room) -> tuple[float, Verdict]:
    """The rate for a fleet and what is predicted at it: the plan's own, or what a smaller fleet holds of it."""
    pools = ground.pools
    if counts == planned:
        return rate, pools.verdict(counts, rate)
    capacity, wanted = (
        sum(count * pools.ceiling(number) for number, count in enumerate(some)) for some in (counts, planned)
    )
    high = min(room.rps, rate * capacity / wanted)
    verdict = pools.verdict(counts, high)
    if verdict.holds:
        return high, verdict
    low, best = 0.0, verdict
    for _halving in range(_HALVINGS):
        middle = (low + high) / 2
        verdict = pools.verdict(counts, middle)
        low, high, best = (middle, high, verdict) if verdict.holds else (low, middle, best)
    if low == 0.0:
        raise ValueError("this plan cannot be verified here: the share of it that fits holds the SLO at no rate")
    return low, best


def _parts(
    offer: Offer, workers: int, folder: Path, number: int, model_file: Path | None, service: Service
) -> list[_Part]:
    """Real workers on the ordinals that are here and are what was measured, simulated ones for the rest."""
    parts = []
    batching = service.batching
    common = ["--max-queue-size", str(batching.queue_limit)] if batching.queue_limit else []
    if batching.max_size > 1:
        common += ["--max-batch-size", str(batching.max_size), "--max-queue-delay-us", str(round(batching.delay_us))]
        if batching.preferred:
            common += ["--preferred-batch-size", ",".join(map(str, batching.preferred))]
    ordinals = _ordinals_here(offer, model_file)[:workers]
    if ordinals:
        assert model_file is not None
        cores = offer.instance.accelerator.removeprefix("cpu-").removesuffix("c")
        slices = ["--cores-per-ordinal", cores] if offer.kind == "cpu" and cores.isdecimal() else []
        command = [str(model_file), "--sha256", _sha256_of(offer), "--name", offer.profile.model, *slices, *common]
        command += ["--host-type", offer.instance.host, "--accelerators", ",".join(ordinals)]
        parts.append(_Part(offer, True, command, len(ordinals)))
    if left := workers - len(ordinals):
        command = ["--sim", f"replay:{_replayed(offer, folder / f'{number}.hlog')}:{_TAG}"]
        command += ["--sim-host", offer.instance.host, "--sim-type", offer.instance.accelerator]
        command += ["--sim-seed", str(1000 * (number + 1)), "--name", offer.profile.model, *common]
        if batching.max_size > 1:
            command += ["--sim-per-row", f"{_per_row_us(offer, batching.max_size):.0f}us"]
        command += ["--accelerators", ",".join(f"sim:{ordinal}" for ordinal in range(left))]
        parts.append(_Part(offer, False, command, left))
    return parts


def _replayed(offer: Offer, path: Path) -> Path:
    """A log with the measured times of a forward pass under one tag, for `--sim replay:`; single requests' ones."""
    histogram = offer.compute()
    if not histogram.count or len(offer.profile.sizes) > 1:
        histogram = Histogram()
        table = offer.profile.pass_time(offer.profile.sizes[0]).table_us
        histogram.record_ns((table * 1000).astype("int64"))
    with IntervalLogWriter(path, 0.0) as log:
        log.write(0.0, 1.0, _TAG, histogram)
    return path


def _per_row_us(offer: Offer, most: int) -> float:
    """What a row more adds to a pass, on average over the sizes that were measured."""
    sizes = [size for size in offer.profile.sizes if size <= most]
    if len(sizes) < 2:
        return 0.0
    first, last = (offer.profile.pass_time(size).mean_us for size in (sizes[0], sizes[-1]))
    return max((last - first) / (sizes[-1] - sizes[0]), 0.0)


def _sha256_of(offer: Offer) -> str:
    found = {
        worker.model_sha256
        for run, row in offer.measured
        for worker in run.file.targets
        if worker.model == row.model and worker.model_sha256
    }
    return found.pop() if len(found) == 1 else ""


def _ordinals_here(offer: Offer, model_file: Path | None) -> list[str]:
    """Ordinals of this machine that the offer was measured on: same machine, same kind and type, same model file."""
    if model_file is None or offer.simulated or not _sha256_of(offer):
        return []
    hosts = {worker.host_name for run, _row in offer.measured for worker in run.file.targets if worker.host_name}
    if hosts != {socket.gethostname()}:
        return []
    cores = offer.instance.accelerator.removeprefix("cpu-").removesuffix("c")
    slices = ["--cores-per-ordinal", cores] if offer.kind == "cpu" and cores.isdecimal() else []
    try:
        devices = json.loads(run_worker_command("accelerators", "--json", *slices))["devices"]
    except LaunchError:
        return []
    return [
        f"{device['kind']}:{device['ordinal']}"
        for device in devices
        if (device["kind"], device["type"]) == (offer.kind, offer.instance.accelerator)
    ]


def _load(targets: Sequence[str], rate: float, service: Service, seconds: float, run_dir: Path) -> Run:
    """One run of Locust against these targets; LaunchError with its own words where it left none."""
    shutil.rmtree(run_dir, ignore_errors=True)
    users = len(targets)
    deadline = format_duration(round(service.deadline_us * 1000)) if math.isfinite(service.deadline_us) else "10s"
    arguments = [
        *("-u", str(users), "--user-rate", repr(rate / users), "--arrivals", "poisson", "--router", service.router),
        *("--warmup", f"{WARMUP_S:g}s", "--seed", str(service.seed), "--slo", str(service.slo), "--deadline", deadline),
    ]
    return run_load(targets, run_dir, arguments, seconds + WARMUP_S)


def _verified(
    run: Run,
    parts: Sequence[_Part],
    whole: bool,
    rate: float,
    planned: Counts,
    counts: Counts,
    predicted: Verdict,
    seconds: float,
    ground: Ground,
) -> Verification:
    latency, due, answered = Histogram(), 0, 0
    for row in run.file.rows:
        latency.add(run.histogram(row, "latency") or Histogram())
        due, answered = due + row.due, answered + row.answered
    lost = due - answered
    dependence = max((row.autocorrelation_time for row in run.file.rows), default=1.0)
    verdict = judge_slo(ground.task.service.slo, latency, lost, dependence)
    foretold = dict(predicted.percentiles)
    compared = []
    for percentile in (50.0, 90.0, 99.0):
        enough = latency.count + lost >= samples_needed(percentile)
        seen, said = latency.percentile_us(percentile, lost) if enough else None, foretold.get(percentile)
        error = said / seen - 1 if said is not None and seen else None
        compared.append(Compared(name=f"P{percentile:g}", predicted=said, measured=seen, error=error))
    real = sum(part.workers for part in parts if part.real)
    simulated = sum(part.workers for part in parts if not part.real)
    return Verification(
        said=_said(whole, sum(counts), sum(planned), real, simulated, rate, seconds),
        whole=whole,
        rows=ground.rows_of(counts),
        real_workers=real,
        simulated_workers=simulated,
        rps=rate,
        seconds=seconds,
        requests=due,
        answered=answered,
        compared=compared,
        predicted_meets=predicted.holds,
        meets_slo={"met": True, "missed": False}.get(verdict.status),
        slo_reasons=list(verdict.reasons),
        valid=run.file.valid,
        failures=[f"{check.name} {check.value}, asked {check.threshold}" for check in run.file.failures],
        run_dir=str(run.directory),
    )


def _said(whole: bool, instances: int, planned: int, real: int, simulated: int, rate: float, seconds: float) -> str:
    what = "the whole fleet" if whole else f"{instances} of {planned} instances, as many as this machine can run,"
    workers = [f"{real} real worker{'s' * (real > 1)}"] if real else []
    if simulated:
        replay = "workers that replay" if simulated > 1 else "worker that replays"
        workers.append(f"{simulated} simulated {replay} the measured times")
    note = "" if whole else "; the prediction is that of this smaller fleet"
    return f"{what} on {' and '.join(workers)}, {rate:,.4g} requests/s of Poisson arrivals for {seconds:g} s{note}"
