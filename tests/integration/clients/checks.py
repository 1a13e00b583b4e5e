"""What the scripts in this folder share: each promise is a function, all are run, and what each did is printed.

These scripts run under the interpreter of a foreign client's environment, where nothing of inferload is installed.
"""

import sys
import traceback
from collections.abc import Callable
from typing import Any

CHECKS: list[Callable[[Any], None]] = []


def check(function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Marks a promise; it is run with what the script's main made for it."""
    CHECKS.append(function)
    return function


def run_all(subject: Any) -> None:
    """Prints `ok NAME` or `failed NAME` with the traceback for each; exits 1 where one failed."""
    failed = 0
    for function in CHECKS:
        try:
            function(subject)
            print("ok", function.__name__, flush=True)
        except Exception:
            failed += 1
            print("failed", function.__name__, traceback.format_exc(), flush=True)
    sys.exit(1 if failed else 0)


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """The gRPC code name and the message of the InferenceServerException that `call` must raise."""
    from tritonclient.utils import InferenceServerException

    try:
        call()
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode."), str(error.message())
    raise AssertionError("nothing was refused")
