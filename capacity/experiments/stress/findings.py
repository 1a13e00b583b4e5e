"""stress.json as types: what a scenario did, what it found, whether it passed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from capacity.rundir import read_json_file, write_json_file
from capacity.statistics import Check

STRESS_NAME = "stress.json"
SCHEMA = 1
#: The run of interference in which all ordinals are loaded.
TOGETHER = "together"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Estimate(_Frozen):
    """A figure with the interval that holds it with 95 % confidence; null where the sample supports none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def by(self, of: Callable[[float], float], *, falling: bool = False) -> Estimate:
        """A function of it, rising or falling; what is null stays so."""
        value, low, high = (None if one is None else of(one) for one in (self.value, self.low, self.high))
        return Estimate(value=value, low=high, high=low) if falling else Estimate(value=value, low=low, high=high)


class Neighbour(_Frozen):
    """What one ordinal costs another while both are loaded: shares, 0.1 for a tenth. `p99` is the P99's growth, `time`
    the growth of the time between answers of the same load, `rate` the share of its throughput that is lost, `slo_rate`
    that of its highest rate within the SLO, simulated from its measured times; null without an SLO."""

    ordinal: str
    neighbour: str
    p99: Estimate
    time: Estimate
    rate: Estimate
    slo_rate: Estimate | None = None


class Loaded(_Frozen):
    """One ordinal alone and with all others loaded; rates in requests a second, latencies in µs.

    `factor` is the rate with all loaded over the rate alone. `at_slo_*` are simulated from its measured service times,
    null without an SLO; `at_slo_lost` is the share of that rate that is lost.
    """

    ordinal: str
    alone_rps: float
    together_rps: float
    factor: Estimate
    alone_p99_us: float | None
    together_p99_us: float | None
    at_slo_alone_rps: float | None = None
    at_slo_together_rps: float | None = None
    at_slo_lost: Estimate | None = None


class Interference(_Frozen):
    """`factor`: throughput of the fully loaded machine over the sum of its ordinals' alone."""

    ordinals: list[Loaded]
    neighbours: list[Neighbour]
    factor: float


class Table(_Frozen):
    """A table of a report, in words."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


class Drawn(_Frozen):
    """Curves over time of one panel: name -> points (seconds, value)."""

    heading: str
    curves: dict[str, list[tuple[float, float]]]


class Stress(_Frozen):
    """One scenario's stress.json. `runs` are run directories beside it; `figures` are the scenario's own, by name."""

    version: Literal[1] = Field(default=1, alias="schema")
    scenario: str
    started: datetime
    command: list[str]
    simulated: bool
    conditions: dict[str, str]
    sentences: list[str]
    checks: list[Check]
    tables: list[Table] = []
    panels: list[Drawn] = []
    marks: list[tuple[float, bool]] = []
    figures: dict[str, float | None] = {}
    interference: Interference | None = None
    runs: list[str] = []

    @property
    def passed(self) -> bool:
        """No check failed."""
        return all(check.status != "FAIL" for check in self.checks)

    def save(self, directory: Path) -> Path:
        """Writes stress.json into a folder; OSError where that cannot be."""
        return write_json_file(self, directory / STRESS_NAME)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a stress.json; ValueError in one sentence naming file and field."""
        return read_json_file(cls, path, SCHEMA)
