"""One pool's search: its probes, and what they come to as a check of the run and as a capacity curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from capacity.rundir import Probe, Saturation, SearchResult, SloRate
from capacity.search import ProbeSummary, conclude, rate_inversions
from capacity.statistics import Check
from loadgen._options import Options
from loadgen.measure import RunTotals
from loadgen.search._probes import Pool

_OF_THE_RUN = ("measured requests", "generators that reported their end", "refused reports")


@dataclass
class Searched:
    """One pool's search as it goes: what was probed, and each probe's outcome."""

    pool: Pool
    sources: int = 0
    ended: str = ""
    probes: list[Probe] = field(default_factory=list)
    seen: list[ProbeSummary] = field(default_factory=list)
    outcomes: list[RunTotals] = field(default_factory=list)

    def check(self, options: Options) -> Check:
        """Whether it found what it was for."""
        usable = sum(one.valid for one in self.seen)
        if options.shape == "steps":
            enough = any(one.saturated and one.valid for one in self.seen)
            return Check(
                name="steps",
                value=f"{usable} of {len(self.seen)} probes count, {'' if enough else 'not '}saturated",
                threshold="all, up to saturation",
                status="FAIL" if not usable else "PASS" if enough and usable == len(self.seen) else "WARN",
                detail=self.ended,
            )
        rate = conclude(self.seen)
        whole = rate.met_rps is not None and rate.missed_rps is not None and rate.confirmed
        said = ", ".join(
            f"{name} {value:,.5g}/s"
            for name, value in (("passing", rate.met_rps), ("failing", rate.missed_rps))
            if value is not None
        )
        return Check(
            name="search",
            value=said or "no bound",
            threshold="a passing rate that is confirmed, under a failing one",
            status="FAIL" if not usable else "PASS" if whole else "WARN",
            detail="" if whole else self.ended,
        )

    def named(self, checks: Sequence[Check], alone: bool) -> list[Check]:
        """Those of `checks` that are of a probe rather than of the run as a whole, under this pool's name unless it is
        alone."""
        mine = [check for check in checks if check.name not in _OF_THE_RUN]
        if alone:
            return mine
        name = f"{self.pool.hardware.name}, {self.pool.model}"
        return [check.model_copy(update={"name": f"{name}: {check.name}"}) for check in mine]

    def curve(self, options: Options, chosen: int | None) -> SearchResult:
        """As run.json has it; `chosen` is the index of the probe that the row shows."""
        probes = [probe.model_copy(update={"in_row": number == chosen}) for number, probe in enumerate(self.probes)]
        full = [probe for probe in probes if probe.saturated and probe.valid]
        most = max(full, key=lambda probe: probe.throughput_rps, default=None)
        notes = [
            f"{rate:,.5g}/s failed and {above:,.5g}/s above it passed: what passes there is not counted on"
            for rate, above in rate_inversions(self.seen)
        ]
        if limited := [probe for probe in probes if not probe.valid]:
            notes.append(
                f"{len(limited)} probes were the generator's limit, not the hardware's, from "
                f"{min(probe.planned_rps for probe in limited):,.5g}/s on"
            )
        return SearchResult(
            hardware=self.pool.hardware.name,
            model=self.pool.model,
            simulated=self.pool.simulated,
            shape="steps" if options.shape == "steps" else "slo-search",
            slo=str(options.slo) if options.slo else None,
            probes=probes,
            slo_rate=conclude(self.seen) if options.shape == "slo-search" else SloRate(),
            saturation=Saturation(rps=most.throughput_rps, interval=most.throughput_interval) if most else Saturation(),
            stop_reason=self.ended,
            notes=notes,
        )
