"""A row of run.json, its parts, and functions that fill it in: measures of histograms, the verdict, missing prices."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from capacity.errors import InputError
from capacity.statistics import (
    Histogram,
    Slo,
    VerdictStatus,
    judge_slo,
    mean_interval_us,
    percentile_interval_us,
    samples_needed,
)


def _to_ns(value: float) -> float:
    return round(value, 3)


# Microseconds, rounded to the nanoseconds that clocks give.
Us = Annotated[float, AfterValidator(_to_ns)]
# Rounded where floating point, not the price, would show.
Money = Annotated[float, Field(ge=0), AfterValidator(lambda value: round(value, 8))]
Count = Annotated[int, Field(ge=0)]


# The types of run.json are immutable, and every number in them is finite.
FROZEN = ConfigDict(frozen=True, allow_inf_nan=False)


class Measure(BaseModel):
    """One measure in µs. A percentile is null where the sample cannot support it, or where its rank is `beyond`.

    `samples` includes `beyond`: failed and unsent requests, which count as above every value. An interval holds its
    percentile with 95 % confidence; its upper end is null where that end is beyond. Mean, min and max are of answered
    requests.
    """

    model_config = FROZEN

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


class Warmup(BaseModel):
    """Requests sent before the measured part; no other figure includes them."""

    model_config = FROZEN

    requests: Count = 0
    errors: Count = 0
    mean_us: Us | None = None


class Memory(BaseModel):
    """Bytes of one host and one accelerator: capacity, highest use, and what the model and one input need."""

    model_config = FROZEN

    model_bytes: int | None = None
    input_bytes: int | None = None
    host_bytes: int | None = None
    host_peak_bytes: int | None = None
    accelerator_bytes: int | None = None
    accelerator_peak_bytes: int | None = None


class CostPer100k(BaseModel):
    """Prices of 100,000 inferences. `reasons` says, under the name of a price, why that price is null."""

    model_config = FROZEN

    sequential: Money | None = None
    sequential_interval: tuple[Money, Money] | None = None
    saturated: Money | None = None
    saturated_interval: tuple[Money, Money] | None = None
    at_slo: Money | None = None
    at_slo_interval: tuple[Money, Money] | None = None
    reasons: dict[str, str] = {}


class SloRate(BaseModel):
    """Result of a search, in requests a second: the highest rate that met the SLO and the lowest that missed it.

    `estimate_rps` is where a fit over all probes crosses the SLO, within `interval` with 95 % confidence.
    `confirmed`: a second probe at `met_rps`, with new requests, met the SLO too.
    """

    model_config = FROZEN

    met_rps: float | None = None
    missed_rps: float | None = None
    estimate_rps: float | None = None
    interval: tuple[float, float] | None = None
    confirmed: bool = False


class Saturation(BaseModel):
    """The highest throughput of probes that were offered more, a second, with its 95 % interval."""

    model_config = FROZEN

    rps: float | None = None
    interval: tuple[float, float] | None = None


class Row(BaseModel):
    """Figures of one combination and model, or (`target` set) of one target of it.

    Always: due = requests + unsent, and requests = answered + sum(errors). `retries` counts requests that were sent
    again (--retries); each is still one request. `autocorrelation_time` is in samples: so many samples carry as much
    information as one independent sample. `verdict` is of the SLO, null without one. Where it is inconclusive,
    `more_samples`, which take `more_seconds` at this rate, would decide it. `joules_per_inference` is of the
    accelerators alone.
    """

    model_config = FROZEN

    hardware: str
    host: str
    accelerator: str = ""
    count: int = Field(default=1, ge=1)
    hosts: int = Field(default=1, ge=1)
    kind: str = ""
    model: str
    target: str | None = None
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
    verdict: VerdictStatus | None = None
    verdict_reasons: list[str] = []
    more_samples: int | None = None
    more_seconds: float | None = None
    autocorrelation_time: float = Field(default=1.0, ge=1)
    joules_per_inference: float | None = None
    slo_rate: SloRate = SloRate()
    saturation: Saturation = Saturation()
    notes: list[str] = []

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        failed = sum(self.errors.values())
        if self.due != self.requests + self.unsent or self.requests != self.answered + failed:
            raise InputError(
                f"the counts of {self.hardware} contradict each other: {self.due} due, {self.requests} requests, "
                f"{self.answered} answered, {failed} errors, {self.unsent} unsent"
            )
        return self


def summarize_histogram(histogram: Histogram, beyond: int = 0, autocorrelation_time: float = 1.0) -> Measure:
    """A histogram as a Measure, without the percentiles that its sample cannot support.

    `beyond` samples lie above all recorded ones; `autocorrelation_time` is in samples.
    """
    total = histogram.count + beyond

    def percentile(p: float) -> float | None:
        return histogram.percentile_us(p, beyond) if total >= samples_needed(p) else None

    return Measure(
        samples=total,
        beyond=beyond,
        mean=histogram.mean_us,
        mean_interval=mean_interval_us(histogram, autocorrelation_time),
        min=histogram.min_us,
        p50=percentile(50),
        p90=percentile(90),
        p95=percentile(95),
        p99=percentile(99),
        p999=percentile(99.9),
        max=histogram.max_us,
        p90_interval=percentile_interval_us(histogram, 90, beyond, autocorrelation_time),
        p99_interval=percentile_interval_us(histogram, 99, beyond, autocorrelation_time),
    )


def judge_row(row: Row, slo: Slo, latency: Histogram) -> Row:
    """The row with the verdict of an SLO; `latency` has its answered requests."""
    verdict = judge_slo(slo, latency, row.due - row.answered, row.autocorrelation_time)
    more = verdict.more_samples
    return row.model_copy(
        update={
            "verdict": verdict.status,
            "verdict_reasons": list(verdict.reasons),
            "more_samples": more,
            "more_seconds": round(more / row.offered_rps, 1) if more is not None and row.offered_rps > 0 else None,
        }
    )


def without_price(row: Row, reason: str) -> Row:
    """The row without prices; `reason` is under each of them."""
    unknown = CostPer100k(reasons=dict.fromkeys(("sequential", "saturated", "at_slo"), reason))
    return row.model_copy(
        update={"price_per_hour": None, "currency": "", "price_note": reason, "cost_per_100k": unknown}
    )
