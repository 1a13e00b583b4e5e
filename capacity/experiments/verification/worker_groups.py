"""The workers of a plan on this machine: real ones on the measured ordinals, and simulated ones for the others."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from capacity.experiments import LaunchError, run_worker_command
from capacity.planning import Offer, ServiceConditions
from capacity.rundir import IntervalLogWriter
from capacity.statistics import Histogram

#: The tag of the replayed service times in a log for `--sim replay:`.
_TAG = "compute"


@dataclass(frozen=True)
class WorkerGroup:
    """So many workers of one offer, real or simulated, and the arguments of `worker fleet` that start them."""

    offer: Offer
    real: bool
    arguments: list[str]
    workers: int


def worker_groups(
    offer: Offer, workers: int, folder: Path, number: int, model_file: Path | None, service: ServiceConditions
) -> list[WorkerGroup]:
    """Returns real workers on the ordinals of this machine that the offer was measured on, and simulated ones else.

    `folder` takes the logs that simulated workers replay; `number` is that of the offer. `model_file` is what real
    workers serve; None: there are none.
    """
    groups = []
    batching = service.batching
    common = ["--max-queue-size", str(batching.queue_limit)] if batching.queue_limit else []
    if batching.max_size > 1:
        common += ["--max-batch-size", str(batching.max_size), "--max-queue-delay-us", str(round(batching.delay_us))]
        if batching.preferred:
            common += ["--preferred-batch-size", ",".join(map(str, batching.preferred))]
    ordinals = _measured_ordinals_here(offer, model_file)[:workers]
    if ordinals:
        assert model_file is not None
        arguments = [str(model_file), "--sha256", _model_sha256(offer), "--name", offer.profile.model]
        arguments += [*_core_slices(offer), *common]
        arguments += ["--host-type", offer.instance.host, "--accelerators", ",".join(ordinals)]
        groups.append(WorkerGroup(offer, True, arguments, len(ordinals)))
    if left := workers - len(ordinals):
        log = folder / f"{number}.hlog"
        _write_replay_log(offer, log)
        arguments = ["--sim", f"replay:{log}:{_TAG}"]
        arguments += ["--sim-host", offer.instance.host, "--sim-type", offer.instance.accelerator]
        arguments += ["--sim-seed", str(1000 * (number + 1)), "--name", offer.profile.model, *common]
        if batching.max_size > 1:
            arguments += ["--sim-per-row", f"{_per_row_us(offer, batching.max_size):.0f}us"]
        arguments += ["--accelerators", ",".join(f"sim:{ordinal}" for ordinal in range(left))]
        groups.append(WorkerGroup(offer, False, arguments, left))
    return groups


def _core_slices(offer: Offer) -> list[str]:
    cores = offer.instance.accelerator.removeprefix("cpu-").removesuffix("c")
    return ["--cores-per-ordinal", cores] if offer.kind == "cpu" and cores.isdecimal() else []


def _write_replay_log(offer: Offer, path: Path) -> None:
    """Writes a log with the measured times of passes of one row under one tag."""
    histogram = offer.compute_histogram()
    if not histogram.count or len(offer.profile.sizes) > 1:
        histogram = Histogram()
        table = offer.profile.pass_time(offer.profile.sizes[0]).table_us
        histogram.record_ns((table * 1000).astype("int64"))
    with IntervalLogWriter(path, 0.0) as log:
        log.write(0.0, 1.0, _TAG, histogram)


def _per_row_us(offer: Offer, max_size: int) -> float:
    """The mean time that one more row adds to a pass, over the measured sizes, in µs."""
    sizes = [size for size in offer.profile.sizes if size <= max_size]
    if len(sizes) < 2:
        return 0.0
    first, last = (offer.profile.pass_time(size).mean_us for size in (sizes[0], sizes[-1]))
    return max((last - first) / (sizes[-1] - sizes[0]), 0.0)


def _model_sha256(offer: Offer) -> str:
    """The checksum of the measured model file; empty where there are several or none."""
    checksums = {
        target.model_sha256
        for run, row in offer.measured
        for target in run.file.targets
        if target.model == row.model and target.model_sha256
    }
    return checksums.pop() if len(checksums) == 1 else ""


def _measured_ordinals_here(offer: Offer, model_file: Path | None) -> list[str]:
    """Ordinals of this machine that the offer was measured on: same machine, kind, type and model file."""
    if model_file is None or offer.simulated or not _model_sha256(offer):
        return []
    hosts = {target.host_name for run, _row in offer.measured for target in run.file.targets if target.host_name}
    if hosts != {socket.gethostname()}:
        return []
    try:
        devices = json.loads(run_worker_command("accelerators", "--json", *_core_slices(offer)))["devices"]
    except LaunchError:
        return []
    return [
        f"{device['kind']}:{device['ordinal']}"
        for device in devices
        if (device["kind"], device["type"]) == (offer.kind, offer.instance.accelerator)
    ]
