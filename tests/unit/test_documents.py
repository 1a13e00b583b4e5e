"""README, CONTRIBUTING and the pages under docs/ name only commands, options, files, links and fields that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools.documents import PAGES, ROOT, blocks, problems_of

from capacity.pricing import Catalogue

README = ROOT / "README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_everything_that_a_page_names_exists(page: Path) -> None:
    assert problems_of(page.read_text(encoding="utf-8"), page) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```console\ninferload sing runs/a\n```", "inferload has no subcommand sing"),
        ("```console\ninferload report runs/a --loud\n```", "there is no option --loud"),
        ("```console\n$ inferload report runs/a --loud\noutput\n```", "there is no option --loud"),
        ("```console\ninferload report \\\n  runs/a --loud\n```", "there is no option --loud"),
        ("```console\ninferload load --headless --loud\n```", "there is no option --loud"),
        ("```console\ninferload fleet m.pt -- locust -f loadgen/ --loud\n```", "there is no option --loud"),
        ("```console\nlocust -f loadgen/ --loud\n```", "there is no option --loud"),
        ("```console\ninferload stress earthquake\n```", "has no scenario earthquake"),
        ("```console\npython -m capacity sing\n```", "python -m capacity has no subcommand sing"),
        ("```console\npython -m worker report runs/a\n```", "python -m worker has no subcommand report"),
        ("```console\nmake tea\n```", "the Makefile has no target tea"),
        ("```console\nmake demo DEMO_COST=1\n```", "the Makefile has no variable DEMO_COST"),
        ("```console\nrm -rf runs\n```", "rm is not a command of this project"),
        ("```console\ndocker compose -f deploy/composed.yaml up\n```", "there is no file deploy/composed.yaml"),
        ("Run `make tea` first.", "the Makefile has no target tea"),
        ("With `inferload plan --cheap` it is cheap.", "there is no option --cheap"),
        ("With `--cheap` it is cheap.", "no command has the option --cheap"),
        ("run.json has `surprise_rps`.", "nothing is called surprise_rps"),
        ("run.json has `surprise`.", "nothing is called surprise"),
        ("run.json has `rows.surprise`.", "there is no field surprise"),
        ("See `worker/secrets.py`.", "there is no file worker/secrets.py"),
        ("See [this](docs/nothing.md).", "the link docs/nothing.md leads nowhere"),
        ("See [this](README.md#no-such-heading).", "leads to no heading"),
        ("# One\nSee [this](#two).", "leads to no heading"),
        ("```python\nfrom capacity.statistics import Hologram\n```", "a Python block fails: ImportError"),
        ("```python\nx = 'docs/example/'\nx.y\n```", "a Python block fails: AttributeError"),
        ("```python\nimport (\n```", "a Python block cannot be compiled"),
        ("```toml\n[hosts\n```", "a TOML block cannot be read"),
        ("```json\n{'a'}\n```", "a JSON block cannot be read"),
    ],
)
def test_a_spoiled_page_is_reported(text: str, problem: str) -> None:
    problems = problems_of(text, README)

    assert [line for line in problems if problem in line], problems


def test_a_correct_page_has_no_problem() -> None:
    page = """
# One page
```console
$ inferload report runs/a --slo p90=15ms
--this is --output
$ INFERLOAD_RUN_TOKEN=x inferload load --headless -u 8 -t 60s
$ inferload fleet gpt.pt -- locust -f loadgen/ --headless
$ make test && python -m capacity plan runs/a --rate 100 # all of it
```
See [here](#one-page), [there](LICENSE), `worker/`, `--survive 1`, `rows`, `make demo`, `python -m loadgen --help`.
"""

    assert problems_of(page, README) == []


def test_readme_is_short_and_opens_with_one_sentence_and_a_picture_of_the_report() -> None:
    text = README.read_text(encoding="utf-8")
    title, sentence, picture, *_ = [part for part in text.split("\n\n") if part]

    assert len(text.splitlines()) <= 150
    assert title == "# inferload"
    assert re.fullmatch(r"[^.]+\.", sentence.replace("\n", " "))
    assert re.search(r"!\[[^\]]+\]\(docs/images/\w+\.png\)", picture)


def test_readme_shows_the_two_commands_for_a_fresh_machine_with_their_output() -> None:
    block = blocks(README.read_text(encoding="utf-8"), "console")[0]
    commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]

    assert commands[-2:] == ["make demo", "make test"]
    assert len(block.splitlines()) > 2 * len(commands)


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs/images").glob("*"))

    assert pictures
    assert all(picture.stat().st_size <= 300 * 1024 for picture in pictures)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_catalogues_in_pages_are_valid(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "toml"):
        assert isinstance(Catalogue.parse(block, page.name), Catalogue)
