"""Simulated siblings cost each other exactly the configured share, while they are busy and no longer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.errors import InputError
from worker.runtime import coupling
from worker.runtime.coupling import CoupledOrdinal, Coupling, coupling_table, parse_coupling

MS = 1_000_000


@pytest.fixture(autouse=True)
def shared() -> Iterator[None]:
    with coupling_table(enabled=True):
        yield


def test_each_busy_sibling_costs_its_share() -> None:
    first, second, third = (CoupledOrdinal(Coupling(share=0.25), n) for n in range(3))
    assert first.extend(60_000 * MS) == 60_000 * MS
    assert second.extend(60_000 * MS) == 75_000 * MS
    assert third.extend(60_000 * MS) == 90_000 * MS


def test_one_that_is_over_or_was_killed_costs_nothing() -> None:
    CoupledOrdinal(Coupling(), 0).extend(1)
    begin = time.monotonic_ns()
    while time.monotonic_ns() - begin < 3 * coupling.PAUSE_NS:
        pass
    assert CoupledOrdinal(Coupling(share=1.0), 1).extend(10 * MS) == 10 * MS


def test_a_file_says_what_each_costs_each_and_who_is_slow_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "coupling.json"
    path.write_text(json.dumps({"sim:0": {"sim:1": 0.5, "sim:0": 0.1}}))
    assert parse_coupling(str(path), 0) == Coupling(own=0.1, others={1: 0.5})
    assert parse_coupling(str(path), 1) == Coupling(others={})
    CoupledOrdinal(Coupling(), 1).extend(60_000 * MS)
    assert CoupledOrdinal(parse_coupling(str(path), 0), 0).extend(100 * MS) == 160 * MS


@pytest.mark.parametrize("text", ["-0.1", "nan", "no/such/file", "[]", '{"cpu:0": {}}', '{"sim:0": {"sim:1": -1}}'])
def test_a_wrong_coupling_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "coupling.json"
    if text.startswith(("[", "{")):
        path.write_text(text)
        text = str(path)
    with pytest.raises(InputError, match="--sim-coupling") as raised:
        parse_coupling(text, 0)
    assert "\n" not in str(raised.value)


def test_without_a_fleet_there_are_no_siblings() -> None:
    del os.environ[coupling.TABLE_VARIABLE]
    try:
        with pytest.raises(InputError, match="needs the workers of a fleet"):
            CoupledOrdinal(Coupling(share=0.1), 0)
    finally:
        os.environ[coupling.TABLE_VARIABLE] = "gone"
