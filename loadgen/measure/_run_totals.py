"""Everything that the generators measured in a run or in a probe, added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capacity.measures import Series, Tally
from loadgen.measure._generator_health import GeneratorHealth


@dataclass(frozen=True)
class RunTotals:
    """The sum over all generators. `first_requests_ns` are latencies in ns, `measured_s` is the length of the measured
    part in seconds, `generators` has a row about each generator as in run.json, and `refused` counts messages to the
    master that failed validation, by reason.
    """

    totals: Mapping[Series, Tally]
    warmups: Mapping[Series, Tally]
    first_requests_ns: Mapping[Series, int]
    measured_s: float
    generators: Sequence[Mapping[str, Any]]
    health: GeneratorHealth
    refused: Mapping[str, int] = field(default_factory=dict)
