"""The search of one pool: its probes so far, and what they amount to in run.json."""

from __future__ import annotations

from capacity.rundir import Saturation, SearchResult, SloRate
from capacity.search import ProbeSummary, conclude, probe_for_row, rate_inversions
from capacity.statistics import Check
from loadgen._options import Options
from loadgen.checks import check_generators
from loadgen.generator import Pool
from loadgen.search._probe_report import ProbeReport


class PoolSearch:
    """One pool's search as it goes. `stop_reason` says why there are no more probes; empty while there are."""

    def __init__(self, pool: Pool, options: Options) -> None:
        self.pool = pool
        self.sources = 0
        self.stop_reason = ""
        self.reports: list[ProbeReport] = []
        self._options = options

    @property
    def summaries(self) -> list[ProbeSummary]:
        """The probes as a search strategy sees them."""
        return [report.summary for report in self.reports]

    @property
    def row_report(self) -> ProbeReport | None:
        """The probe that the row of this pool shows; None where no probe is valid."""
        number = probe_for_row(self.summaries)
        return None if number is None else self.reports[number]

    def bounds_so_far(self) -> str:
        """The bounds that are known so far, as a part of a line on the terminal."""
        if self._options.shape != "slo-search" or not self.reports:
            return ""
        rate = conclude(self.summaries)
        met = f"; highest rate that met the SLO {rate.met_rps:,.4g}/s" if rate.met_rps is not None else ""
        missed = f"lowest that missed it {rate.missed_rps:,.4g}/s" if rate.missed_rps is not None else ""
        return met + (f"{', ' if met else '; '}{missed}" if missed else "")

    def checks(self, *, alone: bool) -> list[Check]:
        """Checks of the probe that the row shows, and whether the search is complete; under this pool's name unless it
        is `alone`."""
        report = self.row_report
        checks = check_generators(report.result.run_totals, self._options) if report is not None else []
        checks.append(self._check_steps() if self._options.shape == "steps" else self._check_bounds())
        if alone:
            return checks
        name = f"{self.pool.hardware.name}, {self.pool.model}"
        return [check.model_copy(update={"name": f"{name}: {check.name}"}) for check in checks]

    def _check_steps(self) -> Check:
        summaries = self.summaries
        usable = sum(summary.valid for summary in summaries)
        saturated = any(summary.saturated and summary.valid for summary in summaries)
        complete = saturated and usable == len(summaries)
        return Check(
            name="steps",
            value=f"{usable} of {len(summaries)} probes are valid, {'' if saturated else 'not '}saturated",
            threshold="all valid, up to saturation",
            status="FAIL" if not usable else "PASS" if complete else "WARN",
            detail=self.stop_reason,
        )

    def _check_bounds(self) -> Check:
        summaries = self.summaries
        rate = conclude(summaries)
        complete = rate.met_rps is not None and rate.missed_rps is not None and rate.confirmed
        bounds = ", ".join(
            f"{name} {value:,.5g}/s"
            for name, value in (("met at", rate.met_rps), ("missed at", rate.missed_rps))
            if value is not None
        )
        usable = any(summary.valid for summary in summaries)
        return Check(
            name="search",
            value=bounds or "no bound",
            threshold="a confirmed rate that met the SLO, below one that missed it",
            status="FAIL" if not usable else "PASS" if complete else "WARN",
            detail="" if complete else self.stop_reason,
        )

    def result(self) -> SearchResult:
        """The search as run.json has it."""
        options, row = self._options, self.row_report
        probes = [report.probe.model_copy(update={"in_row": report is row}) for report in self.reports]
        saturated = [probe for probe in probes if probe.saturated and probe.valid]
        highest = max(saturated, key=lambda probe: probe.throughput_rps, default=None)
        notes = [
            f"{low:,.5g}/s missed the SLO and {high:,.5g}/s above it met it: rates above the first are not relied on"
            for low, high in rate_inversions(self.summaries)
        ]
        if limited := [probe for probe in probes if not probe.valid]:
            lowest = min(probe.planned_rps for probe in limited)
            notes.append(
                f"{len(limited)} probes were the generator's limit, not the hardware's, from {lowest:,.5g}/s on"
            )
        return SearchResult(
            hardware=self.pool.hardware.name,
            model=self.pool.model,
            simulated=self.pool.simulated,
            shape="steps" if options.shape == "steps" else "slo-search",
            slo=str(options.slo) if options.slo else None,
            probes=probes,
            slo_rate=conclude(self.summaries) if options.shape == "slo-search" else SloRate(),
            saturation=Saturation(rps=highest.throughput_rps, interval=highest.throughput_interval)
            if highest
            else Saturation(),
            stop_reason=self.stop_reason,
            notes=notes,
        )
