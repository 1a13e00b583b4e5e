"""What workers say of themselves, collected over gRPC."""

import json
from pathlib import Path
from typing import Any

import grpc

from worker.errors import UsageError
from worker.wire import accelerator_pb2, accelerator_pb2_grpc

DEADLINE_S = 10.0


def addresses(targets: str) -> list[str]:
    """`HOST:PORT,…`, or `@FILE` as a fleet writes it. UsageError in one sentence."""
    if not targets.startswith("@"):
        return [address.strip() for address in targets.split(",") if address.strip()]
    path = Path(targets[1:])
    try:
        return [str(target["address"]) for target in json.loads(path.read_text())["targets"]]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not a targets file as a fleet writes it") from None


def collect(targets: str) -> dict[str, Any]:
    """`requests` of all, and a row per worker; one that does not answer has `error` instead of counts."""
    rows = [_row(address) for address in addresses(targets)]
    if not rows:
        raise UsageError("--targets names none")
    return {"requests": sum(row.get("requests", 0) for row in rows), "workers": rows}


def _row(address: str) -> dict[str, Any]:
    with grpc.insecure_channel(address) as channel:
        stub = accelerator_pb2_grpc.AcceleratorServiceStub(channel)
        try:
            told = stub.Describe(accelerator_pb2.DescribeRequest(), timeout=DEADLINE_S)
            snapshot = stub.Snapshot(accelerator_pb2.SnapshotRequest(), timeout=DEADLINE_S)
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
