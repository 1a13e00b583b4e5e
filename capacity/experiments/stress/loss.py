"""loss: one worker is killed, hung or slowed under open load; what it costs, how soon it is noticed and made good."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from capacity.experiments.load import RunningLoad
from capacity.experiments.stress.figures import Window, accounted, course_panels, ms, valid, window
from capacity.experiments.stress.findings import Table
from capacity.experiments.stress.setup import WARMUP_S, Bench, throughput
from capacity.measures import HardwareCombination
from capacity.rundir import Run, TargetEvent
from capacity.simulation import Pool, Profile, find_highest_rate
from capacity.statistics import Check
from worker.wire import TargetEntry

SECONDS, AT = 20.0, 0.6
CAPACITY_S = 6.0
#: A worker that hangs or is slow does so for this long, or a quarter of a shorter run; one that is killed is started
#: again by its fleet.
HURT_S = 4.0
DETECTED_WITHIN_S = 1.0
#: Goodput after it is made good, of that before.
RECOVERED = 0.95
HOWS = ("kill", "hang", "slow")
#: slow: it stands still for half of each period.
_PERIOD_S = 0.02


def run(bench: Bench) -> dict[str, Any]:
    """A short run for the capacity, then the one in which the worker is hurt."""
    asked = bench.asked
    seconds, at = asked.for_s or SECONDS, asked.at or AT
    part_s = min(CAPACITY_S, seconds / 2)
    victim = _victim(bench)
    bench.say(f"capacity, {part_s:g} s")
    saturated = bench.saturated("capacity", bench.addresses, part_s)
    capacity = throughput(saturated)
    if capacity <= 0:
        raise ValueError("nothing was answered: there is no capacity to take a fraction of")
    bench.say(f"{at * capacity:.4g} requests a second, {100 * at:.0f} %; {asked.how} {victim.accelerator} on the way")
    harmed_at = healed_at = 0.0

    def during(load: RunningLoad) -> None:
        nonlocal harmed_at, healed_at
        load.wait_until_started()
        load.wait(WARMUP_S + seconds / 4)
        harmed_at = time.time()
        _hurt(load, victim.pid, asked.how, min(HURT_S, seconds / 4))
        healed_at = time.time()

    measured = bench.open("loss", at * capacity, seconds, during=during)
    mine = [event for event in measured.file.events if event.target.endswith(f"@ {victim.address}")]
    down = next((event for event in mine if event.state == "down" and event.at_unix >= harmed_at - 0.05), None)
    up = next((event for event in mine if down and event.state == "up" and event.at_unix > down.at_unix), None)
    # Seconds since measuring began, by the events' own clock where there is one.
    offset = (down.at_unix - down.at_s) if down else measured.file.started.timestamp() + measured.measured_from_s
    harm_s = harmed_at - offset
    end_s = measured.file.duration_s
    slowed = asked.how == "slow"
    # One that is only slow need not be taken for down: then it is missed until it is let go.
    only_slow = slowed and not down
    again_s = up.at_s if up else min(healed_at - offset, end_s) if only_slow else end_s
    windows = {
        "before": window(measured, 0.0, harm_s),
        "while it is missed": window(measured, harm_s - 1, again_s + 1),
        "after": window(measured, again_s + 1, end_s),
    }
    before, after = windows["before"], windows["after"]
    errors = {code: n for row in measured.file.rows for code, n in row.errors.items()}
    detected = down.at_unix - harmed_at if down else None
    recovered = up.at_unix - harmed_at if up else None
    missing = _one_missing(bench, saturated)
    lost = ", ".join(f"{n} {code}" for code, n in sorted(errors.items())) or "none"
    course = (
        f"not taken for down, let go after {healed_at - harmed_at:.2f} s. "
        if only_slow
        else (f"noticed after {detected:.2f} s, " if detected is not None else "not noticed as down, ")
        + (f"back after {recovered:.2f} s. " if recovered is not None else "not back before the end. ")
    )
    sentences = [
        f"{victim.accelerator or victim.address}, {_PAST[asked.how]} at {100 * at:.0f} % load: {course}"
        f"Requests lost: {lost}."
    ]
    if missing:
        sentences.append(missing)
    rows = [
        [
            name,
            f"{one.from_s:.1f} to {one.to_s:.1f} s",
            f"{one.goodput_rps:.4g}",
            str(one.failed),
            ms(one.p50_us),
            ms(one.p99_us),
        ]
        for name, one in windows.items()
    ]
    checks = [
        valid([measured]),
        accounted(measured),
        Check(
            name="noticed",
            value="never" if detected is None else f"{detected:.2f} s",
            threshold="of no concern" if slowed else f"within {DETECTED_WITHIN_S:g} s",
            status="PASS" if slowed or (detected is not None and detected <= DETECTED_WITHIN_S) else "FAIL",
        ),
        made_good(before, after, back=up is not None or only_slow),
    ]
    return {
        "sentences": sentences,
        "checks": checks,
        "tables": [
            Table(
                title="Before, during and after",
                columns=["part", "when", "answered /s", "failed", "P50, ms", "P99, ms"],
                rows=rows,
            ),
            _events(measured.file.events),
        ],
        "panels": course_panels(measured),
        "marks": [(event.at_s, event.state == "down") for event in measured.file.events],
        "figures": {
            "capacity_rps": capacity,
            "detected_s": detected,
            "recovered_s": recovered,
            "healed_s": healed_at - harmed_at,
            "lost": float(sum(errors.values())),
        },
    }


_PAST = {"kill": "killed", "hang": "hung", "slow": "slowed"}


def made_good(before: Window, after: Window, *, back: bool) -> Check:
    """Goodput after it against before; what was not measured is not claimed."""
    if not back:
        said, passed = "its return was not seen before the end", False
    elif not before.goodput_rps or not after.covered_s:
        said, passed = "not measured: no whole second is left after it was back, choose a longer --for", False
    else:
        share = after.goodput_rps / before.goodput_rps
        said, passed = f"{100 * share:.1f} %", share >= RECOVERED
    return Check(
        name="goodput after against before",
        value=said,
        threshold=f"at least {100 * RECOVERED:.0f} %",
        status="PASS" if passed else "FAIL",
    )


def _victim(bench: Bench) -> TargetEntry:
    asked = bench.asked
    if len(bench.workers) < 2:
        raise ValueError("loss needs two workers at least: one to lose, one to go on")
    chosen = [w for w in bench.workers if not asked.hurt or asked.hurt in (w.accelerator, w.address)]
    if not chosen:
        raise ValueError(
            f"--hurt {asked.hurt}: choose one of {', '.join(w.accelerator or w.address for w in bench.workers)}"
        )
    if not chosen[0].pid:
        raise ValueError(
            f"{chosen[0].address} is no process of this host: loss needs a fleet here, or its targets file"
        )
    return chosen[0]


def _hurt(load: RunningLoad, pid: int, how: str, hurt_s: float) -> None:
    """Does it, and undoes what can be undone."""
    if how == "kill":
        os.kill(pid, signal.SIGKILL)
        return
    ends = time.monotonic() + hurt_s
    try:
        while time.monotonic() < ends and load.process.poll() is None:
            os.kill(pid, signal.SIGSTOP)
            if how == "hang":
                load.wait(hurt_s)
            else:
                time.sleep(_PERIOD_S / 2)
                os.kill(pid, signal.SIGCONT)
                time.sleep(_PERIOD_S / 2)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _one_missing(bench: Bench, saturated: Run) -> str:
    """The rate within the SLO with all ordinals and with one missing, simulated from the measured service times."""
    slo = bench.asked.slo
    if slo is None or len(saturated.file.rows) != 1:
        return ""
    row = saturated.file.rows[0]
    try:
        profile = Profile.from_runs(
            [saturated], HardwareCombination(row.host, row.accelerator, row.count, row.hosts), row.model
        )
        rates = [
            find_highest_rate(Pool((profile,) * count), slo, requests=30_000).passing_rps
            for count in (row.count, row.count - 1)
        ]
    except ValueError as error:
        return f"No rate within {slo}: {error}."
    return (
        f"Within {slo} the pool takes {rates[0]:.4g} requests a second, and {rates[1]:.4g} with one ordinal missing "
        "(simulated from the measured service times)."
    )


def _events(events: list[TargetEvent]) -> Table:
    rows = [[f"{event.at_s:.2f}", event.target, event.state, event.reason] for event in events]
    return Table(title="Targets down and up", columns=["s", "target", "state", "why"], rows=rows)
