"""Older schemas of run.json, read as the present one: each function takes a file's data one schema further."""

from __future__ import annotations

from typing import Any

_VERDICTS = {"PASS": "met", "FAIL": "missed", "UNRESOLVED": "inconclusive"}
_MET = {True: "met", False: "missed", None: "inconclusive"}


def upgrade_schema_1(data: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 to 2, where fields got the names of the vocabulary; the values stay.

    Anything that is not where schema 1 has it is left as it is, for the present schema to complain about.
    """
    upgraded = _renamed(data, {"workers": "targets", "ordinals": "target_rows", "curve": "searches"}) | {"schema": 2}
    has_slo = bool(data.get("slo"))
    for name, change in (
        ("rows", lambda row: _row(row, has_slo)),
        ("target_rows", lambda row: _row(row, has_slo)),
        ("searches", _search),
        ("events", _event),
    ):
        if isinstance(upgraded.get(name), list):
            upgraded[name] = [change(entry) if isinstance(entry, dict) else entry for entry in upgraded[name]]
    return upgraded


def _row(row: dict[str, Any], has_slo: bool) -> dict[str, Any]:
    names = {"worker": "target", "slo_reasons": "verdict_reasons", "dependence": "autocorrelation_time"}
    upgraded = _rates(_renamed(row, names))
    meets = upgraded.pop("meets_slo", None)
    # Schema 1 had no word for a row without an SLO: null stood for that and for an undecided one.
    if meets is not None and not isinstance(meets, bool):
        upgraded["verdict"] = meets
    else:
        upgraded["verdict"] = _MET[meets] if has_slo else None
    return upgraded


def _search(search: dict[str, Any]) -> dict[str, Any]:
    upgraded = _rates(_renamed(search, {"ended": "stop_reason"}))
    if isinstance(upgraded.get("probes"), list):
        upgraded["probes"] = [_probe(probe) if isinstance(probe, dict) else probe for probe in upgraded["probes"]]
    return upgraded


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    names = {
        "rate_rps": "planned_rps",
        "achieved_rps": "throughput_rps",
        "achieved_interval": "throughput_interval",
        "dependence": "autocorrelation_time",
        "reasons": "verdict_reasons",
    }
    upgraded = _renamed(probe, names)
    verdict = upgraded.get("verdict")
    if isinstance(verdict, str):
        upgraded["verdict"] = _VERDICTS.get(verdict, verdict)
    return upgraded


def _event(event: dict[str, Any]) -> dict[str, Any]:
    return _renamed(event, {"worker": "target", "why": "reason", "by": "generator"})


def _rates(entry: dict[str, Any]) -> dict[str, Any]:
    rate = entry.get("slo_rate")
    if isinstance(rate, dict):
        entry["slo_rate"] = _renamed(rate, {"passing_rps": "met_rps", "failing_rps": "missed_rps"})
    return entry


def _renamed(data: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in data.items()}
