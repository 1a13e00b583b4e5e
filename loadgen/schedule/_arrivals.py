"""When requests are due, by --arrivals: the generators are capacity's, which simulates with the same; here is what else
the load needs of traces.

Each Locust user is one independent source, so Locust's user count sets the offered rate exactly.
"""

from __future__ import annotations

from capacity.simulation.arrivals import Arrival, constant, poisson, read_trace, trace

__all__ = ["Arrival", "constant", "poisson", "read_trace", "trace"]
