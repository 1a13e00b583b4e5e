"""Fleet: one worker process per ordinal, started together, restarted when one ends, ended together whatever happens.

One thread with one selector reads the workers' output, and signals through a wake-up descriptor.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import InputError
from worker.wire import TargetEntry, write_targets_file

# Time that a worker has to end after its drain before it is killed.
_END_GRACE_S = 5.0
# Wait before the first restart of a worker; it doubles with each, up to a limit.
_RESTART_DELAY_S = 0.5
_MAX_RESTART_DELAY_S = 30.0
# prctl(2): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


@dataclass
class _Worker:
    """One worker process and what it has printed."""

    accelerator: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    address: str = ""
    model: str = ""
    ready: bool = False
    restarts: int = 0
    # By time.monotonic; 0: no restart is planned.
    restart_at: float = 0.0
    # Lines from before the worker was ready: printed then, or in the message that it did not start.
    early_lines: list[str] = field(default_factory=list)
    partial: dict[str, bytes] = field(default_factory=dict)


class Fleet:
    """Runs `python -m worker serve` once per accelerator.

    `arguments` are those of `serve`. `command` runs once all workers are ready, and the fleet ends with it.
    """

    def __init__(
        self,
        accelerators: Sequence[str],
        arguments: Sequence[str],
        *,
        targets_file: Path | None = None,
        command: Sequence[str] = (),
        metrics_port: int | None = None,
        restarts: int = 5,
        drain_s: float = 30.0,
    ) -> None:
        serve = [sys.executable, "-m", "worker", "serve", *arguments, "--accelerator"]
        self._workers = [_Worker(name, [*serve, name]) for name in accelerators]
        if metrics_port is not None:
            for number, worker in enumerate(self._workers):
                worker.command += ["--metrics-port", str(metrics_port + number)]
        self._targets_file = targets_file
        self._command = list(command)
        self._restarts = restarts
        self._drain_s = drain_s
        self._selector = selectors.DefaultSelector()
        self._child: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        self._parent = os.getpid()

    def run(self) -> int:
        """Runs the fleet to its end, and returns the exit code. Raises InputError, StartError among them."""
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        self._selector.register(reader, selectors.EVENT_READ)
        previous = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
        }
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        written = False
        try:
            for worker in self._workers:
                self._start(worker)
            if not self._wait_until_ready():
                return 0
            if self._targets_file is not None:
                self._write_targets(self._targets_file)
                written = True
            return self._serve()
        finally:
            if written and self._targets_file is not None:
                self._targets_file.unlink(missing_ok=True)
            self._end()
            signal.set_wakeup_fd(wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._selector.close()
            reader.close()
            writer.close()

    def _on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _spawn(self, command: list[str], **options: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # type: ignore[call-overload]
            command,
            # Safe here: this process has one thread.
            preexec_fn=lambda: _die_with_parent(self._parent),
            **options,
        )

    def _start(self, worker: _Worker) -> None:
        # A session of its own: Ctrl-C in a terminal ends the load first, and the workers after it.
        worker.process = self._spawn(
            worker.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        worker.restart_at = 0.0
        worker.early_lines.clear()
        for name, pipe in (("stdout", worker.process.stdout), ("stderr", worker.process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            worker.partial[name] = b""
            self._selector.register(pipe, selectors.EVENT_READ, (worker, name))

    def _poll(self, timeout: float | None) -> None:
        """Waits for output or a signal, at most so many seconds, and reads all that has come."""
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
            else:
                self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        worker, name = key.data
        try:
            data = os.read(key.fd, 65536)
        except BlockingIOError:
            return
        *lines, worker.partial[name] = (worker.partial[name] + data).split(b"\n")
        if not data:
            if worker.partial[name]:
                lines.append(worker.partial[name])
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
        for line in lines:
            self._hear(worker, name, line.decode(errors="replace"))

    def _hear(self, worker: _Worker, name: str, line: str) -> None:
        words = line.split(" ", 3)
        if name == "stdout" and words[0] == "ready" and len(words) == 4 and not worker.ready:
            worker.ready, worker.address, worker.model = True, words[1], words[3]
            # Restarted, it answers where it answered before.
            if worker.restarts == 0:
                worker.command += ["--port", worker.address.rpartition(":")[2]]
            for early_line in worker.early_lines:
                _print_error(early_line)
            worker.early_lines.clear()
            if worker.restarts:
                _print_error(f"worker {worker.accelerator} at {worker.address} is ready again")
        elif worker.ready:
            _print_error(line)
        else:
            worker.early_lines.append(line)

    def _wait_until_ready(self) -> bool:
        """Returns False where a signal came first. Raises StartError with the output of a worker that ended."""
        names = ", ".join(worker.accelerator for worker in self._workers)
        live = sys.stderr.isatty()
        _print_error(
            f"starting {len(self._workers)} worker{'s' * (len(self._workers) > 1)}: {names}", end="" if live else "\n"
        )
        while not all(worker.ready for worker in self._workers):
            if self._signals:
                return False
            self._poll(None)
            if live:
                _print_error(
                    f"\r\x1b[Kstarting: {sum(w.ready for w in self._workers)} of {len(self._workers)} ready", end=""
                )
            for worker in self._workers:
                if not worker.ready and worker.process is not None and (code := worker.process.poll()) is not None:
                    self._drain_output(worker)
                    lines = worker.early_lines or [
                        f"{worker.accelerator} ended with {_ending(code)} before it was ready"
                    ]
                    raise StartError("\n".join(lines).removeprefix("error: "), code)
        if live:
            _print_error("\r\x1b[K", end="")
        for worker in self._workers:
            line = f"ready {worker.address} {worker.accelerator} {worker.model}"
            if self._command:
                _print_error(line)
            else:
                print(line, flush=True)
        return True

    def _drain_output(self, worker: _Worker) -> None:
        for key in [key for key in self._selector.get_map().values() if key.data and key.data[0] is worker]:
            self._read(key)

    def _write_targets(self, path: Path) -> None:
        entries = [
            TargetEntry(worker.address, worker.accelerator, worker.model, worker.process.pid if worker.process else 0)
            for worker in self._workers
        ]
        try:
            write_targets_file(path, entries)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None

    def _serve(self) -> int:
        if self._command:
            addresses = ",".join(worker.address for worker in self._workers)
            try:
                self._child = self._spawn(self._command, env={**os.environ, "INFERLOAD_TARGETS": addresses})
            except (OSError, subprocess.SubprocessError) as error:
                raise InputError(
                    f"the command {self._command[0]} cannot be run: {getattr(error, 'strerror', None) or error}"
                ) from None
        while True:
            if self._child is not None and (code := self._child.poll()) is not None:
                return code if code >= 0 else 128 - code
            if self._signals:
                if self._child is None:
                    return 0
                self._forward(self._signals.pop(0))
            if not self._restart_workers() and self._child is None:
                _print_error("error: no worker is left")
                return 1
            due = [worker.restart_at for worker in self._workers if worker.restart_at]
            self._poll(max(0.0, min(due) - time.monotonic()) if due else None)

    def _forward(self, number: int) -> None:
        assert self._child is not None
        # Ctrl-C has reached the command already, with everything else in the terminal's foreground.
        with contextlib.suppress(OSError, ProcessLookupError):
            if number == signal.SIGINT and sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp():
                return
        self._child.send_signal(number)

    def _restart_workers(self) -> bool:
        """Plans the restart of workers that ended, and starts those that are due. Returns False where none is left."""
        for worker in self._workers:
            process = worker.process
            if process is not None and (code := process.poll()) is not None:
                self._drain_output(worker)
                for early_line in worker.early_lines:
                    _print_error(early_line)
                worker.process, worker.ready = None, False
                event = f"worker {worker.accelerator} at {worker.address} ended with {_ending(code)}"
                if worker.restarts >= self._restarts:
                    _print_error(f"{event}; it was restarted {worker.restarts} times and is not started again")
                else:
                    wait = min(_RESTART_DELAY_S * 2**worker.restarts, _MAX_RESTART_DELAY_S)
                    worker.restarts += 1
                    worker.restart_at = time.monotonic() + wait
                    _print_error(f"{event}; restart {worker.restarts} of {self._restarts} in {wait:g} s")
            elif process is None and worker.restart_at and time.monotonic() >= worker.restart_at:
                self._start(worker)
        return any(worker.process is not None or worker.restart_at for worker in self._workers)

    def _end(self) -> None:
        """Sends SIGTERM to all, and SIGKILL to those that stay, at once when a second signal comes."""
        alive = [worker.process for worker in self._workers if worker.process is not None]
        if self._child is not None:
            alive.append(self._child)
        self._signals.clear()
        for process in alive:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + self._drain_s + _END_GRACE_S
        while any(process.poll() is None for process in alive):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or self._signals:
                break
            self._poll(remaining_s)
        for process in alive:
            if process.poll() is None:
                process.kill()
            process.wait()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]


class StartError(InputError):
    """A worker ended before it was ready: its output, and its exit code."""

    def __init__(self, output: str, code: int) -> None:
        super().__init__(output)
        self.exit_code = code if code > 0 else 1


def _die_with_parent(parent: int) -> None:
    """Asks the kernel for SIGTERM when the parent ends, however it ends; called in the child before exec.

    `parent` is the parent's process id: where it has ended already, the child ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _print_error(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
