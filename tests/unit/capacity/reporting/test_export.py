"""The rows as CSV, JSON, Markdown and Parquet agree with run.json, from the command line."""

import csv
import importlib
import io
import json
import sys
from pathlib import Path

import pytest
from unit.capacity.reporting.test_report import ARTICLE, FAILED, PASSED, make, run_main

from capacity.pricing import labeled_rows
from capacity.reporting import write_parquet
from capacity.statistics import Slo


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_csv_has_a_record_for_each_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path / "a", ARTICLE, errors=3, simulated=True)
    assert run_main(monkeypatch, "report", "a", "--slo", "p99=40ms", "--format", "csv") == 0
    records = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    by_name = {row.hardware: row for row in run.file.rows}
    assert len(records) == len(by_name) == 3
    for record in records:
        row = by_name[record["hardware"]]
        assert float(record["latency_us_p90"]) == row.latency_us.p90
        assert float(record["cost_per_100k_sequential"]) == row.cost_per_100k.sequential
        assert record["cost_per_100k_saturated"] == ""
        assert record["cost_per_100k_saturated_reason"] == row.cost_per_100k.reasons["saturated"]
        assert (record["errors"], record["errors_by_code"]) == ("3", "UNAVAILABLE=3")
        assert (record["simulated"], record["valid"], record["slo"]) == ("True", "True", "p99=40ms")
    assert not (tmp_path / "a" / "report.html").exists()


def test_json_has_the_rows_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path / "a", ARTICLE)
    assert run_main(monkeypatch, "report", "a", "--format", "json", "--by", "target") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    output = [(row["target"], row["latency_us"]["p90"]) for row in rows]
    assert output == [(row.target, row.latency_us.p90) for row in run.file.target_rows]


def test_markdown_has_the_table_the_prices_and_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", ARTICLE, simulated=True)
    assert run_main(monkeypatch, "report", "a", "--format", "markdown", "--out", "doc") == 0
    assert capsys.readouterr().out == "markdown: doc/report.md\n"
    text = (tmp_path / "doc" / "report.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "| c5.large + eia2.medium (simulated) | 1,000 |" in text
    assert "**gpt**: c5.large + eia2.medium (simulated): the lowest sequential price" in text
    assert "c5.large + eia2.medium: $0.205 an hour (host: on-demand, 2020; accelerator: on-demand, 2020)" in text


def test_markdown_shows_no_figure_of_an_invalid_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", ARTICLE[:1], checks=[PASSED, FAILED])
    assert run_main(monkeypatch, "report", "a", "--format", "markdown") == 0
    text = capsys.readouterr().out
    assert "**a is not valid:** this run is no result about the hardware." in text
    assert "8.7" not in text


def test_parquet_has_the_columns_of_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra 'parquet', is not installed")
    run = make(tmp_path / "a", ARTICLE)
    assert run_main(monkeypatch, "report", "a", "--format", "parquet") == 0
    records = parquet.read_table(tmp_path / "a" / "report.parquet").to_pylist()
    assert {record["hardware"]: record["latency_us_p90"] for record in records} == {
        row.hardware: row.latency_us.p90 for row in run.file.rows
    }


def test_parquet_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = labeled_rows([make(tmp_path / "a", ARTICLE)])
    with pytest.raises(ValueError, match=r"Parquet needs pyarrow: pip install 'inferload\[parquet\]'"):
        write_parquet(tmp_path / "x.parquet", result, Slo.parse("p90=15ms"))
    with pytest.raises(ImportError):
        importlib.import_module("pyarrow")


def test_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", ARTICLE)
    assert run_main(monkeypatch, "report", "a", "--format", "xlsx") == 2
    line = "error: --format xlsx: unknown format (choose csv, json, markdown, parquet)\n"
    assert capsys.readouterr().err == line
