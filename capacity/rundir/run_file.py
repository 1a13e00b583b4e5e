"""run.json as types: what a run was, what was checked, and its rows. Read and written here, made in summary.py."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, model_validator

from capacity.rundir.json_file import json_text, read_json_file, write_json_file
from capacity.statistics import Check

SCHEMA = 1
JSON_NAME = "run.json"


def _to_ns(value: float) -> float:
    return round(value, 3)


# Microseconds, kept to the nanosecond that clocks give.
Us = Annotated[float, AfterValidator(_to_ns)]
# Rounded where floating point, not the price, would show.
Money = Annotated[float, Field(ge=0), AfterValidator(lambda value: round(value, 8))]
Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class TargetInfo(_Frozen):
    """What one worker's Describe said, or what is known of a server that has none. Durations in µs, memory in bytes."""

    label: str
    address: str
    host_type: str = ""
    host_name: str = ""
    host_memory_bytes: int | None = None
    kind: str = ""
    ordinal: int | None = None
    accelerator_type: str = ""
    accelerator_id: str = ""
    accelerator_memory_bytes: int | None = None
    status: str = ""
    simulated: bool = False
    simulation: str = ""
    versions: dict[str, str] = {}
    threads: int | None = None
    cores: list[int] = []
    model: str = ""
    model_version: str = ""
    model_mode: str = ""
    model_precision: str = ""
    model_sha256: str = ""
    model_file_bytes: int | None = None
    model_parameter_bytes: int | None = None
    max_batch_size: int | None = None
    first_inference_us: Us | None = None
    warmup_us: list[Us] = []
    process_peak_bytes: int | None = None
    accelerator_peak_bytes: int | None = None
    instance_id: str = ""
    pid: int | None = None


class Measure(_Frozen):
    """One measure in µs. A percentile is null where the sample cannot support it, or where its rank is `beyond`.

    `samples` includes `beyond`: failed and unsent requests, above every value. An interval holds its percentile with
    95 % confidence; its upper end is null where that lies beyond. The mean, min and max are of answered requests.
    """

    samples: Count = 0
    beyond: Count = 0
    mean: Us | None = None
    mean_interval: tuple[Us, Us] | None = None
    min: Us | None = None
    p50: Us | None = None
    p90: Us | None = None
    p95: Us | None = None
    p99: Us | None = None
    p999: Us | None = None
    max: Us | None = None
    p90_interval: tuple[Us, Us | None] | None = None
    p99_interval: tuple[Us, Us | None] | None = None


class Warmup(_Frozen):
    """What was sent before the measured part and kept apart."""

    requests: Count = 0
    errors: Count = 0
    mean_us: Us | None = None


class Memory(_Frozen):
    """Bytes of one host and one accelerator: what there is, the highest seen, and what model and one input take."""

    model_bytes: int | None = None
    input_bytes: int | None = None
    host_bytes: int | None = None
    host_peak_bytes: int | None = None
    accelerator_bytes: int | None = None
    accelerator_peak_bytes: int | None = None


class TargetEvent(_Frozen):
    """A target went down or came up, as the generator `by` saw it: seconds since measuring began, and since the epoch
    by the generator's clock."""

    at_s: float
    at_unix: float = 0.0
    worker: str
    state: Literal["down", "up"]
    why: str = ""
    by: str = ""


class CostPer100k(_Frozen):
    """Prices of 100,000 inferences; one that is null has its reason under its name."""

    sequential: Money | None = None
    sequential_interval: tuple[Money, Money] | None = None
    saturated: Money | None = None
    saturated_interval: tuple[Money, Money] | None = None
    at_slo: Money | None = None
    at_slo_interval: tuple[Money, Money] | None = None
    reasons: dict[str, str] = {}


class SloRate(_Frozen):
    """After a search: the highest rate that surely met the SLO, and the lowest that surely did not.

    Between them `estimate_rps` is where a fit over all probes crosses the SLO; the crossing is within `interval` with
    95 % confidence. `confirmed`: a fresh probe at the passing rate passed too.
    """

    passing_rps: float | None = None
    failing_rps: float | None = None
    estimate_rps: float | None = None
    interval: tuple[float, float] | None = None
    confirmed: bool = False


class Saturation(_Frozen):
    """The highest throughput that was seen while more was offered, a second; its interval is a 95 % one."""

    rps: float | None = None
    interval: tuple[float, float] | None = None


class Probe(_Frozen):
    """One rate, held for `seconds` after settling, with nothing of other probes in flight.

    `rate_rps` was asked for, `offered_rps` was due, and `achieved_rps` is what was answered a second meanwhile.
    `slo_us` is the SLO's first percentile with its interval. The verdict is null without an SLO. Where `valid` is
    false, `checks` says what the generator could not do, and there is no verdict on the hardware. `in_row`: these
    samples are the row's. In run.hlog its histograms are the intervals from `from_s` up to `to_s`.
    """

    number: int
    phase: str
    rate_rps: float
    offered_rps: float
    achieved_rps: float
    achieved_interval: tuple[float, float] | None = None
    seconds: float
    from_s: float
    to_s: float
    due: Count
    requests: Count
    answered: Count
    errors: dict[str, Count] = {}
    unsent: Count = 0
    latency_us: Measure = Measure()
    service_us: Measure = Measure()
    lateness_us: Measure = Measure()
    queue_us: Measure = Measure()
    compute_us: Measure = Measure()
    dependence: float = Field(default=1.0, ge=1)
    slo_us: Us | None = None
    slo_interval: tuple[Us, Us | None] | None = None
    verdict: Literal["PASS", "FAIL", "UNRESOLVED"] | None = None
    reasons: list[str] = []
    saturated: bool = False
    valid: bool = True
    checks: list[Check] = []
    in_row: bool = False

    @property
    def failed_share(self) -> float:
        """Errors and unsent requests of those that were due, 0 to 1."""
        return 1 - self.answered / self.due if self.due else 0.0


class SearchResult(_Frozen):
    """Rates against latencies of one pool: what a search or the steps of a run found. `ended` says why it stopped."""

    hardware: str
    model: str
    simulated: bool
    shape: Literal["slo-search", "steps"]
    slo: str | None = None
    probes: list[Probe]
    slo_rate: SloRate = SloRate()
    saturation: Saturation = Saturation()
    ended: str = ""
    notes: list[str] = []


class Row(_Frozen):
    """One combination and model, or (`worker` set) one worker of it.

    `retries` is how often requests were sent once more (--retries); each is still one request.
    Always: due = requests + unsent, and requests = answered + sum(errors). `dependence` is the autocorrelation time:
    so many samples say as much as one independent one. Where the SLO is not resolved, `more_samples`, which is
    `more_seconds` at this rate, would resolve it. `joules_per_inference` is of the accelerators alone.
    """

    hardware: str
    host: str
    accelerator: str = ""
    count: int = Field(default=1, ge=1)
    hosts: int = Field(default=1, ge=1)
    kind: str = ""
    model: str
    worker: str | None = None
    simulated: bool
    due: Count
    requests: Count
    answered: Count
    errors: dict[str, Count] = {}
    unsent: Count = 0
    retries: Count = 0
    offered_rps: float
    throughput_rps: float
    latency_us: Measure = Measure()
    service_us: Measure = Measure()
    lateness_us: Measure = Measure()
    queue_us: Measure = Measure()
    compute_us: Measure = Measure()
    first_inference_us: Us | None = None
    first_request_us: Us | None = None
    warmup: Warmup = Warmup()
    memory_bytes: int | None = None
    memory: Memory = Memory()
    price_per_hour: Money | None = None
    currency: str = ""
    price_note: str = ""
    cost_per_100k: CostPer100k = CostPer100k()
    meets_slo: bool | None = None
    slo_reasons: list[str] = []
    more_samples: int | None = None
    more_seconds: float | None = None
    dependence: float = Field(default=1.0, ge=1)
    joules_per_inference: float | None = None
    slo_rate: SloRate = SloRate()
    saturation: Saturation = Saturation()
    notes: list[str] = []

    @model_validator(mode="after")
    def _identity(self) -> Self:
        failed = sum(self.errors.values())
        if self.due != self.requests + self.unsent or self.requests != self.answered + failed:
            raise ValueError(
                f"the counts of {self.hardware} contradict each other: {self.due} due, {self.requests} requests, "
                f"{self.answered} answered, {failed} errors, {self.unsent} unsent"
            )
        return self


class RunFile(_Frozen):
    """run.json. `valid` is false where a check failed: then the rows say nothing about the hardware."""

    # Its JSON name is `schema`, which pydantic keeps for itself.
    version: Literal[1] = Field(default=1, alias="schema")
    started: datetime
    duration_s: float
    options: dict[str, Any]
    conditions: dict[str, str] = {}
    slo: str | None = None
    region: str = ""
    prices_as_of: str = ""
    valid: bool
    checks: list[Check] = []
    generators: list[dict[str, Any]] = []
    workers: list[TargetInfo] = []
    rows: list[Row]
    ordinals: list[Row] = []
    # After --shape: one for each combination and model. A row then has the samples of the probe marked `in_row`.
    curve: list[SearchResult] = []
    events: list[TargetEvent] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def incomplete(self) -> bool:
        """A generator did not report its end: its counts are those of its last snapshot, as `generators` says."""
        return not all(generator.get("complete", True) for generator in self.generators)

    @property
    def arrivals(self) -> str:
        """closed, constant, poisson or trace."""
        return str(self.options.get("arrivals", "closed")).partition(":")[0]

    @property
    def failures(self) -> list[Check]:
        """The checks that make this run say nothing about the hardware."""
        return [check for check in self.checks if check.status == "FAIL"]

    def to_json(self) -> str:
        """The file's text; every number in it is finite."""
        return json_text(self)

    def save(self, directory: Path) -> Path:
        """Writes run.json in one step: a reader sees the old file or the new one, never half of it."""
        return write_json_file(self, directory / JSON_NAME)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a run.json; ValueError in one sentence naming file and field."""
        return read_json_file(cls, path, SCHEMA)
