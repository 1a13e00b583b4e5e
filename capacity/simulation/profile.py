"""The profile of an ordinal: measured times of forward passes by batch size, a request's overhead, and the price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from capacity.errors import InputError
from capacity.measures import HardwareCombination, pass_rows
from capacity.rundir import Row, Run
from capacity.simulation.distribution import Distribution, mix
from capacity.statistics import Histogram

#: In a run whose requests waited less than this share of their compute time, service time beyond it is the overhead.
_MAX_WAIT_SHARE = 0.05
#: With so many passes of one batch size, less busy runs add none.
_ENOUGH_PASSES = 100


@dataclass(frozen=True)
class Profile:
    """One ordinal of `hardware` that serves `model` while all `hardware.count` of its ordinals are loaded.

    `passes` has the time for which a forward pass of so many rows occupies the ordinal, until the next can start.
    `overhead` is the time of a request beside waiting and its pass: the network, decoding and encoding at both ends.
    `price_per_hour` is the ordinal's share of the combination's; None where the runs have no price. `memory_bytes` is
    the worker's measured peak.
    """

    hardware: HardwareCombination
    model: str
    passes: Mapping[int, Distribution]
    overhead: Distribution
    simulated: bool = False
    price_per_hour: float | None = None
    currency: str = ""
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.passes or min(self.passes) < 1:
            raise InputError(f"a profile of {self.hardware} needs times of forward passes")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The measured batch sizes, ascending."""
        return tuple(sorted(self.passes))

    @cached_property
    def _interpolated(self) -> dict[int, Distribution]:
        return {}

    def pass_time(self, rows: int) -> Distribution:
        """Returns the time of a pass of so many rows: measured, or interpolated between its measured neighbours.

        Raises InputError outside of the measured sizes.
        """
        times = self.passes.get(rows) or self._interpolated.get(rows)
        if times is None:
            below = max((size for size in self.sizes if size < rows), default=None)
            above = min((size for size in self.sizes if size > rows), default=None)
            if below is None or above is None:
                raise InputError(
                    f"the runs of {self.model} on {self.hardware} have batches of {self.sizes[0]} to {self.sizes[-1]}, "
                    f"none of {rows}: measure with --max-batch-size {rows} at full load"
                )
            weight = (rows - below) / (above - below)
            times = self._interpolated[rows] = self.passes[below].interpolate(self.passes[above], weight)
        return times

    def saturation_rps(self, max_size: int = 1) -> float:
        """Returns the highest throughput with passes of at most `max_size` rows, in requests of one row a second."""
        largest = min(max_size, self.sizes[-1])
        sizes = {size for size in (*self.sizes, largest) if self.sizes[0] <= size <= max(largest, self.sizes[0])}
        return max(1e6 * size / self.pass_time(size).mean_us for size in sizes)

    def with_slower_passes(self, factor: float) -> Profile:
        """Returns the same ordinal with passes `factor` times as long: 1.2 is 20 % slower."""
        return replace(self, passes={rows: times.scaled(factor) for rows, times in self.passes.items()})

    @classmethod
    def from_runs(cls, runs: Sequence[Run], hardware: HardwareCombination, model: str) -> Profile:
        """Builds the profile from the valid runs that loaded as many ordinals of such a host at once.

        Runs of a simulated accelerator may have loaded any number: its ordinals share nothing. Raises InputError, with
        what the runs have instead, where none fits.
        """
        return cls._of(_matching_rows(runs, hardware, model), hardware, model)

    @classmethod
    def of_ordinal(cls, run: Run, row: Row) -> Profile:
        """Builds the profile of one ordinal from one run; `row` is one of its `target_rows`. Raises InputError."""
        return cls._of([(run, row)], HardwareCombination(row.host, row.accelerator), row.model)

    @classmethod
    def _of(cls, measured: _Measured, hardware: HardwareCombination, model: str) -> Profile:
        passes = _pass_times(measured)
        if not passes:
            raise InputError(
                f"the runs of {model} on {hardware} have no times of forward passes, which only "
                "workers of inferload report"
            )
        row = measured[0][1]
        price = next((row.price_per_hour / row.count for _, row in measured if row.price_per_hour is not None), None)
        peaks = [row.memory_bytes for _, row in measured if row.memory_bytes]
        return cls(
            hardware=hardware,
            model=model,
            passes=passes,
            overhead=_overhead(measured, passes),
            simulated=row.simulated,
            price_per_hour=price,
            currency=next((row.currency for _, row in measured if row.currency), ""),
            memory_bytes=max(peaks, default=None),
        )


_Measured = list[tuple[Run, Row]]


def _ordinals_per_host(count: int, hosts: int) -> int:
    return -(-count // hosts)


def _matching_rows(runs: Sequence[Run], hardware: HardwareCombination, model: str) -> _Measured:
    rows = [(run, row) for run in runs for row in run.file.rows if row.model == model]
    if not rows:
        have = sorted({row.model for run in runs for row in run.file.rows})
        raise InputError(f"no run has the model {model} (they have {', '.join(have) or 'none'})")
    same = [(run, row) for run, row in rows if (row.host, row.accelerator) == (hardware.host, hardware.accelerator)]
    if not same:
        have = sorted({row.hardware for _, row in rows})
        raise InputError(f"no run has {model} on {hardware} (they have it on {', '.join(have)})")
    valid = [(run, row) for run, row in same if run.file.valid]
    if not valid:
        raise InputError(f"no run of {model} on {hardware} is valid (their reports name the failed checks)")
    ordinals = _ordinals_per_host(hardware.count, hardware.hosts)
    loaded = [(run, row) for run, row in valid if row.simulated or _ordinals_per_host(row.count, row.hosts) == ordinals]
    if not loaded:
        loaded_ordinals = sorted({_ordinals_per_host(row.count, row.hosts) for _, row in valid})
        raise InputError(
            f"no run of {model} loads {ordinals} ordinals of one {hardware.host} at once, as {hardware} would; "
            f"they load {', '.join(map(str, loaded_ordinals))}"
        )
    return loaded


def _pass_times(measured: _Measured) -> dict[int, Distribution]:
    """The times of passes by batch size, from the busiest runs that have enough of it: where computing and handling of
    requests share a processor, passes are slower under load.

    Of workers that do not report passes it is their compute time, which is then that of single requests.
    """
    histograms: dict[int, Histogram] = defaultdict(Histogram)
    for run, row in sorted(measured, key=lambda pair: _busy_share(*pair), reverse=True):
        for rows, histogram in _pass_histograms(run, row).items():
            if histograms[rows].count < _ENOUGH_PASSES:
                histograms[rows].add(histogram)
    return {rows: Distribution.of_histogram(histogram) for rows, histogram in histograms.items() if histogram.count}


def _pass_histograms(run: Run, row: Row) -> dict[int, Histogram]:
    """The times of passes in one run by batch size."""
    by_rows = {rows: run.histogram(row, measure) for measure in run.measures(row) if (rows := pass_rows(measure))}
    histograms = by_rows or {1: run.histogram(row, "compute")}
    return {rows: histogram for rows, histogram in histograms.items() if histogram is not None}


def _busy_share(run: Run, row: Row) -> float:
    """The time of all passes over the time of the run and the number of ordinals."""
    total_ns = sum(histogram.sum_ns for histogram in _pass_histograms(run, row).values())
    return total_ns / 1e9 / (run.file.duration_s * row.count) if run.file.duration_s else 0.0


def _overhead(measured: _Measured, passes: Mapping[int, Distribution]) -> Distribution:
    """Service time beyond queue and pass, from the run in which requests waited least.

    Where they hardly waited, it is the difference of the quantiles of service time and of passes; otherwise only its
    mean is known, since means subtract whatever depends on what.
    """
    best: tuple[float, Distribution] | None = None
    for run, row in measured:
        service, queue = run.histogram(row, "service"), run.histogram(row, "queue")
        if not service or not queue or not service.count or not queue.count:
            continue
        # A request is in a pass with a probability proportional to the rows of the pass.
        parts = [
            (passes[rows], float(rows * histogram.count))
            for rows, histogram in _pass_histograms(run, row).items()
            if histogram.count
        ]
        if not parts:
            continue
        compute = mix(parts)
        wait_share = (queue.mean_us or 0.0) / compute.mean_us
        if best is not None and wait_share >= best[0]:
            continue
        whole = Distribution.of_histogram(service)
        if wait_share < _MAX_WAIT_SHARE:
            # The little wait is the executor's wake-up, which every request without a queue has.
            best = wait_share, whole.beyond(compute)
        else:
            mean_us = max(whole.mean_us - (queue.mean_us or 0.0) - compute.mean_us, 0.0)
            best = wait_share, Distribution.constant(mean_us)
    if best is None:
        raise InputError("the runs have no service and queue times, so the overhead of a request is not known")
    return best[1]
