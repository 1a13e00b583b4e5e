"""The table in the terminal, and report.html with its pictures: what was measured, if it counts, what to buy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from capacity.choice import Choice
from capacity.cost import hourly, money, size
from capacity.hardware import Catalogue
from capacity.picture import DASHES, STYLE, Picture, by_percentile, cost_and_latency, stacked
from capacity.raster import write_png
from capacity.run import Run
from capacity.slo import Slo
from capacity.view import (
    PERCENTILES,
    Entry,
    choices,
    entries,
    judged_percentile,
    ms,
    percentile,
    slo_of,
    title,
    verdict,
)

# A page shows the widest of these that fits it, and paper the middle one.
_WIDE, _MIDDLE, _NARROW = 1176, 720, 364
# A terminal narrower than this gets the table in two halves.
_ONE_TABLE = 150
# More lines than there are dashes and colours to tell them apart would be a tangle.
_MOST_CURVES = len(DASHES)


def print_table(
    runs: Run | Sequence[Run],
    console: Console,
    by: str = "combination",
    slo: Slo | None = None,
    catalogue: Catalogue | None = None,
) -> None:
    """Prints the rows, the verdict on each run, and the choice. ValueError as `view.entries`."""
    runs = [runs] if isinstance(runs, Run) else runs
    slo = slo_of(runs, slo)
    found = entries(runs, by, slo, catalogue)
    console.print(f"[bold]{escape(title(runs))}[/bold]")
    halves = [_latency_columns(), _cost_columns(slo)]
    for model in dict.fromkeys(entry.row.model for entry in found):
        rows = [entry for entry in found if entry.row.model == model]
        for columns in [halves[0] + halves[1]] if console.width >= _ONE_TABLE else halves:
            console.print()
            console.print(_table(model, rows, columns))
    for note in _notes(found):
        console.print(f"[dim]{escape(note)}[/dim]")
    for run in runs:
        _print_checks(run, console, several=len(runs) > 1)
    if by == "combination":
        for choice in choices(found, slo):
            _print_choice(choice, console)


@dataclass(frozen=True)
class _Column:
    name: str
    of: Any
    result: bool = True


def _latency_columns() -> list[_Column]:
    return [
        _Column("requests", lambda row: f"{row.requests:,}", False),
        _Column("errors", lambda row: f"{sum(row.errors.values()):,}", False),
        _Column("per s", lambda row: f"{row.throughput_rps:,.{1 if row.throughput_rps < 1000 else 0}f}"),
        _Column("mean ms", lambda row: ms(row.latency_us.mean)),
        *(_percentile_column(p) for p in (50, 90, 95, 99)),
    ]


def _percentile_column(p: float) -> _Column:
    return _Column(f"P{p:g}", lambda row: percentile(row.latency_us, p))


def _cost_columns(slo: Slo | None) -> list[_Column]:
    columns = [
        _Column("first ms", lambda row: ms(row.first_inference_us)),
        _Column("memory", lambda row: size(row.memory_bytes) if row.memory_bytes else "–"),
        _Column("price/h", lambda row: "–" if row.price_per_hour is None else hourly(row.price_per_hour, row.currency)),
        _Column("per 100,000", _cost),
    ]
    return [*columns, _Column(str(slo), lambda row: verdict(row, slo))] if slo else columns


def _cost(row: Any) -> str:
    cost = row.cost_per_100k.sequential
    return "–" if cost is None else money(cost, row.currency)


def _table(model: str, found: Sequence[Entry], columns: list[_Column]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(escape(model), overflow="fold", min_width=16)
    for column in columns:
        table.add_column(column.name, justify="right", overflow="fold")
    for entry in found:
        label = escape(entry.label) + (" [yellow]simulated[/yellow]" if entry.row.simulated else "")
        cells = [
            escape(column.of(entry.row)) if not (column.result and entry.invalid) else "[red]not valid[/red]"
            for column in columns
        ]
        table.add_row(label, *cells, style="dim" if entry.invalid else None)
    return table


def _notes(found: Sequence[Entry]) -> list[str]:
    notes = [f"{entry.label}, {entry.row.model}: {note}" for entry in found for note in entry.row.notes]
    notes += dict.fromkeys(
        f"{entry.label}: {entry.row.cost_per_100k.reasons['sequential']}"
        for entry in found
        if entry.row.worker is None and "sequential" in entry.row.cost_per_100k.reasons
    )
    return notes


def _print_checks(run: Run, console: Console, several: bool) -> None:
    name = f"{escape(run.name)}: " if several else ""
    for check in run.file.checks:
        if check.status != "PASS":
            colour = "red" if check.status == "FAIL" else "yellow"
            said = f"{check.name} {check.value}, asked {check.threshold}{f': {check.detail}' if check.detail else ''}"
            console.print(f"[{colour}]{check.status}[/{colour}] {name}{escape(said)}")
    if not run.file.valid:
        console.print(f"[bold red]{name}NOT VALID: this run says nothing about the hardware.[/bold red]")


def _print_choice(choice: Choice, console: Console) -> None:
    console.print(f"\n[bold]{escape(choice.model)}[/bold]: {escape(choice.sentence)}")
    for step in choice.steps:
        console.print(f"  {step.name}: {len(step.kept)} of {len(step.kept) + len(step.losers)} pass")
        for mark, who in (("out", step.losers), ("note", step.remarks)):
            for entry in who:
                console.print(f"    {mark}: {escape(entry.label)}: {escape(entry.reason)}")


def write_report(
    runs: Run | Sequence[Run],
    out_dir: Path,
    slo: Slo | None = None,
    catalogue: Catalogue | None = None,
) -> Path:
    """Writes report.html, one file that needs no network, with chart.svg and chart.png beside it; returns its path."""
    runs = [runs] if isinstance(runs, Run) else list(runs)
    slo = slo_of(runs, slo)
    found = entries(runs, "combination", slo, catalogue)
    valid = [entry for entry in found if not entry.invalid]
    models = list(dict.fromkeys(entry.row.model for entry in valid))
    out_dir.mkdir(parents=True, exist_ok=True)
    charts = []
    for model in models:
        rows = [entry for entry in valid if entry.row.model == model]
        charts.append(
            {
                "model": model,
                "cost": _both(
                    f"Cost and latency of {model}", lambda width, rows=rows: cost_and_latency(rows, slo, width)
                ),
                "priced": any(entry.row.cost_per_100k.sequential is not None for entry in rows),
                "reasons": list(dict.fromkeys(entry.row.cost_per_100k.reasons.get("sequential", "") for entry in rows)),
                "kinds": list(dict.fromkeys((entry.row.kind, entry.kind) for entry in rows)),
                "simulated": any(entry.row.simulated for entry in rows),
                **_curves(model, rows, slo),
            }
        )
    if models:
        pictures = [
            (model, cost_and_latency([entry for entry in valid if entry.row.model == model], slo, _WIDE))
            for model in models
        ]
        label = "Cost per 100,000 inferences and latency"
        (out_dir / "chart.svg").write_text(stacked(pictures).svg(label, style=True), encoding="utf-8")
        write_png(out_dir / "chart.png", valid, slo)
    text = _template().render(
        runs=runs,
        title=title(runs),
        unsure=any(not run.file.valid or any(c.status != "PASS" for c in run.file.checks) for run in runs),
        slo=slo,
        entries=found,
        ordinals=entries(runs, "ordinal", slo, catalogue),
        choices=choices(found, slo),
        charts=charts,
        notes=_notes(found),
        conditions=_conditions(runs),
        judged=PERCENTILES[judged_percentile(slo)[0]],
        judged_name=f"P{judged_percentile(slo)[0]:g}",
        columns=_latency_columns() + _cost_columns(slo),
        style=STYLE,
    )
    path = out_dir / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _both(label: str, draw: Any) -> str:
    """A picture at three widths; the style sheet shows one of them."""
    pictures: list[tuple[str, Picture | None]] = [
        ("wide", draw(_WIDE)),
        ("middle", draw(_MIDDLE)),
        ("narrow", draw(_NARROW)),
    ]
    return "".join(picture.svg(label, variant) for variant, picture in pictures if picture)


def _curves(model: str, rows: Sequence[Entry], slo: Slo | None) -> dict[str, Any]:
    curves = []
    for entry in rows:
        histogram = entry.run.histogram(entry.row, "latency")
        if histogram is not None:
            curves.append((entry.label, histogram, entry.row.due - entry.row.answered))
    shown = curves[:_MOST_CURVES]
    svg = _both(f"Latency by percentile of {model}", lambda width: by_percentile(shown, slo, width))
    return {
        "percentiles": svg,
        "curves": [(index, name) for index, (name, _histogram, _beyond) in enumerate(shown)],
        "left_out": len(curves) - len(shown),
        "dashes": DASHES,
    }


def _conditions(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each condition with what it was: once where all runs share it, else beside each run's name."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        file = run.file
        said = {
            "started": f"{file.started:%Y-%m-%d %H:%M:%S %Z}".strip(),
            "measured": f"{file.duration_s:.4g} s",
            "arrivals": file.arrivals,
            **file.conditions,
        }
        for name, value in said.items():
            found.setdefault(name, {})[run.name] = value
    rows = []
    for name, values in found.items():
        shared = len(set(values.values())) == 1 and len(values) == len(runs)
        rows.append((name, [("", next(iter(values.values())))] if shared else list(values.items())))
    return rows


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("capacity"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ms"] = ms
    environment.filters["hourly"] = lambda row: hourly(row.price_per_hour, row.currency)
    environment.filters["cost"] = _cost
    environment.filters["size"] = lambda count: size(count) if count else "–"
    return environment.get_template("report.html")
