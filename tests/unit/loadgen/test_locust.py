"""What this package changes in a process of Locust, when, and what it does with an exception in a listener.

Each test has a process of its own: importing Locust patches the standard library of the whole process.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from loadgen._locust_version import SUPPORTED_VERSIONS

ROOT = Path(__file__).parents[3]

#: Everything that a run of this package changes in its process, and that Locust's other users would notice.
STATE = """
import gc
import signal
import sys

import locust
import locust.stats
from locust.rpc import zmqrpc


def state():
    listeners = {name: len(hook._handlers) for name, hook in vars(locust.events).items() if hasattr(hook, "_handlers")}
    return (
        zmqrpc.Server, zmqrpc.Client, locust.stats.bucket_response_time, listeners,
        sys.getswitchinterval(), gc.get_freeze_count(), signal.getsignal(signal.SIGINT),
    )

before = state()
"""

#: A master that plays no run, with a user class of this package and one of Locust's.
MASTER = """
from locust import User
from locust.env import Environment
from locust.rpc import Message

from loadgen import InferenceUser, _locust


class Mine(InferenceUser):
    pass


class Plain(User):
    pass


environment = Environment(user_classes=[Plain])
runner = environment.create_master_runner("127.0.0.1", 0)
_locust._on_init(environment, runner)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )


def test_importing_inference_user_changes_nothing() -> None:
    done = run(STATE + "from loadgen import InferenceUser\nassert state() == before, (before, state())")

    assert done.returncode == 0, done.stderr


def test_a_subclass_adds_listeners_and_nothing_else_before_the_command_line_is_read() -> None:
    code = STATE + (
        "from loadgen import InferenceUser\n"
        "class Mine(InferenceUser): pass\n"
        "class Other(InferenceUser): pass\n"
        "after = state()\n"
        "assert after[:3] + after[4:] == before[:3] + before[4:], (before, after)\n"
        "added = {name: count - before[3][name] for name, count in after[3].items() if count != before[3][name]}\n"
        "assert set(added.values()) == {1}, added\n"
    )

    done = run(code)

    assert done.returncode == 0, done.stderr


def test_the_socket_classes_are_replaced_with_the_options_and_put_back_at_the_end() -> None:
    code = STATE + (
        "from loadgen import InferenceUser, _locust\n"
        "from locust.argument_parser import get_parser\n"
        "class Mine(InferenceUser): pass\n"
        "parser = get_parser()\n"
        "assert zmqrpc.Server is not before[0] and zmqrpc.Client is not before[1]\n"
        "assert '--slo' in parser.format_help()\n"
        "locust.events.quit.fire(exit_code=0)\n"
        "assert state()[:3] == before[:3]\n"
    )

    done = run(code)

    assert done.returncode == 0, done.stderr


def test_ctrl_c_has_pythons_handler_again_after_a_run() -> None:
    code = """
    import os, signal
    from loadgen import InferenceUser
    from loadgen.adapter import InterruptHandler

    handler = InterruptHandler()
    handler.apply()
    handler.apply()
    handler.restore()
    handler.restore()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        print("interrupted")
    """

    done = run(code)

    assert done.stdout == "interrupted\n", done.stderr


def test_an_exception_in_the_handling_of_a_message_is_logged_and_fails_the_run() -> None:
    code = MASTER + (
        "runner.handle_message('host_1', Message('client_ready', '2.47.0', 'host_1'))\n"
        "runner.server = None\n"
        "heartbeat = {'state': 'running', 'current_cpu_usage': 1.0}\n"
        "runner.handle_message('host_1', Message('heartbeat', heartbeat, 'host_1'))\n"
        "print(environment.process_exit_code, dict(_locust._registry.validator.refused))\n"
    )

    done = run(code)

    assert done.stdout == "1 {}\n", done.stderr
    assert "handling of message 'heartbeat' from host_1 failed" in done.stderr
    assert "Traceback" in done.stderr
    assert "AttributeError" in done.stderr


def test_an_exception_in_a_listener_is_logged_and_fails_the_run() -> None:
    code = MASTER + (
        "from types import SimpleNamespace\n"
        "def fail(): raise RuntimeError('of this test')\n"
        "_locust._registry.role = SimpleNamespace(drain=fail)\n"
        "import locust\n"
        "locust.events.test_stopping.fire(environment=environment)\n"
        "print(environment.process_exit_code)\n"
    )

    done = run(code)

    assert done.stdout == "1\n", done.stderr
    assert "Traceback" in done.stderr
    assert "RuntimeError: of this test" in done.stderr


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("del zmqrpc.BaseSocket.recv_from_client", "no locust.rpc.zmqrpc.Server."),
        (
            "zmqrpc.Server.__init__ = lambda self, address: None",
            "locust.rpc.zmqrpc.Server.__init__ takes (self, address), expected (self, host, port)",
        ),
        ("import locust; del locust.events.test_stopping", "no event test_stopping"),
    ],
)
def test_a_locust_with_other_internals_is_refused_in_one_line(change: str, problem: str) -> None:
    code = (
        f"from locust.rpc import zmqrpc; {change}\n"
        "import loadgen\n"
        "try:\n    loadgen.InferenceUser\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )

    done = run(code)

    assert done.stdout.startswith("LocustVersionError Locust 2."), done.stderr
    assert problem in done.stdout
    assert f"inferload works with Locust {SUPPORTED_VERSIONS}" in done.stdout
    assert done.stdout.count("\n") == 1


def test_the_supported_versions_are_those_that_are_installed() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    assert f"locust{SUPPORTED_VERSIONS}" in dependencies
