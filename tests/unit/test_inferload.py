"""The command `inferload`: every subcommand of the packages is there, and each loads its own package only."""

import subprocess
import sys
from pathlib import Path

import pytest

import inferload

#: Modules that take long to import, and the packages of ours.
WATCHED = {"torch", "locust", "gevent", "grpc", "matplotlib", "typer", "worker", "loadgen", "capacity"}


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferload", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=60, check=False)


def imports_of(*arguments: str) -> set[str]:
    """Which of WATCHED a command imports."""
    code = (
        "import sys, contextlib, io, inferload\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    inferload.main({list(arguments)!r})\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return WATCHED & set(done.stdout.split())


def test_the_help_lists_every_subcommand_with_one_line() -> None:
    done = run("--help")

    assert done.returncode == 0
    lines = [line.split(None, 1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [(name, summary) for name, summary in lines] == [
        (name, subcommand.summary) for name, subcommand in inferload.SUBCOMMANDS.items()
    ]
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


@pytest.mark.parametrize("package", ["worker", "capacity"])
def test_every_subcommand_of_a_package_is_a_subcommand_of_inferload(package: str) -> None:
    code = f"import typer; from {package}.__main__ import app; print(*typer.main.get_command(app).commands)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    ours = {name for name, subcommand in inferload.SUBCOMMANDS.items() if subcommand.module == f"{package}.__main__"}
    assert set(done.stdout.split()) == ours


@pytest.mark.parametrize("name", inferload.SUBCOMMANDS)
def test_every_subcommand_has_help_under_the_name_inferload(name: str) -> None:
    done = run(name, "--help")

    assert done.returncode == 0, done.stderr
    assert f"sage: inferload {name}" in done.stdout


def test_an_unknown_subcommand_is_one_line_and_exit_code_2() -> None:
    done = run("reprot")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("inferload: unknown subcommand 'reprot' (choose from accelerators, ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--prot", "1"], "inferload serve --help"),
        (["report"], "inferload report --help"),
        (["convert-azure", "a.csv"], "inferload convert-azure IN.csv OUT.csv"),
        (["password"], "inferload password NAME"),
        (["password", "a:b"], "inferload password NAME"),
    ],
)
def test_a_wrong_command_line_names_the_command_that_was_run(arguments: list[str], message: str) -> None:
    done = run(*arguments)

    assert done.returncode == 2
    assert message in done.stderr


def test_an_option_that_neither_we_nor_locust_have_names_the_command() -> None:
    done = run("load", "--no-such-option")

    assert done.returncode == 2
    assert "inferload load: error: unrecognized arguments: --no-such-option" in done.stderr


def test_without_a_subcommand_the_help_is_shown_and_the_exit_code_is_2() -> None:
    done = run()

    assert (done.returncode, done.stdout) == (2, run("--help").stdout)


def test_the_version_is_that_of_the_distribution() -> None:
    assert run("--version").stdout.split()[0] == "inferload"


def test_the_help_imports_no_package_of_ours() -> None:
    assert imports_of("--help") == set()


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["report", "--help"], {"torch", "locust", "gevent", "loadgen"}),
        (["serve", "--help"], {"locust", "gevent", "matplotlib", "loadgen", "capacity"}),
        (["load", "--help"], {"torch", "locust", "matplotlib", "typer"}),
        (["convert-azure", "--help"], {"torch", "locust", "grpc", "matplotlib"}),
    ],
)
def test_a_subcommand_imports_its_own_package_only(arguments: list[str], absent: set[str]) -> None:
    assert imports_of(*arguments) & absent == set()


def test_a_trace_of_azure_is_converted(tmp_path: Path) -> None:
    (tmp_path / "azure.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,7,9\n")

    done = run("convert-azure", str(tmp_path / "azure.csv"), str(tmp_path / "ours.csv"))

    assert done.stdout == "1 arrivals\n"
    assert (tmp_path / "ours.csv").read_text().splitlines() == ["arrival_s,size", "0.000000,7"]


def test_a_password_becomes_a_line_of_the_user_file() -> None:
    done = run("password", "ada", stdin="engine\n")

    assert done.stdout.startswith("ada:scrypt:")
    assert "engine" not in done.stdout
