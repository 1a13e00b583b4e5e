"""What Locust finds in loadgen/: one file with one user class, and nothing that it would load a second time."""

import ast
import subprocess
import sys
from pathlib import Path

import loadgen

PACKAGE = Path(loadgen.__file__).parent


def test_discovery_finds_the_one_locustfile() -> None:
    # In a process of its own: importing Locust patches the standard library of the whole process.
    code = (
        f"from locust.argument_parser import parse_locustfile_paths; print(parse_locustfile_paths([{str(PACKAGE)!r}]))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [Path(path).name for path in ast.literal_eval(done.stdout)] == ["locustfile.py"]


def test_importing_the_package_pulls_in_neither_locust_nor_torch() -> None:
    code = "import sys, loadgen, capacity; print(sorted({'locust', 'gevent', 'torch'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_public_class_is_found_by_name_only() -> None:
    code = (
        "from loadgen import InferenceUser; import loadgen; print(InferenceUser.__name__, hasattr(loadgen, 'Nothing'))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["InferenceUser", "False"]
