"""report.html, one file with its charts: the measurements, the checks, and the choice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from capacity.comparison import target_pools
from capacity.pricing import (
    Catalogue,
    LabeledRow,
    choose_per_model,
    format_bytes,
    format_hourly,
    labeled_rows,
    shared_slo,
)
from capacity.reporting import templates
from capacity.reporting.charts import (
    DASHES,
    STYLE,
    Chart,
    Curve,
    Panel,
    charted_probes,
    cost_latency_chart,
    describe_search,
    draw_over_time,
    format_rate,
    pareto_chart,
    percentile_chart,
    rate_chart,
    run_panels,
    search_chart,
    stack_charts,
    time_share_chart,
    write_cost_png,
)
from capacity.reporting.columns import cost_columns, format_cost, latency_columns, notes
from capacity.reporting.formatting import (
    PERCENTILES,
    describe_arrivals,
    dominated_rows,
    format_ms,
    pareto_front,
    shown_percentile,
)
from capacity.reporting.target_comparison import throughput_chart
from capacity.rundir import HLOG_NAME, JSON_NAME, TELEMETRY_MEASURES, TELEMETRY_NAME, Run, WindowStatistics
from capacity.statistics import Slo
from worker.wire import display_duration

# The page shows the widest chart that fits, and paper the middle one.
_WIDE, _MIDDLE, _NARROW = 1176, 720, 364
# A chart has at most as many curves as there are dash patterns.
_MOST_CURVES = len(DASHES)
# What is sampled beside accelerators.
_PROCESSES = ("cpu", "generator", "worker")


def write_report(
    runs: Run | Sequence[Run],
    out_dir: Path,
    slo: Slo | None = None,
    catalogue: Catalogue | None = None,
) -> Path:
    """Writes report.html, one file that needs no network, with chart.svg and chart.png beside it; returns its path."""
    runs = [runs] if isinstance(runs, Run) else list(runs)
    slo = shared_slo(runs, slo)
    entries = labeled_rows(runs, "combination", slo, catalogue)
    valid = [entry for entry in entries if not entry.invalid]
    models = list(dict.fromkeys(entry.row.model for entry in valid))
    out_dir.mkdir(parents=True, exist_ok=True)
    charts = []
    for model in models:
        rows = [entry for entry in valid if entry.row.model == model]
        charts.append(
            {
                "model": model,
                "cost": _at_all_widths(
                    f"Cost and latency of {model}", lambda width, rows=rows: cost_latency_chart(rows, slo, width)
                ),
                "priced": any(entry.row.cost_per_100k.sequential is not None for entry in rows),
                "reasons": list(dict.fromkeys(entry.row.cost_per_100k.reasons.get("sequential", "") for entry in rows)),
                "kinds": list(dict.fromkeys((entry.row.kind, entry.kind) for entry in rows)),
                "simulated": any(entry.row.simulated for entry in rows),
                **_percentile_curves(model, rows, slo),
                **_other_charts(model, rows, slo),
            }
        )
    if models:
        pictures = [
            (model, cost_latency_chart([entry for entry in valid if entry.row.model == model], slo, _WIDE))
            for model in models
        ]
        label = "Cost per 100,000 inferences and latency"
        (out_dir / "chart.svg").write_text(stack_charts(pictures).svg(label, style=True), encoding="utf-8")
        write_cost_png(out_dir / "chart.png", valid, slo)
    text = _template().render(
        runs=runs,
        title=describe_arrivals(runs),
        events=[(run.name if len(runs) > 1 else "", event) for run in runs for event in run.file.events],
        show_each=any(not run.file.valid or any(c.status != "PASS" for c in run.file.checks) for run in runs),
        slo=slo,
        entries=entries,
        target_rows=labeled_rows(runs, "target", slo, catalogue),
        choices=choose_per_model(entries, slo),
        charts=charts,
        notes=notes(entries),
        pools=[
            (
                pool,
                _at_all_widths(
                    f"Throughput of each target of {pool.entry.label}",
                    lambda width, pool=pool: throughput_chart(pool, width),
                ),
            )
            for pool in target_pools(entries)
        ],
        files=_files(runs, out_dir),
        conditions=_conditions(runs),
        prices=list(
            dict.fromkeys(
                (
                    entry.label,
                    f"{format_hourly(entry.row.price_per_hour, entry.row.currency)} an hour ({entry.row.price_note})",
                )
                for entry in entries
                if entry.row.price_per_hour is not None
            )
        ),
        searches=_searches(runs),
        percentile=PERCENTILES[shown_percentile(slo)[0]],
        percentile_name=f"P{shown_percentile(slo)[0]:g}",
        columns=latency_columns() + cost_columns(slo, entries),
        style=STYLE,
    )
    path = out_dir / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _at_all_widths(label: str, draw: Any) -> str:
    """A chart at three widths, of which the style sheet shows one."""
    pictures: list[tuple[str, Chart | None]] = [
        ("wide", draw(_WIDE)),
        ("middle", draw(_MIDDLE)),
        ("narrow", draw(_NARROW)),
    ]
    return "".join(picture.svg(label, variant) for variant, picture in pictures if picture)


def _searches(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The searches of all runs: chart, sentence and probes."""
    return [
        {
            "search": search,
            "name": f"{search.hardware}, {search.model}{f' ({run.name})' if len(runs) > 1 else ''}",
            "chart": _at_all_widths(
                f"Rate and latency of {search.hardware}, {search.model}",
                lambda width, search=search: search_chart(search, width),
            ),
            "sentence": describe_search(search),
            "left_out": len(search.probes) - len(charted_probes(search)),
            "percentile_name": f"P{shown_percentile(Slo.parse(search.slo) if search.slo else None)[0]:g}",
        }
        for run in runs
        for search in run.file.searches
    ]


def _percentile_curves(model: str, rows: Sequence[LabeledRow], slo: Slo | None) -> dict[str, Any]:
    curves = []
    parts = len(rows) == 1 and rows[0].run.file.arrivals != "closed"
    for entry in rows:
        histogram = entry.run.histogram(entry.row, "latency")
        if histogram is not None:
            curves.append((entry.label, histogram, entry.row.due - entry.row.answered))
        # The chart of a single row has space for the parts of its latency; in a closed loop lateness is 0.
        for measure, beyond in (("service", sum(entry.row.errors.values())), ("lateness", 0)) if parts else ():
            if (part := entry.run.histogram(entry.row, measure)) is not None:
                curves.append((measure, part, beyond))
    shown = curves[:_MOST_CURVES]
    svg = _at_all_widths(f"Latency by percentile of {model}", lambda width: percentile_chart(shown, slo, width))
    return {
        "percentiles": svg,
        "parts": parts,
        "curves": [(index, name) for index, (name, _histogram, _beyond) in enumerate(shown)],
        "left_out": len(curves) - len(shown),
        "dashes": DASHES,
    }


def _other_charts(model: str, rows: Sequence[LabeledRow], slo: Slo | None) -> dict[str, Any]:
    """The charts over time, of the parts of the mean latency, of rates, and of the Pareto front."""
    drawn: list[LabeledRow] = []
    lines: list[WindowStatistics] = []
    offered: list[float | None] = []
    panels: list[Panel] = []
    for entry in rows:
        timeline = entry.run.timeline
        members = entry.run.members(entry.row)
        if timeline is not None and members and len(drawn) < _MOST_CURVES:
            drawn.append(entry)
            lines.append(timeline.statistics(members))
            offered.append(None if entry.run.file.arrivals == "closed" else entry.row.offered_rps)
    marks = [(event.at_s, event.state == "down") for entry in drawn for event in entry.run.file.events]
    if lines:
        panels = [*run_panels(lines, slo, offered), *_telemetry_panels(drawn)]
    return {
        "over_time": _at_all_widths(f"{model} over time", lambda width: draw_over_time(panels, width, marks)),
        "marks": marks,
        "timed": [(index, entry.label) for index, entry in enumerate(drawn)],
        "shares": _at_all_widths(
            f"Where the mean latency of {model} goes", lambda width: time_share_chart(rows, width)
        ),
        "rates": _at_all_widths(f"Offered and answered requests of {model}", lambda width: rate_chart(rows, width)),
        "pareto": _at_all_widths(f"Price and P90 of {model}", lambda width: pareto_chart(rows, width)),
        "front": [entry.label for entry in pareto_front(rows)],
        "dominated": [(entry.label, by.label) for entry, by in dominated_rows(rows)],
    }


def _telemetry_panels(drawn: Sequence[LabeledRow]) -> list[Panel]:
    """A panel for each sampled measure; the devices of a run have its colour."""
    panels = []
    for measure, heading in TELEMETRY_MEASURES.items():
        lines: list[tuple[int, str, list[tuple[float, float]]]] = []
        for number, entry in enumerate(drawn):
            start, end = entry.run.measured_from_s, entry.run.measured_from_s + entry.run.file.duration_s
            sampled: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
            for sample in entry.run.telemetry:
                if sample.reading.measure == measure and start <= sample.seconds <= end:
                    value = sample.reading.value / (2**30 if measure.endswith("bytes") else 1)
                    key = (sample.host, sample.reading.device, sample.reading.id)
                    sampled.setdefault(key, []).append((sample.seconds - start, value))
            lines += [(number, device, points) for (_host, device, _id), points in sampled.items()]
        # Accelerators stand out where any are sampled, else the processes that compute.
        devices = {device for _number, device, _points in lines}
        main_devices = devices.difference(_PROCESSES) or devices & {"worker"} or devices
        curves = [Curve(number, points, device not in main_devices) for number, device, points in lines]
        if curves:
            name = "workers" if main_devices == {"worker"} else "accelerators"
            thin = f": {name}, and (thin) other devices" if any(curve.thin for curve in curves) else ""
            panels.append(Panel(f"{heading}{thin}", curves))
    return panels


def _files(runs: Sequence[Run], out_dir: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """The raw data files of each run: their names and their paths from the report."""
    links = []
    for run in runs:
        names = [name for name in (JSON_NAME, HLOG_NAME, TELEMETRY_NAME) if (run.directory / name).is_file()]
        relative = Path(os.path.relpath(run.directory.resolve(), out_dir.resolve()))
        links.append((run.name, [(name, quote((relative / name).as_posix())) for name in names]))
    return links


def _conditions(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each condition with its value: once where all runs share it, else beside each run's name."""
    by_name: dict[str, dict[str, str]] = {}
    for run in runs:
        file = run.file
        conditions = {
            "started": f"{file.started:%Y-%m-%d %H:%M:%S %Z}".strip(),
            "measured": display_duration(file.duration_s),
            "arrivals": file.arrivals,
            **file.conditions,
        }
        for name, value in conditions.items():
            by_name.setdefault(name, {})[run.name] = value
    rows = []
    for name, values in by_name.items():
        shared = len(set(values.values())) == 1 and len(values) == len(runs)
        rows.append((name, [("", next(iter(values.values())))] if shared else list(values.items())))
    return rows


@cache
def _template() -> Any:
    environment = templates.environment()
    environment.filters["ms"] = format_ms
    environment.filters["rate"] = format_rate
    environment.filters["hourly"] = lambda row: format_hourly(row.price_per_hour, row.currency)
    environment.filters["cost"] = format_cost
    environment.filters["size"] = lambda count: format_bytes(count) if count else "–"
    return environment.get_template("report.html")
