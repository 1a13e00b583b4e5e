"""What runs say of one ordinal: how long a forward pass holds it, by batch size; what a request takes beside; price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from capacity.measures import HardwareCombination, pass_rows
from capacity.rundir import Row, Run
from capacity.simulation.distribution import Distribution, mixed
from capacity.statistics import Histogram

#: A run in which requests waited less than this share of their computing shows what they take beside waiting.
_HARDLY_WAITED = 0.05
#: Passes of one batch size after which less busy runs have nothing to add.
_ENOUGH = 100


@dataclass(frozen=True)
class Profile:
    """One ordinal of `hardware`, serving `model`, while all `hardware.count` of its ordinals are loaded.

    `passes` is how long a forward pass of so many rows holds the ordinal, from when it is taken up until the next can
    be. `overhead` is what a request takes beside waiting and its pass: the network, both ends' decoding and encoding.
    `price_per_hour` is of this ordinal: its share of the combination's; None where the runs have none. `memory_bytes`
    is what the worker was seen to need.
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
            raise ValueError(f"a profile of {self.hardware} has no time of a forward pass")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes that were measured, ascending."""
        return tuple(sorted(self.passes))

    @cached_property
    def _made(self) -> dict[int, Distribution]:
        return {}

    def pass_of(self, rows: int) -> Distribution:
        """Time of a pass of so many rows: measured, or between its measured neighbours. ValueError beyond them."""
        found = self.passes.get(rows) or self._made.get(rows)
        if found is None:
            below = max((size for size in self.sizes if size < rows), default=None)
            above = min((size for size in self.sizes if size > rows), default=None)
            if below is None or above is None:
                raise ValueError(
                    f"the runs of {self.model} on {self.hardware} have batches of {self.sizes[0]} to {self.sizes[-1]}, "
                    f"none of {rows}: measure with --max-batch-size {rows} at full load"
                )
            weight = (rows - below) / (above - below)
            found = self._made[rows] = self.passes[below].between(self.passes[above], weight)
        return found

    def saturation_rps(self, max_size: int = 1) -> float:
        """The highest throughput that passes of at most `max_size` rows give, in requests of one row a second."""
        most = min(max_size, self.sizes[-1])
        sizes = {size for size in (*self.sizes, most) if self.sizes[0] <= size <= max(most, self.sizes[0])}
        return max(1e6 * size / self.pass_of(size).mean_us for size in sizes)

    def slower(self, factor: float) -> Profile:
        """The same ordinal with passes `factor` times as long: 1.2 is 20 % slower."""
        return replace(self, passes={rows: times.scaled(factor) for rows, times in self.passes.items()})

    @classmethod
    def from_runs(cls, runs: Sequence[Run], hardware: HardwareCombination, model: str) -> Profile:
        """What the runs that loaded as many ordinals of such a host say together; ValueError in one sentence otherwise.

        Runs that are not valid say nothing. Of a simulated accelerator any number of ordinals will do: they share
        nothing.
        """
        return cls._of(_said_of(runs, hardware, model), hardware, model)

    @classmethod
    def of_ordinal(cls, run: Run, row: Row) -> Profile:
        """What one run says of the ordinal of `row`, one of its `ordinals`; ValueError in one sentence otherwise."""
        return cls._of([(run, row)], HardwareCombination(row.host, row.accelerator), row.model)

    @classmethod
    def _of(cls, said: _Said, hardware: HardwareCombination, model: str) -> Profile:
        passes = _passes(said)
        if not passes:
            raise ValueError(
                f"the runs of {model} on {hardware} hold no time of a forward pass: only workers of inferload tell it"
            )
        row = said[0][1]
        price = next((row.price_per_hour / row.count for _, row in said if row.price_per_hour is not None), None)
        peaks = [row.memory_bytes for _, row in said if row.memory_bytes]
        return cls(
            hardware=hardware,
            model=model,
            passes=passes,
            overhead=_overhead(said, passes),
            simulated=row.simulated,
            price_per_hour=price,
            currency=next((row.currency for _, row in said if row.currency), ""),
            memory_bytes=max(peaks, default=None),
        )


_Said = list[tuple[Run, Row]]


def _density(count: int, hosts: int) -> int:
    """Ordinals of one host that are loaded."""
    return -(-count // hosts)


def _said_of(runs: Sequence[Run], hardware: HardwareCombination, model: str) -> _Said:
    rows = [(run, row) for run in runs for row in run.file.rows if row.model == model]
    if not rows:
        have = sorted({row.model for run in runs for row in run.file.rows})
        raise ValueError(f"no run has the model {model}; they have {', '.join(have) or 'none'}")
    same = [(run, row) for run, row in rows if (row.host, row.accelerator) == (hardware.host, hardware.accelerator)]
    if not same:
        have = sorted({row.hardware for _, row in rows})
        raise ValueError(f"no run has {model} on {hardware}; they have it on {', '.join(have)}")
    valid = [(run, row) for run, row in same if run.file.valid]
    if not valid:
        raise ValueError(f"no run of {model} on {hardware} is valid: their reports say why")
    wanted = _density(hardware.count, hardware.hosts)
    loaded = [(run, row) for run, row in valid if row.simulated or _density(row.count, row.hosts) == wanted]
    if not loaded:
        have_loaded = sorted({_density(row.count, row.hosts) for _, row in valid})
        raise ValueError(
            f"no run of {model} loads {wanted} ordinals of one {hardware.host} at once, as {hardware} would; "
            f"they load {', '.join(map(str, have_loaded))}"
        )
    return loaded


def _passes(said: _Said) -> dict[int, Distribution]:
    """By batch size, from the busiest runs that have enough of it: what a worker does for requests that arrive takes
    from the processor that computes, where both share it, and under load it does that all the time.

    Of workers that do not tell passes, their computing, which is then of single requests.
    """
    found: dict[int, Histogram] = defaultdict(Histogram)
    for run, row in sorted(said, key=lambda one: _busy(*one), reverse=True):
        for rows, histogram in _told(run, row).items():
            if found[rows].count < _ENOUGH:
                found[rows].add(histogram)
    return {rows: Distribution.of_histogram(histogram) for rows, histogram in found.items() if histogram.count}


def _told(run: Run, row: Row) -> dict[int, Histogram]:
    """Each batch size's passes in one run."""
    told = {rows: run.histogram(row, measure) for measure in run.measures(row) if (rows := pass_rows(measure))}
    return {rows: one for rows, one in (told or {1: run.histogram(row, "compute")}).items() if one is not None}


def _busy(run: Run, row: Row) -> float:
    """Time of all passes, by the length of the run and the number of ordinals."""
    total_ns = sum(histogram.sum_ns for histogram in _told(run, row).values())
    return total_ns / 1e9 / (run.file.duration_s * row.count) if run.file.duration_s else 0.0


def _overhead(said: _Said, passes: Mapping[int, Distribution]) -> Distribution:
    """Service time beyond queue and pass, from the run in which requests waited the least.

    Where they hardly waited, the quantiles of service time beyond those of the passes say it whole; otherwise only its
    mean is known, since means subtract whatever depends on what.
    """
    best: tuple[float, Distribution] | None = None
    for run, row in said:
        service, queue = run.histogram(row, "service"), run.histogram(row, "queue")
        if not service or not queue or not service.count or not queue.count:
            continue
        # A request is as likely in a pass as that has rows.
        parts = [(passes[rows], float(rows * one.count)) for rows, one in _told(run, row).items() if one.count]
        if not parts:
            continue
        computing = mixed(parts)
        waited = (queue.mean_us or 0.0) / computing.mean_us
        if best is not None and waited >= best[0]:
            continue
        whole = Distribution.of_histogram(service)
        if waited < _HARDLY_WAITED:
            # The little that was waited is the executor's waking up, which every request without a queue has.
            best = waited, whole.beyond(computing)
        else:
            best = waited, Distribution.constant(max(whole.mean_us - (queue.mean_us or 0.0) - computing.mean_us, 0.0))
    if best is None:
        raise ValueError("the runs hold no service and queue times, so what a request takes beside them is not known")
    return best[1]
