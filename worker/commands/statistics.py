"""What workers say of themselves, collected over gRPC."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from worker.errors import UsageError
from worker.wire import FormatError, accelerator_pb2, accelerator_pb2_grpc, parse_targets

DEADLINE_S = 10.0


@dataclass(frozen=True)
class Access:
    """What the workers ask for: an authority (PEM) where they serve TLS, a bearer token where they want one."""

    tls_ca: Path | None = None
    token_file: Path | None = None

    def channel(self, address: str) -> grpc.Channel:
        if self.tls_ca is None:
            return grpc.insecure_channel(address)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(_contents(self.tls_ca)))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        if self.token_file is None:
            return ()
        return (("authorization", f"Bearer {_contents(self.token_file).decode('ascii', 'replace').strip()}"),)


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def collect(targets: str, access: Access) -> dict[str, Any]:
    """`requests` of all, and a row per worker; one that does not answer has `error` instead of counts."""
    try:
        entries = parse_targets(targets)
    except FormatError as error:
        raise UsageError(str(error)) from None
    rows = [_row(entry.address, access) for entry in entries]
    if not rows:
        raise UsageError("--targets names none")
    return {"requests": sum(row.get("requests", 0) for row in rows), "workers": rows}


def _row(address: str, access: Access) -> dict[str, Any]:
    with access.channel(address) as channel:
        stub = accelerator_pb2_grpc.AcceleratorServiceStub(channel)
        metadata = access.metadata()
        try:
            told = stub.Describe(accelerator_pb2.DescribeRequest(), timeout=DEADLINE_S, metadata=metadata)
            snapshot = stub.Snapshot(accelerator_pb2.SnapshotRequest(), timeout=DEADLINE_S, metadata=metadata)
        except grpc.RpcError as error:
            return {"address": address, "error": error.code().name}
    return {
        "address": address,
        "accelerator": f"{told.kind}:{told.ordinal}",
        "host_type": told.host_type,
        "accelerator_type": told.accelerator_type,
        "model": told.model.name,
        "simulated": told.simulated,
        "instance_id": told.instance_id,
        "requests": snapshot.requests,
        "answered": snapshot.answered,
        "errors": dict(snapshot.errors),
        "executions": snapshot.executions,
    }
