"""Is an ordinal slower than its siblings? A test on blocks of time, in which what disturbs all of them cancels out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from capacity.measures import Series
from capacity.rundir import Timeline
from capacity.statistics import CONFIDENCE, estimate_autocorrelation_time

# One false alarm in a hundred pools, and none about a difference that nobody would act on.
_ALPHA, _LEAST = 0.01, 0.02
_MOST_BLOCKS, _FEWEST_BLOCKS = 30, 8
# Ordinals that were loaded more unequally than this are not compared.
_UNEQUAL = 0.1


@dataclass(frozen=True)
class TargetSkew:
    """One ordinal of a pool beside its siblings: `slower_by` is its time over theirs, less one, with its interval.

    `slower` is whether the test says so; `reason` is why it was not tested.
    """

    target: str
    throughput_rps: float
    slower_by: float | None = None
    interval: tuple[float, float] | None = None
    slower: bool = False
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What the test says of it; empty where it is no slower."""
        if not self.slower or self.slower_by is None or self.interval is None:
            return ""
        low, high = (100 * end for end in self.interval)
        return (
            f"{self.target} is {100 * self.slower_by:.1f} % slower than its siblings "
            f"(95 % interval {low:.1f} to {high:.1f} %)"
        )


def target_skews(course: Timeline, members: list[Series], by_rate: bool) -> list[TargetSkew]:
    """Each ordinal of one pool against the others; `members` in the order of the report.

    The time of a block is a request's mean service time. Where users are pinned in a closed loop (`by_rate`) it is
    the time between answers, which is what such an ordinal does with its load. Ordinals that were given unequal loads
    are not judged: their times would differ on equal hardware.
    """
    covered = float(course.covered_s.sum())
    answers = np.array([course.total(series, "latency") for series in members])
    rates = answers.sum(axis=1) / covered if covered > 0 else np.zeros(len(members))
    plain = [TargetSkew(series.target, float(rate)) for series, rate in zip(members, rates, strict=True)]
    if len(members) < 2:
        return plain

    def refused(reason: str) -> list[TargetSkew]:
        return [TargetSkew(entry.target, entry.throughput_rps, reason=reason) for entry in plain]

    sums = np.array([course.sums_ns.get((series, "latency"), np.zeros(course.number)) for series in members])
    given = sums.sum(axis=1) if by_rate else answers.sum(axis=1)
    if given.min() <= 0 or given.max() / given.min() - 1 > _UNEQUAL:
        what = "requests in flight" if by_rate else "numbers of requests"
        return refused(f"Not compared: the ordinals had unequal {what}")
    times = _times(course, members, by_rate)
    if times.shape[1] < _FEWEST_BLOCKS:
        return refused(f"Not compared: {times.shape[1]} blocks of time, and {_FEWEST_BLOCKS} are needed")
    logs = np.log(times)
    found = []
    for index, entry in enumerate(plain):
        others = np.median(np.delete(logs, index, axis=0), axis=0)
        found.append(_tested(entry, logs[index] - others, len(members)))
    return found


def _times(course: Timeline, members: list[Series], by_rate: bool) -> NDArray[np.float64]:
    """Time of each ordinal in each block, shape (ordinals, blocks), without blocks in which one answered nothing."""
    together = max(math.ceil(course.number / _MOST_BLOCKS), 1)
    starts = np.arange(0, course.number - together + 1, together)
    if not starts.size:
        return np.empty((len(members), 0))

    def blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.add.reduceat(values, starts)
        return found

    if by_rate:
        amounts = np.array([blocks(course.covered_s)] * len(members))
        counts = np.array([blocks(course.total(series, "latency")) for series in members])
    else:
        empty = np.zeros(course.number)
        amounts = np.array([blocks(course.sums_ns.get((series, "service"), empty)) for series in members])
        counts = np.array([blocks(course.total(series, "service")) for series in members])
    whole = (counts > 0).all(axis=0) & (amounts > 0).all(axis=0)
    times: NDArray[np.float64] = amounts[:, whole] / counts[:, whole]
    return times


def _tested(entry: TargetSkew, differences: NDArray[np.float64], number: int) -> TargetSkew:
    """Student's t over the blocks' differences of logarithms, one-sided, shared among the `number` of ordinals.

    The blocks count for as many as their own correlation leaves.
    """
    mean, blocks = float(differences.mean()), differences.size
    effective = max(blocks / estimate_autocorrelation_time(differences), 2.0)
    error = float(differences.std(ddof=1)) / math.sqrt(effective)
    half = float(stdtrit(effective - 1, (1 + CONFIDENCE) / 2)) * error
    chance = float(stdtr(effective - 1, -mean / error)) if error > 0 else float(mean <= 0)
    return TargetSkew(
        entry.target,
        entry.throughput_rps,
        math.expm1(mean),
        (math.expm1(mean - half), math.expm1(mean + half)),
        slower=chance < _ALPHA / number and math.expm1(mean) >= _LEAST,
    )
