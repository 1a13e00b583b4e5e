"""Even steps up to saturation: `--shape steps`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capacity.search.next_probe import MAX_PROBES, MIN_PROBE_S, NextProbe, SearchEnd
from capacity.search.probe_summary import ProbeSummary

_STEPS = 10
#: A probe that looks for saturation before the steps: its share of the time, and its greatest length in seconds.
_BRACKET_SHARE, _BRACKET_MAX_S = 0.03, 5.0
#: What a step spends between probes, in seconds.
_PAUSE_S = 0.5


@dataclass(frozen=True)
class StepSearch:
    """Doubles the rate from `first_rps` until a probe saturates, then probes ten even steps up to there and one beyond.

    `total_s` is the time for everything, in seconds.
    """

    first_rps: float
    total_s: float

    def next(self, probes: Sequence[ProbeSummary], left_s: float) -> NextProbe | SearchEnd:
        """Returns the next probe, with `left_s` seconds left."""
        if left_s < MIN_PROBE_S:
            return SearchEnd("no time left")
        steps = [probe for probe in probes if probe.phase == "step"]
        top = max((probe.throughput_rps for probe in probes if probe.saturated and probe.valid), default=None)
        limit = min((probe.planned_rps for probe in probes if not probe.valid), default=None)
        if not steps and top is None and limit is None and len(probes) < MAX_PROBES:
            rate = 2 * probes[-1].planned_rps if probes else self.first_rps
            seconds = min(max(_BRACKET_SHARE * self.total_s, MIN_PROBE_S), _BRACKET_MAX_S)
            return NextProbe("bracket", round(rate, 4), min(seconds, left_s))
        # The first step fixes the size: what later steps measure does not move it.
        saturation = top if top is not None else limit or (probes[-1].planned_rps if probes else self.first_rps)
        size = steps[0].planned_rps if steps else saturation / _STEPS
        if len(steps) > _STEPS:
            return SearchEnd("all steps are done")
        seconds = max(left_s / (_STEPS + 1 - len(steps)) - _PAUSE_S, MIN_PROBE_S)
        return NextProbe("step", round(size * (len(steps) + 1), 4), min(seconds, left_s))
