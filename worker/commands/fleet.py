"""The command `fleet`: one model on several ordinals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from worker.accelerators import parse_accelerators
from worker.commands.options import ServeOptions, parse_duration, takes_serve_options


@takes_serve_options
def fleet(
    context: typer.Context,
    options: ServeOptions,
    accelerators: Annotated[
        str, Option(help="Ordinals, as in cpu:0,cpu:1; a kind alone: all of its ordinals.")
    ] = "cpu",
    targets_file: Annotated[Path | None, Option(help="Written once all are ready, removed at the end.")] = None,
    metrics_port: Annotated[
        int | None, Option(min=1, max=65535, help="Prometheus metrics of the first worker; the others count on.")
    ] = None,
    restarts: Annotated[int, Option(min=0, help="How often a worker that ended by itself is started again.")] = 5,
) -> None:
    """Serves one model on several ordinals, one process each, until SIGINT or SIGTERM.

    With `-- COMMAND…` at the end: once all are ready, COMMAND runs with INFERLOAD_TARGETS in its environment; when it
    ends, the fleet ends, with its exit code.
    """
    from worker.fleet import Fleet
    from worker.runtime import coupling_table

    command: Sequence[str] = context.obj or ()
    with coupling_table(bool(options.sim_coupling)):
        exit_code = Fleet(
            parse_accelerators(accelerators, options.kind_options),
            options.arguments(),
            targets_file=targets_file,
            command=command,
            metrics_port=metrics_port,
            restarts=restarts,
            drain_s=parse_duration("--drain", options.drain) / 1e9,
        ).run()
    raise typer.Exit(exit_code)
