"""Known vulnerabilities in the pinned packages: pip-audit against OSV's database, judged by an allow-list with reasons.

A vulnerability that has a fix fails the check, unless audit.toml says why it may stay. Where the database cannot be
reached the check says that it was skipped, and passes; with INFERLOAD_AUDIT=required it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OSV = "https://api.osv.dev/v1/query"
#: For all packages together, and for one answer of the database.
PATIENCE_S, ANSWER_S = 120, 10


def audited(url: str, pinned: Path) -> dict[str, Any] | str:
    """What pip-audit says of a file of pinned packages, or in one line why it could not."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(pinned), "--no-deps"]
    command += ["--disable-pip", "--vulnerability-service", "osv", "--osv-url", url, "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", str(ANSWER_S)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer for all packages within {PATIENCE_S} s"
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return (done.stderr.strip().splitlines() or ["pip-audit says nothing"])[-1][:200]
    return found


def allowed(path: Path, today: date) -> dict[str, str]:
    """Vulnerabilities that may stay for now, by any of their names, with the reason. ValueError for one without."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("allowed", []) if path.is_file() else []
    for entry in entries:
        if not entry.get("id") or not entry.get("reason") or not isinstance(entry.get("until"), date):
            raise ValueError(f"{path.name}: an entry needs id, reason and until (a date): {entry}")
    return {entry["id"]: entry["reason"] for entry in entries if entry["until"] >= today}


def judged(document: Mapping[str, Any], allow: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What fails, and what is only said: no fix yet, or allowed."""
    failures, notes = [], []
    for package in document["dependencies"]:
        for one in package.get("vulns", []):
            names = [one["id"], *one.get("aliases", [])]
            what = f"{package['name']} {package['version']}: {', '.join(names)}"
            reasons = [allow[name] for name in names if name in allow]
            if reasons:
                notes.append(f"{what}: allowed, {reasons[0]}")
            elif one.get("fix_versions"):
                failures.append(f"{what}: fixed in {', '.join(one['fix_versions'])}")
            else:
                notes.append(f"{what}: no fix yet")
    return failures, notes


def main() -> int:
    """Prints what was found in constraints.txt, or the file that is named; the exit code."""
    pinned = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "constraints.txt"
    found = audited(os.environ.get("INFERLOAD_OSV_URL", OSV), pinned)
    if isinstance(found, str):
        print(f"audit: SKIPPED, the vulnerability database cannot be asked: {found}")
        return 1 if os.environ.get("INFERLOAD_AUDIT") == "required" else 0
    failures, notes = judged(found, allowed(ROOT / "audit.toml", date.today()))
    for line in notes:
        print(f"audit: {line}")
    for line in failures:
        print(f"audit: FAIL {line}")
    print(f"audit: {len(found['dependencies'])} packages, {len(failures)} to be upgraded")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
