"""What all probes of a search say together: bounds, the claimed rates, and which probe a run's row shows."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.rundir import SloRate
from capacity.search.crossing import crossing_with_interval
from capacity.search.probe_summary import ProbeSummary
from capacity.statistics import VerdictStatus


def verdicts_by_rate(probes: Sequence[ProbeSummary]) -> dict[float, VerdictStatus]:
    """Returns the majority of the clear verdicts for each planned rate; inconclusive where they are even or none is."""
    by_rate: dict[float, list[VerdictStatus]] = {}
    for probe in probes:
        if probe.valid and probe.verdict is not None:
            by_rate.setdefault(probe.planned_rps, []).append(probe.verdict)
    majority: dict[float, VerdictStatus] = {}
    for rate, verdicts in sorted(by_rate.items()):
        met, missed = verdicts.count("met"), verdicts.count("missed")
        majority[rate] = "inconclusive" if met == missed else "met" if met > missed else "missed"
    return majority


def rate_bounds(probes: Sequence[ProbeSummary]) -> tuple[float | None, float | None]:
    """Returns the highest planned rate that met the SLO and the lowest that missed it.

    A rate that met the SLO above one that missed it is no bound.
    """
    verdicts = verdicts_by_rate(probes)
    missed_rps = min((rate for rate, verdict in verdicts.items() if verdict == "missed"), default=None)
    met_rps = max(
        (rate for rate, verdict in verdicts.items() if verdict == "met" and (missed_rps is None or rate < missed_rps)),
        default=None,
    )
    return met_rps, missed_rps


def rate_inversions(probes: Sequence[ProbeSummary]) -> list[tuple[float, float]]:
    """Returns the rates that missed the SLO below a rate that met it, each with the highest such rate."""
    verdicts = verdicts_by_rate(probes)
    met = [rate for rate, verdict in verdicts.items() if verdict == "met"]
    return [(rate, max(met)) for rate, verdict in verdicts.items() if verdict == "missed" and met and max(met) > rate]


def conclude(probes: Sequence[ProbeSummary]) -> SloRate:
    """Returns the highest rate within the SLO that the probes support.

    A bound is claimed at the planned or the offered rate, whichever claims less.
    """
    met_rps, missed_rps = rate_bounds(probes)
    confirmed = _confirmed_rates(probes, missed_rps)
    claimed = max(confirmed) if confirmed else met_rps
    crossing = crossing_with_interval(probes)
    low = [
        min(probe.planned_rps, probe.offered_rps)
        for probe in probes
        if probe.valid and probe.planned_rps == claimed and probe.verdict == "met"
    ]
    high = [
        max(probe.planned_rps, probe.offered_rps)
        for probe in probes
        if probe.valid and probe.planned_rps == missed_rps and probe.verdict == "missed"
    ]
    return SloRate(
        met_rps=round(max(low), 3) if low else None,
        missed_rps=round(min(high), 3) if high else None,
        estimate_rps=round(crossing[0], 3) if crossing else None,
        interval=(round(crossing[1], 3), round(crossing[2], 3)) if crossing else None,
        confirmed=bool(confirmed),
    )


def _confirmed_rates(probes: Sequence[ProbeSummary], missed_rps: float | None) -> list[float]:
    return [
        probe.planned_rps
        for probe in probes
        if probe.confirms and (missed_rps is None or probe.planned_rps < missed_rps)
    ]


def probe_for_row(probes: Sequence[ProbeSummary]) -> int | None:
    """Returns the index of the probe that a run's row shows; None where no probe was valid.

    It is the confirming probe of the highest rate, else the last one that met the SLO at the highest rate that did;
    where none did, the lowest rate; in steps, the highest rate that did not saturate.
    """
    numbered = [(number, probe) for number, probe in enumerate(probes) if probe.valid]
    if not numbered:
        return None
    met_rps, missed_rps = rate_bounds(probes)
    confirming = [
        (probe.planned_rps, number)
        for number, probe in numbered
        if probe.confirms and (missed_rps is None or probe.planned_rps < missed_rps)
    ]
    if confirming:
        return max(confirming)[1]
    if met_rps is not None:
        return max(number for number, probe in numbered if probe.planned_rps == met_rps and probe.verdict == "met")
    unsaturated = [(probe.planned_rps, number) for number, probe in numbered if not probe.saturated]
    if unsaturated and not any(probe.verdict for _number, probe in numbered):
        return max(unsaturated)[1]
    return min((probe.planned_rps, number) for number, probe in numbered)[1]
