"""run.json: what was loaded, how, the checks of the run, its rows and its searches."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, computed_field

from capacity.rundir.json_file import json_text, read_json_file, write_json_file
from capacity.rundir.row import FROZEN, Count, Measure, Row, Saturation, SloRate, Us
from capacity.rundir.upgrade import upgrade_schema_1
from capacity.statistics import Check, VerdictStatus

SCHEMA = 2
JSON_NAME = "run.json"


class TargetInfo(BaseModel):
    """What a target's Describe reported, or what is known of a server without one. Durations in µs, memory in bytes."""

    model_config = FROZEN

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


class TargetEvent(BaseModel):
    """A target went down or came up, as `generator` saw it.

    `at_s` is in seconds since measuring began, `at_unix` in seconds since the epoch by the generator's clock.
    """

    model_config = FROZEN

    at_s: float
    at_unix: float = 0.0
    target: str
    state: Literal["down", "up"]
    reason: str = ""
    generator: str = ""


class Probe(BaseModel):
    """One rate, held for `seconds` after settling, with nothing of other probes in flight.

    Rates are a second: `planned_rps` by the search, `offered_rps` became due, `throughput_rps` was answered.
    `slo_us` is the SLO's first percentile with its interval. The verdict is null without an SLO. Where `valid` is
    false, `checks` says what the generator could not do, and there is no verdict on the hardware. `in_row`: the row
    has the samples of this probe. In run.hlog its histograms are the intervals from `from_s` up to `to_s`.
    """

    model_config = FROZEN

    number: int
    phase: str
    planned_rps: float
    offered_rps: float
    throughput_rps: float
    throughput_interval: tuple[float, float] | None = None
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
    autocorrelation_time: float = Field(default=1.0, ge=1)
    slo_us: Us | None = None
    slo_interval: tuple[Us, Us | None] | None = None
    verdict: VerdictStatus | None = None
    verdict_reasons: list[str] = []
    saturated: bool = False
    valid: bool = True
    checks: list[Check] = []
    in_row: bool = False

    @property
    def failed_share(self) -> float:
        """Errors and unsent requests of those that were due, 0 to 1."""
        return 1 - self.answered / self.due if self.due else 0.0


class SearchResult(BaseModel):
    """The probes of one combination and model: a search for the highest rate within an SLO, or a series of steps.

    `stop_reason` says why it stopped.
    """

    model_config = FROZEN

    hardware: str
    model: str
    simulated: bool
    shape: Literal["slo-search", "steps"]
    slo: str | None = None
    probes: list[Probe]
    slo_rate: SloRate = SloRate()
    saturation: Saturation = Saturation()
    stop_reason: str = ""
    notes: list[str] = []


class RunFile(BaseModel):
    """run.json. `valid` is false where a check failed: then the rows are no result about the hardware.

    `rows` has one row for each combination and model, `target_rows` one for each target. After --shape, `searches` has
    one entry for each combination and model, and a row has the samples of the probe marked `in_row`.
    """

    model_config = FROZEN

    # Its JSON name is `schema`, which pydantic reserves.
    version: Literal[2] = Field(default=2, alias="schema")
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
    targets: list[TargetInfo] = []
    rows: list[Row]
    target_rows: list[Row] = []
    searches: list[SearchResult] = []
    events: list[TargetEvent] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def incomplete(self) -> bool:
        """A generator did not report its end: its counts are those of its last snapshot, as `generators` says."""
        return not all(generator.get("complete", True) for generator in self.generators)

    @property
    def arrivals(self) -> str:
        """closed, constant, poisson, gamma or trace."""
        return str(self.options.get("arrivals", "closed")).partition(":")[0]

    @property
    def failures(self) -> list[Check]:
        """The checks that make this run no result about the hardware."""
        return [check for check in self.checks if check.status == "FAIL"]

    def to_json(self) -> str:
        """The file's text; every number in it is finite."""
        return json_text(self)

    def save(self, directory: Path) -> Path:
        """Writes run.json in one step: a reader sees the old file or the new one, never half of it."""
        return write_json_file(self, directory / JSON_NAME)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a run.json of this schema or an older one.

        InputError in one sentence that names file and field.
        """
        return read_json_file(cls, path, SCHEMA, {1: upgrade_schema_1})
