"""Whether the generators, not the hardware, limited the run: processor, event loop, lateness."""

from __future__ import annotations

from capacity.statistics import Check, Histogram, Slo, samples_needed
from loadgen.checks._check_input import CheckInput, Rule, status_of

#: The generator's own error may be a tenth of what it measures. At the size of a service time, or half of the SLO, the
#: generator measures itself.
_WARNS_ABOVE, _FAILS_ABOVE, _FAILS_ABOVE_OF_SLO = 0.1, 1.0, 0.5
#: The limits in µs where there is neither a service time nor an SLO.
_DEFAULT_LIMITS_US = 1_000.0, 10_000.0


def processor(run: CheckInput) -> Check:
    """The busiest generator's share of a core."""
    return check_generator_processor(run.health.processor_share)


def loop_lag(run: CheckInput) -> Check | None:
    """How late event loops woke."""
    lag = run.health.loop_lag
    return check_loop_lag(lag, run.service, run.options.slo) if lag.count else None


def value_range(run: CheckInput) -> Check:
    """Values beyond the range of the histograms."""
    return check_range(sum(histogram.above for tally in run.tallies for histogram in tally.histograms.values()))


RULES: tuple[Rule, ...] = (processor, loop_lag, value_range)


def check_generator_processor(share: float) -> Check:
    """The busiest generator process's share of a core, 1.0 being all of it: warns above 75 %, fails above 90 %."""
    return Check(
        name="generator processor",
        value=f"{100 * share:.0f} %",
        threshold="≤ 75 % of a core, fails above 90 %",
        status=status_of(share, 0.75, 0.9),
        detail="" if share <= 0.75 else "the generator may have limited the rate, not the hardware",
    )


def check_loop_lag(lag: Histogram, service: Histogram, slo: Slo | None) -> Check:
    """P99 of how late the generator's event loop woke: replies are timed that late. Limits as in `check_lateness`."""
    return _check_own_error("event loop lag P99", lag, service, slo, "some clock reads were late")


def check_lateness(lateness: Histogram, service: Histogram, slo: Slo | None) -> Check:
    """P99 of sent - due, against the P50 of the service time and the tightest bound of the SLO.

    Warns above a tenth of either; fails above the service time, or half of the bound.
    """
    return _check_own_error("lateness P99", lateness, service, slo, "some requests were sent late")


def _check_own_error(name: str, error: Histogram, service: Histogram, slo: Slo | None, consequence: str) -> Check:
    p99_us = error.percentile_us(99)
    if p99_us is None:
        return Check(name=name, value="none", threshold="some samples", status="WARN", detail="nothing was recorded")
    limits = []
    median_us = service.percentile_us(50)
    if median_us is not None:
        limits.append((_WARNS_ABOVE * median_us, _FAILS_ABOVE * median_us))
    if slo and slo.bounds:
        tightest_us = min(bound for _p, bound in slo.bounds) / 1000
        limits.append((_WARNS_ABOVE * tightest_us, _FAILS_ABOVE_OF_SLO * tightest_us))
    warns_us, fails_us = (min(limit) for limit in zip(*limits, strict=True)) if limits else _DEFAULT_LIMITS_US
    status = status_of(p99_us, warns_us, fails_us)
    return Check(
        name=name,
        value=f"{p99_us / 1000:.3g} ms",
        threshold=f"≤ {warns_us / 1000:.3g} ms, fails above {fails_us / 1000:.3g} ms",
        status=status,
        detail="" if status == "PASS" else consequence,
    )


def check_range(above: int) -> Check:
    """`above` values were over the histograms' hour, and are counted in the highest bucket."""
    return Check(
        name="values out of range",
        value=above,
        threshold="0",
        status="WARN" if above else "PASS",
        detail="over an hour; counted in the highest bucket" if above else "",
    )


def allow_small_sample(check: Check, run: CheckInput) -> Check:
    """Turns a failure into a warning where the P99 is of fewer samples than a P99 needs: it is the worst of them then,
    and that alone is no limit of the generator. For probes, which are short."""
    samples = {"event loop lag P99": run.health.loop_lag.count, "lateness P99": run.service.count}.get(check.name)
    if check.status == "FAIL" and samples is not None and samples < samples_needed(99):
        return check.model_copy(update={"status": "WARN"})
    return check
