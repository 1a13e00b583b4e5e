"""A master and its generators, each a Locust process of its own, and what they leave in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.processes import free_port, hear_ctrl_c, served, wait_for

ROOT = Path(__file__).parents[2]
SIM = ("--sim", "fixed:5ms", "--sim-host", "c5.large", "--sim-type", "eia2.medium")
GENERATORS = 4
TOKEN = "of-this-test"


@dataclass
class Cluster:
    """Processes of one run. `inside` is a prefix of every command, such as `ip netns exec NAME`."""

    folder: Path
    targets: tuple[str, ...]
    host: str = "127.0.0.1"
    inside: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    #: Where generators look for the master; at its own port unless something stands between.
    generator_port: int | None = None
    web_port: int = field(default_factory=free_port)
    locustfile: Path = ROOT / "loadgen"
    master: subprocess.Popen[str] | None = None
    generators: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, generators: int = GENERATORS, users: int = 8) -> None:
        """Starts a headless run and its generators."""
        how = ("--headless", "-u", str(users), "--expect-workers", str(generators))
        self.start_master(*how, *arguments)
        for _ in range(generators):
            self.add()

    def start_with_page(self) -> None:
        """Starts a run that Locust's web UI ends."""
        page = ("--web-host", "127.0.0.1", "--web-port", str(self.web_port))
        self.start_master("--autostart", "-u", "8", "--expect-workers", str(GENERATORS), *page)
        for _ in range(GENERATORS):
            self.add()

    def start_master(self, *arguments: str) -> None:
        where = ("--master-bind-host", self.host, "--master-bind-port", str(self.port))
        self.master = self.locust("master", self.inside, "--master", *where, *self._run_options(), *arguments)

    def start_forking(self, *arguments: str) -> None:
        """Starts one command that forks its generators."""
        here = ("--master-bind-host", self.host, "--master-bind-port", str(self.port), "--master-port", str(self.port))
        how = ("--headless", "-u", "8", "--processes", str(GENERATORS))
        self.master = self.locust("master", self.inside, *how, *here, *self._run_options(), *arguments)

    def add(self, inside: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Starts one more generator."""
        where = ("--master-host", self.host, "--master-port", str(self.generator_port or self.port))
        generator = self.locust(f"generator-{len(self.generators)}", inside, "--worker", *where)
        self.generators.append(generator)
        return generator

    def _run_options(self) -> tuple[str, ...]:
        return ("--targets", ",".join(self.targets), "--run-dir", "run")

    def locust(self, name: str, inside: Sequence[str], *arguments: str) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [*inside, sys.executable, "-m", "locust", "-f", str(self.locustfile), "--only-summary", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.folder,
                env={**os.environ, "INFERLOAD_TARGETS": "", "INFERLOAD_RUN_TOKEN": TOKEN},
                preexec_fn=hear_ctrl_c,
                # A group of its own, which a test can interrupt as a terminal does.
                start_new_session=True,
            )

    def page(self, path: str, data: bytes = b"") -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", data, timeout=60) as answer:
            assert answer.status == 200

    def wait_until_running(self, at_least: int = 200) -> None:
        """Waits until the targets have served some requests."""
        wait_for(lambda: (self.folder / "run" / "run.hlog").exists() and self.served() > at_least, 60)

    def served(self) -> int:
        """Returns how many requests the targets have served."""
        return served(*self.targets, inside=self.inside)

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

    def document(self, run: str = "run") -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / run / "run.json").read_text())
        return document

    def merge(self, out: str = "merged") -> dict[str, Any]:
        """Merges the generators' logs with `capacity merge`. Returns its run.json."""
        command = [sys.executable, "-m", "capacity", "merge", "runs/generators", "--out", out]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True)
        return self.document(out)


def counted(document: dict[str, Any]) -> int:
    """Returns the number of requests of a run, with those of the warm-up."""
    return sum(row["requests"] + row["warmup"]["requests"] for row in document["rows"])
