"""The rows of one or more runs as candidates of a choice, with unique labels, verdicts on one SLO, and prices."""

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
    """A row of a run. `label` is unique among the rows of a report; `invalid` says why its run is no result."""

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

    With another SLO or catalogue than a run's own, rows are judged and priced by it. Raises InputError where that needs
    a missing run.hlog, for two runs of one name, and for an unknown `by`.
    """
    names = Counter(run.name for run in runs)
    duplicates = [name for name, count in names.items() if count > 1]
    if duplicates:
        raise InputError(f"two runs are called '{duplicates[0]}': rename one of the folders, or merge the runs")
    if by not in ("combination", "target"):
        raise InputError(f"--by {by}: expected combination or target")
    rows = [
        (run, _update(run, row, slo, catalogue))
        for run in runs
        for row in (run.file.rows if by == "combination" else run.file.target_rows)
    ]
    occurrences = Counter((row.hardware, row.model, row.target) for _run, row in rows)
    labeled = [
        LabeledRow(
            run,
            row,
            _label(run, row, several=occurrences[row.hardware, row.model, row.target] > 1),
            "; ".join(f"{check.name} {check.value} ({check.threshold})" for check in run.file.failures)
            or ("" if run.file.valid else "it is marked as not valid"),
        )
        for run, row in rows
    ]
    if by == "target":
        return sorted(labeled, key=lambda entry: entry.row.model)
    return sorted(labeled, key=_cheapest_first)


def _cheapest_first(entry: LabeledRow) -> tuple[str, bool, float, float]:
    cost, p90 = entry.row.cost_per_100k.sequential, entry.row.latency_us.p90
    return entry.row.model, bool(entry.invalid), math.inf if cost is None else cost, math.inf if p90 is None else p90


def _label(run: Run, row: Row, several: bool) -> str:
    target = f", {row.target}" if row.target else ""
    return f"{row.hardware}{target}{f' ({run.name})' if several else ''}"


def _update(run: Run, row: Row, slo: Slo | None, catalogue: Catalogue | None) -> Row:
    if slo is not None and str(slo) != run.file.slo:
        latency = run.histogram(row, "latency")
        if latency is None and row.answered:
            raise InputError(f"{run.directory} cannot be judged by {slo}: it has no run.hlog")
        if latency is not None:
            row = _without_search(judge_row(row, slo, latency), run.file.slo)
    if catalogue is not None and row.target is None:
        row = catalogue.price_row(row)
    if row.joules_per_inference is None and run.telemetry:
        joules = joules_per_inference(run.file, row, run.telemetry, run.measured_from_s)
        row = row.model_copy(update={"joules_per_inference": joules})
    return row


def _without_search(row: Row, slo: str | None) -> Row:
    """The row without the results of a search for another SLO."""
    if row.slo_rate == SloRate():
        return row
    reasons = {**row.cost_per_100k.reasons, "at_slo": f"the search was for {slo}"}
    cost = row.cost_per_100k.model_copy(update={"at_slo": None, "at_slo_interval": None, "reasons": reasons})
    return row.model_copy(update={"slo_rate": SloRate(), "cost_per_100k": cost})


def shared_slo(runs: Sequence[Run], slo: Slo | None) -> Slo | None:
    """The SLO that rows are judged by: `slo`, else the one that all runs have. InputError where theirs differ."""
    if slo is not None:
        return slo
    texts = {run.file.slo for run in runs}
    if len(texts) > 1:
        names = " and ".join(sorted(text or "none" for text in texts))
        raise InputError(f"the runs have different SLOs, {names}: choose one with --slo")
    text = texts.pop() if texts else None
    return Slo.parse(text) if text else None


def choose_per_model(rows: Sequence[LabeledRow], slo: Slo | None) -> list[Choice]:
    """One choice for each model."""
    models = dict.fromkeys(entry.row.model for entry in rows)
    return [choose([entry.candidate for entry in rows if entry.row.model == model], slo) for model in models]
