"""What `serve` can be told, written once: `serve` reads it, `fleet` hands it on."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from worker.accelerators.kinds import EI_TOOL

Cores = Annotated[int, Option(min=1, help="Cores in the slice of a cpu ordinal.")]
EiTool = Annotated[Path, Option(help="Where the ei tool of Elastic Inference is.")]


@dataclass(frozen=True)
class ServeOptions:
    """Every option but the ordinal and the port, which differ from worker to worker."""

    model: Annotated[Path | None, Argument(help="A TorchScript file; sim needs none.", show_default=False)] = None
    sha256: Annotated[str, Option(help="Refuse a model file with another SHA-256: it is code.")] = ""
    host: Annotated[str, Option(help="The address to bind.")] = "127.0.0.1"
    host_type: Annotated[str | None, Option(help="What this host is called, as in c5.large; found unless told.")] = None
    name: Annotated[str | None, Option(help="The model's name for clients; the file's own unless told.")] = None
    inputs: Annotated[
        list[str] | None, Option("--input", help="NAME:DATATYPE:SHAPE of a foreign file, as in x:INT64:-1,7; repeat.")
    ] = None
    cores_per_ordinal: Cores = 1
    ei_tool: EiTool = EI_TOOL
    precision: Annotated[str, Option(help="fp32, bf16 or fp16.")] = "fp32"
    inference_mode: Annotated[bool, Option(help="Compute in inference mode; else under no_grad.")] = True
    max_batch_size: Annotated[int, Option(min=0, help="Join requests up to so many rows; 0: never.")] = 0
    max_queue_delay_us: Annotated[int, Option(min=0, help="How long a request may wait for others.")] = 0
    preferred_batch_size: Annotated[str, Option(help="Sizes to form as soon as they can be, as in 4,8.")] = ""
    max_queue_size: Annotated[int, Option(min=0, help="Requests that may wait; 0: no bound of this kind.")] = 0
    priority_levels: Annotated[int, Option(min=0, help="Levels of priority; 1 goes first.")] = 0
    default_priority: Annotated[int, Option(min=0, help="Level of requests that name none; 0: the lowest.")] = 0
    max_in_flight: Annotated[int, Option(min=1, help="Requests in flight; more are refused.")] = 4096
    max_in_flight_mib: Annotated[int, Option(min=1, help="MiB of requests in flight; more are refused.")] = 1024
    tls_cert: Annotated[Path | None, Option(help="The server's certificate chain, PEM.")] = None
    tls_key: Annotated[Path | None, Option(help="Its key, PEM.")] = None
    tls_client_ca: Annotated[Path | None, Option(help="Clients must show a certificate of this authority, PEM.")] = None
    token_file: Annotated[Path | None, Option(help="Calls must carry the bearer token in this file.")] = None
    log_level: Annotated[str, Option(help="debug, info, warning or error: JSON lines on stderr.")] = "warning"
    drain: Annotated[str, Option(help="How long requests in flight may take after SIGTERM.")] = "30s"
    sim: Annotated[str, Option(help="fixed:10ms, lognormal:5ms,0.2 (mean, variation) or replay:RUN:TAG.")] = (
        "fixed:10ms"
    )
    sim_host: Annotated[str, Option(help="The host that sim stands for; --host-type wins.")] = "sim-host"
    sim_type: Annotated[str, Option(help="The accelerator that sim stands for; empty: the host alone.")] = "sim"
    sim_per_row: Annotated[str, Option(help="Time added for each row of a batch beyond the first.")] = "0ms"
    sim_failure_rate: Annotated[float, Option(min=0, max=1, help="Share of forward passes that fail.")] = 0.0
    sim_stall: Annotated[str, Option(help="SHARE:TIME, as in 0.01:1s: stalls of forward passes.")] = ""
    sim_coupling: Annotated[
        str, Option(help="Share of its time that each busy sibling costs, as in 0.1, or a JSON file of shares.")
    ] = ""
    sim_seed: Annotated[int, Option(help="Seed of the drawn times.")] = 0

    def arguments(self) -> list[str]:
        """The command line of `serve` that gives these options again."""
        given: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = "--" + ("input" if field.name == "inputs" else field.name.replace("_", "-"))
            if field.name == "model":
                given.append(str(value))
            elif isinstance(value, bool):
                given.append(flag if value else f"--no-{flag[2:]}")
            elif isinstance(value, list):
                given += [word for item in value for word in (flag, item)]
            else:
                given += [flag, str(value)]
        return given


def takes_serve_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command all fields of ServeOptions as its own options, and calls it with `options` built from them."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in dataclasses.fields(ServeOptions)
    ]
    names = [parameter.name for parameter in shared]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        options = ServeOptions(**{name: given.pop(name) for name in names})
        command(options, **given)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*shared, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own)]
    )
    return run
