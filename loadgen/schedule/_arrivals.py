"""The values of --arrivals. The open patterns are the table of capacity.simulation: what is simulated is what is sent.
A new pattern is added there.

In the open patterns each Locust user is one source, so Locust's user count sets the offered rate exactly. In
`closed` nothing is scheduled: a request is due when it is sent.
"""

from __future__ import annotations

from capacity.simulation import OPEN_ARRIVALS

CLOSED = "closed"
#: What --arrivals takes beside trace:FILE.
ARRIVALS = (CLOSED, *OPEN_ARRIVALS)
