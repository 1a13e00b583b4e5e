"""One process that sends load: sources, requests in flight and their retries, probes, and the course of a run."""

from loadgen.generator._probe import (
    CumulativeTallies,
    Pool,
    ProbeOrder,
    ProbeProgress,
    Prober,
    ProbeResult,
    StopCondition,
    pool_of,
    pools_of,
)
from loadgen.generator._session import DRAIN_GRACE_S, FOLD_INTERVAL_NS, LoadSession, request_shapes

__all__ = [
    "DRAIN_GRACE_S",
    "FOLD_INTERVAL_NS",
    "CumulativeTallies",
    "LoadSession",
    "Pool",
    "ProbeOrder",
    "ProbeProgress",
    "ProbeResult",
    "Prober",
    "StopCondition",
    "pool_of",
    "pools_of",
    "request_shapes",
]
