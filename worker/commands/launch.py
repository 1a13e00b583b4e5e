"""From options to what a server needs: the process bound to its ordinal, the context made, the hardware named."""

from pathlib import Path
from typing import TYPE_CHECKING

from worker.accelerators import host
from worker.accelerators import kinds as accelerators
from worker.accelerators.kinds import Accelerator
from worker.commands.options import ServeOptions
from worker.errors import UsageError
from worker.operations import log

if TYPE_CHECKING:
    from worker.commands import serve as server
    from worker.runtime.context import Context
    from worker.runtime.model_file import Specification
    from worker.runtime.tensors import TensorSpec
    from worker.serving.accelerator_service import Identity


def prepare(options: ServeOptions, accelerator: str) -> "tuple[Context, Identity]":
    """Binds this process to the accelerator; from then on torch may be imported. UsageError in one sentence."""
    kind, ordinal = accelerators.parse(accelerator)
    if kind == "sim":
        return _simulated(options, ordinal)
    return _real(options, kind, ordinal)


def _real(options: ServeOptions, kind_name: str, ordinal: int) -> "tuple[Context, Identity]":
    if options.model is None:
        raise UsageError(f"{kind_name}:{ordinal} needs a model file to serve")
    kind = accelerators.make(kind_name, cores_per_ordinal=options.cores_per_ordinal, ei_tool=options.ei_tool)
    accelerator = kind.environment(ordinal)
    # Only now: numpy and gRPC start their threads inside the environment too.
    from worker.runtime.context import PRECISIONS, ExecutionContext
    from worker.runtime.model_file import sha256
    from worker.serving.accelerator_service import Identity

    if options.precision not in PRECISIONS:
        raise UsageError(f"--precision is {', '.join(PRECISIONS)}, not {options.precision!r}")
    path = _trusted(options, options.model)
    context = ExecutionContext(
        kind,
        ordinal,
        path,
        _specification(options, options.model, path),
        threads=options.cores_per_ordinal if kind_name == "cpu" else 0,
        precision=options.precision,
        inference_mode=options.inference_mode,
    )
    identity = Identity(
        host.host_type(options.host_type),
        accelerator,
        tuple(host.available_cores()),
        sha256=sha256(path),
        file_bytes=path.stat().st_size,
    )
    return context, identity


def _simulated(options: ServeOptions, ordinal: int) -> "tuple[Context, Identity]":
    from worker.runtime import coupling
    from worker.runtime.coupling import Siblings
    from worker.runtime.model_file import Specification, sha256
    from worker.runtime.simulation import DEFAULT_SPECIFICATION, SimulatedContext, Simulation, duration_ns
    from worker.serving.accelerator_service import Identity

    path = None if options.model is None else _trusted(options, options.model)
    specification = DEFAULT_SPECIFICATION
    if options.model is not None and path is not None:
        specification = _specification(options, options.model, path)
        if not specification.outputs:
            raise UsageError(f"{options.model} does not say what it gives, so it cannot be simulated")
    elif options.inputs:
        takes = _inputs(options)
        gives = tuple(spec.model_copy(update={"name": f"output_{n}"}) for n, spec in enumerate(takes))
        specification = Specification(name="sim", mode="foreign", inputs=takes, outputs=gives)
    if options.name:
        specification = specification.model_copy(update={"name": options.name})
    share, _, stall = options.sim_stall.partition(":")
    try:
        stall_rate = float(share) if share else 0.0
    except ValueError:
        raise UsageError(f"--sim-stall is SHARE:TIME, as in 0.01:1s, not {options.sim_stall!r}") from None
    simulation = Simulation(
        options.sim,
        duration_ns(options.sim_per_row),
        options.sim_failure_rate,
        stall_rate,
        duration_ns(stall) if stall_rate else 0,
        options.sim_seed + ordinal,
    )
    siblings = Siblings(coupling.parse(options.sim_coupling, ordinal), ordinal) if options.sim_coupling else None
    accelerator = Accelerator("sim", ordinal, options.sim_type, f"sim-{ordinal}", 0)
    identity = Identity(
        options.host_type if options.host_type is not None else options.sim_host,
        accelerator,
        tuple(host.available_cores()),
        simulated=True,
        simulation=options.sim + (f", coupled {options.sim_coupling}" if options.sim_coupling else ""),
        sha256=sha256(path) if path else "",
        file_bytes=path.stat().st_size if path else 0,
    )
    return SimulatedContext(simulation, specification, siblings), identity


def server_options(options: ServeOptions, port: int, metrics_port: int | None) -> "server.Options":
    from worker.commands.serve import Options
    from worker.operations.security import Security
    from worker.runtime.simulation import duration_ns
    from worker.serving.inference import Limits
    from worker.serving.job import Policy

    try:
        preferred = tuple(int(size) for size in options.preferred_batch_size.split(",") if size.strip())
    except ValueError:
        raise UsageError(f"--preferred-batch-size is a list as in 4,8, not {options.preferred_batch_size!r}") from None
    if any(not 1 <= size <= options.max_batch_size for size in preferred):
        raise UsageError("--preferred-batch-size names sizes of 1 to --max-batch-size")
    if options.default_priority > options.priority_levels:
        raise UsageError("--default-priority is at most --priority-levels")
    policy = Policy(
        options.max_batch_size,
        options.max_queue_delay_us,
        preferred,
        options.max_queue_size,
        options.priority_levels,
        options.default_priority or options.priority_levels,
    )
    if options.log_level not in log.LEVELS:
        raise UsageError(f"--log-level is {', '.join(log.LEVELS)}, not {options.log_level!r}")
    log.configure(options.log_level)
    return Options(
        options.host,
        port,
        policy,
        duration_ns(options.drain) / 1e9,
        Limits(options.max_in_flight, options.max_in_flight_mib * 1024**2),
        Security(options.tls_cert, options.tls_key, options.tls_client_ca, options.token_file),
        metrics_port,
    )


def _trusted(options: ServeOptions, path: Path) -> Path:
    """Where to load the model from: a sealed copy of exactly the bytes that --sha256 names, or the file itself."""
    from worker.runtime.model_file import sealed

    return sealed(path, options.sha256) if options.sha256 else path


def _specification(options: ServeOptions, named: Path, path: Path) -> "Specification":
    """What the file at `path` says of itself; in words and in the model's name it is the one that the user named."""
    from worker.runtime.model_file import read_specification

    try:
        found = read_specification(path, _inputs(options), options.name)
    except UsageError as error:
        raise UsageError(str(error).replace(str(path), str(named))) from None
    return found.model_copy(update={"name": named.stem}) if found.name == path.stem != named.stem else found


def _inputs(options: ServeOptions) -> "tuple[TensorSpec, ...]":
    from worker.runtime.tensors import parse_spec

    try:
        return tuple(parse_spec(text) for text in options.inputs or ())
    except ValueError as error:
        raise UsageError(f"--input {error}") from None
