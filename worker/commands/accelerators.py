"""The command `accelerators`: the accelerators of this host."""

import json
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from typer import Option

from worker.accelerators import EI_TOOL, Accelerator, KindOptions, discover_accelerators
from worker.commands.options import Cores, EiTool


def accelerators(
    as_json: Annotated[
        bool, Option("--json", help="The same as JSON, in the shape of `ei describe-accelerators`.")
    ] = False,
    cores_per_ordinal: Cores = 1,
    ei_tool: EiTool = EI_TOOL,
) -> None:
    """Prints the accelerators of this host, by ordinal."""
    from worker.operations import product_version

    devices = discover_accelerators(KindOptions(cores_per_ordinal, ei_tool))
    if as_json:
        typer.echo(_as_json(devices, product_version()))
        return
    typer.echo(f"inferload {product_version()}, {len(devices)} accelerators on this host")
    for device in devices:
        memory = f"{device.memory_bytes / 2**30:.1f} GiB" if device.memory_bytes else "memory unknown"
        typer.echo(f"{device.name:<10} {device.type:<16} {memory:<16} {device.status:<10} {device.id}")


def _as_json(devices: Sequence[Accelerator], version: str) -> str:
    document = {
        "client_version": version,
        "time": time.strftime("%a %b %e %H:%M:%S %Y"),
        "attached_accelerators": len(devices),
        "devices": [
            {
                "ordinal": device.ordinal,
                "type": device.type,
                "id": device.id,
                "status": device.status,
                "kind": device.kind,
                "memory_bytes": device.memory_bytes,
            }
            for device in devices
        ],
    }
    return json.dumps(document, indent=2)
