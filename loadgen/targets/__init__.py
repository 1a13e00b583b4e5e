"""Which server a request goes to, and with what: discovery, routes, the router, health and output checks."""

from loadgen.targets._discovery import discover_targets, read_addresses
from loadgen.targets._embedded_fleet import EmbeddedFleet
from loadgen.targets._own_measures import own_histograms, read_snapshot
from loadgen.targets._route import Route, open_routes
from loadgen.targets._router import Router
from loadgen.targets._target import Target
from loadgen.targets._target_telemetry import TargetTelemetry

__all__ = [
    "EmbeddedFleet",
    "Route",
    "Router",
    "Target",
    "TargetTelemetry",
    "discover_targets",
    "open_routes",
    "own_histograms",
    "read_addresses",
    "read_snapshot",
]
