"""report.html in a browser: both colour schemes, a phone's width and a desk's, no error, nothing off the page."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.reporting import write_report
from capacity.rundir import (
    IntervalLogWriter,
    Run,
    TargetInfo,
    TelemetryReading,
    TelemetryWriter,
    build_run_file,
    series_tag,
)
from capacity.statistics import Check, Slo

SECONDS = 12
ROWS = (("c5.large + 2 × eia2.medium", 10.0), ("c5.large + eia2.large", 8.8), ("c5.xlarge", 31.0))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it: three combinations, errors, a slow ordinal, telemetry."""
    directory = tmp_path_factory.mktemp("browser") / "run"
    directory.mkdir()
    generator = np.random.default_rng(5)
    tallies: dict[Series, Tally] = {}
    with IntervalLogWriter(directory / "run.hlog", 0.0) as log:
        for name, mean in ROWS:
            hardware = HardwareCombination.parse(name)
            for ordinal in range(hardware.count):
                series = Series(hardware, "gpt", f"sim:{ordinal} @ 10.0.0.{len(tallies)}:9001", True)
                total = Tally()
                for second in range(SECONDS):
                    slow = 1.3 if ordinal else 1.0
                    answered = int(1000 / mean / slow)
                    ns = (generator.lognormal(np.log(mean * slow), 0.1, answered) * 1e6).astype(np.int64)
                    part = Tally(answered + 1, answered, 0, {"UNAVAILABLE": 1})
                    for measure in ("latency", "service"):
                        part.histograms[measure].record_ns(ns)
                    part.histograms["lateness"].record_ns([0] * answered)
                    part.histograms["latency-error"].record_ns([1_000_000])
                    for measure, histogram in part.histograms.items():
                        if histogram.count:
                            log.write(second, 1, series_tag(series, measure), histogram)
                    total.add(part)
                total.histograms["compute"].record_ns([int(mean * 8e5)] * total.answered)
                total.histograms["queue"].record_ns([int(mean * 1e5)] * total.answered)
                tallies[series] = total
    writer = TelemetryWriter(directory)
    for second in range(SECONDS):
        writer.write(second, "h", [TelemetryReading("cuda:0", "GPU-a", "power_w", 70.0 + second)])
    writer.close()
    build_run_file(
        started=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        options={"arrivals": "closed"},
        conditions={"input": "input_ids INT64 (1, 7)", "router": "pinned"},
        targets=[TargetInfo(label=series.target, address="a", model="gpt") for series in tallies],
        tallies=tallies,
        warmups={},
        first_requests_ns={},
        duration_s=float(SECONDS),
        slo=Slo.parse("p90=15ms"),
        catalogue=Catalogue.load(),
        checks=[Check(name="lateness", value="0.1 ms", threshold="under 1 ms", status="PASS")],
        generators=[],
    ).save(directory)
    return write_report(Run.load(directory), directory)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_report_renders(visit: Callable[..., Any], report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    opened = visit(report.as_uri(), width, scheme)
    page = opened.page
    assert opened.errors == []
    assert opened.overflow <= 0
    assert "Simulated" in page.inner_text("main")
    assert "slower than its siblings" in page.inner_text(".pointed")
    for heading in ("The choice", "The table", "Over time", "Where the time goes", "Price and latency", "By target"):
        assert page.get_by_role("heading", name=heading, exact=False).first.is_visible(), heading
    pictures = page.locator("svg[role=img]:visible")
    # Cost, percentiles, over time, rates, shares, front, ordinals: one width of each.
    assert pictures.count() == 7
    for index in range(pictures.count()):
        box = pictures.nth(index).bounding_box()
        assert box["width"] <= width
        assert box["height"] > 80
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper[4:-1].split(",")) < 200) == (scheme == "dark")
    ways = [link.get_attribute("href") for link in page.locator("footer a").all()]
    assert [(report.parent / way).is_file() for way in ways] == [True, True, True]
