"""plan.json as types: the fleet for each rate, its prediction, its sensitivity, and its verification."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from capacity.rundir import read_json_file, write_json_file
from capacity.statistics import VerdictStatus

PLAN_SCHEMA = 2
PLAN_NAME = "plan.json"

Money = Annotated[float, Field(ge=0), AfterValidator(lambda value: round(value, 6))]
Us = Annotated[float, AfterValidator(lambda value: round(value, 1))]
Rate = Annotated[float, Field(ge=0), AfterValidator(lambda value: round(value, 3))]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class PlanRow(_Frozen):
    """Instances of one kind: `ordinals` and the price an hour, `price_each`, are of one instance."""

    hardware: str
    host: str
    accelerator: str = ""
    kind: str = ""
    market: str = "on-demand"
    instances: int = Field(ge=1)
    ordinals: int = Field(ge=1)
    price_each: Money
    simulated: bool

    @property
    def description(self) -> str:
        """Such as `12 × c5.large + eia2.medium (spot, simulated)`; on-demand is not named."""
        marks = [self.market] if self.market != "on-demand" else []
        marks += ["simulated"] if self.simulated else []
        return f"{self.instances} × {self.hardware}{_in_brackets(marks)}"


def _in_brackets(marks: list[str]) -> str:
    return f" ({', '.join(marks)})" if marks else ""


class Percentiles(_Frozen):
    """Latency in µs; null where the percentile falls among failed requests."""

    p50: Us | None = None
    p90: Us | None = None
    p95: Us | None = None
    p99: Us | None = None


class Prediction(_Frozen):
    """The simulated fleet at `rps` requests a second: latency, and the share of the time that its ordinals compute."""

    rps: Rate
    latency_us: Percentiles
    busy_share: float
    requests: int


class Alternative(_Frozen):
    """Another fleet that meets the SLO, more expensive by `extra_share`: 0.1 is 10 % more."""

    rows: list[PlanRow]
    cost_per_hour: Money
    extra_share: float


class ExcludedCombination(_Frozen):
    """A combination that is not in the fleet, the step that excluded it, and the reason."""

    hardware: str
    step: str
    reason: str


class Sensitivity(_Frozen):
    """The fleet with service times `factor` times as long; `cost_per_hour` is that of the cheapest fleet that meets the
    SLO then, null where none does."""

    factor: float
    meets_slo: bool
    latency_us: Percentiles
    cost_per_hour: Money | None = None


class FleetPlan(_Frozen):
    """The fleet for `rps` requests a second; `required_rps` includes the headroom.

    No fleet of these combinations costs less than `cost_lower_bound`, by capacity and service times alone; `solver_gap`
    is the share of the cost that the integer program left open. `cost_interval` is the cost at both ends of the 95 %
    intervals of the service times. Where `rows` is empty, `reason` says why there is no fleet.
    """

    rps: Rate
    required_rps: Rate
    rows: list[PlanRow] = []
    cost_per_hour: Money | None = None
    cost_interval: tuple[Money, Money] | None = None
    cost_per_100k: Money | None = None
    prediction: Prediction | None = None
    after_losses: Prediction | None = None
    cost_lower_bound: Money | None = None
    solver_gap: float | None = None
    simulated_fleets: int = 0
    constraints: list[str] = []
    alternatives: list[Alternative] = []
    excluded: list[ExcludedCombination] = []
    sensitivity: Sensitivity | None = None
    reason: str = ""

    @property
    def fleet(self) -> str:
        """The rows in words."""
        return " and ".join(row.description for row in self.rows)


class SlotPlan(_Frozen):
    """The fleet from `start` (HH:MM) for `hours`, and its cost in that time."""

    start: str
    hours: float
    rps: Rate
    rows: list[PlanRow] = []
    cost: Money
    latency_us: Percentiles = Percentiles()
    solver_gap: float = 0.0

    @property
    def fleet(self) -> str:
        """The rows in words; a dash for none."""
        return " and ".join(row.description for row in self.rows) or "–"


class Schedule(_Frozen):
    """A day by slots; `peak_cost` is the cost of the busiest slot's fleet for the whole day."""

    demand: str
    slots: list[SlotPlan]
    cost_per_day: Money
    peak_cost: Money
    cost_lower_bound: Money
    solver_gap: float


class CostCurve(_Frozen):
    """Points (rate, price an hour) of the smallest pool of one combination that meets the SLO at a rate."""

    hardware: str
    market: str
    kind: str
    simulated: bool
    points: list[tuple[Rate, Money]]


class PercentileComparison(_Frozen):
    """A predicted and a measured percentile in µs; `error` is that of the prediction, as a share of the measured."""

    name: str
    predicted: Us | None
    measured: Us | None
    error: float | None


class Verification(_Frozen):
    """A run of the fleet, or of as much of it as this machine can run, under Poisson arrivals, beside its prediction.

    `description` says what was run and which parts of it were simulated. `verdict` is that of the measured requests on
    the SLO; `valid` is whether the run itself is a result about the hardware, and `failures` has its failed checks.
    """

    description: str
    whole_fleet: bool
    rows: list[PlanRow]
    real_workers: int
    simulated_workers: int
    rps: Rate
    seconds: float
    requests: int
    answered: int
    percentiles: list[PercentileComparison]
    predicted_meets_slo: bool
    verdict: VerdictStatus
    verdict_reasons: list[str] = []
    valid: bool
    failures: list[str] = []
    run_dir: str


class PlanFile(_Frozen):
    """plan.json. `simulated` is true where any measurement is not of real hardware."""

    version: Literal[2] = Field(default=2, alias="schema")
    created: datetime
    model: str
    slo: str
    router: str
    batching: str = ""
    headroom: float = 0.0
    survive: int = 0
    markets: list[str] = []
    limits: list[str] = []
    runs: list[str] = []
    simulated: bool
    currency: str
    region: str = ""
    prices_as_of: str = ""
    price_notes: list[str] = []
    seed: int = 1
    plans: list[FleetPlan] = []
    schedule: Schedule | None = None
    curves: list[CostCurve] = []
    verification: Verification | None = None
    notes: list[str] = []

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, populate_by_name=True)

    def save(self, directory: Path) -> Path:
        """Writes plan.json into a folder and returns its path. Raises OSError."""
        return write_json_file(self, directory / PLAN_NAME)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a plan.json. Raises InputError with the file and the field."""
        return read_json_file(cls, path, PLAN_SCHEMA)
