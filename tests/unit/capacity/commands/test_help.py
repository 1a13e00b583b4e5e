"""The help of each subcommand says every default that its code chooses."""

import pytest

from capacity.__main__ import main


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("report", "default: the run, or the first's parent"),
        ("plan", "default: the runs' own"),
        ("plan", "default: plan, beside the first run"),
        ("stress", "default: stress/SCENARIO-TIME"),
    ],
)
def test_help_names_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, default: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert default in capsys.readouterr().out
