"""What a user gets wrong is said in one line that names the place and what would be right, with exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tools.experiments import lognormal, run_of

from capacity.__main__ import main
from capacity.rundir import Run

SHAPE = lognormal(0.3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten seconds, for tests to break copies of."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    return run_of(directory, SHAPE.draw(np.random.default_rng(1), 400), 10).directory


def edited(run: Path, **changes: object) -> None:
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, **changes}))


def of_another_schema(run: Path) -> None:
    edited(run, schema=7)


def with_half_a_run_json(run: Path) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text[: len(text) // 2])


def with_a_field_that_is_none(run: Path) -> None:
    edited(run, duration_s="long")


def without_its_run_json(run: Path) -> None:
    (run / "run.json").unlink()


def without_anything(run: Path) -> None:
    shutil.rmtree(run)


def with_a_log_that_is_none(run: Path) -> None:
    (run / "run.hlog").write_text("latency,1,2\n")


def with_a_picture_for_a_log(run: Path) -> None:
    (run / "run.hlog").write_bytes(b"\x89PNG\r\n\x1a\n\xff\n")


def with_telemetry_that_is_none(run: Path) -> None:
    (run / "telemetry.csv").write_text("seconds,host,device,id,measure,value\n1.0,h,cpu\n")


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (of_another_schema, "run.json has schema 7: expected schema 1 or 2"),
    (with_half_a_run_json, "run.json cannot be read: "),
    (with_a_field_that_is_none, "run.json: duration_s: "),
    (without_its_run_json, "is not a complete run: it has no run.json (there is a run.hlog: the run was cut off"),
    (without_anything, "is not a run directory: no such folder"),
    (with_a_log_that_is_none, "run.hlog, line 1: not a line of a histogram log"),
    (with_a_picture_for_a_log, "run.hlog: not a text file, so not a histogram log"),
    (with_telemetry_that_is_none, "telemetry.csv, line 2: not a line of telemetry"),
]


def error_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line on stderr of a command that ended with 2."""
    monkeypatch.setattr("sys.argv", ["capacity", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    line = capsys.readouterr().err
    assert end.value.code == 2, line
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    return line


@pytest.mark.parametrize(("damage", "words"), BROKEN, ids=[damage.__name__ for damage, _ in BROKEN])
def test_a_run_directory_that_is_not_whole(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    words: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    damage(run)
    assert words in error_line(monkeypatch, capsys, "report", run)


CATALOGUES = [
    ("[hosts.box\nprice = 1\n", "hardware.toml: Expected ']'"),
    ("[hosts.box]\nprice = 1\npirce = 2\n", "hardware.toml, line 3: hosts.box.pirce: no such field"),
    ("[hosts.box]\nprice = -1\n", "hardware.toml, line 2: hosts.box.price: "),
    ('[hosts.box]\nprice = "cheap"\n', "hardware.toml, line 2: hosts.box.price: "),
    ("[hosts.g5.xlarge]\nprice = 1\n", 'a name with a dot needs quotes, [hosts."g5.xlarge"]'),
    (None, "hardware.toml cannot be read: No such file or directory"),
]


@pytest.mark.parametrize(("text", "words"), CATALOGUES)
def test_a_catalogue_that_is_broken(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    words: str,
) -> None:
    catalogue = tmp_path / "hardware.toml"
    if text is not None:
        catalogue.write_text(text)
    line = error_line(monkeypatch, capsys, "report", whole, "--catalogue", catalogue, "--out", tmp_path / "out")
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_price_that_is_missing_is_no_error_and_is_named_where_it_is_missing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = tmp_path / "hardware.toml"
    catalogue.write_text("[hosts.other]\nprice = 1\n")
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    monkeypatch.setattr("sys.argv", ["capacity", "report", str(run), "--catalogue", str(catalogue)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    assert "no price for the host 'box' in the catalogue" in " ".join(capsys.readouterr().out.split())
    assert "no price for the host &#39;box&#39; in the catalogue" in (run / "report.html").read_text()


def test_models_that_are_mixed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    for name in ("run.json", "run.hlog"):
        text = (other / name).read_text()
        (other / name).write_text(text.replace('"gpt"', '"resnet18"').replace("/gpt/", "/resnet18/"))
    assert Run.load(other).file.rows[0].model == "resnet18"
    assert "have no combination and no model in common" in error_line(monkeypatch, capsys, "compare", whole, other)
    same = tmp_path / "same"
    shutil.copytree(whole, same)
    worker = {"label": "cpu:0 @ a:1", "address": "a:1", "model": "gpt"}
    edited(same, targets=[{**worker, "model_sha256": "0" * 64}], started="2026-11-25T00:00:00Z")
    first = tmp_path / "first"
    shutil.copytree(whole, first)
    edited(first, targets=[{**worker, "model_sha256": "1" * 64}])
    line = error_line(monkeypatch, capsys, "merge", first, same, "--out", tmp_path / "merged")
    assert "the runs served different files as the model gpt: they cannot be merged" in line
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("report", "RUN", "--slo", "p90"), "p90"),
        (("report", "RUN", "--format", "xml"), "--format xml: unknown format (choose csv"),
        (("report", "RUN", "--by", "planet"), "planet"),
        (("merge", "RUN", "--out", "OUT"), "a merge needs at least two runs"),
        (("merge", "RUN", "RUN", "--out", "OUT"), "one run is named twice"),
        (("compare", "RUN", "RUN", "--fail-if", "p98 > 5%"), "is not a limit such as 'p99 > +5%'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_words_that_make_no_command(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    expected: str,
) -> None:
    places = {"RUN": str(whole), "OUT": str(tmp_path / "out")}
    assert expected in error_line(monkeypatch, capsys, *(places.get(word, word) for word in words))


def test_an_error_of_the_program_keeps_its_traceback(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only wrong input is one line: any other ValueError is not caught."""

    def broken(*_arguments: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("capacity.rundir.run.RunFile.load", broken)
    monkeypatch.setattr("sys.argv", ["capacity", "report", str(whole)])
    with pytest.raises(ValueError, match=r"^a bug$"):
        main()
