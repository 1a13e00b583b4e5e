"""Environments of foreign clients and servers, each in a venv of its own: their protobuf definitions clash with ours.

They are made on first use under `.cache-clients/` and kept. `python tests/tools/environments.py mlserver` prints the
folder of one, for a benchmark.
"""

import contextlib
import fcntl
import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache-clients"
#: Name of an environment -> its pinned requirements.
REQUIREMENTS = {
    "tritonclient": ROOT / "tests/integration/clients/tritonclient.txt",
    "mlserver": ROOT / "benchmarks/mlserver.txt",
}
#: Less than a test may take, so that a slow network skips tests and does not fail them. By hand there is more time.
PATIENCE_S, PATIENCE_BY_HAND_S = 150, 1800


class NotAvailable(Exception):
    """The environment could not be made here; says why in one line."""


@functools.cache
def environment(name: str, patience_s: float = PATIENCE_S) -> Path:
    """The folder of an installed venv. NotAvailable where its packages cannot be installed, or not in time."""
    requirements = REQUIREMENTS[name].read_bytes()
    folder = (
        CACHE / f"{name}-{hashlib.sha256(requirements).hexdigest()[:12]}-py{sys.version_info[0]}{sys.version_info[1]}"
    )
    with _alone(name):
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            pip = [folder / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
            pip += ["--retries", "1", "--requirement", REQUIREMENTS[name]]
            _run(pip, f"{name} cannot be installed", patience_s=patience_s)
            (folder / "installed").touch()
    return folder


@functools.cache
def debian_library(package: str) -> Path:
    """The folder of a Debian package's shared libraries, unpacked without installing it. NotAvailable without apt."""
    folder = CACHE / f"debian-{package}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotAvailable(f"{package} needs apt, which is not here")
    with _alone(package):
        if not folder.exists():
            with tempfile.TemporaryDirectory() as scratch:
                _run(["apt-get", "download", package], f"{package} cannot be downloaded", cwd=Path(scratch))
                (archive,) = Path(scratch).glob("*.deb")
                unpacked = Path(scratch) / "unpacked"
                _run(["dpkg-deb", "--extract", archive, unpacked], f"{package} cannot be unpacked")
                shutil.move(unpacked, folder)
    return next(folder.rglob("*.so.*")).parent


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two test runs at once must not install into one folder."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path], failure: str, cwd: Path | None = None, patience_s: float = PATIENCE_S) -> None:
    try:
        subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=patience_s, check=True)
    except subprocess.CalledProcessError as error:
        raise NotAvailable(f"{failure}: {_last_line(error.stderr or error.stdout)}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{failure}: {error}") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]


if __name__ == "__main__":
    try:
        print(environment(sys.argv[1], PATIENCE_BY_HAND_S))
    except NotAvailable as error:
        sys.exit(f"error: {error}")
