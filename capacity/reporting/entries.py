"""What a report shows of one or more runs: its rows, named apart, judged, priced, and in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.pricing.catalogue import Catalogue
from capacity.pricing.choice import Candidate, Choice, choose
from capacity.rundir.rows import judge_row, price_row
from capacity.rundir.run import Run
from capacity.rundir.run_file import Measure, Row, SloRate
from capacity.rundir.telemetry import joules_per_inference
from capacity.statistics.intervals import samples_needed
from capacity.statistics.slo import Slo

PERCENTILES = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99", 99.9: "p999"}
_KINDS = {
    "cpu": "CPU",
    "cuda": "GPU",
    "eia": "Elastic Inference",
    "xpu": "XPU",
    "mps": "Apple GPU",
    "neuron": "Neuron",
}


@dataclass(frozen=True)
class Entry:
    """A row of a report. `label` tells it from its neighbours; `invalid` says why its run is no result."""

    run: Run
    row: Row
    label: str
    invalid: str

    @property
    def candidate(self) -> Candidate:
        """The row as the choice takes it."""
        return Candidate(self.label, self.row, self.invalid)

    @property
    def kind(self) -> str:
        """Its accelerator's kind in words."""
        return _KINDS.get(self.row.kind, self.row.kind or "unknown")


def entries(
    runs: Sequence[Run], by: str = "combination", slo: Slo | None = None, catalogue: Catalogue | None = None
) -> list[Entry]:
    """The rows (`by` combination), by model with the cheapest first, or the workers (`by` ordinal) of the runs.

    Another SLO or catalogue than a run's own judges and prices it anew. ValueError where that needs a run.hlog and
    there is none, and for two runs of one name.
    """
    names = Counter(run.name for run in runs)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"two runs are called '{twice[0]}': give each folder a name of its own, or merge them")
    if by not in ("combination", "ordinal"):
        raise ValueError(f"rows are shown by combination or by ordinal, not by '{by}'")
    rows = [
        (run, _anew(run, row, slo, catalogue))
        for run in runs
        for row in (run.file.rows if by == "combination" else run.file.ordinals)
    ]
    shared = Counter((row.hardware, row.model, row.worker) for _run, row in rows)
    found = [
        Entry(
            run,
            row,
            _label(run, row, several=shared[row.hardware, row.model, row.worker] > 1),
            "; ".join(f"{check.name} {check.value} ({check.threshold})" for check in run.file.failures)
            or ("" if run.file.valid else "it is marked as not valid"),
        )
        for run, row in rows
    ]
    if by == "ordinal":
        return sorted(found, key=lambda entry: entry.row.model)
    return sorted(found, key=_cheapest_first)


def _cheapest_first(entry: Entry) -> tuple[str, bool, float, float]:
    cost, p90 = entry.row.cost_per_100k.sequential, entry.row.latency_us.p90
    return entry.row.model, bool(entry.invalid), math.inf if cost is None else cost, math.inf if p90 is None else p90


def _label(run: Run, row: Row, several: bool) -> str:
    worker = f", {row.worker}" if row.worker else ""
    return f"{row.hardware}{worker}{f' ({run.name})' if several else ''}"


def _anew(run: Run, row: Row, slo: Slo | None, catalogue: Catalogue | None) -> Row:
    if slo is not None and str(slo) != run.file.slo:
        latency = run.histogram(row, "latency")
        if latency is None and row.answered:
            raise ValueError(f"{run.directory} was not judged by {slo}, and without its run.hlog it cannot be")
        if latency is not None:
            row = _unsearched(judge_row(row, slo, latency), run.file.slo)
    if catalogue is not None and row.worker is None:
        row = price_row(row, catalogue)
    if row.joules_per_inference is None and run.telemetry:
        joules = joules_per_inference(run.file, row, run.telemetry, run.measured_from_s)
        row = row.model_copy(update={"joules_per_inference": joules})
    return row


def _unsearched(row: Row, searched: str | None) -> Row:
    """The row without what a search for another SLO found."""
    if row.slo_rate == SloRate():
        return row
    reasons = {**row.cost_per_100k.reasons, "at_slo": f"the search was for {searched}"}
    cost = row.cost_per_100k.model_copy(update={"at_slo": None, "at_slo_interval": None, "reasons": reasons})
    return row.model_copy(update={"slo_rate": SloRate(), "cost_per_100k": cost})


def slo_of(runs: Sequence[Run], slo: Slo | None) -> Slo | None:
    """The SLO that rows are judged by: the one given, else the one that all runs share. ValueError if they differ."""
    if slo is not None:
        return slo
    texts = {run.file.slo for run in runs}
    if len(texts) > 1:
        said = " and ".join(sorted(text or "none" for text in texts))
        raise ValueError(f"the runs have different SLOs, {said}: say which one counts with --slo")
    text = texts.pop() if texts else None
    return Slo.parse(text) if text else None


def choices(found: Sequence[Entry], slo: Slo | None) -> list[Choice]:
    """The choice for each model in turn."""
    models = dict.fromkeys(entry.row.model for entry in found)
    return [choose([entry.candidate for entry in found if entry.row.model == model], slo) for model in models]


def title(runs: Sequence[Run]) -> str:
    """What the latencies of these runs count from, as Rule 1 asks."""
    arrivals = {run.file.arrivals for run in runs}
    if arrivals == {"closed"}:
        return "Closed loop: due = sent, so latency is what one request at a time sees"
    if "closed" in arrivals:
        return "Open and closed loops: in the closed ones due = sent"
    return "Open loop: latency counts from when a request was due"


def ms(us: float | None) -> str:
    """Microseconds as milliseconds with three digits; a dash for none."""
    if us is None:
        return "–"
    value = us / 1000
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def percentile(measure: Measure, p: float) -> str:
    """A percentile in ms, or why there is none."""
    value = getattr(measure, PERCENTILES[p])
    if value is not None:
        return ms(value)
    needed = samples_needed(p)
    if measure.samples < needed:
        return f"not enough samples ({measure.samples} < {needed})"
    return "beyond all answered"


def verdict(row: Row, slo: Slo | None) -> str:
    """yes, no, or not told; empty without an SLO."""
    return "" if slo is None else {True: "yes", False: "no", None: "not told"}[row.meets_slo]


def judged_percentile(slo: Slo | None) -> tuple[float, int | None]:
    """Which percentile a picture shows, and its bound in ns: the SLO's first that is in the table, else P90."""
    return next(((p, bound) for p, bound in slo.bounds if p in PERCENTILES), (90.0, None)) if slo else (90.0, None)
