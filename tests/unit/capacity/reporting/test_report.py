"""What the report says: validity first, conditions, every figure of a valid row, and no figure of an invalid one."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from capacity.__main__ import main
from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue, choose_per_model, labeled_rows, shared_slo
from capacity.reporting import print_table, write_report
from capacity.rundir import IntervalLogWriter, Run, TargetInfo, build_run_file, series_tag
from capacity.statistics import Check, Slo

PASSED = Check(name="lateness", value="0.1 ms", threshold="under 1 ms", status="PASS")
FAILED = Check(name="lateness", value="12 ms", threshold="under 1 ms", status="FAIL", detail="it fell behind")


def make(
    directory: Path,
    rows: Sequence[tuple[str, float]],
    *,
    models: Sequence[str] = ("gpt",),
    n: int = 1000,
    checks: Sequence[Check] = (PASSED,),
    slo: str | None = "p90=15ms",
    simulated: bool = False,
    arrivals: str = "closed",
    log: bool = True,
    errors: int = 0,
) -> Run:
    """A run directory of rows (combination, mean ms), latencies normal about the mean."""
    generator = np.random.default_rng(3)
    tallies, workers = {}, []
    for name, mean in rows:
        hardware = HardwareCombination.parse(name)
        for model in models:
            for ordinal in range(hardware.count):
                series = Series(hardware, model, f"x:{ordinal} @ 10.0.0.{len(tallies)}:1", simulated)
                tally = Tally(n + errors, n, 0, {"UNAVAILABLE": errors} if errors else {})
                tally.histograms["latency"].record_ns((generator.normal(mean, mean / 50, n) * 1e6).astype(np.int64))
                tallies[series] = tally
                workers.append(TargetInfo(label=series.target, address="a", model=model, first_inference_us=77_000))
    file = build_run_file(
        started=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        options={"arrivals": arrivals},
        conditions={"input": "input_ids INT64 (1, 7)", "made by": "<script>alert(1)</script>"},
        targets=workers,
        tallies=tallies,
        warmups={},
        first_requests_ns={},
        duration_s=1000.0,
        slo=Slo.parse(slo) if slo else None,
        catalogue=Catalogue.load(),
        checks=list(checks),
        generators=[],
    )
    file.save(directory)
    if log:
        with IntervalLogWriter(directory / "run.hlog", 0.0) as writer:
            for series, tally in tallies.items():
                writer.write(0, 1000, series_tag(series, "latency"), tally.histograms["latency"])
    return Run.load(directory)


ARTICLE = (("c5.large + eia2.large", 8.77), ("c5.large + eia2.medium", 10.03), ("c5.xlarge", 30.0))


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(runs: Run | list[Run], width: int = 200, window: bool = False, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=window, color_system=None)
    print_table(runs, console, **options)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def row_of(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name).split()


def test_the_table_has_every_figure_of_the_article(tmp_path: Path) -> None:
    text = printed(make(tmp_path / "a", ARTICLE))
    requests, errors, rate, mean, p50, p90, p95, p99, first, memory, price, cost, meets = row_of(
        text, "c5.large + eia2.medium"
    )
    assert (requests, errors, rate, first, memory, price, cost, meets) == (
        "1,000",
        "0",
        "1.0",
        "77.0",
        "–",
        "$0.205",
        "$0.06",
        "yes",
    )
    assert float(mean) == pytest.approx(10.03, rel=0.01)
    assert float(p50) < float(p90) < float(p95) < float(p99) < 11
    assert row_of(text, "c5.large + eia2.large")[-2:] == ["$0.08", "yes"]
    assert row_of(text, "c5.xlarge")[-1] == "no"
    assert "Closed loop: due = sent" in text
    assert "gpt: c5.large + eia2.medium: the lowest sequential price under p90=15ms, $0.06 per 100,000" in text
    assert "excluded: c5.xlarge: P90 30" in text


def test_a_narrow_terminal_loses_no_column(tmp_path: Path) -> None:
    text = printed(make(tmp_path / "a", ARTICLE, simulated=True), width=80, window=True)
    for column in ("requests", "errors", "mean ms", "P50", "P90", "P95", "P99", "memory", "price/h", "per 100,000"):
        assert column in text
    assert "simulated" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_without_a_window_each_sentence_of_the_choice_is_one_line(tmp_path: Path) -> None:
    text = printed(make(tmp_path / "a", ARTICLE), width=60)
    assert "gpt: c5.large + eia2.medium: the lowest sequential price under p90=15ms, $0.06 per 100,000" in text
    wrapped = printed(make(tmp_path / "b", ARTICLE), width=60, window=True)
    assert max(len(line) for line in wrapped.splitlines()) <= 60


def test_where_a_price_comes_from_is_said(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[hosts."c5.xlarge"]\nprice = 0.17\nnote = "assumed by make demo"\n')
    run = make(tmp_path / "a", ARTICLE[2:])
    output = "c5.xlarge: $0.17 an hour (host: on-demand, assumed by make demo)"
    assert output in printed(run, catalogue=Catalogue.load(own))
    html = write_report(run, tmp_path / "out", catalogue=Catalogue.load(own)).read_text()
    assert output in html


def test_a_sample_too_small_says_how_many_are_needed(tmp_path: Path) -> None:
    text = printed(make(tmp_path / "a", ARTICLE[:1], n=28), width=400)
    assert "not enough samples (28 < 29)" in text
    assert "not enough samples (28 < 299)" in text
    assert "inconclusive" in text


def test_by_target_has_a_row_for_each_worker(tmp_path: Path) -> None:
    run = make(tmp_path / "a", [("c5.large + 2 × eia2.medium", 10.0)])
    assert [entry.label for entry in labeled_rows([run], "target")] == [
        "c5.large + eia2.medium, x:0 @ 10.0.0.0:1",
        "c5.large + eia2.medium, x:1 @ 10.0.0.1:1",
    ]
    text = printed(run, by="target")
    assert "x:1 @ 10.0.0.1:1" in text
    assert row_of(printed(run), "c5.large + 2 × eia2.medium")[0] == "2,000"
    with pytest.raises(ValueError, match="--by worker: expected combination or target"):
        printed(run, by="worker")


def test_an_invalid_run_shows_its_reason_and_no_figure(tmp_path: Path) -> None:
    run = make(tmp_path / "a", ARTICLE[:1], checks=[PASSED, FAILED])
    text = printed(run)
    assert "NOT VALID" in text
    assert "FAIL lateness 12 ms (expected under 1 ms): it fell behind" in text
    assert "8.7" not in text
    assert "$0.08" not in text
    assert "No run is valid" in text
    html = write_report(run, tmp_path / "out").read_text()
    assert "Not valid" in html
    assert "it fell behind" in html
    assert "<svg" not in html
    assert "$0.08" not in html
    assert not (tmp_path / "out" / "chart.svg").exists()


def test_runs_stand_side_by_side_and_are_kept_apart_by_name(tmp_path: Path) -> None:
    first, second = make(tmp_path / "mon", ARTICLE[:2]), make(tmp_path / "tue", ARTICLE[1:])
    labels = [entry.label for entry in labeled_rows([first, second])]
    assert sorted(labels) == [
        "c5.large + eia2.large",
        "c5.large + eia2.medium (mon)",
        "c5.large + eia2.medium (tue)",
        "c5.xlarge",
    ]
    html = write_report([first, second], tmp_path / "out").read_text()
    assert "What 2 runs measured" in html
    assert "All 2 runs are valid" in html
    assert "c5.large + eia2.medium (tue)" in html
    with pytest.raises(ValueError, match="two runs are called 'mon'"):
        labeled_rows([first, make(tmp_path / "other" / "mon", ARTICLE[:1])])


def test_each_model_has_its_own_choice(tmp_path: Path) -> None:
    run = make(tmp_path / "a", ARTICLE, models=("gpt", "resnet18"))
    result = choose_per_model(labeled_rows([run]), Slo.parse("p90=15ms"))
    assert [(choice.model, choice.winner.label if choice.winner else None) for choice in result] == [
        ("gpt", "c5.large + eia2.medium"),
        ("resnet18", "c5.large + eia2.medium"),
    ]


def test_another_slo_judges_anew_from_the_log(tmp_path: Path) -> None:
    run = make(tmp_path / "a", ARTICLE)
    (choice,) = choose_per_model(labeled_rows([run], slo=Slo.parse("p90=9.5ms")), Slo.parse("p90=9.5ms"))
    assert choice.winner is not None
    assert choice.winner.label == "c5.large + eia2.large"
    bare = make(tmp_path / "b", ARTICLE, log=False)
    assert "$0.06" in printed(bare)
    with pytest.raises(ValueError, match=r"cannot be judged by p90=9\.5ms: it has no run\.hlog"):
        labeled_rows([bare], slo=Slo.parse("p90=9.5ms"))


def test_another_catalogue_prices_anew(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[combinations."c5.large + eia2.large"]\nprice = 0.01\n')
    run = make(tmp_path / "a", ARTICLE)
    (choice,) = choose_per_model(labeled_rows([run], catalogue=Catalogue.load(own)), None)
    assert choice.winner is not None
    assert choice.winner.label == "c5.large + eia2.large"


def test_runs_of_different_slos_need_one_that_counts(tmp_path: Path) -> None:
    runs = [make(tmp_path / "a", ARTICLE[:1]), make(tmp_path / "b", ARTICLE[:1], slo=None)]
    with pytest.raises(ValueError, match="different SLOs, none and p90=15ms: choose one with --slo"):
        shared_slo(runs, None)
    assert shared_slo(runs, Slo.parse("p99=1s")) == Slo.parse("p99=1s")
    assert shared_slo(runs[1:], None) is None


def test_the_report_is_one_file_that_needs_no_network(tmp_path: Path) -> None:
    run = make(tmp_path / "a", ARTICLE, simulated=True, errors=4)
    html = write_report(run, tmp_path / "out").read_text()
    assert not re.search(r"""src\s*=|@import|url\((?!#)""", html)
    # Its only links, but for the icon that it has none of, are to the raw data beside it.
    assert re.findall(r'href="([^"]*)"', html) == ["data:,", "../a/run.json", "../a/run.hlog"]
    assert "<script" not in html
    assert "$0.205 an hour (host: on-demand, 2020; accelerator: on-demand, 2020)" in html
    assert html.index("<b>Valid<") < html.index("The choice") < html.index("Conditions") < html.index("The table")
    for output in (
        "input_ids INT64 (1, 7)",
        "They are no measurements",
        "4 UNAVAILABLE",
        "77.0",
        "prefers-color-scheme",
    ):
        assert output in html


def test_pictures_are_well_formed_and_say_what_they_show(tmp_path: Path) -> None:
    run = make(tmp_path / "a", ARTICLE, models=("gpt", "a & b"))
    html = write_report(run, tmp_path / "out").read_text()
    pictures = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len([picture for picture in pictures if "role" in picture]) == 30
    for picture in pictures:
        ET.fromstring(picture)
    chart = ET.fromstring((tmp_path / "out" / "chart.svg").read_text())
    texts = [element.text for element in chart.iter() if element.tag.endswith("text")]
    for output in ("a & b", "gpt", "SLO 15ms", "$0.06", "$0.08", "Elastic Inference", "c5.xlarge"):
        assert output in texts
    assert (tmp_path / "out" / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_without_any_price_there_are_no_bars_and_the_reason_is_said(tmp_path: Path) -> None:
    run = make(tmp_path / "a", [("laptop + cpu-1c", 5.0), ("server + cpu-1c", 6.0)])
    html = write_report(run, tmp_path / "out").read_text()
    assert "No bars of cost, because there is no price: no price for the host &#39;laptop&#39;" in html
    assert "<rect x=" not in html
    assert "P90 latency, ms" in html
    assert "No price is known" in printed(run)


def test_a_percentile_beyond_all_answered_says_so(tmp_path: Path) -> None:
    text = printed(make(tmp_path / "a", ARTICLE[:1], errors=500), width=400)
    assert "beyond all answered" in text


def test_one_open_row_shows_what_its_latency_is_made_of(tmp_path: Path) -> None:
    run = make(tmp_path / "a", ARTICLE[:1], arrivals="poisson")
    ((series, _measure),) = run.histograms
    with IntervalLogWriter(run.directory / "run.hlog", 0.0) as writer:
        for measure in ("latency", "service", "lateness"):
            writer.write(0, 1000, series_tag(series, measure), run.histograms[series, "latency"])
    html = write_report(Run.load(run.directory), tmp_path / "out").read_text()
    assert "the difference is lateness" in html
    assert re.search(r"</svg>service</li>", html)
    assert "the difference is lateness" not in write_report(make(tmp_path / "b", ARTICLE), tmp_path / "o").read_text()


def test_open_loops_are_called_so(tmp_path: Path) -> None:
    closed, poisson = make(tmp_path / "a", ARTICLE[:1]), make(tmp_path / "b", ARTICLE[:1], arrivals="poisson")
    assert "Open loop: latency counts from when a request was due" in printed(poisson)
    assert "in the closed ones due = sent" in printed([closed, poisson])


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["capacity", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", ARTICLE)
    make(tmp_path / "b", ARTICLE)
    assert run_main(monkeypatch, "report", "a") == 0
    assert "report: a/report.html" in capsys.readouterr().out
    assert (tmp_path / "a" / "report.html").is_file()
    assert run_main(monkeypatch, "report", "a", "b", "--by", "target", "--slo", "p99=40ms,errors=1%", "--out", "o") == 0
    assert (tmp_path / "o" / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["none"], "none is not a run directory"),
        (["a", "--slo", "p90"], "'p90' in the SLO 'p90' is not like"),
        (["a", "--catalogue", "none.toml"], "the catalogue none.toml cannot be read"),
        (["a", "--by", "model"], "--by model: expected combination or target"),
        (["a", "a"], "two runs are called 'a'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], output: str
) -> None:
    make(tmp_path / "a", ARTICLE)
    assert run_main(monkeypatch, "report", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert output in error
    assert len(error.splitlines()) == 1
