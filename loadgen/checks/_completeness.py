"""Whether the run was measured, and everything that was measured reached the coordinator."""

from __future__ import annotations

from capacity.statistics import Check
from loadgen.checks._check_input import CheckInput, Rule


def measured_requests(run: CheckInput) -> Check:
    """Fails where the run ended before anything was measured."""
    requests = sum(tally.requests for tally in run.tallies)
    warmup = sum(tally.requests for tally in run.totals.warmups.values())
    return Check(
        name="measured requests",
        value=requests,
        threshold="at least 1",
        status="PASS" if requests else "FAIL",
        detail="" if requests else f"the run ended in ramp-up or warm-up, after {warmup} requests",
    )


def reporting_generators(run: CheckInput) -> Check:
    """Fails where a generator did not report its last state: some of its requests are not counted."""
    generators = run.totals.generators
    missing = [str(generator["client"]) for generator in generators if not generator["complete"]]
    return Check(
        name="generators that reported their end",
        value=len(generators) - len(missing),
        threshold=f"{len(generators)} of {len(generators)}",
        status="FAIL" if missing else "PASS",
        detail=f"missing: {', '.join(missing)}" if missing else "",
    )


def present_generators(run: CheckInput) -> Check:
    """Stands for `reporting_generators` while the run goes on."""
    check = reporting_generators(run)
    return check.model_copy(update={"value": f"{check.value} are there"})


def refused_reports(run: CheckInput) -> Check | None:
    """Warns of messages to the master that failed validation."""
    refused = sum(run.totals.refused.values())
    if not refused:
        return None
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(run.totals.refused.items()))
    return Check(name="refused reports", value=refused, threshold="0", status="WARN", detail=reasons)


RULES: tuple[Rule, ...] = (measured_requests, reporting_generators, refused_reports)
