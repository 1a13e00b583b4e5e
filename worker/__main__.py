"""The worker's command line: serve, fleet, accelerators, export, statistics."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.accelerators import kinds as hardware
from worker.commands import launch
from worker.commands.options import Cores, EiTool, ServeOptions, takes_serve_options
from worker.errors import UsageError

app = typer.Typer(
    help="Hosts one TorchScript model on one accelerator ordinal behind gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Wrong input is one line on stderr and exit code 2."""
    try:
        yield
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(getattr(error, "code", 2)) from None


@app.command()
def accelerators(
    as_json: Annotated[
        bool, typer.Option("--json", help="The same as JSON, in the shape of `ei describe-accelerators`.")
    ] = False,
    cores_per_ordinal: Cores = 1,
    ei_tool: EiTool = hardware.EI_TOOL,
) -> None:
    """Prints the accelerators of this host, by ordinal."""
    from worker.serving.accelerator_service import own_version

    found = hardware.discover(cores_per_ordinal=cores_per_ordinal, ei_tool=ei_tool)
    if as_json:
        devices = [
            {
                "ordinal": a.ordinal,
                "type": a.type,
                "id": a.id,
                "status": a.status,
                "kind": a.kind,
                "memory_bytes": a.memory_bytes,
            }
            for a in found
        ]
        said = {
            "client_version": own_version(),
            "time": time.strftime("%a %b %e %H:%M:%S %Y"),
            "attached_accelerators": len(found),
            "devices": devices,
        }
        typer.echo(json.dumps(said, indent=2))
        return
    typer.echo(f"inferload {own_version()}, {len(found)} accelerators on this host")
    for a in found:
        memory = f"{a.memory_bytes / 2**30:.1f} GiB" if a.memory_bytes else "memory unknown"
        typer.echo(f"{a.name:<10} {a.type:<16} {memory:<16} {a.status:<10} {a.id}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="gpt or resnet18.")],
    mode: Annotated[str, typer.Option(help="trace or script; gpt can only be traced.")] = "trace",
    out: Annotated[Path | None, typer.Option(help="The file to write; MODEL.pt unless told.")] = None,
    weights: Annotated[str, typer.Option(help="random, or pretrained (gpt; needs the network).")] = "random",
) -> None:
    """Writes a reference model as TorchScript, with what it takes and gives inside the file."""
    from worker.runtime import model_file as models

    path = out or Path(f"{model}.pt")
    with _one_line():
        try:
            models.export(model, mode, path, weights)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    typer.echo(f"wrote {path} ({path.stat().st_size / 2**20:.0f} MiB)")


def _event_loop_run(main: Coroutine[Any, Any, None]) -> None:
    """With uvloop where it is installed: it takes a sixth off the time of a small request."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


@app.command()
@takes_serve_options
def serve(
    options: ServeOptions,
    accelerator: Annotated[str, typer.Option(help="KIND:ORDINAL, as in cpu:0.")] = "cpu:0",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Prometheus metrics at http://HOST:PORT/metrics.")
    ] = None,
) -> None:
    """Serves one model on one ordinal until SIGTERM; prints `ready ADDRESS ORDINAL MODEL` once it is warm."""
    with _one_line():
        context, identity = launch.prepare(options, accelerator)
        settings = launch.server_options(options, port, metrics_port)
        from worker.commands.serve import serve as run

        def on_ready(address: str, name: str) -> None:
            print(f"ready {address} {accelerator} {name}", flush=True)

        _event_loop_run(run(context, identity, settings, on_ready))


@app.command()
@takes_serve_options
def fleet(
    options: ServeOptions,
    accelerators: Annotated[
        str, typer.Option(help="Which ordinals, as in cpu:0,cpu:1; a kind alone: all it has.")
    ] = "cpu",
    targets_file: Annotated[Path | None, typer.Option(help="Written once all are ready, removed at the end.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Prometheus metrics of the first worker; the others count on.")
    ] = None,
    restarts: Annotated[int, typer.Option(min=0, help="How often a worker that died is started again.")] = 5,
) -> None:
    """Serves one model on several ordinals, one process each, until SIGINT or SIGTERM.

    With `-- COMMAND…` at the end: once all are ready, COMMAND is run with INFERLOAD_TARGETS in its environment; when it
    ends, the fleet ends, with its exit code.
    """
    from worker.fleet import Fleet
    from worker.runtime import coupling
    from worker.runtime.simulation import duration_ns

    with _one_line(), coupling.table(bool(options.sim_coupling)):
        names = _ordinals(accelerators, options)
        drain_s = duration_ns(options.drain) / 1e9
        ended = Fleet(
            names,
            options.arguments(),
            targets_file=targets_file,
            command=_after_dashes,
            metrics_port=metrics_port,
            restarts=restarts,
            drain_s=drain_s,
        ).run()
    raise typer.Exit(ended)


def _ordinals(text: str, options: ServeOptions) -> list[str]:
    names: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if ":" in part or part == "sim":
            hardware.parse(part)
            names.append(part)
        else:
            kind = hardware.make(part, cores_per_ordinal=options.cores_per_ordinal, ei_tool=options.ei_tool)
            if not (found := [a.name for a in kind.discover()]):
                raise UsageError(f"this host has no accelerator of kind {part}")
            names += found
    if not names:
        raise UsageError("--accelerators names none")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"--accelerators names {', '.join(twice)} twice")
    return names


@app.command()
def statistics(
    targets: Annotated[str, typer.Option(help="HOST:PORT,… or @FILE as a fleet writes it.")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
    tls_ca: Annotated[Path | None, typer.Option(help="The authority of workers that serve TLS, PEM.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The bearer token that the workers ask for.")] = None,
) -> None:
    """What each worker served by its own count."""
    from worker.commands.statistics import Access, collect

    with _one_line():
        found = collect(targets, Access(tls_ca, token_file))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{found['requests']} requests")
    for worker in found["workers"]:
        if "error" in worker:
            typer.echo(f"{worker['address']:<22} {worker['error']}")
        else:
            counts = (
                f"{worker['requests']} requests, {worker['answered']} answered, {sum(worker['errors'].values())} errors"
            )
            typer.echo(f"{worker['address']:<22} {worker['accelerator']:<8} {worker['model']:<12} {counts}")


# What stands after "--" is the command's, options and all: it is taken away before the rest is parsed.
_after_dashes: list[str] = []


def main(arguments: Sequence[str] | None = None, program: str = "python -m worker") -> None:
    """Runs the subcommand of `arguments` (default: the command line); `program` is the command's name in messages."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["fleet"] and "--" in arguments:
        place = arguments.index("--")
        arguments, _after_dashes[:] = arguments[:place], arguments[place + 1 :]
    app(arguments, prog_name=program)


if __name__ == "__main__":
    main()
