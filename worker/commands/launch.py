"""From options to what a worker process needs: bind the process to its ordinal, make the context, name the hardware.

The imports of worker.runtime, worker.operations and worker.serving stand inside functions: they import numpy and gRPC,
whose threads must start after the process is bound.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from worker.accelerators import AcceleratorKind, available_cores, make_kind, parse_accelerator
from worker.commands.options import ServeOptions, parse_duration
from worker.errors import InputError

if TYPE_CHECKING:
    from worker.commands.worker_process import ProcessOptions
    from worker.runtime import ExecutionContext, Simulation, Specification, TensorSpec
    from worker.serving import BatchingPolicy, WorkerIdentity


def prepare(options: ServeOptions, accelerator: str) -> "tuple[ExecutionContext, WorkerIdentity]":
    """Binds this process to the accelerator; from then on torch may be imported. Raises InputError."""
    name, ordinal = parse_accelerator(accelerator)
    kind = make_kind(name, options.kind_options)
    return _prepare_simulated(options, kind, ordinal) if kind.simulated else _prepare_model(options, kind, ordinal)


def _prepare_model(
    options: ServeOptions, kind: AcceleratorKind, ordinal: int
) -> "tuple[ExecutionContext, WorkerIdentity]":
    if options.model is None:
        raise InputError(f"{kind.name}:{ordinal} needs a model file to serve: give one such as resnet18.pt")
    accelerator = kind.bind(ordinal)
    from worker.operations import host_type
    from worker.runtime import PRECISIONS, TorchContext, file_sha256
    from worker.serving import WorkerIdentity

    if options.precision not in PRECISIONS:
        raise InputError(f"unknown precision {options.precision!r} (choose {', '.join(PRECISIONS)})")
    path = _verified(options, options.model)
    context = TorchContext(
        kind,
        ordinal,
        path,
        _specification(options, options.model, path),
        threads=kind.threads,
        precision=options.precision,
        inference_mode=options.inference_mode,
    )
    identity = WorkerIdentity(
        host_type(options.host_type),
        accelerator,
        tuple(available_cores()),
        sha256=file_sha256(path),
        file_bytes=path.stat().st_size,
    )
    return context, identity


def _prepare_simulated(
    options: ServeOptions, kind: AcceleratorKind, ordinal: int
) -> "tuple[ExecutionContext, WorkerIdentity]":
    accelerator = dataclasses.replace(kind.bind(ordinal), type=options.sim_type)
    from worker.runtime import CoupledOrdinal, SimulatedContext, file_sha256, parse_coupling
    from worker.serving import WorkerIdentity

    path = None if options.model is None else _verified(options, options.model)
    specification = _simulated_specification(options, path)
    coupling = None
    if options.sim_coupling:
        coupling = CoupledOrdinal(parse_coupling(options.sim_coupling, ordinal), ordinal)
    identity = WorkerIdentity(
        options.host_type if options.host_type is not None else options.sim_host,
        accelerator,
        tuple(available_cores()),
        simulated=True,
        simulation=options.sim + (f", coupled {options.sim_coupling}" if options.sim_coupling else ""),
        sha256=file_sha256(path) if path else "",
        file_bytes=path.stat().st_size if path else 0,
    )
    return SimulatedContext(_simulation(options, ordinal), specification, coupling), identity


def _simulated_specification(options: ServeOptions, path: Path | None) -> "Specification":
    from worker.runtime import DEFAULT_SPECIFICATION, Specification

    specification = DEFAULT_SPECIFICATION
    if options.model is not None and path is not None:
        specification = _specification(options, options.model, path)
        if not specification.outputs:
            raise InputError(f"{options.model} has no specification of its outputs, so that it cannot be simulated")
    elif options.inputs:
        inputs = _inputs(options)
        outputs = tuple(spec.model_copy(update={"name": f"output_{n}"}) for n, spec in enumerate(inputs))
        specification = Specification(name="sim", mode="foreign", inputs=inputs, outputs=outputs)
    return specification.model_copy(update={"name": options.name}) if options.name else specification


def _simulation(options: ServeOptions, ordinal: int) -> "Simulation":
    from worker.runtime import Simulation

    share, _, stall = options.sim_stall.partition(":")
    try:
        stall_rate = float(share) if share else 0.0
    except ValueError:
        raise InputError(f"--sim-stall {options.sim_stall!r}: write SHARE:TIME such as 0.01:1s") from None
    return Simulation(
        options.sim,
        parse_duration("--sim-per-row", options.sim_per_row),
        options.sim_failure_rate,
        stall_rate,
        parse_duration("--sim-stall", stall) if stall_rate else 0,
        options.sim_seed + ordinal,
    )


def process_options(options: ServeOptions, port: int, metrics_port: int | None) -> "ProcessOptions":
    """Returns how the worker process listens, batches and ends. Raises InputError."""
    from worker.commands.worker_process import ProcessOptions
    from worker.operations import LOG_LEVELS, Security
    from worker.serving import InferenceLimits

    if options.log_level not in LOG_LEVELS:
        raise InputError(f"unknown log level {options.log_level!r} (choose {', '.join(LOG_LEVELS)})")
    policy = _batching_policy(options)
    return ProcessOptions(
        options.host,
        port,
        policy,
        parse_duration("--drain", options.drain) / 1e9,
        InferenceLimits(options.max_in_flight, options.max_in_flight_mib * 1024**2),
        Security(options.tls_cert, options.tls_key, options.tls_client_ca, options.token_file),
        metrics_port,
    )


def _batching_policy(options: ServeOptions) -> "BatchingPolicy":
    from worker.serving import BatchingPolicy

    text = options.preferred_batch_size
    try:
        preferred = tuple(int(size) for size in text.split(",") if size.strip())
    except ValueError:
        raise InputError(f"--preferred-batch-size {text!r}: write a list of sizes such as 4,8") from None
    if any(not 1 <= size <= options.max_batch_size for size in preferred):
        raise InputError(
            f"--preferred-batch-size {text}: write sizes of 1 to --max-batch-size {options.max_batch_size}"
        )
    priority, levels = options.default_priority, options.priority_levels
    if priority > levels:
        raise InputError(f"--default-priority {priority}: expected at most --priority-levels {levels}")
    return BatchingPolicy(
        options.max_batch_size,
        options.max_queue_delay_us,
        preferred,
        options.max_queue_size,
        options.priority_levels,
        priority or levels,
    )


def _verified(options: ServeOptions, path: Path) -> Path:
    """Returns the path to load from: a private copy with the bytes that --sha256 names, or the file itself."""
    from worker.runtime import verified_copy

    return verified_copy(path, options.sha256) if options.sha256 else path


def _specification(options: ServeOptions, model: Path, path: Path) -> "Specification":
    """Returns the specification in the file at `path`; messages and the model's name use the user's path, `model`."""
    from worker.runtime import read_specification

    try:
        specification = read_specification(path, _inputs(options), options.name)
    except InputError as error:
        raise InputError(str(error).replace(str(path), str(model))) from None
    if specification.name == path.stem != model.stem:
        return specification.model_copy(update={"name": model.stem})
    return specification


def _inputs(options: ServeOptions) -> "tuple[TensorSpec, ...]":
    from worker.runtime import parse_tensor_spec

    return tuple(parse_tensor_spec(text) for text in options.inputs or ())
