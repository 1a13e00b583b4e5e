"""Comparison of run B with run A: ratios of measures with bootstrap intervals over blocks of time.

The intervals hold simultaneously: of two equal runs, 95 in 100 comparisons report no difference in any measure.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from capacity.errors import InputError
from capacity.measures import LATENCY_ERROR, UNSENT, Series
from capacity.rundir import HLOG_NAME, Row, Run, interval_log_extent, parse_series_tag, read_interval_log
from capacity.statistics import BUCKET_FLOORS_US, CONFIDENCE, Histogram, effective_samples, samples_needed

# Blocks are longer than requests are correlated, and enough of them can be resampled.
_MOST_BLOCKS, _FEWEST_BLOCKS, _RESAMPLES = 60, 8, 1000
# A histogram has three digits: a ratio nearer to 1 than two of its steps is not a difference.
_RESOLUTION = 0.002
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
MEASURES = ("mean", *_PERCENTILES, "throughput", "cost")
_WORDS = {"throughput": ("more", "less"), "cost": ("more expensive", "cheaper")}


@dataclass(frozen=True)
class Difference:
    """B against A in one measure: the ratio B/A with its interval, or why there is none."""

    measure: str
    ratio: float | None
    interval: tuple[float, float] | None
    reason: str = ""

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 1, and the ratio differs from 1 by more than the histograms' resolution."""
        if self.interval is None or self.ratio is None or abs(self.ratio - 1) <= _RESOLUTION:
            return False
        return not self.interval[0] <= 1 <= self.interval[1]

    @property
    def sentence(self) -> str:
        """The difference in words."""
        if self.ratio is None or self.interval is None:
            return f"{self.measure}: {self.reason}"
        low, high = (100 * (end - 1) for end in self.interval)
        change = 100 * (self.ratio - 1)
        if not self.distinguishable:
            return f"{self.measure}: no significant difference ({low:+.1f} % to {high:+.1f} %)"
        up, down = _WORDS.get(self.measure, ("slower", "faster"))
        return f"{self.measure}: B is {abs(change):.1f} % {up if change > 0 else down} ({low:+.1f} % to {high:+.1f} %)"


@dataclass(frozen=True)
class RowComparison:
    """A row of A and the row of B that it is compared with."""

    first: Row
    second: Row
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class ChangeLimit:
    """`p99 > +5%`: is exceeded by a larger change that is significant."""

    measure: str
    above: bool
    change: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `p99 > +5%` or `throughput < -3%`; InputError in one sentence."""
        match = re.fullmatch(r"\s*(\w+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", text)
        if not match or match[1] not in MEASURES:
            raise InputError(f"'{text}' is not a limit such as 'p99 > +5%' (measures: {', '.join(MEASURES)})")
        return cls(match[1], match[2] == ">", float(match[3]) / 100)

    def __str__(self) -> str:
        return f"{self.measure} {'>' if self.above else '<'} {100 * self.change:+g}%"

    def is_exceeded_by(self, difference: Difference) -> bool:
        """Whether this difference goes beyond the limit."""
        if difference.measure != self.measure or difference.ratio is None or not difference.distinguishable:
            return False
        change = difference.ratio - 1
        return change > self.change if self.above else change < self.change


def compare_runs(first: Run, second: Run, seed: int = 1) -> list[RowComparison]:
    """Pairs of rows of the same combination and model, or of one model where each run has just one row of it.

    Raises InputError for an invalid run, one without a log, or where no rows can be paired.
    """
    for run in (first, second):
        if not run.file.valid:
            raise InputError(f"{run.directory} is not valid, so it cannot be compared")
        if not (run.directory / HLOG_NAME).is_file():
            raise InputError(f"{run.directory} has no {HLOG_NAME}: without its intervals it cannot be compared")
    pairs = _pairs(first.file.rows, second.file.rows)
    if not pairs:
        raise InputError(f"{first.directory} and {second.directory} have no combination and no model in common")
    generator = np.random.default_rng(seed)
    blocks = [_blocks(run, [pair[side] for pair in pairs]) for side, run in enumerate((first, second))]
    # Pairs are independent of one another, so their chances multiply (Šidák).
    confidence = CONFIDENCE ** (1 / len(pairs))
    return [
        RowComparison(
            a, b, tuple(row_differences(a, b, blocks[0][index], blocks[1][index], generator, confidence=confidence))
        )
        for index, (a, b) in enumerate(pairs)
    ]


def differing_conditions(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """Conditions that are not the same in both runs: name, A's, B's."""
    ours, theirs = first.file.conditions, second.file.conditions
    return [
        (name, ours.get(name, "–"), theirs.get(name, "–"))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]


def _pairs(ours: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    pairs = []
    for row in ours:
        same = [other for other in theirs if _key(other) == _key(row)]
        alone = [other for other in theirs if other.model == row.model]
        if same:
            pairs.append((row, same[0]))
        elif len(alone) == 1 and sum(other.model == row.model for other in ours) == 1:
            pairs.append((row, alone[0]))
    return pairs


def _key(row: Row) -> tuple[str, str, bool]:
    return row.hardware, row.model, row.simulated


@dataclass(frozen=True)
class Blocks:
    """One row, cut into blocks of equal length: `counts` by bucket, shape (blocks, buckets), and exact sums, (blocks,).

    `beyond` are failed and unsent requests; where the log does not say when they were due, in equal shares.
    """

    counts: NDArray[np.float64]
    sums_us: NDArray[np.float64]
    beyond: NDArray[np.float64]
    seconds: float

    @property
    def number(self) -> int:
        return int(self.sums_us.size)


def _blocks(run: Run, rows: Sequence[Row]) -> list[Blocks]:
    """The blocks of each row, in one pass over the log."""
    path = run.directory / HLOG_NAME
    owners: dict[str, tuple[list[int], str]] = {}

    def rows_of(tag: str) -> list[int]:
        if tag not in owners:
            series, measure = parse_series_tag(tag)
            relevant = measure in ("latency", LATENCY_ERROR, UNSENT)
            owners[tag] = ([i for i, row in enumerate(rows) if relevant and _owns(row, series)], measure)
        return owners[tag][0]

    # The measured part: a log may begin with the run, before its warm-up.
    first, last = interval_log_extent(path, lambda tag: bool(rows_of(tag))) or (0.0, 0.0)
    total = last - first
    number = max(min(_MOST_BLOCKS, math.floor(total + 0.5)), 1)
    histograms: dict[tuple[int, str, int], Histogram] = defaultdict(Histogram)
    for interval in read_interval_log(path):
        middle = (interval.start_s + interval.length_s / 2 - first) / total if total > 0 else 0.0
        for index in rows_of(interval.tag):
            histograms[index, owners[interval.tag][1], min(int(middle * number), number - 1)].add(interval.histogram)
    empty = Histogram()
    all_blocks = []
    for index, row in enumerate(rows):
        answered = [histograms.get((index, "latency", block), empty) for block in range(number)]
        failed, unsent = (
            np.array([histograms.get((index, measure, block), empty).count for block in range(number)], float)
            for measure in (LATENCY_ERROR, UNSENT)
        )
        all_blocks.append(
            Blocks(
                np.stack([histogram.counts for histogram in answered]).astype(np.float64),
                np.array([histogram.sum_ns / 1000 for histogram in answered]),
                failed + unsent + max(row.unsent - float(unsent.sum()), 0.0) / number,
                total / number,
            )
        )
    return all_blocks


def _owns(row: Row, series: Series) -> bool:
    return (series.hardware.name, series.model, series.simulated) == _key(row)


def row_differences(
    a: Row,
    b: Row,
    ours: Blocks,
    theirs: Blocks,
    generator: np.random.Generator,
    resamples: int = _RESAMPLES,
    confidence: float = CONFIDENCE,
) -> list[Difference]:
    """Every measure of row B against row A, from their blocks; the intervals hold simultaneously."""
    few = min(ours.number, theirs.number)
    if few < _FEWEST_BLOCKS:
        reason = f"too short: {few} s, at least {_FEWEST_BLOCKS} s are needed"
        return [Difference(measure, None, None, reason) for measure in MEASURES[:-1]]
    draws = [_resampled(blocks, generator, resamples) for blocks in (ours, theirs)]
    fewest = min(math.floor(effective_samples(row.due, row.autocorrelation_time)) for row in (a, b))
    kind = "independent samples" if fewest < min(a.due, b.due) else "samples"
    reasons, ratios = dict[str, str](), dict[str, NDArray[np.float64]]()
    for measure in MEASURES[:-1]:
        needed = samples_needed(_PERCENTILES[measure]) if measure in _PERCENTILES else 1
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(draws[1][measure]) - np.log(draws[0][measure])
        if fewest < needed:
            reasons[measure] = f"not enough {kind} ({fewest} < {needed})"
        elif not np.isfinite(ratio[0]):
            reasons[measure] = "beyond all answered requests"
        elif np.isfinite(ratio[1:]).mean() < 0.9:
            reasons[measure] = "too many failed requests"
        else:
            ratios[measure] = np.where(np.isfinite(ratio), ratio, math.nan)
    reach = _reach(ratios, few, confidence)
    differences = []
    for measure in MEASURES[:-1]:
        if measure in reasons:
            differences.append(Difference(measure, None, None, reasons[measure]))
            continue
        centre, half = float(ratios[measure][0]), reach * float(np.nanstd(ratios[measure][1:]))
        differences.append(Difference(measure, math.exp(centre), (math.exp(centre - half), math.exp(centre + half))))
    if a.price_per_hour and b.price_per_hour and a.currency == b.currency:
        factor = (b.price_per_hour / b.count) / (a.price_per_hour / a.count)
        mean = differences[0]
        if mean.ratio is not None and mean.interval is not None:
            ends = (mean.interval[0] * factor, mean.interval[1] * factor)
            differences.append(Difference("cost", mean.ratio * factor, ends))
    return differences


def _reach(ratios: Mapping[str, NDArray[np.float64]], blocks: int, confidence: float) -> float:
    """By how many standard deviations an interval reaches to either side, so that all hold simultaneously.

    The quantile of the resamples' largest deviation among all measures (Romano and Wolf, Econometrica 73, 2005).
    """
    scaled = []
    for ratio in ratios.values():
        resamples = ratio[1:] - np.nanmean(ratio[1:])
        deviation = float(np.nanstd(resamples))
        if deviation > 0:
            scaled.append(np.nan_to_num(np.abs(resamples)) / deviation)
    largest = float(np.quantile(np.max(scaled, axis=0), confidence)) if scaled else 0.0
    tail = (1 + confidence) / 2
    # The bootstrap has the spread of blocks about their own mean: widened to that of a sample, and to Student's t.
    return largest * math.sqrt(blocks / (blocks - 1)) * float(stdtrit(blocks - 1, tail)) / float(ndtri(tail))


def _resampled(blocks: Blocks, generator: np.random.Generator, resamples: int) -> dict[str, NDArray[np.float64]]:
    """Each measure over all blocks, then over each resample of them; shape (1 + resamples,)."""
    drawn = generator.multinomial(blocks.number, np.full(blocks.number, 1 / blocks.number), size=resamples)
    weights = np.vstack([np.ones(blocks.number), drawn]).astype(np.float64)
    used = np.flatnonzero(blocks.counts.sum(axis=0))
    cumulative = np.cumsum(weights @ blocks.counts[:, used], axis=1)
    answered = cumulative[:, -1] if used.size else np.zeros(weights.shape[0])
    total = answered + weights @ blocks.beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        measures = {
            "mean": weights @ blocks.sums_us / answered,
            "throughput": answered / (blocks.number * blocks.seconds),
        }
    # A rank past the last bucket falls among those beyond.
    tops = np.append((BUCKET_FLOORS_US[used + 1] - 1).astype(np.float64), math.inf)
    for name, p in _PERCENTILES.items():
        ranks = np.maximum(np.ceil(total * p / 100 - 1e-6), 1)
        reached = np.count_nonzero(cumulative < ranks[:, None], axis=1)
        measures[name] = tops[reached]
    return measures
