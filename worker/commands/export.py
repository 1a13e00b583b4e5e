"""The command `export`: a reference model as a TorchScript file."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from worker.errors import InputError


def export(
    model: Annotated[str, Argument(help="gpt or resnet18.")],
    mode: Annotated[str, Option(help="trace or script; gpt can only be traced.")] = "trace",
    out: Annotated[Path | None, Option(help="The file to write (default: MODEL.pt).")] = None,
    weights: Annotated[str, Option(help="random, or pretrained (gpt; needs the network).")] = "random",
) -> None:
    """Writes a reference model as TorchScript, with the specification of its inputs and outputs inside the file."""
    from worker.runtime import export_model

    path = out or Path(f"{model}.pt")
    try:
        export_model(model, mode, path, weights)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    typer.echo(f"wrote {path} ({path.stat().st_size / 2**20:.0f} MiB)")
