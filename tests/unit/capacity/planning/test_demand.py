"""A day's demand is read slot by slot, and a bad line is named by file and number."""

from __future__ import annotations

from pathlib import Path

import pytest

from capacity.planning.demand import Demand


def write(folder: Path, text: str) -> Path:
    path = folder / "demand.csv"
    path.write_text(text)
    return path


def test_a_slot_lasts_until_the_next_and_the_last_until_midnight(tmp_path: Path) -> None:
    demand = Demand.load(write(tmp_path, "# a Monday\nstart, rps\n00:00,10\n\n06:30,120.5\n18:00,0\n"))

    assert [(slot.name, slot.hours, slot.rps) for slot in demand.slots] == [
        ("00:00", 6.5, 10.0),
        ("06:30", 11.5, 120.5),
        ("18:00", 6.0, 0.0),
    ]
    assert sum(slot.hours for slot in demand.slots) == 24
    assert demand.peak_rps == 120.5


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", None, "empty"),
        ("time,rate\n00:00,1\n", 1, "expected the header start,rps"),
        ("start,rps\n", None, "no lines"),
        ("start,rps\n01:00,5\n", 2, "begin at 00:00"),
        ("start,rps\n00:00,5\n00:00,6\n", 3, "a time after"),
        ("start,rps\n00:00,5\n24:00,6\n", 3, "time of day"),
        ("start,rps\n00:00,many\n", 2, "rate"),
        ("start,rps\n00:00,-1\n", 2, "rate"),
        ("start,rps\n00:00,nan\n", 2, "rate"),
        ("start,rps\n00:00\n", 2, "1 fields"),
        ("start,rps\n00:00,0\n", None, "0 requests a second all day"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ValueError, match=what) as caught:
        Demand.load(path)

    assert str(path) in str(caught.value)
    assert line is None or f"line {line}:" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv cannot be read"):
        Demand.load(tmp_path / "nowhere.csv")
