"""The rows of one or more runs as candidates of a choice: named apart, judged and priced."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.errors import InputError
from capacity.pricing.catalogue import Catalogue
from capacity.pricing.choice import Candidate, Choice, choose
from capacity.rundir import Row, Run, SloRate, joules_per_inference, judge_row
from capacity.statistics import Slo

_KINDS = {
    "cpu": "CPU",
    "cuda": "GPU",
    "eia": "Elastic Inference",
    "xpu": "XPU",
    "mps": "Apple GPU",
    "neuron": "Neuron",
}


@dataclass(frozen=True)
class LabeledRow:
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


def labeled_rows(
    runs: Sequence[Run], by: str = "combination", slo: Slo | None = None, catalogue: Catalogue | None = None
) -> list[LabeledRow]:
    """The rows (`by` combination), by model with the cheapest first, or the targets (`by` target) of the runs.

    Another SLO or catalogue than a run's own judges and prices it anew. InputError where that needs a run.hlog and
    there is none, and for two runs of one name.
    """
    names = Counter(run.name for run in runs)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(f"two runs are called '{twice[0]}': give each folder a name of its own, or merge them")
    if by not in ("combination", "target"):
        raise InputError(f"rows are shown by combination or by target, not by '{by}'")
    rows = [
        (run, _anew(run, row, slo, catalogue))
        for run in runs
        for row in (run.file.rows if by == "combination" else run.file.target_rows)
    ]
    shared = Counter((row.hardware, row.model, row.target) for _run, row in rows)
    found = [
        LabeledRow(
            run,
            row,
            _label(run, row, several=shared[row.hardware, row.model, row.target] > 1),
            "; ".join(f"{check.name} {check.value} ({check.threshold})" for check in run.file.failures)
            or ("" if run.file.valid else "it is marked as not valid"),
        )
        for run, row in rows
    ]
    if by == "target":
        return sorted(found, key=lambda entry: entry.row.model)
    return sorted(found, key=_cheapest_first)


def _cheapest_first(entry: LabeledRow) -> tuple[str, bool, float, float]:
    cost, p90 = entry.row.cost_per_100k.sequential, entry.row.latency_us.p90
    return entry.row.model, bool(entry.invalid), math.inf if cost is None else cost, math.inf if p90 is None else p90


def _label(run: Run, row: Row, several: bool) -> str:
    worker = f", {row.target}" if row.target else ""
    return f"{row.hardware}{worker}{f' ({run.name})' if several else ''}"


def _anew(run: Run, row: Row, slo: Slo | None, catalogue: Catalogue | None) -> Row:
    if slo is not None and str(slo) != run.file.slo:
        latency = run.histogram(row, "latency")
        if latency is None and row.answered:
            raise InputError(f"{run.directory} was not judged by {slo}, and without its run.hlog it cannot be")
        if latency is not None:
            row = _unsearched(judge_row(row, slo, latency), run.file.slo)
    if catalogue is not None and row.target is None:
        row = catalogue.price_row(row)
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


def shared_slo(runs: Sequence[Run], slo: Slo | None) -> Slo | None:
    """The SLO that rows are judged by: the one given, else the one that all runs share. InputError if they differ."""
    if slo is not None:
        return slo
    texts = {run.file.slo for run in runs}
    if len(texts) > 1:
        said = " and ".join(sorted(text or "none" for text in texts))
        raise InputError(f"the runs have different SLOs, {said}: say which one counts with --slo")
    text = texts.pop() if texts else None
    return Slo.parse(text) if text else None


def choose_per_model(found: Sequence[LabeledRow], slo: Slo | None) -> list[Choice]:
    """The choice for each model in turn."""
    models = dict.fromkeys(entry.row.model for entry in found)
    return [choose([entry.candidate for entry in found if entry.row.model == model], slo) for model in models]
