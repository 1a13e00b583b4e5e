"""The choice of hardware in three steps: enough memory, latency within the SLO, lowest price.

Each combination that loses a step loses it with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.pricing.cost import format_bytes, format_money, format_seconds
from capacity.rundir import Row
from capacity.statistics import Slo

# Above this share of the memory there is, a combination is kept and called tight.
_TIGHT = 0.8
# Advice to measure for longer than a day helps nobody.
_LONGEST_S = 86_400


@dataclass(frozen=True)
class Candidate:
    """A row that may be chosen, under the name that tells it apart; `invalid` says why its run says nothing of it."""

    label: str
    row: Row
    invalid: str = ""


@dataclass(frozen=True)
class Excluded:
    """Who lost a step, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class ChoiceStep:
    """One step of the choice: who came through it, remarks on some of those, and who did not."""

    name: str
    kept: tuple[str, ...]
    losers: tuple[Excluded, ...]
    remarks: tuple[Excluded, ...] = ()


@dataclass(frozen=True)
class Choice:
    """Of the hardware for one model: `reason` says why this one won, or why there is no winner."""

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
    """The choice among rows of one model. ValueError if there are several models, or no row at all."""
    models = {candidate.row.model for candidate in candidates}
    if len(models) != 1:
        raise ValueError(f"hardware is chosen for one model at a time, not for {sorted(models)}")
    valid = [candidate for candidate in candidates if not candidate.invalid]
    steps = []
    if len(valid) < len(candidates):
        lost = tuple(
            Excluded(entry.label, f"its run is not valid: {entry.invalid}") for entry in candidates if entry.invalid
        )
        steps.append(ChoiceStep("validity", _labels(valid), lost))
    enough, memory = exclude_by_memory(valid)
    fast, latency = _by_latency(enough, slo)
    winner, cost = _by_cost(fast)
    steps += [memory, latency, cost]
    return Choice(models.pop(), winner, tuple(steps), _reason(winner, valid, enough, fast, slo))


def exclude_by_memory(candidates: Sequence[Candidate]) -> tuple[list[Candidate], ChoiceStep]:
    """Those with enough memory, and the step that says so."""
    kept, losers, remarks = [], [], []
    for candidate in candidates:
        short, remark = _memory(candidate.row)
        if short:
            losers.append(Excluded(candidate.label, short))
            continue
        kept.append(candidate)
        if remark:
            remarks.append(Excluded(candidate.label, remark))
    return kept, ChoiceStep("memory", _labels(kept), tuple(losers), tuple(remarks))


def _memory(row: Row) -> tuple[str, str]:
    """Why the memory is too little, or else what is to be said of it."""
    memory, remarks = row.memory, []
    # The article's lower bound: what the model and its inputs take; then what the worker was seen to take.
    least = (memory.model_bytes or 0) + (memory.input_bytes or 0)
    for place, has, peak in (
        ("host", memory.host_bytes, memory.host_peak_bytes),
        ("accelerator", memory.accelerator_bytes, memory.accelerator_peak_bytes),
    ):
        if place == "accelerator" and (row.kind == "cpu" or not row.accelerator):
            continue
        needs = max(peak or 0, least if place == "accelerator" or row.kind == "cpu" else 0)
        if not needs:
            continue
        if has is None:
            remarks.append(f"needs {format_bytes(needs)} of {place} memory; how much there is is not known")
        elif needs > has:
            return f"needs {format_bytes(needs)} of {place} memory and has {format_bytes(has)}", ""
        elif needs > _TIGHT * has:
            remarks.append(f"tight: {format_bytes(needs)} of {format_bytes(has)} of {place} memory")
    return "", "; ".join(remarks)


def _by_latency(candidates: list[Candidate], slo: Slo | None) -> tuple[list[Candidate], ChoiceStep]:
    if slo is None:
        return candidates, ChoiceStep("latency", _labels(candidates), ())
    kept = [candidate for candidate in candidates if candidate.row.verdict == "met"]
    losers = [
        Excluded(candidate.label, "; ".join([*candidate.row.verdict_reasons, *_longer(candidate.row)]) or "not judged")
        for candidate in candidates
        if candidate.row.verdict != "met"
    ]
    return kept, ChoiceStep("latency", _labels(kept), tuple(losers))


def _longer(row: Row) -> list[str]:
    if row.verdict != "inconclusive" or row.more_seconds is None:
        return []
    return [f"about {format_seconds(row.more_seconds)} more would tell"]


def _by_cost(candidates: list[Candidate]) -> tuple[Candidate | None, ChoiceStep]:
    priced = [entry for entry in candidates if entry.row.cost_per_100k.sequential is not None]
    losers = [
        Excluded(entry.label, entry.row.cost_per_100k.reasons.get("sequential", "no price is known"))
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
        # Nobody is left to compare a price with.
        return candidates[0], ChoiceStep("cost", _labels(candidates), (), tuple(losers))
    if not priced and _same_host(candidates):
        return _by_host_time(candidates)
    winner = priced[0] if priced else None
    for entry in priced[1:]:
        assert winner is not None
        asked, lowest = _price_of(entry), _price_of(winner)
        more = f"{100 * (asked / lowest - 1):.0f} % more" if lowest > 0 and asked > lowest else "the same, and slower"
        apart = f", {unclear}" if (unclear := _not_told_apart(winner, entry)) else ""
        losers.append(Excluded(entry.label, f"{format_money(asked, entry.row.currency)} per 100,000: {more}{apart}"))
    return winner, ChoiceStep("cost", (winner.label,) if winner else (), tuple(losers))


def _same_host(candidates: list[Candidate]) -> bool:
    """Slices of the same host: whatever it costs, the price cancels out of the comparison."""
    hosts = {(entry.row.host, entry.row.hosts) for entry in candidates}
    known = all(entry.row.kind == "cpu" and entry.row.latency_us.mean for entry in candidates)
    return len(hosts) == 1 and len(candidates) > 1 and known


def _host_time_us(candidate: Candidate) -> float:
    return (candidate.row.latency_us.mean or 0.0) / candidate.row.count


def _by_host_time(candidates: list[Candidate]) -> tuple[Candidate, ChoiceStep]:
    first, *others = sorted(candidates, key=lambda entry: (_host_time_us(entry), entry.label))
    least = _host_time_us(first)
    losers = [
        Excluded(entry.label, f"{100 * (_host_time_us(entry) / least - 1):.0f} % more of the host's time an inference")
        for entry in others
    ]
    return first, ChoiceStep("cost", (first.label,), tuple(losers))


def _not_told_apart(winner: Candidate, other: Candidate) -> str:
    """What is to be said of two prices whose intervals overlap; empty where they do not, or have none."""
    first, second = (entry.row.cost_per_100k.sequential_interval for entry in (winner, other))
    if first is None or second is None or second[0] > first[1]:
        return ""
    # Half an interval shrinks with the root of the samples; both runs would go on at their rate.
    halves, gap = (first[1] - first[0] + second[1] - second[0]) / 2, _price_of(other) - _price_of(winner)
    spent = max(entry.row.due / entry.row.offered_rps if entry.row.offered_rps else 0.0 for entry in (winner, other))
    seconds = spent * ((halves / gap) ** 2 - 1) if gap > 0 else math.inf
    if not 0 < seconds < _LONGEST_S:
        return "not told apart"
    return f"not told apart yet; about {format_seconds(seconds)} more would"


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
            "; its price is not known"
            if cost is None
            else f", {format_money(cost, winner.row.currency)} per 100,000 inferences"
        )
        return f"the only one that is left{under}{price}."
    if winner and winner.row.cost_per_100k.sequential is None:
        time = f"{_host_time_us(winner) / 1000:.3g} ms"
        return f"the least of the host's time an inference{under}, {time}. All are slices of one host of unknown price."
    if winner:
        price = format_money(_price_of(winner), winner.row.currency)
        return f"the lowest sequential price{under}, {price} per 100,000 inferences."
    if not valid:
        return "No run is valid, so nothing can be said about the hardware."
    if not enough:
        return "No combination has enough memory."
    if not fast:
        undecided = any(candidate.row.verdict in ("inconclusive", None) for candidate in enough)
        return (
            f"No combination is shown to meet {slo}; some samples are too few to tell."
            if undecided
            else f"No combination meets {slo}."
        )
    if any(candidate.row.cost_per_100k.sequential is not None for candidate in fast):
        return "Prices in different currencies are not compared, so none can be chosen by cost."
    fastest = min(fast, key=lambda entry: entry.row.latency_us.p90 or math.inf)
    p90 = fastest.row.latency_us.p90
    quick = f" The lowest P90{under} is that of {fastest.label}: {p90 / 1000:.3g} ms." if p90 else ""
    return f"No price is known, so none can be chosen by cost.{quick}"


def _labels(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(candidate.label for candidate in candidates)
