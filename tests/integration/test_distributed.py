"""Many generators, one run: whatever ends it, what the targets served is what run.json counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tools.processes import free_port, hear_ctrl_c, served, wait_for

ROOT = Path(__file__).parents[2]
SIM = ("--sim", "fixed:5ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium")
GENERATORS = 4


@dataclass
class Cluster:
    """A master and its generators, each a Locust process of its own."""

    folder: Path
    targets: tuple[str, ...]
    port: int = field(default_factory=free_port)
    master: subprocess.Popen[str] | None = None
    generators: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, generators: int = GENERATORS, headless: bool = True) -> None:
        where = ("--master-host", "127.0.0.1", "--master-port", str(self.port))
        how = ("--headless", "-u", "8", "--expect-workers", str(generators)) if headless else ()
        self.master = self._locust(
            *("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(self.port), *how),
            *("--targets", ",".join(self.targets), "--run-dir", "run", *arguments),
        )
        for _ in range(generators):
            self.generators.append(self._locust("--worker", *where))

    def _locust(self, *arguments: str) -> subprocess.Popen[str]:
        log = (self.folder / f"locust-{len(self.generators)}-{'master' if self.master is None else 'worker'}.log").open(
            "w"
        )
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "locust", "-f", str(ROOT / "loadgen"), "--only-summary", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.folder,
                env={**os.environ, "INFERLOAD_TARGETS": ""},
                preexec_fn=hear_ctrl_c,
            )

    def wait(self, timeout: float = 60) -> int:
        assert self.master is not None
        code = self.master.wait(timeout)
        for generator in self.generators:
            generator.wait(timeout)
        return code

    def kill(self) -> None:
        for process in (*self.generators, *filter(None, [self.master])):
            if process.poll() is None:
                process.kill()
            process.wait()

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run" / "run.json").read_text())
        return found

    def counted(self) -> int:
        return sum(row["requests"] + row["warmup"]["requests"] for row in self.document()["rows"])


@pytest.fixture
def cluster(serve: Callable[..., Any], tmp_path: Path) -> Iterator[Cluster]:
    workers = [serve("--accelerator", f"sim:{ordinal}", *SIM) for ordinal in range(2)]
    made = Cluster(tmp_path, tuple(worker.address for worker in workers))
    yield made
    made.kill()


def under_way(cluster: Cluster) -> None:
    wait_for(lambda: (cluster.folder / "run" / "run.hlog").exists() and served(*cluster.targets) > 200, 60)


@pytest.mark.parametrize("ending", ["run-time", "ctrl-c", "sigterm to the master", "sigterm to a generator"])
def test_every_ending_counts_what_the_targets_served(cluster: Cluster, ending: str) -> None:
    cluster.start(*(("-t", "3s") if ending == "run-time" else ()), *(("-t", "6s") if "generator" in ending else ()))
    under_way(cluster)
    assert cluster.master is not None

    if ending == "ctrl-c":
        cluster.master.send_signal(signal.SIGINT)
    elif ending == "sigterm to the master":
        cluster.master.terminate()
    elif ending == "sigterm to a generator":
        cluster.generators[0].terminate()
    cluster.wait()

    document = cluster.document()
    assert cluster.counted() == served(*cluster.targets)
    assert [generator["complete"] for generator in document["generators"]] == [True] * GENERATORS
    assert sum(generator["requests"] for generator in document["generators"]) == sum(
        row["requests"] for row in document["rows"]
    )
    assert all(row["errors"] == {} for row in document["rows"])
