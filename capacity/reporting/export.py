"""The rows of a report as CSV, JSON, Markdown or Parquet, for other programs and documents."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from capacity.errors import InputError
from capacity.pricing import LabeledRow, choose_per_model
from capacity.reporting.columns import Column, cost_columns, latency_columns, notes
from capacity.reporting.formatting import describe_arrivals
from capacity.reporting.target_comparison import slower_targets
from capacity.rundir import Run
from capacity.statistics import Slo

EXPORT_FORMATS = ("csv", "json", "markdown", "parquet")
_SUFFIXES = {"markdown": "md"}
_FIGURES = ("samples", "beyond", "mean", "min", "p50", "p90", "p95", "p99", "p999", "max")
_INTERVALS = ("mean_interval", "p90_interval", "p99_interval")
_MEASURES = ("latency_us", "service_us", "lateness_us", "queue_us", "compute_us")
_PLAIN = (
    *("hardware", "host", "accelerator", "count", "hosts", "kind", "model", "target", "simulated"),
    *("due", "requests", "answered", "unsent", "offered_rps", "throughput_rps"),
    *("first_inference_us", "first_request_us", "memory_bytes", "price_per_hour", "currency", "price_note"),
    *("verdict", "more_seconds", "autocorrelation_time", "joules_per_inference"),
)
_PRICES = ("sequential", "saturated", "at_slo")


def export_file_name(kind: str) -> str:
    """The file's name in this format."""
    return f"report.{_SUFFIXES.get(kind, kind)}"


def export_text(kind: str, runs: Sequence[Run], entries: Sequence[LabeledRow], slo: Slo | None) -> str:
    """The rows as `csv`, `json` or `markdown`."""
    if kind == "csv":
        return _csv(entries, slo)
    if kind == "json":
        return json.dumps({"rows": [_nested(entry) for entry in entries]}, indent=1, ensure_ascii=False) + "\n"
    return _markdown(runs, entries, slo)


def write_parquet(path: Path, entries: Sequence[LabeledRow], slo: Slo | None) -> None:
    """The rows as Parquet, with the columns of the CSV. InputError without pyarrow, the extra `parquet`."""
    try:
        # By name: an extra, and mypy would ask for its types where it is not installed.
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'inferload[parquet]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist([flat(entry, slo) for entry in entries]), path)


def flat(entry: LabeledRow, slo: Slo | None) -> dict[str, Any]:
    """A row as one record: scalars only, the same keys for each; `latency_us_p90`, `cost_per_100k_sequential`, …"""
    row = entry.row
    record: dict[str, Any] = {"run": entry.run.name, "started": entry.run.file.started.isoformat()}
    record |= {"valid": entry.run.file.valid, "invalid": entry.invalid, "slo": str(slo) if slo else None}
    record |= {name: getattr(row, name) for name in _PLAIN}
    record["errors"] = sum(row.errors.values())
    record["errors_by_code"] = " ".join(f"{code}={count}" for code, count in row.errors.items())
    for measure in _MEASURES:
        figures = getattr(row, measure)
        record |= {f"{measure}_{name}": getattr(figures, name) for name in _FIGURES}
        for name in _INTERVALS:
            low, high = getattr(figures, name) or (None, None)
            record |= {f"{measure}_{name}_low": low, f"{measure}_{name}_high": high}
    for name in _PRICES:
        record[f"cost_per_100k_{name}"] = getattr(row.cost_per_100k, name)
        record[f"cost_per_100k_{name}_reason"] = row.cost_per_100k.reasons.get(name)
    low, high = row.cost_per_100k.sequential_interval or (None, None)
    record |= {"cost_per_100k_sequential_low": low, "cost_per_100k_sequential_high": high}
    record["notes"] = "; ".join(row.notes)
    return record


def _csv(entries: Sequence[LabeledRow], slo: Slo | None) -> str:
    records = [flat(entry, slo) for entry in entries]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]) if records else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _nested(entry: LabeledRow) -> dict[str, Any]:
    record = {"run": entry.run.name, "valid": entry.run.file.valid, "invalid": entry.invalid}
    return record | entry.row.model_dump(mode="json")


def _markdown(runs: Sequence[Run], entries: Sequence[LabeledRow], slo: Slo | None) -> str:
    lines = [f"{describe_arrivals(runs)}.", ""]
    lines += [
        f"**{run.name} is not valid:** this run is no result about the hardware." for run in runs if not run.file.valid
    ]
    columns = latency_columns() + cost_columns(slo, entries)
    for model in dict.fromkeys(entry.row.model for entry in entries):
        lines += ["", f"| {_cell(model)} | {' | '.join(_cell(column.name) for column in columns)} |"]
        lines.append(f"|:---|{'---:|' * len(columns)}")
        lines += [_line(entry, columns) for entry in entries if entry.row.model == model]
    remarks = [*notes(entries), *slower_targets(entries)]
    lines += ["", *(f"- {_cell(remark)}" for remark in remarks)] if remarks else []
    for choice in choose_per_model(entries, slo) if entries and entries[0].row.target is None else ():
        lines += ["", f"**{_cell(choice.model)}**: {_cell(choice.sentence)}", ""]
        for step in choice.steps:
            lines.append(f"- {step.name}: {len(step.remaining)} of {len(step.remaining) + len(step.excluded)}")
            lines += [f"  - {_cell(entry.label)}: {_cell(entry.reason)}" for entry in (*step.excluded, *step.remarks)]
    return "\n".join(lines).strip() + "\n"


def _line(entry: LabeledRow, columns: Sequence[Column]) -> str:
    cells = ["not valid" if column.result and entry.invalid else column.of(entry.row) for column in columns]
    mark = " (simulated)" if entry.row.simulated else ""
    return f"| {_cell(entry.label)}{mark} | {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(words: str) -> str:
    """Escapes what would end a cell or be markup."""
    for mark in "\\|<>*_`[]":
        words = words.replace(mark, f"\\{mark}")
    return " ".join(words.split())
