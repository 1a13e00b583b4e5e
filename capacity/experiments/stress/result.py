"""stress.json as types: the conditions of a stress test, its results, and whether its checks passed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from capacity.rundir import read_json_file, write_json_file
from capacity.statistics import Check

STRESS_NAME = "stress.json"
_SCHEMA = 2
#: The run of an interference test in which all ordinals are loaded.
TOGETHER = "together"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Estimate(_Frozen):
    """A figure with its 95 % interval; null where the sample supports none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def transform(self, function: Callable[[float], float], *, falling: bool = False) -> Estimate:
        """Returns a monotone function of the figure and of its ends; `falling` where the function falls."""
        value, low, high = (None if one is None else function(one) for one in (self.value, self.low, self.high))
        return Estimate(value=value, low=high, high=low) if falling else Estimate(value=value, low=low, high=high)


class NeighbourCost(_Frozen):
    """What a loaded neighbour costs one ordinal, as shares: 0.1 is a tenth.

    `p99_growth` and `time_growth` are the growth of P99 and of the time between answers under the same load,
    `throughput_loss` is the lost share of the throughput, and `slo_rate_loss` that of the highest rate within the SLO,
    simulated from the measured service times; null without an SLO.
    """

    ordinal: str
    neighbour: str
    p99_growth: Estimate
    time_growth: Estimate
    throughput_loss: Estimate
    slo_rate_loss: Estimate | None = None


class OrdinalInterference(_Frozen):
    """One ordinal alone and with all others loaded; rates in requests a second, latencies in µs.

    `throughput_factor` is the throughput with all loaded over that alone. The `slo_rate_` fields are simulated from the
    measured service times, null without an SLO; `slo_rate_loss` is the lost share of that rate.
    """

    ordinal: str
    alone_rps: float
    together_rps: float
    throughput_factor: Estimate
    alone_p99_us: float | None
    together_p99_us: float | None
    slo_rate_alone_rps: float | None = None
    slo_rate_together_rps: float | None = None
    slo_rate_loss: Estimate | None = None


class Interference(_Frozen):
    """`factor` is the throughput of the fully loaded machine over the sum of its ordinals' alone."""

    ordinals: list[OrdinalInterference]
    neighbours: list[NeighbourCost]
    factor: float


class ResultTable(_Frozen):
    """A table of a report, in words."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


class ChartPanel(_Frozen):
    """Curves over time in one panel of a chart, by name: points (seconds, value)."""

    title: str
    curves: dict[str, list[tuple[float, float]]]


class TargetMark(_Frozen):
    """A target went down, or came up again, `at_s` seconds after measuring began."""

    at_s: float
    down: bool


class ScenarioResult(_Frozen):
    """What a scenario has measured: `summary` in sentences, `figures` as numbers by names of the scenario's own."""

    summary: list[str]
    checks: list[Check]
    tables: list[ResultTable] = []
    panels: list[ChartPanel] = []
    marks: list[TargetMark] = []
    figures: dict[str, float | None] = {}
    interference: Interference | None = None


class StressResult(ScenarioResult):
    """stress.json: the result of one scenario with its conditions. `runs` are the run directories beside the file."""

    version: Literal[2] = Field(default=2, alias="schema")
    scenario: str
    started: datetime
    command: list[str]
    simulated: bool
    conditions: dict[str, str]
    runs: list[str] = []

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, populate_by_name=True)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "FAIL" for check in self.checks)

    def save(self, directory: Path) -> Path:
        """Writes stress.json into a folder and returns its path. Raises OSError."""
        return write_json_file(self, directory / STRESS_NAME)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a stress.json. Raises InputError with the file and the field."""
        return read_json_file(cls, path, _SCHEMA)
