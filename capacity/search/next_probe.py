"""What a search decides: the next probe, or the end of the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capacity.search.probe_summary import ProbeSummary

#: A shorter probe, in seconds, yields too few samples.
MIN_PROBE_S = 2.0
#: More probes than any search needs.
MAX_PROBES = 60


@dataclass(frozen=True)
class NextProbe:
    """The next probe: its rate in requests a second and its greatest length in seconds.

    `stop_early` ends it as soon as its verdict is clear.
    """

    phase: str
    rate_rps: float
    max_seconds: float
    stop_early: bool = False


@dataclass(frozen=True)
class SearchEnd:
    """The search is over, and why."""

    reason: str


#: Chooses what follows the probes so far, with so many seconds left.
SearchStrategy = Callable[[Sequence[ProbeSummary], float], NextProbe | SearchEnd]
