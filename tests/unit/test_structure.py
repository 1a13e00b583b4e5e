"""The structure rules of `make check` find what breaks them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.structure import ROOT, read_modules, violations

GOOD = {
    "worker/__init__.py": "",
    "loadgen/__init__.py": "",
    "capacity/__init__.py": "",
    "capacity/errors.py": "class InputError(ValueError): pass\n",
    "capacity/low/__init__.py": 'from capacity.low.table import Table\n\n__all__ = ["Table"]\n',
    "capacity/low/table.py": "from capacity.errors import InputError\n\nclass Table: pass\n",
    "capacity/high/__init__.py": 'from capacity.high.use import rows\n\n__all__ = ["rows"]\n',
    "capacity/high/use.py": "from capacity.low import Table\n\ndef rows() -> Table:\n    return Table()\n",
    "loadgen/run/__init__.py": "__all__ = []\n",
    "loadgen/run/_writer.py": "from capacity.high import rows\n",
}


def tree(root: Path, changes: dict[str, str]) -> list[str]:
    """What is wrong with the good tree after `changes`: text by path."""
    for name, text in {**GOOD, **changes}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return violations(root)


def test_a_tree_that_keeps_every_rule_has_no_violation(tmp_path: Path) -> None:
    assert tree(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"capacity/high/use.py": "x = 1\n" * 351}, "351 lines; a module has at most 350"),
        ({f"capacity/high/m{number}.py": "" for number in range(10)}, "11 modules side by side"),
        ({"loadgen/run/writer.py": ""}, "Locust would load this file; name it _writer.py"),
        (
            {
                "capacity/high/one.py": "from capacity.high.two import b\n",
                "capacity/high/two.py": "def b() -> None:\n    from capacity.high.one import a\n",
            },
            "modules import each other in a cycle: capacity.high.one, capacity.high.two",
        ),
        (
            {"capacity/low/other.py": "if TYPE_CHECKING:\n    from capacity.high import rows\n"},
            "folders import each other in a cycle: capacity.high, capacity.low",
        ),
        (
            {"capacity/high/use.py": "from capacity.low.table import Table\n"},
            "capacity.low.table is private to its folder",
        ),
        ({"capacity/high/use.py": "from capacity.low import table\n"}, "capacity.low.table is private to its folder"),
        (
            {"loadgen/_options.py": "", "capacity/high/use.py": "from loadgen import _options\n"},
            "not one of the public folders",
        ),
        ({"capacity/high/use.py": "import subprocess\n"}, "subprocess: only capacity/experiments starts processes"),
        ({"capacity/high/use.py": "import os\n\ndef f():\n    os.fork()\n"}, "os.fork: only capacity/experiments"),
        ({"capacity/high/__init__.py": ""}, "no __all__"),
        ({"capacity/high/__init__.py": "__all__ = []\n\ndef f(): pass\n"}, "f is defined in an __init__"),
        ({"capacity/high/use.py": "x = 0\n\ndef f():\n    global x\n"}, "global x: no module-level mutable state"),
        ({"capacity/high/use.py": "cache = {}\n"}, "cache: no module-level mutable state"),
        ({"capacity/high/use.py": "class Door: pass\ndoor = Door()\n"}, "door: no module-level mutable state"),
        ({"capacity/high/use.py": "def f(x):\n    found = x\n"}, "found is a participle"),
    ],
)
def test_a_broken_rule_is_one_line_that_names_it(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    lines = tree(tmp_path, changes)
    assert len(lines) == 1, lines
    assert words in lines[0]


def test_experiments_may_start_processes(tmp_path: Path) -> None:
    experiments = {
        "capacity/experiments/__init__.py": "__all__ = []\n",
        "capacity/experiments/fleet.py": "import subprocess\n",
    }
    assert tree(tmp_path, experiments) == []


def test_all_of_this_project_is_read() -> None:
    modules = read_modules(ROOT)
    assert {"worker.server", "loadgen._options", "capacity.statistics.histogram"} <= set(modules)
    assert not any(name.endswith("_pb2") for name in modules)
