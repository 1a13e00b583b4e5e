"""Is a target slower than its siblings in the pool: a test on blocks of time, in which common disturbances cancel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from capacity.measures import Series
from capacity.rundir import Timeline
from capacity.statistics import CONFIDENCE, estimate_autocorrelation_time

# At most one false alarm in a hundred pools, and none about a difference too small to matter.
_SIGNIFICANCE, _MIN_SLOWNESS = 0.01, 0.02
_MAX_BLOCKS, _MIN_BLOCKS = 30, 8
# Targets whose loads differ by more than this share are not compared.
_MAX_IMBALANCE = 0.1


@dataclass(frozen=True)
class TargetSkew:
    """One target of a pool beside its siblings: `slower_by` is its time over theirs, minus 1, with its interval.

    `slower` is the result of the test; `reason` says why there was no test.
    """

    target: str
    throughput_rps: float
    slower_by: float | None = None
    interval: tuple[float, float] | None = None
    slower: bool = False
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The result in words; empty where the target is not slower."""
        if not self.slower or self.slower_by is None or self.interval is None:
            return ""
        low, high = (100 * end for end in self.interval)
        return (
            f"{self.target} is {100 * self.slower_by:.1f} % slower than its siblings "
            f"(95 % interval {low:.1f} to {high:.1f} %)"
        )


def target_skews(timeline: Timeline, members: list[Series], by_rate: bool) -> list[TargetSkew]:
    """Each target of one pool against the others, in the order of `members`.

    The time of a block is the mean service time. Where users are pinned to targets in a closed loop (`by_rate`), it is
    the time between answers, which is how such a target responds to its load. Targets under unequal loads are not
    compared: their times would differ on equal hardware.
    """
    covered_s = float(timeline.covered_s.sum())
    answers = np.array([timeline.total(series, "latency") for series in members])
    rates = answers.sum(axis=1) / covered_s if covered_s > 0 else np.zeros(len(members))
    untested = [TargetSkew(series.target, float(rate)) for series, rate in zip(members, rates, strict=True)]
    if len(members) < 2:
        return untested

    def not_compared(reason: str) -> list[TargetSkew]:
        return [TargetSkew(skew.target, skew.throughput_rps, reason=f"Not compared: {reason}") for skew in untested]

    sums_ns = np.array([timeline.sums_ns.get((series, "latency"), np.zeros(timeline.number)) for series in members])
    loads = sums_ns.sum(axis=1) if by_rate else answers.sum(axis=1)
    if loads.min() <= 0 or loads.max() / loads.min() - 1 > _MAX_IMBALANCE:
        load = "requests in flight" if by_rate else "numbers of requests"
        return not_compared(f"the targets had unequal {load}")
    times = _block_times(timeline, members, by_rate)
    if times.shape[1] < _MIN_BLOCKS:
        return not_compared(f"{times.shape[1]} blocks of time, and {_MIN_BLOCKS} are needed")
    logarithms = np.log(times)
    skews = []
    for index, skew in enumerate(untested):
        siblings = np.median(np.delete(logarithms, index, axis=0), axis=0)
        skews.append(_test(skew, logarithms[index] - siblings, len(members)))
    return skews


def _block_times(timeline: Timeline, members: list[Series], by_rate: bool) -> NDArray[np.float64]:
    """The time of each target in each block, shape (targets, blocks); blocks in which one answered nothing are out."""
    windows = max(math.ceil(timeline.number / _MAX_BLOCKS), 1)
    starts = np.arange(0, timeline.number - windows + 1, windows)
    if not starts.size:
        return np.empty((len(members), 0))

    def blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.add.reduceat(values, starts)
        return sums

    if by_rate:
        amounts = np.array([blocks(timeline.covered_s)] * len(members))
        counts = np.array([blocks(timeline.total(series, "latency")) for series in members])
    else:
        empty = np.zeros(timeline.number)
        amounts = np.array([blocks(timeline.sums_ns.get((series, "service"), empty)) for series in members])
        counts = np.array([blocks(timeline.total(series, "service")) for series in members])
    complete = (counts > 0).all(axis=0) & (amounts > 0).all(axis=0)
    times: NDArray[np.float64] = amounts[:, complete] / counts[:, complete]
    return times


def _test(skew: TargetSkew, differences: NDArray[np.float64], number: int) -> TargetSkew:
    """Student's t test of the blocks' differences of logarithms, one-sided, with Bonferroni's correction for `number`.

    The blocks count as the effective sample size that their autocorrelation leaves.
    """
    mean, blocks = float(differences.mean()), differences.size
    effective = max(blocks / estimate_autocorrelation_time(differences), 2.0)
    error = float(differences.std(ddof=1)) / math.sqrt(effective)
    half = float(stdtrit(effective - 1, (1 + CONFIDENCE) / 2)) * error
    p_value = float(stdtr(effective - 1, -mean / error)) if error > 0 else float(mean <= 0)
    return TargetSkew(
        skew.target,
        skew.throughput_rps,
        math.expm1(mean),
        (math.expm1(mean - half), math.expm1(mean + half)),
        slower=p_value < _SIGNIFICANCE / number and math.expm1(mean) >= _MIN_SLOWNESS,
    )
