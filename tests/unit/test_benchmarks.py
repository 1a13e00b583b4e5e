"""The benchmarks, which `make test` does not run, import only names that the packages have."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))
PACKAGES = ("worker", "loadgen", "capacity")


def package_imports(text: str) -> list[str]:
    """The statements, wherever they are in a program, that import from this project's packages."""
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return [ast.unparse(node) for node in imports if (node.module or "").partition(".")[0] in PACKAGES]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_names_that_a_benchmark_imports_exist(script: Path) -> None:
    statements = package_imports(script.read_text(encoding="utf-8"))
    if not statements:
        return
    # In another process: loadgen would start gevent in the one of all tests.
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(statements)], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert result.returncode == 0, result.stderr
