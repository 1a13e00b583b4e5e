"""Results of requests into histograms per hardware combination, and a generator's record of its own health."""

from loadgen.measure._generator_health import GeneratorHealth
from loadgen.measure._health_monitor import HealthMonitor
from loadgen.measure._host_sampler import HostSampler
from loadgen.measure._recorder import NEVER, Recorder, tally_difference
from loadgen.measure._result_buffer import Result, ResultBuffer
from loadgen.measure._run_totals import RunTotals

__all__ = [
    "NEVER",
    "GeneratorHealth",
    "HealthMonitor",
    "HostSampler",
    "Recorder",
    "Result",
    "ResultBuffer",
    "RunTotals",
    "tally_difference",
]
