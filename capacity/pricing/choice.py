"""The choice of hardware in three steps: enough memory, latency within the SLO, lowest price.

Each combination that a step excludes has a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.pricing.cost import format_bytes, format_money, format_seconds
from capacity.rundir import Row
from capacity.statistics import Slo

# A combination that needs more than this share of its memory passes with a remark.
_TIGHT = 0.8
# Measuring for longer than a day is never advised.
_MAX_ADVICE_S = 86_400


@dataclass(frozen=True)
class Candidate:
    """A row that may be chosen, under a unique label; `invalid` says why its run is no result."""

    label: str
    row: Row
    invalid: str = ""


@dataclass(frozen=True)
class Excluded:
    """The label of a candidate that a step excludes or remarks on, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class ChoiceStep:
    """One step of the choice: the labels that remain, remarks on some of them, and the excluded ones."""

    name: str
    remaining: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    remarks: tuple[Excluded, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The hardware for one model: `reason` says why the winner was chosen, or why there is none."""

    model: str
    winner: Candidate | None
    steps: tuple[ChoiceStep, ...]
    reason: str

    @property
    def sentence(self) -> str:
        """The choice in one sentence, or two."""
        if self.winner is None:
            return self.reason
        return f"{self.winner.label}{' (simulated)' if self.winner.row.simulated else ''}: {self.reason}"


def choose(candidates: Sequence[Candidate], slo: Slo | None) -> Choice:
    """Chooses among rows of one model. Raises ValueError for several models, or no row at all."""
    models = {candidate.row.model for candidate in candidates}
    if len(models) != 1:
        raise ValueError(f"expected rows of one model, not of {sorted(models)}")
    valid = [candidate for candidate in candidates if not candidate.invalid]
    steps = []
    if len(valid) < len(candidates):
        invalid = tuple(
            Excluded(entry.label, f"its run is not valid: {entry.invalid}") for entry in candidates if entry.invalid
        )
        steps.append(ChoiceStep("validity", _labels(valid), invalid))
    enough, memory = exclude_by_memory(valid)
    fast, latency = _by_latency(enough, slo)
    winner, cost = _by_cost(fast)
    steps += [memory, latency, cost]
    return Choice(models.pop(), winner, tuple(steps), _reason(winner, valid, enough, fast, slo))


def exclude_by_memory(candidates: Sequence[Candidate]) -> tuple[list[Candidate], ChoiceStep]:
    """The candidates with enough memory, and the step with the others."""
    remaining, excluded, remarks = [], [], []
    for candidate in candidates:
        shortage, remark = _judge_memory(candidate.row)
        if shortage:
            excluded.append(Excluded(candidate.label, shortage))
            continue
        remaining.append(candidate)
        if remark:
            remarks.append(Excluded(candidate.label, remark))
    return remaining, ChoiceStep("memory", _labels(remaining), tuple(excluded), tuple(remarks))


def _judge_memory(row: Row) -> tuple[str, str]:
    """Why the memory is too small (empty if it is not), and a remark on it (may be empty)."""
    memory, remarks = row.memory, []
    # The article's lower bound is the size of the model and its inputs; the measured peak of the worker may be higher.
    minimum = (memory.model_bytes or 0) + (memory.input_bytes or 0)
    for place, has, peak in (
        ("host", memory.host_bytes, memory.host_peak_bytes),
        ("accelerator", memory.accelerator_bytes, memory.accelerator_peak_bytes),
    ):
        if place == "accelerator" and (row.kind == "cpu" or not row.accelerator):
            continue
        needs = max(peak or 0, minimum if place == "accelerator" or row.kind == "cpu" else 0)
        if not needs:
            continue
        if has is None:
            remarks.append(f"needs {format_bytes(needs)} of {place} memory; the memory of the {place} is unknown")
        elif needs > has:
            return f"needs {format_bytes(needs)} of {place} memory and has {format_bytes(has)}", ""
        elif needs > _TIGHT * has:
            remarks.append(f"tight: {format_bytes(needs)} of {format_bytes(has)} of {place} memory")
    return "", "; ".join(remarks)


def _by_latency(candidates: list[Candidate], slo: Slo | None) -> tuple[list[Candidate], ChoiceStep]:
    if slo is None:
        return candidates, ChoiceStep("latency", _labels(candidates), ())
    remaining = [candidate for candidate in candidates if candidate.row.verdict == "met"]
    excluded = [
        Excluded(candidate.label, "; ".join([*candidate.row.verdict_reasons, *_advice(candidate.row)]) or "not judged")
        for candidate in candidates
        if candidate.row.verdict != "met"
    ]
    return remaining, ChoiceStep("latency", _labels(remaining), tuple(excluded))


def _advice(row: Row) -> list[str]:
    if row.verdict != "inconclusive" or row.more_seconds is None:
        return []
    return [f"about {format_seconds(row.more_seconds)} more would decide it"]


def _by_cost(candidates: list[Candidate]) -> tuple[Candidate | None, ChoiceStep]:
    priced = [entry for entry in candidates if entry.row.cost_per_100k.sequential is not None]
    excluded = [
        Excluded(entry.label, entry.row.cost_per_100k.reasons.get("sequential", "its price is unknown"))
        for entry in candidates
        if entry.row.cost_per_100k.sequential is None
    ]
    currencies = {entry.row.currency for entry in priced}
    if len(currencies) > 1:
        return None, ChoiceStep(
            "cost", (), tuple(Excluded(entry.label, f"priced in {entry.row.currency}") for entry in priced)
        )
    # Where prices tie the lower P90 wins, as in the article.
    priced.sort(key=lambda entry: (_price_of(entry), entry.row.latency_us.p90 or math.inf))
    if not priced and len(candidates) == 1:
        # There is no other price to compare with.
        return candidates[0], ChoiceStep("cost", _labels(candidates), (), tuple(excluded))
    if not priced and _same_host(candidates):
        return _by_host_time(candidates)
    winner = priced[0] if priced else None
    for entry in priced[1:]:
        assert winner is not None
        price, lowest = _price_of(entry), _price_of(winner)
        more = f"{100 * (price / lowest - 1):.0f} % more" if lowest > 0 and price > lowest else "the same, and slower"
        overlap = f", {remark}" if (remark := _remark_on_overlap(winner, entry)) else ""
        excluded.append(
            Excluded(entry.label, f"{format_money(price, entry.row.currency)} per 100,000: {more}{overlap}")
        )
    return winner, ChoiceStep("cost", (winner.label,) if winner else (), tuple(excluded))


def _same_host(candidates: list[Candidate]) -> bool:
    """Whether all candidates are parts of one host: its price then cancels out of the comparison."""
    hosts = {(entry.row.host, entry.row.hosts) for entry in candidates}
    comparable = all(entry.row.kind == "cpu" and entry.row.latency_us.mean for entry in candidates)
    return len(hosts) == 1 and len(candidates) > 1 and comparable


def _host_time_us(candidate: Candidate) -> float:
    return (candidate.row.latency_us.mean or 0.0) / candidate.row.count


def _by_host_time(candidates: list[Candidate]) -> tuple[Candidate, ChoiceStep]:
    first, *others = sorted(candidates, key=lambda entry: (_host_time_us(entry), entry.label))
    least = _host_time_us(first)
    excluded = [
        Excluded(entry.label, f"{100 * (_host_time_us(entry) / least - 1):.0f} % more time of the host per inference")
        for entry in others
    ]
    return first, ChoiceStep("cost", (first.label,), tuple(excluded))


def _remark_on_overlap(winner: Candidate, other: Candidate) -> str:
    """A remark where the intervals of two prices overlap; empty where they do not, or have none."""
    first, second = (entry.row.cost_per_100k.sequential_interval for entry in (winner, other))
    if first is None or second is None or second[0] > first[1]:
        return ""
    # The width of an interval shrinks with the root of the number of samples; both runs would continue at their rate.
    halves, gap = (first[1] - first[0] + second[1] - second[0]) / 2, _price_of(other) - _price_of(winner)
    measured_s = max(
        entry.row.due / entry.row.offered_rps if entry.row.offered_rps else 0.0 for entry in (winner, other)
    )
    seconds = measured_s * ((halves / gap) ** 2 - 1) if gap > 0 else math.inf
    if not 0 < seconds < _MAX_ADVICE_S:
        return "no significant difference"
    return f"no significant difference; about {format_seconds(seconds)} more would decide it"


def _price_of(candidate: Candidate) -> float:
    return candidate.row.cost_per_100k.sequential or 0.0


def _reason(
    winner: Candidate | None,
    valid: list[Candidate],
    enough: list[Candidate],
    fast: list[Candidate],
    slo: Slo | None,
) -> str:
    under = f" under {slo}" if slo else ""
    if winner and len(fast) == 1:
        cost = winner.row.cost_per_100k.sequential
        price = (
            "; its price is unknown"
            if cost is None
            else f", {format_money(cost, winner.row.currency)} per 100,000 inferences"
        )
        return f"the only combination that meets {slo}{price}." if slo else f"the only combination{price}."
    if winner and winner.row.cost_per_100k.sequential is None:
        time = f"{_host_time_us(winner) / 1000:.3g} ms"
        return (
            f"the shortest time of the host per inference{under}, {time}. All are parts of one host of unknown price."
        )
    if winner:
        price = format_money(_price_of(winner), winner.row.currency)
        return f"the lowest sequential price{under}, {price} per 100,000 inferences."
    if not valid:
        return "No run is valid, so there is no result about the hardware."
    if not enough:
        return "No combination has enough memory."
    if not fast:
        undecided = any(candidate.row.verdict in ("inconclusive", None) for candidate in enough)
        return (
            f"No combination is shown to meet {slo}; some verdicts are inconclusive."
            if undecided
            else f"No combination meets {slo}."
        )
    if any(candidate.row.cost_per_100k.sequential is not None for candidate in fast):
        return "The prices are in different currencies, so no combination can be chosen by cost."
    fastest = min(fast, key=lambda entry: entry.row.latency_us.p90 or math.inf)
    p90 = fastest.row.latency_us.p90
    quick = f" The lowest P90{under} is that of {fastest.label}: {p90 / 1000:.3g} ms." if p90 else ""
    return f"No price is known, so no combination can be chosen by cost.{quick}"


def _labels(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(candidate.label for candidate in candidates)
