"""Run directories of schema 1 are read as schema 2: every value is there under its new name."""

import json
from pathlib import Path
from typing import Any

import pytest

from capacity.errors import InputError
from capacity.rundir import RunFile
from capacity.rundir.upgrade import upgrade_schema_1

DOCS = Path(__file__).parents[4] / "docs"
FILES = sorted([*DOCS.glob("example/*/run.json"), *DOCS.glob("soak/*/run.json")])
FIGURES = {"due": 2, "requests": 2, "answered": 2, "offered_rps": 1.0, "throughput_rps": 1.0}
OLD_ROW: dict[str, Any] = FIGURES | {
    "hardware": "box",
    "host": "box",
    "model": "gpt",
    "simulated": False,
    "worker": None,
    "meets_slo": None,
    "slo_reasons": ["P90: not enough samples (2 < 29)"],
    "dependence": 1.5,
    "slo_rate": {"passing_rps": 40.0, "failing_rps": 50.0},
}
OLD_PROBE: dict[str, Any] = FIGURES | {
    "number": 1,
    "phase": "bracket",
    "rate_rps": 1.0,
    "achieved_rps": 0.5,
    "achieved_interval": [0.4, 0.6],
    "seconds": 2.0,
    "from_s": 0.0,
    "to_s": 2.0,
    "dependence": 2.0,
    "verdict": "UNRESOLVED",
    "reasons": ["cut off"],
}
del OLD_PROBE["throughput_rps"]
OLD: dict[str, Any] = {
    "schema": 1,
    "started": "2026-11-24T00:00:00Z",
    "duration_s": 2.0,
    "options": {"arrivals": "poisson"},
    "slo": "p90=15ms",
    "valid": True,
    "workers": [{"label": "cpu:0 @ a:1", "address": "a:1"}],
    "rows": [OLD_ROW],
    "ordinals": [OLD_ROW | {"worker": "cpu:0 @ a:1", "meets_slo": True}],
    "curve": [
        {
            "hardware": "box",
            "model": "gpt",
            "simulated": False,
            "shape": "slo-search",
            "probes": [OLD_PROBE],
            "slo_rate": {"passing_rps": 40.0},
            "ended": "confirmed",
        }
    ],
    "events": [{"at_s": 1.0, "worker": "cpu:0 @ a:1", "state": "down", "why": "refused", "by": "client"}],
}


def saved(directory: Path, document: dict[str, Any]) -> Path:
    path = directory / "run.json"
    path.write_text(json.dumps(document))
    return path


def test_every_renamed_field_of_schema_1_is_read_under_its_new_name(tmp_path: Path) -> None:
    file = RunFile.load(saved(tmp_path, OLD))
    row, target_row, search, event = file.rows[0], file.target_rows[0], file.searches[0], file.events[0]
    assert file.version == 2
    assert [target.label for target in file.targets] == ["cpu:0 @ a:1"]
    assert (row.verdict, row.autocorrelation_time) == ("inconclusive", 1.5)
    assert row.verdict_reasons == OLD_ROW["slo_reasons"]
    assert (row.slo_rate.met_rps, row.slo_rate.missed_rps) == (40.0, 50.0)
    assert (target_row.target, target_row.verdict) == ("cpu:0 @ a:1", "met")
    assert (search.stop_reason, search.slo_rate.met_rps) == ("confirmed", 40.0)
    probe = search.probes[0]
    assert (probe.planned_rps, probe.throughput_rps, probe.throughput_interval) == (1.0, 0.5, (0.4, 0.6))
    assert (probe.verdict, probe.verdict_reasons, probe.autocorrelation_time) == ("inconclusive", ["cut off"], 2.0)
    assert (event.target, event.reason, event.generator) == ("cpu:0 @ a:1", "refused", "client")


def test_a_row_without_an_slo_has_no_verdict(tmp_path: Path) -> None:
    assert RunFile.load(saved(tmp_path, OLD | {"slo": None})).rows[0].verdict is None


def test_a_verdict_or_schema_of_another_type_is_wrong_input(tmp_path: Path) -> None:
    rows = [OLD_ROW | {"meets_slo": []}]
    with pytest.raises(InputError, match=r"rows\.0\.verdict"):
        RunFile.load(saved(tmp_path, OLD | {"rows": rows}))
    for schema in (-(10**15), 0, "1", None):
        with pytest.raises(InputError, match="expected schema 1 or 2"):
            RunFile.load(saved(tmp_path, OLD | {"schema": schema}))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_runs_of_the_documentation_keep_every_value(path: Path, tmp_path: Path) -> None:
    """Numbers and texts of the old file, whatever their names, are those of the new one."""
    old = json.loads(path.read_text(encoding="utf-8"))
    file = RunFile.load(path)
    file.save(tmp_path)
    new = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert new["schema"] == 2
    assert RunFile.load(tmp_path / "run.json") == file
    changed = {None, True, False, "met", "missed", "inconclusive"}
    assert values(old) - values(new) <= changed
    assert len(old["rows"] + old["ordinals"]) == len(new["rows"] + new["target_rows"])


def values(data: Any) -> set[Any]:
    if isinstance(data, dict):
        return set().union(*map(values, data.values())) if data else set()
    if isinstance(data, list):
        return set().union(*map(values, data)) if data else set()
    return {data}


@pytest.mark.parametrize("damage", [{"rows": 7}, {"rows": [7]}, {"curve": [{"probes": 3}]}, {"events": ["x"]}])
def test_a_damaged_file_of_schema_1_is_refused_in_one_line(damage: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, OLD | damage)
    with pytest.raises(InputError, match=r"run\.json: \w+") as caught:
        RunFile.load(path)
    assert "\n" not in str(caught.value)


def test_the_upgrade_leaves_its_argument_as_it_is() -> None:
    before = json.dumps(OLD)
    upgrade_schema_1(OLD)
    assert json.dumps(OLD) == before
