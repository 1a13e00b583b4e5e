"""Checks documents against the code: commands, options, files, links, fields of JSON files, Python and TOML blocks."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from worker.accelerators import KINDS

ROOT = Path(__file__).parents[2]
#: Every document whose commands are checked.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Subcommands of the packages' own commands, `python -m PACKAGE SUBCOMMAND`.
PACKAGES = {
    "worker": ("accelerators", "export", "serve", "fleet", "statistics"),
    "loadgen": ("convert-azure",),
    "capacity": ("report", "compare", "merge", "plan", "stress"),
}
#: Programs of others that documents name: their options are not checked, files of this repository are.
FOREIGN = ("docker", "git", "kubectl", "openssl")
#: A Python block that reads runs of this folder is run; of others only the imports are.
EXAMPLE_FOLDER = "docs/example/"
#: What inline code begins with where it is a command.
COMMAND_WORDS = ("inferload", "locust", "make", "python")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r"--?[a-z][a-z0-9-]*(=.*)?")
_NAME = re.compile(r"[a-z]+(_[a-z0-9]+)*(\.[a-z]+(_[a-z0-9]+)*)*")
_FILE = re.compile(r"[\w-]+\.(csv|hlog|html|json|md|png|py|svg|toml|txt|yaml)")
#: Other names in documents: of other projects, columns of files, keys of manifests.
OTHER_NAMES = frozenset({"constant_throughput", "forward", "record_value", "replicas", "request", "size"})


def problems_of(text: str, page: Path) -> list[str]:
    """Everything in a Markdown text that the code does not have, one sentence each; `page` is where its links start."""
    prose = _FENCE.sub("", text)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    problems = [problem for line in _console_commands(text) for problem in _command_problems(line)]
    for code in inline:
        if code.split()[0] in COMMAND_WORDS and " " in code:
            problems += _command_problems(code)
        elif code.startswith("--"):
            problems += [f"no command has the option {word}" for word in _options([code]) if word not in _all_options()]
        elif _NAME.fullmatch(code):
            problems += _name_problems(code)
        problems += _file_problems(code.split())
    problems += _block_problems(text) + _link_problems(prose, page)
    return [f"{page.name}: {problem}" for problem in dict.fromkeys(problems)]


def blocks(text: str, language: str) -> list[str]:
    """The contents of all fenced blocks of one language."""
    return [body for name, body in _FENCE.findall(text) if name == language]


def _console_commands(text: str) -> Iterator[str]:
    """Command lines of console blocks. Where a block has a prompt `$`, its other lines are output."""
    for block in blocks(text, "console"):
        lines = block.replace("\\\n", " ").splitlines()
        has_prompt = any(line.startswith("$ ") for line in lines)
        for line in lines:
            if has_prompt and not line.startswith("$ "):
                continue
            for part in line.removeprefix("$ ").split(" && "):
                if part.strip():
                    yield part.strip()


def _command_problems(line: str) -> list[str]:
    """What a command line names that does not exist: program, subcommand, options, targets of make, files."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if not words:
        return []
    problems = _file_problems(words)
    tail = []
    if "--" in words:
        tail = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    if tail and tail[0] in COMMAND_WORDS:
        problems += _command_problems(shlex.join(tail))
    program, *rest = words
    program = program.removeprefix(".venv/bin/")
    if program in FOREIGN or program.startswith(".ci/"):
        return problems
    if program == "make":
        return problems + _make_problems(rest)
    if program == "python":
        return problems + _python_problems(rest)
    if program == "locust":
        file = rest[rest.index("-f") + 1] if "-f" in rest[:-1] else ""
        if file not in ("", "mine.py", "loadgen/"):
            problems.append(f"locust -f {file}: the examples are loadgen/ and mine.py")
        return problems + _missing_options(line, rest, _load_options())
    if program == "inferload":
        return problems + _inferload_problems(line, rest)
    return [*problems, f"`{line}`: {program} is not a command of this project"]


def _make_problems(words: list[str]) -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text, flags=re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) [:?]?=", text, flags=re.MULTILINE))
    problems = []
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in (variables if equals else targets):
            problems.append(f"the Makefile has no {'variable' if equals else 'target'} {name}")
    return problems


def _python_problems(words: list[str]) -> list[str]:
    if words[:1] != ["-m"]:
        return []
    module, *rest = words[1:]
    if module in PACKAGES:
        if rest[:1] and rest[0] in PACKAGES[module]:
            return _inferload_problems(" ".join(words), rest)
        if module == "loadgen":
            return _missing_options(" ".join(words), rest, _load_options())
        return [f"python -m {module} has no subcommand {rest[0]}"] if rest and rest != ["--help"] else []
    return [] if module == "pytest" else [f"python -m {module}: documents use worker, loadgen and capacity"]


def _inferload_problems(line: str, words: list[str]) -> list[str]:
    if not words or words[0].startswith("-"):
        return _missing_options(line, words, {"--help"})
    name, *rest = words
    if name not in _subcommands():
        return [f"inferload has no subcommand {name}"]
    options = _load_options() if name == "load" else _options_of_help(help_text("inferload", name))
    problems = _missing_options(line, rest, options)
    if name == "stress" and rest and rest[0] not in _words_of_help(help_text("inferload", "stress")):
        problems.append(f"inferload stress has no scenario {rest[0]}")
    return problems


def _missing_options(line: str, words: list[str], options: set[str] | frozenset[str]) -> list[str]:
    return [f"`{line}`: there is no option {word}" for word in _options(words) if word not in options]


def _options(words: list[str]) -> list[str]:
    """The options among the words of a command line, without their values."""
    return [word.split("=")[0] for text in words for word in [text.split()[0]] if _OPTION.fullmatch(word)]


def _file_problems(words: list[str]) -> list[str]:
    """Paths that begin with a folder of this repository and do not exist."""
    problems = []
    for word in words:
        folder, slash, _ = word.partition("/")
        path = word.split("::")[0].rstrip("/,")
        if slash and folder in _folders() and not any(mark in path for mark in "*…<{") and not (ROOT / path).exists():
            problems.append(f"there is no file {path}")
    return problems


def _name_problems(code: str) -> list[str]:
    """A bare word must be a field of a JSON file, or a word of some command; of a dotted one, that begins with a field,
    every part must be a field."""
    if (ROOT / code).exists() or code in KINDS.keys() | OTHER_NAMES or _FILE.fullmatch(code):
        return []
    first, *others = code.split(".")
    if not others:
        return [] if code in _fields() | _command_vocabulary() else [f"nothing is called {code}"]
    return [f"{code}: there is no field {name}" for name in others if first in _fields() and name not in _fields()]


def _block_problems(text: str) -> list[str]:
    """TOML and JSON that cannot be read, and Python that cannot be compiled, imported or run."""
    problems = []
    for block in blocks(text, "toml"):
        try:
            tomllib.loads(block)
        except tomllib.TOMLDecodeError as error:
            problems.append(f"a TOML block cannot be read: {error}")
    for block in blocks(text, "json"):
        try:
            json.loads(block)
        except ValueError as error:
            problems.append(f"a JSON block cannot be read: {error}")
    for block in blocks(text, "python"):
        try:
            tree = ast.parse(block)
        except SyntaxError as error:
            problems.append(f"a Python block cannot be compiled: {error}")
            continue
        if EXAMPLE_FOLDER in block:
            problems += _run_problems(block)
            continue
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        problems += _run_problems("\n".join(ast.unparse(node) for node in imports))
    return problems


def _run_problems(code: str) -> list[str]:
    """Runs Python code in the root folder, in another process: loadgen would start gevent in the one of all tests."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    return [] if result.returncode == 0 else [f"a Python block fails: {result.stderr.strip().splitlines()[-1]}"]


def _link_problems(prose: str, page: Path) -> list[str]:
    """Links to files that do not exist, and to headings that their page does not have."""
    problems = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            problems.append(f"the link {target} leads nowhere")
        elif anchor and anchor not in _anchors(file.read_text(encoding="utf-8") if path else prose):
            problems.append(f"the link {target} leads to no heading")
    return problems


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def _folders() -> frozenset[str]:
    command = ["git", "ls-files"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    tracked = {line.partition("/")[0] for line in result.stdout.splitlines() if "/" in line}
    folders = ("benchmarks", "capacity", "deploy", "docs", "loadgen", "proto", "tests", "worker", ".ci", ".github")
    return frozenset(tracked or folders)


@cache
def help_text(*command: str) -> str:
    """What `python -m COMMAND --help` prints, on wide lines."""
    result = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"COLUMNS": "300", "PATH": "", "HOME": "/tmp", "NO_COLOR": "1", "TERMINAL_WIDTH": "300"},
    )
    return result.stdout


@cache
def _subcommands() -> frozenset[str]:
    """The subcommands that `inferload --help` lists."""
    return frozenset(re.findall(r"^\s+([a-z][a-z-]+)\s{2,}\S", help_text("inferload"), flags=re.MULTILINE))


def _options_of_help(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))


def _words_of_help(text: str) -> set[str]:
    return set(re.findall(r"[a-z][a-z0-9-]*", text))


@cache
def _load_options() -> frozenset[str]:
    """Locust's options and ours."""
    return frozenset(_options_of_help(help_text("locust")) | _options_of_help(help_text("loadgen")))


@cache
def _all_options() -> frozenset[str]:
    """The options of all commands, for an option that stands alone in a text."""
    helps = (_options_of_help(help_text("inferload", name)) for name in _subcommands() - {"load"})
    return _load_options().union(*helps)


@cache
def _command_vocabulary() -> frozenset[str]:
    """Every word of the commands' helps, and the words of options: names of subcommands, kinds, scenarios, modes."""
    texts = [help_text("loadgen"), help_text("locust")]
    texts += [help_text("inferload", name) for name in _subcommands() - {"load"}]
    return frozenset().union(*(_words_of_help(text) for text in texts))


@cache
def _fields() -> frozenset[str]:
    """The fields of run.json, stress.json, plan.json and hardware.toml."""
    from capacity.experiments.stress import StressResult
    from capacity.planning import PlanFile
    from capacity.pricing import Catalogue
    from capacity.rundir import RunFile

    fields: set[str] = set()
    for model in (RunFile, StressResult, PlanFile, Catalogue):
        _collect_fields(model.model_json_schema(mode="serialization"), fields)
    # A measure is a field by its unit: `latency` is latency_us.
    return frozenset(fields | {name.removesuffix("_us") for name in fields})


def _collect_fields(schema: Any, fields: set[str]) -> None:
    if isinstance(schema, dict):
        fields.update(schema.get("properties", {}))
        for value in schema.values():
            _collect_fields(value, fields)
    elif isinstance(schema, list):
        for value in schema:
            _collect_fields(value, fields)
