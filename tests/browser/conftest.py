"""A headless Chromium, as Debian packages it; without one these tests are skipped, and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or "/usr/bin/chromium"
)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Opened:
    """A page, and what went wrong in it so far: console errors, exceptions, requests to anywhere but `home`."""

    page: Any
    errors: list[str] = field(default_factory=list)

    @property
    def overflow(self) -> int:
        """How many px the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


# Not of the session: the driver keeps an asyncio loop running in this thread until it is closed, and other tests run
# loops of their own.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, once for all tests, with a fresh profile."""
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"no browser: {CHROMIUM} is not there (apt install chromium, or CHROMIUM=/path)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra 'dev', is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """`visit(url, width=400, scheme="dark")` opens a page of its own; all are closed with the test."""
    pages: list[Any] = []

    def go(url: str, width: int = 1600, scheme: str = "light") -> Opened:
        page = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        pages.append(page)
        opened = Opened(page)
        page.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        home = url.split("/", 3)[2]
        page.on(
            "request",
            lambda request: (
                opened.errors.append(f"request to {request.url}")
                if request.url.split("/", 3)[2:3] != [home] and not request.url.startswith("data:")
                else None
            ),
        )
        page.goto(url)
        return opened

    yield go
    for page in pages:
        page.close()
