"""plan.json as types: the fleet for each rate, what it predicts, what would break it, and what running it showed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from capacity.rundir import read_json_file, write_json_file

PLAN_SCHEMA = 1
PLAN_NAME = "plan.json"

Money = Annotated[float, Field(ge=0), AfterValidator(lambda value: round(value, 6))]
Us = Annotated[float, AfterValidator(lambda value: round(value, 1))]
Rate = Annotated[float, Field(ge=0), AfterValidator(lambda value: round(value, 3))]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class PlanRow(_Frozen):
    """So many instances of one kind; `ordinals` of each, `price_each` an hour."""

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
    def words(self) -> str:
        """`12 × c5.large + eia2.medium`; the market where it is not on-demand, and where it was simulated."""
        marks = [self.market] if self.market != "on-demand" else []
        marks += ["simulated"] if self.simulated else []
        return f"{self.instances} × {self.hardware}{_in_brackets(marks)}"


def _in_brackets(marks: list[str]) -> str:
    return f" ({', '.join(marks)})" if marks else ""


class Percentiles(_Frozen):
    """Latency in µs; null where failed requests begin before it."""

    p50: Us | None = None
    p90: Us | None = None
    p95: Us | None = None
    p99: Us | None = None


class Prediction(_Frozen):
    """What the simulated fleet did at `rps`: latency, and the share of their time that its ordinals compute."""

    rps: Rate
    latency_us: Percentiles
    busy: float
    requests: int


class Alternative(_Frozen):
    """Another fleet that holds, dearer by the share `more`."""

    rows: list[PlanRow]
    cost_per_hour: Money
    more: float


class Lost(_Frozen):
    """A combination that is not in the fleet, at which step it dropped out, and why."""

    hardware: str
    step: str
    reason: str


class Sensitivity(_Frozen):
    """With service times `factor` times as long: whether this fleet holds, its percentiles, what one costs that does.

    `cost_per_hour` is null where no fleet does.
    """

    factor: float
    holds: bool
    latency_us: Percentiles
    cost_per_hour: Money | None = None


class FleetPlan(_Frozen):
    """The fleet for `rps` requests a second; `required_rps` has the headroom on it.

    No fleet of these combinations costs less than `least_cost`, by capacity and service times alone; `solver_gap` is
    the share of its cost that the integer program left open. `cost_interval` is what it costs at both ends of the
    service times' 95 % intervals. `why_not` says why there is no fleet where `rows` is empty.
    """

    rps: Rate
    required_rps: Rate
    rows: list[PlanRow] = []
    cost_per_hour: Money | None = None
    cost_interval: tuple[Money, Money] | None = None
    cost_per_100k: Money | None = None
    prediction: Prediction | None = None
    after_losses: Prediction | None = None
    least_cost: Money | None = None
    solver_gap: float | None = None
    simulated_fleets: int = 0
    binds: list[str] = []
    runner_ups: list[Alternative] = []
    losers: list[Lost] = []
    sensitivity: Sensitivity | None = None
    why_not: str = ""

    @property
    def fleet(self) -> str:
        """In words."""
        return " and ".join(row.words for row in self.rows)


class SlotPlan(_Frozen):
    """What runs from `start` (HH:MM) for `hours`: the fleet for its rate, and what it costs in that time."""

    start: str
    hours: float
    rps: Rate
    rows: list[PlanRow] = []
    cost: Money
    latency_us: Percentiles = Percentiles()
    solver_gap: float = 0.0

    @property
    def fleet(self) -> str:
        """In words; a dash for none."""
        return " and ".join(row.words for row in self.rows) or "–"


class Schedule(_Frozen):
    """A day by slots; `peak_cost` is what the fleet of the busiest slot would cost all day."""

    demand: str
    slots: list[SlotPlan]
    cost_per_day: Money
    peak_cost: Money
    least_cost: Money
    solver_gap: float


class CostCurve(_Frozen):
    """The price an hour of the smallest pool of one combination alone that carries a rate, as (rate, price an hour)."""

    hardware: str
    market: str
    kind: str
    simulated: bool
    points: list[tuple[Rate, Money]]


class Compared(_Frozen):
    """One percentile as predicted and as measured, in µs; `error` is the prediction's, as a share of the measured."""

    name: str
    predicted: Us | None
    measured: Us | None
    error: float | None


class Verification(_Frozen):
    """The fleet, or so much of it as this machine can run, under Poisson arrivals: prediction against measurement.

    `said` tells what was run and which parts of it were simulated. `meets_slo` is of the measured percentiles, null
    where they were not enough to tell; `valid` of the run itself.
    """

    said: str
    whole: bool
    rows: list[PlanRow]
    real_workers: int
    simulated_workers: int
    rps: Rate
    seconds: float
    requests: int
    answered: int
    compared: list[Compared]
    predicted_meets: bool
    meets_slo: bool | None
    slo_reasons: list[str] = []
    valid: bool
    failures: list[str] = []
    run_dir: str


class PlanFile(_Frozen):
    """plan.json. `simulated` is true where any measurement or part of it is not of real hardware."""

    version: Literal[1] = Field(default=1, alias="schema")
    made: datetime
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
        """Writes plan.json into a folder; OSError where that cannot be."""
        return write_json_file(self, directory / PLAN_NAME)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a plan.json; ValueError in one sentence naming file and field."""
        return read_json_file(cls, path, PLAN_SCHEMA)
