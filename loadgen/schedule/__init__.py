"""When requests are due: the values of --arrivals, traces, and the pacer that keeps to the schedule."""

from capacity.simulation import OPEN_ARRIVALS, TRACE_PREFIX, Arrival, arrival_offsets
from loadgen.schedule._arrivals import ARRIVALS, CLOSED
from loadgen.schedule._convert import convert_azure_trace
from loadgen.schedule._pacer import Pacer
from loadgen.schedule._timer import Timer
from loadgen.schedule._trace import TracePlayer, open_trace

__all__ = [
    "ARRIVALS",
    "CLOSED",
    "OPEN_ARRIVALS",
    "TRACE_PREFIX",
    "Arrival",
    "Pacer",
    "Timer",
    "TracePlayer",
    "arrival_offsets",
    "convert_azure_trace",
    "open_trace",
]
