"""Every command in the README and the pages under docs/ exists, with every option that it is shown with."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from capacity.pricing import Catalogue

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
#: Programs of others, which a page on containers has to name.
FOREIGN = ("openssl", "kubectl")


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands() -> list[str]:
    """Lines of console blocks, and inline code that begins like a command, of all pages."""
    found = []
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        found += [line for block in blocks("console", page) for line in block.splitlines()]
        found += [" ".join(one.split()) for one in re.findall(r"`((?:make|python -m|locust -f)[^`]*)`", prose)]
    ours = [line.strip() for line in found if line.strip() and not line.startswith(("#", *FOREIGN))]
    return list(dict.fromkeys(ours))


@cache
def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"COLUMNS": "300", "PATH": "", "HOME": "/tmp", "NO_COLOR": "1", "TERMINAL_WIDTH": "300"},
    )
    return done.stdout


def options(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)]


def test_the_readme_opens_with_one_sentence_and_the_two_commands() -> None:
    title, sentence, _, *_ = [part for part in README.read_text(encoding="utf-8").split("\n\n") if part]

    assert title == "# inferload"
    assert re.fullmatch(r"[^.]+\.", sentence.replace("\n", " "))
    assert [line.split("#")[0].strip() for line in blocks("console")[0].splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_exists_with_its_options(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
        variables = set(re.findall(r"^([A-Z_]+) [:?]?=", makefile, flags=re.MULTILINE))
        for word in words[1:]:
            name, equals, _ = word.partition("=")
            assert name in (variables if equals else targets)
    elif words[:2] == ["python", "-m"]:
        assert words[2] in ("worker", "capacity", "loadgen", "loadgen.web._login")
        if words[2:4] == ["loadgen", "convert-azure"]:
            assert " ".join(words) in help_of("loadgen").replace("\n", " ")
            return
        text = help_of(
            *(words[2:3] if words[2].startswith("loadgen") else words[2:5] if words[3:4] == ["stress"] else words[2:4])
        )
        for option in options(words[4 : words.index("--") if "--" in words else None]):
            assert option in text.split() or f"{option}," in text
    else:
        assert words[:2] == ["locust", "-f"]
        assert words[2] in ("loadgen/", "mine.py")
        text = help_of("locust") + help_of("loadgen")
        for option in options(words[3:]):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), option


def test_the_catalogue_of_the_readme_is_one() -> None:
    for block in blocks("toml"):
        assert tomllib.loads(block)
        assert isinstance(Catalogue.parse(block, "README.md"), Catalogue)


def test_the_console_blocks_hold_only_commands_that_are_checked() -> None:
    for page in PAGES:
        for block in blocks("console", page):
            for line in block.splitlines():
                assert line.split()[0] in ("make", "python", "locust", *FOREIGN), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
