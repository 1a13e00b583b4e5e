"""The live page in states that a healthy run does not show: before a run, many ordinals, errors, no price, invalid."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Locust's own web server in a child, its LiveView filled by hand: each line on stdin makes the next state.
SCRIPT = """
import sys
from pathlib import Path
import locust
import gevent
from locust.argument_parser import get_empty_argument_parser, setup_parser_arguments
from locust.env import Environment
from capacity.statistics import Check, Slo
from capacity.pricing import Catalogue
from capacity.measures import HardwareCombination, Series, Tally
from loadgen import _options
from loadgen.web import LiveView, add_pages

parser = get_empty_argument_parser()
setup_parser_arguments(parser)
_options.register(parser)
environment = Environment(parsed_options=parser.parse_args([]))
environment.create_local_runner()
ui = environment.create_web_ui(host="127.0.0.1", port=0, delayed_start=True)
live = LiveView()
add_pages(ui, live)
ui.start()
while ui.server is None or not ui.server.started:
    gevent.sleep(0.01)
print(ui.server.server_port, flush=True)

def next_line():
    # In a thread: standard input would hold up the loop that serves the page.
    gevent.get_hub().threadpool.apply(sys.stdin.readline)

pool = HardwareCombination("a-host-with-a-very-long-name.metal-48xlarge", "unpriced-accelerator-9000", 16)
series = [Series(pool, "a & <b>model</b>", f"cuda:{n} @ 10.0.0.{n}:9001", False) for n in range(16)]
next_line()
live.begin(series, Catalogue.load(), Slo.parse("p99=15ms,errors=1%"), "poisson")
for second in range(20):
    gained = {}
    for one in series:
        tally = Tally(60, 50, 5, {"UNAVAILABLE": 5})
        for measure in ("latency", "service", "lateness"):
            tally.histograms[measure].record_ns([10_000_000 + second * 100_000] * 50)
        gained[one] = tally
    live.tick(gained, {one: 4 for one in series})
print("fed", flush=True)
next_line()
live.end(Path("."), [Check(name="unsent requests", value=1600, threshold="0", status="FAIL", detail="too many")], False)
print("ended", flush=True)
next_line()
"""


class ServedPage:
    """The child; `next_state` makes its page show the next state."""

    def __init__(self, folder: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )
        self.url = f"http://127.0.0.1:{int(self._line())}/inferload"

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def next_state(self) -> str:
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return self._line()

    def end(self) -> None:
        self._child.kill()
        self._child.communicate()


@pytest.fixture
def served_page(tmp_path: Path) -> Iterator[ServedPage]:
    child = ServedPage(tmp_path)
    yield child
    child.end()


def test_the_page_in_trouble(visit: Callable[..., Any], served_page: ServedPage) -> None:
    opened = visit(served_page.url, 400, "dark")
    page = opened.page
    page.get_by_text("No run yet. Start one").wait_for()

    assert served_page.next_state() == "fed"
    page.get_by_role("heading", name="Measuring").wait_for()
    assert page.locator("section tbody tr").count() == 17
    assert page.locator("section h2 + span").inner_text() == "a & <b>model</b>"
    assert "no price for the host" in page.locator("[data-field=cost]").inner_text()
    assert page.locator("section .badge.no").all_inner_texts() == ["p99=15ms,errors=1% missed", "1600 UNAVAILABLE"]
    checks = page.locator("#checks li").all_inner_texts()
    assert any(check.startswith("✕ unsent requests: 1600, expected") for check in checks)
    dashes = page.locator("tr.sum td[data-name='P99, run']")
    assert (dashes.inner_text(), dashes.get_attribute("title")) == ("–", "beyond all answered requests")
    assert opened.overflow <= 0
    wide = visit(served_page.url, 1600)
    wide.page.locator("section tbody tr").first.wait_for()
    assert (wide.errors, wide.overflow) == ([], 0)

    assert served_page.next_state() == "ended"
    page.get_by_text("✕ the run is NOT valid").wait_for()
    page.get_by_role("heading", name="Ended").wait_for()
    assert opened.errors == []

    served_page.end()
    page.get_by_role("heading", name="The coordinator does not answer").wait_for()
