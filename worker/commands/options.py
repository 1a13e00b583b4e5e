"""ServeOptions: the options that `serve` and `fleet` share; `fleet` passes them to each worker."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from worker.accelerators import EI_TOOL, KindOptions
from worker.errors import InputError
from worker.wire import FormatError, parse_duration_ns

Cores = Annotated[int, Option(min=1, help="Cores in the slice of a cpu ordinal.")]
EiTool = Annotated[Path, Option(help="The path of the ei tool of Elastic Inference.")]


@dataclass(frozen=True)
class ServeOptions:
    """Every option but the ordinal and the port, which differ from worker to worker."""

    model: Annotated[Path | None, Argument(help="A TorchScript file; sim needs none.", show_default=False)] = None
    sha256: Annotated[str, Option(help="Refuse a model file with another SHA-256: it is code.")] = ""
    host: Annotated[str, Option(help="The address to bind.")] = "127.0.0.1"
    host_type: Annotated[
        str | None, Option(help="The instance type of this host, as in c5.large (default: as its cloud names it).")
    ] = None
    name: Annotated[str | None, Option(help="The model's name for clients (default: the name in the file).")] = None
    inputs: Annotated[
        list[str] | None,
        Option("--input", help="NAME:DATATYPE:SHAPE of a foreign file, as in x:INT64:-1,7; may repeat."),
    ] = None
    cores_per_ordinal: Cores = 1
    ei_tool: EiTool = EI_TOOL
    precision: Annotated[str, Option(help="fp32, bf16 or fp16.")] = "fp32"
    inference_mode: Annotated[bool, Option(help="Compute in inference mode; else under no_grad.")] = True
    max_batch_size: Annotated[int, Option(min=0, help="Join requests up to so many rows; 0: never.")] = 0
    max_queue_delay_us: Annotated[int, Option(min=0, help="How long a request may wait for others to join it.")] = 0
    preferred_batch_size: Annotated[str, Option(help="Batch sizes to form as soon as possible, as in 4,8.")] = ""
    max_queue_size: Annotated[int, Option(min=0, help="Requests that may wait; 0: no limit.")] = 0
    priority_levels: Annotated[int, Option(min=0, help="Levels of priority; 1 goes first.")] = 0
    default_priority: Annotated[int, Option(min=0, help="Priority of requests without one; 0: the lowest.")] = 0
    max_in_flight: Annotated[int, Option(min=1, help="Most requests in flight; more are refused.")] = 4096
    max_in_flight_mib: Annotated[int, Option(min=1, help="Most MiB of requests in flight; more are refused.")] = 1024
    tls_cert: Annotated[Path | None, Option(help="The server's certificate chain, PEM.")] = None
    tls_key: Annotated[Path | None, Option(help="Its key, PEM.")] = None
    tls_client_ca: Annotated[Path | None, Option(help="Clients must show a certificate of this authority, PEM.")] = None
    token_file: Annotated[Path | None, Option(help="Calls must carry the bearer token in this file.")] = None
    log_level: Annotated[str, Option(help="debug, info, warning or error: JSON lines on stderr.")] = "warning"
    drain: Annotated[str, Option(help="How long requests in flight may take after SIGTERM.")] = "30s"
    sim: Annotated[str, Option(help="fixed:10ms, lognormal:5ms,0.2 (mean, variation) or replay:RUN:TAG.")] = (
        "fixed:10ms"
    )
    sim_host: Annotated[str, Option(help="The host that sim simulates; --host-type overrides it.")] = "sim-host"
    sim_type: Annotated[str, Option(help="The accelerator type that sim simulates; empty: the host alone.")] = "sim"
    sim_per_row: Annotated[str, Option(help="Time added for each row of a batch beyond the first.")] = "0ms"
    sim_failure_rate: Annotated[float, Option(min=0, max=1, help="Share of forward passes that fail.")] = 0.0
    sim_stall: Annotated[str, Option(help="SHARE:TIME, as in 0.01:1s: forward passes that stall, how long.")] = ""
    sim_coupling: Annotated[
        str, Option(help="Growth of the service time by each busy sibling, as in 0.1, or a JSON file of shares.")
    ] = ""
    sim_seed: Annotated[int, Option(help="Seed of the random numbers.")] = 0

    @property
    def kind_options(self) -> KindOptions:
        """The options that kinds of accelerators read."""
        return KindOptions(self.cores_per_ordinal, self.ei_tool)

    def arguments(self) -> list[str]:
        """Returns the command line of `serve` that sets these options."""
        words: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = "--" + ("input" if field.name == "inputs" else field.name.replace("_", "-"))
            if field.name == "model":
                words.append(str(value))
            elif isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            elif isinstance(value, list):
                words += [word for item in value for word in (flag, item)]
            else:
                words += [flag, str(value)]
        return words


def takes_serve_options(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command that takes all fields of ServeOptions as options, and calls `command` with `options`."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in dataclasses.fields(ServeOptions)
    ]
    names = [parameter.name for parameter in shared]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        options = ServeOptions(**{name: arguments.pop(name) for name in names})
        command(options=options, **arguments)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*shared, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own)]
    )
    return run


def parse_duration(option: str, text: str) -> int:
    """Returns the nanoseconds of an option's duration, 0 included. Raises InputError that names the option."""
    try:
        return parse_duration_ns(text, allow_zero=True)
    except FormatError as error:
        raise InputError(f"{option}: {error}") from None
