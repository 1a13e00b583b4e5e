"""The environment of a scenario: the workers under stress, and the runs that load them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capacity.errors import InputError
from capacity.experiments import RunningLoad, run_load, start_fleet
from capacity.rundir import Run
from capacity.statistics import Slo
from worker.wire import TargetEntry, display_duration, parse_targets

#: The warm-up before the measured part of each run, in seconds.
WARMUP_S = 1.0
_MAX_USERS = 64


@dataclass(frozen=True)
class StressOptions:
    """The options of a stress test, the same for all scenarios.

    Times are in seconds, and `load_share` is the offered rate as a share of the capacity. `fault` and `fault_ordinal`
    are for loss, `trace` for burst, `max_queue_size` for overload.
    """

    scenario: str
    command: list[str]
    out: Path
    accelerators: str = ""
    targets: str = ""
    worker_arguments: Sequence[str] = ()
    load_arguments: Sequence[str] = ()
    slo: Slo | None = None
    seconds: float | None = None
    load_share: float | None = None
    in_flight: int = 2
    deadline: str = "2s"
    fault: str = "kill"
    fault_ordinal: str = ""
    trace: Path | None = None
    max_queue_size: int = 16


@dataclass
class StressEnvironment:
    """The workers under stress, and the runs so far. `progress` is called with a line about each step."""

    options: StressOptions
    workers: list[TargetEntry]
    progress: Callable[[str], None]
    runs: list[Run] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """The address of each worker."""
        return [worker.address for worker in self.workers]

    def run(
        self,
        name: str,
        addresses: Sequence[str],
        arguments: Sequence[str],
        seconds: float,
        *,
        warmup_s: float = WARMUP_S,
        during: Callable[[RunningLoad], None] | None = None,
    ) -> Run:
        """Loads the workers of these addresses for `seconds` after the warm-up; the run directory is `out`/`name`."""
        common = [] if "--deadline" in arguments else ["--deadline", self.options.deadline]
        common += self.options.load_arguments
        if warmup_s:
            common += ["--warmup", f"{warmup_s:g}s"]
        if self.options.slo is not None:
            common += ["--slo", str(self.options.slo)]
        directory = self.options.out / name
        run = run_load(addresses, directory, [*arguments, *common], seconds + warmup_s, during)
        self.runs.append(run)
        return run

    def run_saturated(self, name: str, addresses: Sequence[str], seconds: float) -> Run:
        """Loads workers in a closed loop with enough requests in flight on each that they never wait for one."""
        users = self.options.in_flight * len(addresses)
        return self.run(name, addresses, ["-u", str(users), "--arrivals", "closed", "--router", "pinned"], seconds)

    def run_open(
        self,
        name: str,
        rate: float,
        seconds: float,
        *,
        arrivals: str = "poisson",
        router: str = "least-outstanding",
        during: Callable[[RunningLoad], None] | None = None,
    ) -> Run:
        """Offers `rate` requests a second to all workers, whatever they answer."""
        users = max(1, min(_MAX_USERS, round(rate / 2)))
        arguments = ["-u", str(users), "--user-rate", f"{rate / users:.6f}", "--arrivals", arrivals, "--router", router]
        return self.run(name, self.addresses, arguments, seconds, during=during)

    def measure_capacity(self, name: str, seconds: float) -> float:
        """Returns the throughput of all workers in a closed loop. Raises InputError where nothing is answered."""
        self.progress(f"capacity, {display_duration(seconds)}")
        capacity = throughput(self.run_saturated(name, self.addresses, seconds))
        if capacity <= 0:
            raise InputError("the workers answered nothing, so there is no capacity to take a share of")
        return capacity

    def process_ids(self) -> dict[str, int]:
        """Returns the process ids of the workers on this host by name."""
        return {worker.name: worker.pid for worker in self.workers if worker.pid}


def throughput(run: Run) -> float:
    """Returns the answered requests a second of all workers."""
    return sum(row.throughput_rps for row in run.file.rows)


@contextlib.contextmanager
def stress_environment(
    options: StressOptions, progress: Callable[[str], None], *fleet_arguments: str
) -> Iterator[StressEnvironment]:
    """Yields the environment: a fleet that is started for the block with `fleet_arguments` too, or existing targets.

    Raises InputError where the options name neither or both.
    """
    if bool(options.accelerators) == bool(options.targets):
        raise InputError(
            "no workers to put under stress: give --accelerators cpu:0,cpu:1 with --model M.pt, or --targets @T.json"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    if options.targets:
        yield StressEnvironment(options, parse_targets(options.targets), progress)
        return
    progress(f"starting workers on {options.accelerators}")
    arguments = [*options.worker_arguments, *fleet_arguments, "--accelerators", options.accelerators]
    with start_fleet(arguments, options.out) as fleet:
        yield StressEnvironment(options, fleet.workers, progress)
