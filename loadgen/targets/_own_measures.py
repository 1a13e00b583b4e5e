"""What our workers measure of their own requests: snapshots of their histograms, and what came between two of them."""

from __future__ import annotations

from typing import Any

import grpc

from capacity.measures import TARGET_MEASURES, pass_measure
from capacity.statistics import Histogram
from loadgen.transport import Access, open_grpcio_channel
from worker.wire import accelerator_pb2 as accelerator
from worker.wire import accelerator_pb2_grpc

SNAPSHOT_TIMEOUT_S = 5.0


def read_snapshot(address: str, access: Access) -> Any | None:
    """The worker's counters and histograms so far; None where the server has none or does not answer."""
    with open_grpcio_channel(address, access) as channel:
        try:
            return accelerator_pb2_grpc.AcceleratorServiceStub(channel).Snapshot(
                accelerator.SnapshotRequest(), timeout=SNAPSHOT_TIMEOUT_S, metadata=access.metadata
            )
        except grpc.RpcError:
            return None


def own_histograms(before: Any | None, after: Any | None) -> dict[str, Histogram]:
    """`queue`, `compute` and `pass-1`, `pass-2`, … (rows of a forward pass) between two snapshots of one process.

    Empty where the worker was restarted in between, or has no snapshots.
    """
    if before is None or after is None or before.instance_id != after.instance_id:
        return {}
    earlier = _histograms(before)
    return {
        measure: histogram.subtract(earlier[measure]) if measure in earlier else histogram
        for measure, histogram in _histograms(after).items()
    }


def _histograms(snapshot: Any) -> dict[str, Histogram]:
    whole = {
        measure: _decode(snapshot.histograms[measure]) for measure in TARGET_MEASURES if measure in snapshot.histograms
    }
    return whole | {pass_measure(rows): _decode(histogram) for rows, histogram in snapshot.passes.items()}


def _decode(wire: Any) -> Histogram:
    return Histogram.decode(
        wire.payload,
        count=wire.count,
        sum_ns=wire.sum_ns,
        min_ns=wire.min_ns,
        max_ns=wire.max_ns,
        above=wire.above,
    )
