"""What every scenario stands on: the workers that it loads, the runs that it makes, and a watch on their processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from capacity.experiments.fleet import start_fleet
from capacity.experiments.load import RunningLoad, run_load
from capacity.rundir import Run
from capacity.statistics import Slo
from worker.wire import TargetEntry, parse_targets

#: Before the measured part of each run.
WARMUP_S = 1.0
#: Between two looks at the processes.
LOOK_S = 1.0


@dataclass(frozen=True)
class Asked:
    """What the user asked for, the same for all scenarios. Times in seconds; `at` is a share of capacity."""

    scenario: str
    command: list[str]
    out: Path
    accelerators: str = ""
    targets: str = ""
    worker_arguments: Sequence[str] = ()
    load_arguments: Sequence[str] = ()
    slo: Slo | None = None
    for_s: float | None = None
    at: float | None = None
    in_flight: int = 2
    deadline: str = "2s"
    # loss
    how: str = "kill"
    hurt: str = ""
    # burst
    trace: Path | None = None
    # overload
    max_queue_size: int = 16


class Sample(NamedTuple):
    """One process at one time (seconds of time.time()): memory and counts."""

    at: float
    rss_bytes: int
    descriptors: int
    threads: int


@dataclass
class Watch:
    """Looks at processes once a second while it is entered; those that are gone are left out from then on."""

    processes: dict[str, int]
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    clocks_mhz: list[tuple[float, float]] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def follow(self, load: RunningLoad, seconds: float) -> None:
        """Looks at the generator too, while it generates: what it does at its end, as write a report, is not load."""
        load.wait_until_started()
        self.processes["generator"] = load.process.pid
        load.wait(seconds - LOOK_S)
        del self.processes["generator"]

    def _look(self) -> None:
        known: dict[str, psutil.Process] = {}
        while True:
            for name, pid in list(self.processes.items()):
                with contextlib.suppress(psutil.Error):
                    process = known.get(name)
                    if process is None or process.pid != pid:
                        process = known[name] = psutil.Process(pid)
                    with process.oneshot():
                        self.samples[name].append(
                            Sample(time.time(), process.memory_info().rss, process.num_fds(), process.num_threads())
                        )
            with contextlib.suppress(psutil.Error, OSError, NotImplementedError):
                if (clock := psutil.cpu_freq()) is not None and clock.current:
                    self.clocks_mhz.append((time.time(), float(clock.current)))
            if self._stop.wait(LOOK_S):
                return


@dataclass
class Bench:
    """The workers under stress, and how load is put on them. `say` tells the user what goes on."""

    asked: Asked
    workers: list[TargetEntry]
    say: Callable[[str], None]
    runs: list[Run] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """Of all workers."""
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
        """One run, kept under its name beside the others."""
        common = [] if "--deadline" in arguments else ["--deadline", self.asked.deadline]
        common += self.asked.load_arguments
        if warmup_s:
            common += ["--warmup", f"{warmup_s:g}s"]
        if self.asked.slo is not None:
            common += ["--slo", str(self.asked.slo)]
        directory = self.asked.out / name
        found = run_load(addresses, directory, [*arguments, *common], seconds + warmup_s, during)
        self.runs.append(found)
        return found

    def saturated(self, name: str, addresses: Sequence[str], seconds: float) -> Run:
        """A closed loop with so many in flight on each that they never wait for work."""
        users = self.asked.in_flight * len(addresses)
        return self.run(name, addresses, ["-u", str(users), "--arrivals", "closed", "--router", "pinned"], seconds)

    def open(
        self,
        name: str,
        rate: float,
        seconds: float,
        *,
        arrivals: str = "poisson",
        router: str = "least-outstanding",
        during: Callable[[RunningLoad], None] | None = None,
    ) -> Run:
        """Arrivals of `rate` a second over all workers, whatever they do."""
        users = max(1, min(64, round(rate / 2)))
        how = ["-u", str(users), "--user-rate", f"{rate / users:.6f}", "--arrivals", arrivals, "--router", router]
        return self.run(name, self.addresses, how, seconds, during=during)

    def processes(self) -> dict[str, int]:
        """Workers that are processes of this host, by their ordinals' names."""
        return {worker.accelerator or worker.address: worker.pid for worker in self.workers if worker.pid}


def throughput(run: Run) -> float:
    """Answered requests a second of all workers."""
    return sum(row.throughput_rps for row in run.file.rows)


@contextlib.contextmanager
def bench(asked: Asked, say: Callable[[str], None], *more: str) -> Iterator[Bench]:
    """The workers that were asked for: a fleet of this host for the time of the block, or targets that are there.

    `more` are arguments for a fleet of ours. ValueError where neither or both are given.
    """
    if bool(asked.accelerators) == bool(asked.targets):
        raise ValueError("say which workers: --accelerators cpu:0,cpu:1 with --model M.pt, or --targets @T.json")
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.targets:
        yield Bench(asked, parse_targets(asked.targets), say)
        return
    say(f"starting workers on {asked.accelerators}")
    arguments = [*asked.worker_arguments, *more, "--accelerators", asked.accelerators]
    with start_fleet(arguments, asked.out) as fleet:
        yield Bench(asked, fleet.workers, say)
