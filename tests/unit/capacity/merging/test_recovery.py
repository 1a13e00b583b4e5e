"""A run is recovered from the logs of its generators with every value; what is damaged or mixed is refused."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capacity.__main__ import main
from capacity.errors import InputError
from capacity.measures import HardwareCombination, Series, Tally
from capacity.merging import find_generator_logs, recover_run
from capacity.rundir import (
    PROGRESS_NAME,
    GeneratorLog,
    GeneratorLogEnd,
    GeneratorLogHeader,
    GeneratorLogWriter,
    Run,
    RunDescription,
    RunFile,
    series_tag,
)
from capacity.rundir.generator_log import LOG_NAME

ONE = Series(HardwareCombination.parse("box + cpu-1c"), "gpt", "cpu:0 @ a:1", False)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECONDS = 3


def description(**changed: Any) -> RunDescription:
    tags = [series_tag(ONE, "latency")]
    return RunDescription(
        **{"run": "r", "started": NOON, "clients": ["a", "b"], "tags": tags, "options": {"deadline": "1s"}, **changed}
    )


def values_of(client: str) -> Any:
    return np.random.default_rng(list(client.encode())).integers(1_000, 90_000_000, (SECONDS, 100))


def write(
    folder: Path, client: str, *, ended: bool = True, seconds: int = SECONDS, of: RunDescription | None = None
) -> Path:
    """A generator's log: a request answered and one failed each second beside the values, and a warm-up of two."""
    directory = folder / client
    header = GeneratorLogHeader(
        schema=2, client=client, host=f"host-{client}", began=NOON.timestamp() + 0.25, description=of or description()
    )
    writer = GeneratorLogWriter(directory, header)
    total, warmup = Tally(), Tally(2, 2)
    warmup.histograms["latency"].record_ns([5, 6])
    for second in range(seconds):
        values = values_of(client)[second]
        gained = Tally(len(values) + 2, len(values), 1, {"DEADLINE_EXCEEDED": 1})
        gained.histograms["latency"].record_ns(values)
        gained.histograms["latency-error"].record_ns([1_000_000_000])
        total.add(gained)
        writer.write(second + 1, float(second), 1.0, {ONE: gained}, {ONE: total}, {ONE: warmup}, {ONE: 9}, second + 1.0)
    writer.end(GeneratorLogEnd()) if ended else writer.close()
    return directory


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for client in ("a", "b"):
        write(tmp_path / "logs", client)
    return tmp_path / "logs"


def recover(logs: Path, name: str = "out") -> RunFile:
    return recover_run(find_generator_logs(logs), logs.parent / name)


def check(file: RunFile, name: str) -> Any:
    return next(check for check in file.checks if check.name == name)


def test_the_run_has_every_value_of_every_generator(logs: Path) -> None:
    file = recover(logs)
    histogram = Run.load(logs.parent / "out").histograms[ONE, "latency"]
    everything = np.concatenate([values_of("a").ravel(), values_of("b").ravel()])

    (row,) = file.rows
    assert (row.answered, row.errors, row.unsent, row.warmup.requests) == (600, {"DEADLINE_EXCEEDED": 6}, 6, 4)
    assert (histogram.sum_ns, histogram.min_ns, histogram.max_ns) == (
        everything.sum(),
        everything.min(),
        everything.max(),
    )
    assert not file.incomplete
    assert [generator["requests"] for generator in file.generators] == [303, 303]


def test_a_copied_log_counts_once_and_is_reported(logs: Path) -> None:
    shutil.copytree(logs / "a", logs / "again")
    file = recover(logs)

    assert file.rows[0].answered == 600
    assert check(file, "copied logs").value == 1


def test_of_a_copy_made_on_the_way_the_longer_one_counts(logs: Path) -> None:
    write(logs / "early", "a", seconds=2, ended=False)
    file = recover(logs)

    assert file.rows[0].answered == 600
    assert not file.incomplete


@pytest.mark.parametrize("name", [PROGRESS_NAME, LOG_NAME])
def test_a_truncated_last_line_is_left_out_and_reported(logs: Path, name: str) -> None:
    shutil.rmtree(logs / "b")
    write(logs, "b", ended=False)
    with (logs / "b" / name).open("ab") as file:
        file.write((logs / "a" / name).read_bytes().splitlines()[-1][:-20])
    recovered = recover(logs)

    assert recovered.rows[0].answered == 600
    assert recovered.incomplete
    assert [generator["complete"] for generator in recovered.generators] == [True, False]
    truncated = [one.detail for one in recovered.checks if one.name == "truncated logs"]
    assert truncated == (["a last line was cut off and left out: b"] if name == PROGRESS_NAME else [])


def test_a_second_that_is_not_whole_in_the_log_does_not_count(logs: Path) -> None:
    shutil.rmtree(logs / "b")
    log = write(logs, "b", ended=False) / PROGRESS_NAME
    log.write_bytes(log.read_bytes()[:-30])
    file = recover(logs)

    assert file.rows[0].answered == 500
    assert file.generators[1]["last_sequence"] == 2
    assert file.generators[1]["truncated"]


def test_a_log_whose_first_line_is_truncated_is_empty_and_its_generator_is_named(logs: Path) -> None:
    (logs / "b" / PROGRESS_NAME).write_bytes(b'{"schema": 2, "cli')
    file = recover(logs)

    assert file.rows[0].answered == 300
    assert [(generator["client"], generator["complete"]) for generator in file.generators] == [
        ("a", True),
        ("b", False),
    ]
    assert check(file, "empty logs").detail.endswith(": b")


def test_a_measure_that_no_generator_records_is_wrong_input(logs: Path) -> None:
    path = logs / "a" / LOG_NAME
    path.write_text(path.read_text().replace("/latency-error,", "/pass-8,"))
    with pytest.raises(InputError, match=r"a generator does not record pass-8"):
        recover(logs)


def test_a_series_that_the_description_lacks_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "logs", "a", of=description(tags=[], clients=["a"]))
    assert recover(tmp_path / "logs").rows[0].answered == 300


def test_a_generator_without_a_log_is_named(logs: Path) -> None:
    shutil.rmtree(logs / "b")
    file = recover(logs)

    assert file.incomplete
    assert check(file, "generators that reported their end").detail == "missing: b"


def another_run(logs: Path) -> None:
    write(logs / "more", "c", of=description(run="s"))


def another_configuration(logs: Path) -> None:
    write(logs / "more", "c", of=description(options={"deadline": "2s"}))


def another_of_the_same_name(logs: Path) -> None:
    directory = write(logs / "more", "a")
    log = directory / PROGRESS_NAME
    log.write_text(log.read_text().replace('"DEADLINE_EXCEEDED"', '"UNAVAILABLE"'))


def a_line_is_missing(logs: Path) -> None:
    log = logs / "a" / LOG_NAME
    log.write_text("\n".join(log.read_text().splitlines()[:-1]) + "\n")


def a_sequence_is_missing(logs: Path) -> None:
    log = logs / "a" / PROGRESS_NAME
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:2] + lines[3:]))


def a_line_in_the_middle_is_noise(logs: Path) -> None:
    log = logs / "a" / PROGRESS_NAME
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:2], "noise\n", *lines[2:]]))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (another_run, "different runs"),
        (another_configuration, "one run in two configurations"),
        (another_of_the_same_name, "two logs of one generator that differ"),
        (a_line_is_missing, "its progress.jsonl says"),
        (a_sequence_is_missing, "sequence 3, expected 2"),
        (a_line_in_the_middle_is_noise, "not a line of progress.jsonl"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(
    logs: Path,
    spoil: Callable[[Path], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(logs)
    out = logs.parent / "out"
    monkeypatch.setattr("sys.argv", ["capacity", "merge", str(logs), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        main()

    assert end.value.code == 2
    output = capsys.readouterr().err
    assert says in output
    assert output.count("\n") == 1
    assert not (out / "run.json").exists()


def test_a_log_read_back_is_what_was_written(logs: Path) -> None:
    log = GeneratorLog.load(logs / "a")

    assert log.last is not None
    assert (log.last.sequence, log.end, log.truncated) == (SECONDS, GeneratorLogEnd(), False)
    assert log.warmups[ONE].requests == 2
    assert log.tallies()[ONE].requests == 303
