"""Checks that several scenarios share: valid runs, requests accounted for, failed requests."""

from __future__ import annotations

from collections.abc import Sequence

from capacity.rundir import Run
from capacity.statistics import Check

_MAX_DETAIL = 400


def check_valid_runs(runs: Sequence[Run], expected_failure: str = "") -> Check:
    """Checks that every run is a result about the hardware. A check whose name has `expected_failure` may fail."""
    failures = [
        (run, [check for check in run.file.failures if not expected_failure or expected_failure not in check.name])
        for run in runs
    ]
    details = [f"{run.name}: {check.name} {check.value}" for run, checks in failures for check in checks]
    valid = sum(not checks for _, checks in failures)
    has_expected = any(len(run.file.failures) > len(checks) for run, checks in failures)
    return Check(
        name="valid runs",
        value=f"{valid}{f', but for the {expected_failure}' if has_expected else ''}",
        threshold=f"{len(runs)} of {len(runs)}{f'; a {expected_failure} is expected' if has_expected else ''}",
        status="FAIL" if details else "PASS",
        detail="; ".join(details)[:_MAX_DETAIL],
    )


def check_accounted(run: Run) -> Check:
    """Checks that answered + failed + unsent = due, exactly, in each row."""
    rows = run.file.rows
    exact = all(row.answered + sum(row.errors.values()) + row.unsent == row.due for row in rows)
    failed = ", ".join(f"{sum(row.errors.values())} failed" for row in rows)
    return Check(
        name="every request accounted for",
        value=f"{sum(row.answered for row in rows)} answered, {failed}, {sum(row.unsent for row in rows)} unsent",
        threshold=f"{sum(row.due for row in rows)} due",
        status="PASS" if exact else "FAIL",
    )


def check_failed_requests(runs: Sequence[Run]) -> Check:
    """Checks that no request failed or was unsent; a warning where some did."""
    failed = sum(sum(row.errors.values()) + row.unsent for run in runs for row in run.file.rows)
    return Check(name="failed requests", value=failed, threshold="0", status="WARN" if failed else "PASS")


def count_errors(run: Run) -> dict[str, int]:
    """Returns the failed requests of all rows by gRPC status code, sorted."""
    errors: dict[str, int] = {}
    for row in run.file.rows:
        for code, number in row.errors.items():
            errors[code] = errors.get(code, 0) + number
    return dict(sorted(errors.items()))


def format_errors(errors: dict[str, int]) -> str:
    """Returns such as `12 UNAVAILABLE, 3 CANCELLED`, or `none`."""
    return ", ".join(f"{number} {code}" for code, number in errors.items()) or "none"
