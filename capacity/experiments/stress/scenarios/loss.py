"""loss: one worker is killed, hung or slowed under open load; what that costs, and how soon the pool recovers."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from capacity.errors import InputError
from capacity.experiments import RunningLoad
from capacity.experiments.stress import (
    WARMUP_S,
    ResultTable,
    RunWindow,
    ScenarioResult,
    StressEnvironment,
    TargetMark,
    check_accounted,
    check_valid_runs,
    count_errors,
    format_errors,
    format_ms,
    run_window,
    timeline_panels,
)
from capacity.measures import HardwareCombination
from capacity.rundir import Run, TargetEvent
from capacity.simulation import Pool, Profile, find_highest_rate
from capacity.statistics import Check
from worker.wire import TargetEntry, display_duration

SECONDS, LOAD_SHARE = 20.0, 0.6
CAPACITY_S = 6.0
#: How long a worker hangs or is slow, or a quarter of a shorter run; a killed one is restarted by its fleet.
FAULT_S = 4.0
MAX_DETECTION_S = 1.0
#: The least answered rate after recovery, as a share of that before the fault.
MIN_RECOVERY = 0.95
#: What can be done to the worker, and the word for a worker to which it was done.
FAULTS = {"kill": "killed", "hang": "hung", "slow": "slowed"}
#: slow: the worker is stopped for half of each period.
_PERIOD_S = 0.02
#: An event may be recorded so much before the fault was injected, by another process's clock.
_CLOCK_TOLERANCE_S = 0.05
_SIMULATED_REQUESTS = 30_000


def run_loss(environment: StressEnvironment) -> ScenarioResult:
    """Measures the capacity, then injects the fault into one worker under open load."""
    options = environment.options
    seconds, share = options.seconds or SECONDS, options.load_share or LOAD_SHARE
    victim = _victim(environment)
    capacity = environment.measure_capacity("capacity", min(CAPACITY_S, seconds / 2))
    saturated = environment.runs[-1]
    environment.progress(
        f"{share * capacity:.4g} requests a second, {100 * share:.0f} %; {options.fault} {victim.name} meanwhile"
    )
    begin_unix = end_unix = 0.0

    def during(load: RunningLoad) -> None:
        nonlocal begin_unix, end_unix
        load.wait_until_started()
        load.wait(WARMUP_S + seconds / 4)
        begin_unix = time.time()
        _inject_fault(load, victim.pid, options.fault, min(FAULT_S, seconds / 4))
        end_unix = time.time()

    run = environment.run_open("loss", share * capacity, seconds, during=during)
    outage = Outage.of_run(run, victim.address, options.fault, begin_unix, end_unix)
    windows = outage.windows(run)
    errors = count_errors(run)
    summary = [
        f"{victim.name}, {FAULTS[options.fault]} at {100 * share:.0f} % load: {outage.description} Requests lost: "
        f"{format_errors(errors)}."
    ]
    summary += _rate_with_one_missing(environment, saturated)
    return ScenarioResult(
        summary=summary,
        checks=[
            check_valid_runs([run]),
            check_accounted(run),
            outage.check_detection(),
            check_recovery(windows["before"], windows["after"], recovered=outage.recovered),
        ],
        tables=[_window_table(windows), _event_table(run.file.events)],
        panels=timeline_panels(run),
        marks=[TargetMark(at_s=event.at_s, down=event.state == "down") for event in run.file.events],
        figures={
            "capacity_rps": capacity,
            "detected_s": outage.detected_s,
            "recovered_s": outage.recovered_s,
            "fault_s": outage.fault_s,
            "lost": float(sum(errors.values())),
        },
    )


@dataclass(frozen=True)
class Outage:
    """What became of the worker with the fault: times in seconds.

    `begin_s` counts from when measuring began. `detected_s`, `recovered_s` and `fault_s`, the end of the fault, count
    from the begin of the fault. None: not before the end of the run.
    """

    fault: str
    begin_s: float
    fault_s: float
    detected_s: float | None
    recovered_s: float | None

    @classmethod
    def of_run(cls, run: Run, address: str, fault: str, begin_unix: float, end_unix: float) -> Outage:
        """Returns the outage by the run's events and the times of the fault, in seconds of time.time()."""
        events = [event for event in run.file.events if event.target.endswith(f"@ {address}")]
        after = begin_unix - _CLOCK_TOLERANCE_S
        down = next((event for event in events if event.state == "down" and event.at_unix >= after), None)
        up = next((event for event in events if down and event.state == "up" and event.at_unix > down.at_unix), None)
        # The time at which measuring began, by the clock of the events where there is one.
        measuring_unix = down.at_unix - down.at_s if down else run.file.started.timestamp() + run.measured_from_s
        return cls(
            fault=fault,
            begin_s=begin_unix - measuring_unix,
            fault_s=end_unix - begin_unix,
            detected_s=down.at_unix - begin_unix if down else None,
            recovered_s=up.at_unix - begin_unix if up else None,
        )

    @property
    def only_slow(self) -> bool:
        """Whether the worker was slowed and never counted as down, which it need not be."""
        return self.fault == "slow" and self.detected_s is None

    @property
    def recovered(self) -> bool:
        """Whether the worker served again before the end of the run."""
        return self.recovered_s is not None or self.only_slow

    @property
    def description(self) -> str:
        """The outage in a sentence: when it was detected, and when the worker was up again."""
        if self.only_slow:
            return f"not counted as down, the fault ended after {self.fault_s:.2f} s."
        detected = "not detected" if self.detected_s is None else f"detected after {self.detected_s:.2f} s"
        recovered = "not up before the end" if self.recovered_s is None else f"up after {self.recovered_s:.2f} s"
        return f"{detected}, {recovered}."

    def windows(self, run: Run) -> dict[str, RunWindow]:
        """Returns the run before, during and after the outage; a second on either side belongs to the outage."""
        end_s = run.file.duration_s
        up_s = end_s
        if self.recovered_s is not None:
            up_s = self.begin_s + self.recovered_s
        elif self.only_slow:
            up_s = min(self.begin_s + self.fault_s, end_s)
        return {
            "before": run_window(run, 0.0, self.begin_s),
            "during": run_window(run, self.begin_s - 1, up_s + 1),
            "after": run_window(run, up_s + 1, end_s),
        }

    def check_detection(self) -> Check:
        """Checks that the router notices the fault in time; a worker that is only slow need not count as down."""
        slow = self.fault == "slow"
        in_time = self.detected_s is not None and self.detected_s <= MAX_DETECTION_S
        return Check(
            name="detected",
            value="never" if self.detected_s is None else f"{self.detected_s:.2f} s",
            threshold="none for a slow worker" if slow else f"within {display_duration(MAX_DETECTION_S)}",
            status="PASS" if slow or in_time else "FAIL",
        )


def check_recovery(before: RunWindow, after: RunWindow, *, recovered: bool) -> Check:
    """Checks the answered rate after the outage against that before; a rate that was not measured fails."""
    if not recovered:
        value, passed = "the worker was not up before the end", False
    elif not before.answered_rps or not after.covered_s:
        value, passed = "not measured: no whole second is left after recovery, give a longer --for", False
    else:
        share = after.answered_rps / before.answered_rps
        value, passed = f"{100 * share:.1f} %", share >= MIN_RECOVERY
    return Check(
        name="goodput after against before",
        value=value,
        threshold=f"at least {100 * MIN_RECOVERY:.0f} %",
        status="PASS" if passed else "FAIL",
    )


def _victim(environment: StressEnvironment) -> TargetEntry:
    name = environment.options.fault_ordinal
    if len(environment.workers) < 2:
        raise InputError("loss needs at least two workers: one to lose, and one to go on")
    candidates = [worker for worker in environment.workers if not name or name in (worker.accelerator, worker.address)]
    if not candidates:
        raise InputError(
            f"--fault-ordinal {name}: unknown ordinal "
            f"(choose {', '.join(worker.name for worker in environment.workers)})"
        )
    if not candidates[0].pid:
        raise InputError(
            f"{candidates[0].address} is no process of this host: loss needs --accelerators, or the targets file of a "
            "fleet on this host"
        )
    return candidates[0]


def _inject_fault(load: RunningLoad, pid: int, fault: str, seconds: float) -> None:
    """Kills the worker, or hangs or slows it for `seconds`, or until the load ends."""
    if fault == "kill":
        os.kill(pid, signal.SIGKILL)
        return
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and load.process.poll() is None:
            os.kill(pid, signal.SIGSTOP)
            if fault == "hang":
                load.wait(seconds)
            else:
                time.sleep(_PERIOD_S / 2)
                os.kill(pid, signal.SIGCONT)
                time.sleep(_PERIOD_S / 2)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _rate_with_one_missing(environment: StressEnvironment, saturated: Run) -> list[str]:
    """The rate within the SLO with all ordinals and with one missing, simulated from the measured service times."""
    slo = environment.options.slo
    if slo is None or len(saturated.file.rows) != 1:
        return []
    row = saturated.file.rows[0]
    try:
        hardware = HardwareCombination(row.host, row.accelerator, row.count, row.hosts)
        profile = Profile.from_runs([saturated], hardware, row.model)
        whole, without_one = (
            find_highest_rate(Pool((profile,) * count), slo, requests=_SIMULATED_REQUESTS).met_rps
            for count in (row.count, row.count - 1)
        )
    except InputError as error:
        return [f"No rate within {slo}: {error}."]
    return [
        f"Within {slo} the pool carries {whole:.4g} requests a second, and {without_one:.4g} with one ordinal missing "
        "(simulated from the measured service times)."
    ]


def _window_table(windows: dict[str, RunWindow]) -> ResultTable:
    rows = [
        [
            name,
            f"{window.from_s:.1f} to {window.to_s:.1f} s",
            f"{window.answered_rps:.4g}",
            str(window.failed),
            format_ms(window.p50_us),
            format_ms(window.p99_us),
        ]
        for name, window in windows.items()
    ]
    columns = ["part", "when", "answered /s", "failed", "P50, ms", "P99, ms"]
    return ResultTable(title="Before, during and after the outage", columns=columns, rows=rows)


def _event_table(events: list[TargetEvent]) -> ResultTable:
    rows = [[f"{event.at_s:.2f}", event.target, event.state, event.reason] for event in events]
    return ResultTable(title="Targets down and up", columns=["s", "target", "state", "reason"], rows=rows)
