"""The search for the highest rate within an SLO: `--shape slo-search`. It only decides; it has no clock and no load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capacity.search.conclusion import rate_bounds, rate_inversions, verdicts_by_rate
from capacity.search.crossing import estimate_crossing
from capacity.search.next_probe import MAX_PROBES, MIN_PROBE_S, NextProbe, SearchEnd
from capacity.search.probe_summary import ProbeSummary
from capacity.statistics import VerdictStatus

#: The greatest length of a probe of each phase, as a share of the whole search's time.
_TIME_SHARES = {"bracket": 0.08, "saturate": 0.02, "refine": 0.2, "recheck": 0.12, "confirm": 0.2}
_SATURATE_MAX_S = 5.0
#: A rate that met the SLO and one that missed it this close are not refined further.
_CLOSE = 1.08
#: The distance from the estimated crossing at which a verdict is looked for first, and how much farther after each
#: inconclusive one.
_OFFSET, _OFFSET_STEP = 0.1, 0.04
#: The gap below the crossing counts for more by this factor: the rate that met the SLO is what is claimed.
_LOWER_FIRST = 1.2
#: The share of the time that is reserved for confirming, and the factor to go back by when a rate is not confirmed.
_CONFIRM_SHARE, _STEP_BACK = 0.28, 0.92
_MAX_TRIES = 4
#: A probe with time for fewer requests than this is not made.
_MIN_REQUESTS = 60
_NONE_MET = "no tested rate met the SLO, and a probe of a lower rate would take longer than the time left"


@dataclass(frozen=True)
class SloSearch:
    """Doubles or halves the rate from `first_rps` until one that met the SLO lies below one that missed it; looks for
    saturation; narrows the bounds; confirms the highest rate that met the SLO with a fresh
    probe.

    `closed_rps` is the throughput of a closed loop, `total_s` the time for everything, in seconds.
    """

    first_rps: float
    closed_rps: float
    total_s: float

    def next(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | SearchEnd:
        """Returns the next probe, with `left_s` seconds left."""
        if any(probe.confirms and probe.planned_rps <= (rate_bounds(probes)[0] or 0) for probe in probes):
            return SearchEnd("confirmed")
        if left_s < MIN_PROBE_S:
            return SearchEnd("no time left")
        if len(probes) >= MAX_PROBES:
            return SearchEnd(f"stopped after {MAX_PROBES} probes")
        if not probes:
            return self._probe("bracket", self.first_rps, left_s)
        for phase in (self._repeat, self._recheck, self._bracket, self._saturate, self._refine, self._confirm):
            decision = phase(probes, left_s)
            if decision is not None:
                return decision
        return SearchEnd("no further probe would narrow the bounds")

    def _probe(self, phase: str, rate: float, left_s: float) -> NextProbe:
        seconds = max(_TIME_SHARES[phase] * self.total_s, MIN_PROBE_S)
        if phase == "saturate":
            seconds = min(seconds, _SATURATE_MAX_S)
        stop_early = phase not in ("confirm", "saturate")
        return NextProbe(phase, round(rate, 4), min(seconds, left_s), stop_early)

    def _repeat(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | None:
        """A probe that the generator limited once may have met a disturbance; the second time it is its limit."""
        last = probes[-1]
        if last.valid or last.phase == "saturate":
            return None
        if sum(probe.planned_rps == last.planned_rps and not probe.valid for probe in probes) > 1:
            return None
        return self._probe(last.phase, last.planned_rps, left_s)

    def _recheck(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | None:
        """A rate that missed the SLO below one that met it is probed twice: chance or a disturbance does not repeat."""
        for rate, _above in rate_inversions(probes):
            if sum(probe.planned_rps == rate and probe.valid for probe in probes) < 2:
                return self._probe("recheck", rate, left_s)
        return None

    def _bracket(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | SearchEnd | None:
        verdicts = verdicts_by_rate(probes)
        met_rps, missed_rps = rate_bounds(probes)
        valid_rates = {probe.planned_rps for probe in probes if probe.valid}
        limit = min((probe.planned_rps for probe in probes if probe.planned_rps not in valid_rates), default=None)
        if not verdicts:
            assert limit is not None
            if len(probes) >= _MAX_TRIES:
                return SearchEnd("the generator reached its own limit at every tested rate")
            return self._probe("bracket", limit / 4, left_s)
        likely_met = {probe.planned_rps for probe in probes if probe.valid and probe.likely_met}
        if met_rps is None and (not likely_met or missed_rps is not None or max(verdicts) not in likely_met):
            return self._go_down(probes, verdicts, likely_met, left_s)
        if missed_rps is None:
            highest = max(verdicts)
            rate = highest * (2 if highest in likely_met else 1.4)
            if limit is not None and rate >= limit:
                # Between the highest rate that the generator could send and the lowest that it could not.
                rate = math.sqrt(highest * limit)
                if rate < 1.1 * highest:
                    return None
            return self._probe("bracket", rate, left_s)
        return None

    def _go_down(
        self,
        probes: Sequence[ProbeSummary],
        verdicts: Mapping[float, VerdictStatus],
        likely_met: set[float],
        left_s: float,
    ) -> NextProbe | SearchEnd:
        """No rate has met the SLO yet: a lower rate, with time for enough requests."""
        lowest = min(verdicts)
        if lowest in likely_met:
            # The probe was too short for a verdict: farther below the crossing, and for longer.
            tries = sum(probe.phase == "refine" for probe in probes)
            missed = min([rate for rate in verdicts if rate not in likely_met], default=math.inf)
            rate = 0.75 * 0.85**tries * (estimate_crossing(probes) or missed)
            phase = "refine"
        else:
            rate, phase = lowest / 2, "bracket"
        return self._probe(phase, rate, left_s) if rate * left_s >= _MIN_REQUESTS else SearchEnd(_NONE_MET)

    def _saturate(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | None:
        tries = [probe for probe in probes if probe.phase == "saturate"]
        _met_rps, missed_rps = rate_bounds(probes)
        if missed_rps is None or any(probe.saturated for probe in probes) or len(tries) >= _MAX_TRIES:
            return None
        if any(not probe.valid for probe in tries) or left_s < 0.35 * self.total_s:
            return None
        if tries:
            rate = 2 * tries[-1].planned_rps
        else:
            rate = max(1.3 * self.closed_rps, 1.3 * max(probe.planned_rps for probe in probes))
        return self._probe("saturate", rate, left_s)

    def _refine(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | None:
        met_rps, missed_rps = rate_bounds(probes)
        spare = left_s - _CONFIRM_SHARE * self.total_s
        confirming = any(probe.phase == "confirm" for probe in probes)
        if met_rps is None or missed_rps is None or missed_rps / met_rps <= _CLOSE or confirming:
            return None
        if spare < max(0.04 * self.total_s, MIN_PROBE_S):
            return None
        inside = [probe.planned_rps for probe in probes if probe.valid and met_rps < probe.planned_rps < missed_rps]
        if not inside:
            return self._probe("refine", math.sqrt(met_rps * missed_rps), spare)
        middle = estimate_crossing(probes) or math.sqrt(met_rps * missed_rps)
        middle = min(max(middle, met_rps * 1.001), missed_rps / 1.001)
        below = middle * (1 - _OFFSET - _OFFSET_STEP * sum(rate < middle * 0.98 for rate in inside))
        above = middle * (1 + _OFFSET + _OFFSET_STEP * sum(rate > middle * 1.02 for rate in inside))
        # The wider gap first; of nearly equal ones the lower, since the rate that met the SLO is claimed.
        sides = [(_LOWER_FIRST * middle / met_rps, below), (missed_rps / middle, above)]
        for _gap, rate in sorted(sides, reverse=True):
            if met_rps * 1.02 < rate < missed_rps / 1.02:
                return self._probe("refine", rate, spare)
        return None

    def _confirm(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | None:
        met_rps, _missed_rps = rate_bounds(probes)
        tries = [probe for probe in probes if probe.phase == "confirm"]
        if met_rps is None or len(tries) >= _MAX_TRIES or left_s < min(0.06 * self.total_s, 10):
            return None
        # A rate that was not confirmed is not tried again; a slightly lower one may be confirmed.
        rate = min([met_rps, *(_STEP_BACK * probe.planned_rps for probe in tries if probe.valid)])
        return self._probe("confirm", rate, left_s)
