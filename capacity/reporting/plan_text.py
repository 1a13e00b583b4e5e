"""A plan in words: the tables in the terminal, plan.md, and the files beside it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capacity.planning import Alternative, FleetPlan, Percentiles, PlanFile, Schedule, Verification
from capacity.pricing import format_hourly, format_money
from capacity.reporting.charts import Chart, cost_rate_chart, day_chart, stack_charts, write_plan_png
from capacity.reporting.formatting import format_ms
from capacity.reporting.terminal import is_redirected
from capacity.statistics import Slo

_WIDTH = 1000
_NAMES = ("P50", "P90", "P95", "P99")


def write_plan(file: PlanFile, out: Path) -> list[Path]:
    """Writes plan.json, plan.md, plan.svg and plan.png into a folder; the pictures only where there is a curve."""
    written = [file.save(out)]
    pictures: list[tuple[str, Chart]] = []
    curves = cost_rate_chart(file.curves, file.plans, Slo.parse(file.slo), file.currency, _WIDTH)
    if curves is not None:
        pictures.append((_title(file), curves))
    if file.schedule is not None:
        pictures.append((f"A day of {file.schedule.demand}", day_chart(file.schedule, file.currency, _WIDTH)))
    if pictures:
        path = out / "plan.svg"
        path.write_text(stack_charts(pictures).svg("Cost of fleets against rate", style=True), encoding="utf-8")
        written.append(path)
    if curves is not None:
        write_plan_png(out / "plan.png", file)
        written.append(out / "plan.png")
    path = out / "plan.md"
    path.write_text(markdown(file, bool(pictures)), encoding="utf-8")
    return [*written, path]


def _title(file: PlanFile) -> str:
    return f"{file.model}{' (simulated)' if file.simulated else ''}"


def describe_request(file: PlanFile) -> str:
    """Returns what the plan is for, in a sentence: model, SLO, router and the other requirements."""
    more = [f"router {file.router}"]
    more += [f"batching {file.batching}"] if file.batching else []
    more += [f"{100 * file.headroom:g} % headroom"] if file.headroom else []
    more += [f"any {file.survive} instance{'s' * (file.survive > 1)} may be lost"] if file.survive else []
    more += [f"markets {', '.join(file.markets)}"] if file.markets != ["on-demand"] else []
    more += [f"limits {', '.join(file.limits)}"] if file.limits else []
    return f"{file.model} within {file.slo}, Poisson arrivals; {'; '.join(more)}"


def describe_plan(plan: FleetPlan, currency: str) -> str:
    """Returns the fleet for one rate with its price, or why there is none, in one line."""
    if not plan.rows:
        return f"{plan.rps:,g} requests/s: no fleet, because {plan.reason}"
    assert plan.cost_per_hour is not None
    cost = format_hourly(plan.cost_per_hour, currency)
    between = ""
    if plan.cost_interval and plan.cost_interval[0] != plan.cost_interval[1]:
        low, high = (format_hourly(end, currency) for end in plan.cost_interval)
        between = f" ({low} to {high} over the 95 % intervals of the service times)"
    each = f"; {format_money(plan.cost_per_100k, currency)} per 100,000" if plan.cost_per_100k else ""
    return f"{plan.rps:,g} requests/s: {plan.fleet}, {cost} an hour{between}{each}"


def _explanations(plan: FleetPlan, file: PlanFile) -> list[tuple[str, str]]:
    """The sentences of one fleet, as (name, sentence)."""
    if not plan.rows:
        return [(f"excluded by {other.step}", f"{other.hardware}: {other.reason}") for other in plan.excluded]
    sentences = []
    if plan.prediction:
        sentence = f"{_latencies(plan.prediction.latency_us)} ms at {plan.prediction.rps:,g} requests/s"
        sentence += f"; ordinals compute {100 * plan.prediction.busy_share:.0f} % of the time"
        sentences.append(("predicted", sentence))
    if plan.after_losses:
        sentences.append(
            (f"after {file.survive} lost", f"{_latencies(plan.after_losses.latency_us)} ms in the worst case")
        )
    if plan.cost_lower_bound is not None and plan.cost_per_hour:
        sentence = (
            f"no fleet costs less than {format_hourly(plan.cost_lower_bound, file.currency)} an hour, by capacity alone"
        )
        gap = f"{100 * (plan.solver_gap or 0):.2g} %"
        sentences.append(("lower bound", f"{sentence}; solver's gap {gap}; fleets simulated: {plan.simulated_fleets}"))
    sentences += [("constraint", constraint) for constraint in plan.constraints]
    sentences += [("alternative", _alternative(other, file.currency)) for other in plan.alternatives]
    if plan.sensitivity:
        worse = f"{100 * (plan.sensitivity.factor - 1):.0f} %"
        cost = plan.sensitivity.cost_per_hour
        if plan.sensitivity.meets_slo:
            sentence = f"the fleet still meets the SLO, {_latencies(plan.sensitivity.latency_us)} ms"
        else:
            sentence = "the fleet would miss the SLO; "
            sentence += (
                "no fleet would meet it"
                if cost is None
                else f"one that meets it costs {format_hourly(cost, file.currency)}"
            )
        sentences.append((f"{worse} slower", sentence))
    sentences += [(f"excluded by {other.step}", f"{other.hardware}: {other.reason}") for other in plan.excluded]
    return sentences


def _latencies(percentiles: Percentiles) -> str:
    return ", ".join(f"{name} {format_ms(getattr(percentiles, name.lower()))}" for name in _NAMES)


def _alternative(other: Alternative, currency: str) -> str:
    rows = " and ".join(row.description for row in other.rows)
    return f"{rows}, {format_hourly(other.cost_per_hour, currency)} an hour, {100 * other.extra_share:+.0f} %"


def print_plan(file: PlanFile, console: Console) -> None:
    """Prints the plan: for each rate the fleet with its explanations, then the day and the verification."""
    console.print(f"[bold]{escape(describe_request(file))}[/bold]", soft_wrap=is_redirected(console), highlight=False)
    if file.simulated:
        console.print("[yellow]simulated[/yellow]: measured on simulated accelerators, not on hardware")
    for plan in file.plans:
        style = "green" if plan.rows else "red"
        console.print()
        console.print(
            f"[bold {style}]{escape(describe_plan(plan, file.currency))}[/bold {style}]",
            soft_wrap=is_redirected(console),
            highlight=False,
        )
        if plan.rows:
            console.print(_rows_table(plan, file.currency))
        for name, sentence in _explanations(plan, file):
            console.print(f"  {escape(name)}: {escape(sentence)}", soft_wrap=is_redirected(console), highlight=False)
    if file.schedule is not None:
        _print_schedule(file.schedule, file.currency, console)
    if file.verification is not None:
        _print_verification(file.verification, console)
    for note in file.notes:
        console.print(f"[dim]{escape(note)}[/dim]", soft_wrap=is_redirected(console))


def _rows_table(plan: FleetPlan, currency: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("instances", "hardware", "market", "ordinals", "each/h", "all/h"):
        table.add_column(name, justify="left" if name in ("hardware", "market") else "right")
    for row in plan.rows:
        table.add_row(
            f"{row.instances:,}",
            escape(row.hardware) + (" [yellow]simulated[/yellow]" if row.simulated else ""),
            row.market,
            f"{row.instances * row.ordinals:,}",
            format_hourly(row.price_each, currency),
            format_hourly(row.price_each * row.instances, currency),
        )
    return table


def _print_schedule(schedule: Schedule, currency: str, console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("from", "requests/s", "fleet", "P90 ms", "P99 ms", "cost"):
        table.add_column(name, justify="left" if name == "fleet" else "right", overflow="fold")
    for slot in schedule.slots:
        table.add_row(
            slot.start,
            f"{slot.rps:,g}",
            escape(slot.fleet),
            format_ms(slot.latency_us.p90),
            format_ms(slot.latency_us.p99),
            format_hourly(slot.cost, currency),
        )
    console.print()
    console.print(table)
    console.print(_schedule_sentence(schedule, currency), soft_wrap=is_redirected(console), highlight=False)


def _schedule_sentence(schedule: Schedule, currency: str) -> str:
    saved = f"{100 * (1 - schedule.cost_per_day / schedule.peak_cost):.0f} %" if schedule.peak_cost else "nothing"
    return (
        f"{schedule.demand}: {format_money(schedule.cost_per_day, currency)} a day, {saved} less than the busiest "
        f"slot's fleet all day ({format_money(schedule.peak_cost, currency)}); no schedule costs less than "
        f"{format_money(schedule.cost_lower_bound, currency)}, by capacity alone; "
        f"solver's gap {100 * schedule.solver_gap:.2g} %"
    )


def describe_verdict(verification: Verification) -> str:
    """Returns the verdict on the SLO beside the predicted one, and the failed checks of a run that is not valid."""
    measured = {
        "met": "meets the SLO",
        "missed": "misses the SLO",
        "inconclusive": "inconclusive: too few samples for a verdict on the SLO",
    }
    validity = "" if verification.valid else "; NOT VALID: " + "; ".join(verification.failures)
    predicted = "met" if verification.predicted_meets_slo else "missed"
    return f"{measured[verification.verdict]} (predicted: {predicted}){validity}"


def _print_verification(verification: Verification, console: Console) -> None:
    colour = "green" if verification.verdict == "met" and verification.valid else "red"
    console.print(
        f"\n[bold]verified[/bold]: {escape(verification.description)}",
        soft_wrap=is_redirected(console),
        highlight=False,
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "predicted ms", "measured ms", "error"):
        table.add_column(name, justify="right")
    for row in verification.percentiles:
        table.add_row(row.name, format_ms(row.predicted), format_ms(row.measured), _percent(row.error))
    console.print(table)
    console.print(
        f"[{colour}]{escape(describe_verdict(verification))}[/{colour}]",
        soft_wrap=is_redirected(console),
        highlight=False,
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f} %"


def markdown(file: PlanFile, pictured: bool) -> str:
    """plan.md: the same as the terminal, for a document; `pictured`: plan.svg is beside it."""
    lines = [f"# Capacity plan: {_title(file)}", "", f"{describe_request(file)}."]
    if file.simulated:
        lines += ["", "**Simulated**: measured on simulated accelerators, not on hardware."]
    if pictured:
        lines += ["", "![Price an hour against requests a second](plan.svg)"]
    for plan in file.plans:
        lines += ["", f"## {plan.rps:,g} requests a second", "", f"{describe_plan(plan, file.currency)}.", ""]
        if plan.rows:
            lines += ["| instances | hardware | market | ordinals | each an hour | all an hour |"]
            lines += ["|---:|---|---|---:|---:|---:|"]
        for row in plan.rows:
            name = f"{row.hardware} (simulated)" if row.simulated else row.hardware
            each, whole = (
                format_hourly(row.price_each, file.currency),
                format_hourly(row.price_each * row.instances, file.currency),
            )
            total = row.instances * row.ordinals
            lines.append(f"| {row.instances:,} | {name} | {row.market} | {total:,} | {each} | {whole} |")
        lines += ["", *(f"- **{name}**: {sentence}" for name, sentence in _explanations(plan, file))]
    if file.schedule is not None:
        lines += ["", "## The day", "", "| from | requests a second | fleet | P90, ms | P99, ms | cost |"]
        lines += ["|---|---:|---|---:|---:|---:|"]
        for slot in file.schedule.slots:
            p90, p99 = format_ms(slot.latency_us.p90), format_ms(slot.latency_us.p99)
            cost = format_hourly(slot.cost, file.currency)
            lines.append(f"| {slot.start} | {slot.rps:,g} | {slot.fleet} | {p90} | {p99} | {cost} |")
        lines += ["", f"{_schedule_sentence(file.schedule, file.currency)}."]
    if file.verification is not None:
        verification = file.verification
        lines += [
            "",
            "## Verified",
            "",
            f"{verification.description}.",
            "",
            "| | predicted, ms | measured, ms | error |",
        ]
        lines += ["|---|---:|---:|---:|"]
        lines += [
            f"| {row.name} | {format_ms(row.predicted)} | {format_ms(row.measured)} | {_percent(row.error)} |"
            for row in verification.percentiles
        ]
        lines += ["", f"{describe_verdict(verification)}.", *(f"- {reason}" for reason in verification.verdict_reasons)]
    lines += ["", "## Conditions", ""]
    lines += [
        f"- runs: {', '.join(file.runs)}",
        f"- created: {file.created:%Y-%m-%d %H:%M:%S %Z}",
        f"- seed: {file.seed}",
    ]
    lines += [f"- prices: {note}" for note in file.price_notes]
    lines += [f"- {note}" for note in file.notes]
    return "\n".join(lines) + "\n"
