"""What ends in one line and exit code 2, and what is a bug and keeps its traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from capacity import __main__ as command_line
from capacity.errors import InputError
from capacity.experiments import LaunchError
from capacity.rundir import Run
from worker.wire import FormatError


def raise_from_load(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(_directory: Path) -> Run:
        raise error

    monkeypatch.setattr(Run, "load", load)


@pytest.mark.parametrize(
    "error",
    [
        InputError("the run is wrong"),
        FormatError("the duration is wrong"),
        LaunchError("the fleet did not start"),
        FileNotFoundError(2, "No such file or directory", "run.json"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raise_from_load(monkeypatch, error)
    with pytest.raises(SystemExit) as end:
        command_line.main(["report", "run"])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), OSError("a bug")])
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_from_load(monkeypatch, error)
    with pytest.raises(type(error), match="a bug"):
        command_line.main(["report", "run"])
