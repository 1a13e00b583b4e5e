"""The command `statistics`: what each worker has served, by its own count."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from worker.errors import InputError
from worker.wire import FormatError, parse_targets

if TYPE_CHECKING:
    import grpc

_TIMEOUT_S = 10.0


def statistics(
    targets: Annotated[str, Option(help="HOST:PORT,… or @FILE with the targets file of a fleet.")],
    as_json: Annotated[bool, Option("--json", help="The same as JSON.")] = False,
    tls_ca: Annotated[Path | None, Option(help="The authority of workers that serve TLS, PEM.")] = None,
    token_file: Annotated[Path | None, Option(help="The file with the bearer token of the workers.")] = None,
) -> None:
    """Prints what each worker has served, by its own count."""
    document = _collect(targets, _Access(tls_ca, token_file))
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"{document['requests']} requests")
    for row in document["workers"]:
        if "error" in row:
            typer.echo(f"{row['address']:<22} {row['error']}")
        else:
            errors = sum(row["errors"].values())
            counts = f"{row['requests']} requests, {row['answered']} answered, {errors} errors"
            typer.echo(f"{row['address']:<22} {row['accelerator']:<8} {row['model']:<12} {counts}")


@dataclass(frozen=True)
class _Access:
    """An authority (PEM) where the workers serve TLS, and a bearer token where they need one."""

    tls_ca: Path | None = None
    token_file: Path | None = None

    def channel(self, address: str) -> "grpc.Channel":
        import grpc

        if self.tls_ca is None:
            return grpc.insecure_channel(address)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(_read(self.tls_ca)))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        if self.token_file is None:
            return ()
        return (("authorization", f"Bearer {_read(self.token_file).decode('ascii', 'replace').strip()}"),)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _collect(targets: str, access: _Access) -> dict[str, Any]:
    """Returns `requests` of all, and a row per worker; one that does not answer has `error` instead of counts."""
    try:
        entries = parse_targets(targets)
    except FormatError as error:
        raise InputError(str(error)) from None
    rows = [_row(entry.address, access) for entry in entries]
    if not rows:
        raise InputError("--targets names no target: write HOST:PORT,… or @FILE")
    return {"requests": sum(row.get("requests", 0) for row in rows), "workers": rows}


def _row(address: str, access: _Access) -> dict[str, Any]:
    # Here, so that the other commands start without gRPC.
    import grpc

    from worker.wire import accelerator_pb2, accelerator_pb2_grpc

    with access.channel(address) as channel:
        stub = accelerator_pb2_grpc.AcceleratorServiceStub(channel)
        metadata = access.metadata()
        try:
            description = stub.Describe(accelerator_pb2.DescribeRequest(), timeout=_TIMEOUT_S, metadata=metadata)
            snapshot = stub.Snapshot(accelerator_pb2.SnapshotRequest(), timeout=_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return {"address": address, "error": error.code().name}
    return {
        "address": address,
        "accelerator": f"{description.kind}:{description.ordinal}",
        "host_type": description.host_type,
        "accelerator_type": description.accelerator_type,
        "model": description.model.name,
        "simulated": description.simulated,
        "instance_id": description.instance_id,
        "requests": snapshot.requests,
        "answered": snapshot.answered,
        "errors": dict(snapshot.errors),
        "executions": snapshot.executions,
    }
