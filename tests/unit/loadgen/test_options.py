"""Options: what is accepted, and the one sentence that says what is wrong with the rest."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from capacity.measures import HardwareCombination
from loadgen import _options
from loadgen._errors import InputError
from loadgen._options import Options


def parsed(*arguments: str, host: str | None = None) -> Namespace:
    parser = ArgumentParser()
    _options.register(parser)
    namespace = parser.parse_args(arguments)
    namespace.host = host
    return namespace


def test_defaults_are_a_closed_run_without_limits() -> None:
    options = Options.read(parsed())

    assert (options.arrivals, options.router, options.requests, options.warmup_ns) == ("closed", "pinned", None, 0)
    assert options.deadline_ns == 10_000_000_000


def test_a_search_has_poisson_arrivals_by_default() -> None:
    assert Options.read(parsed("--shape", "steps")).arrivals == "poisson"
    assert Options.read(parsed("--shape", "steps", "--arrivals", "constant")).arrivals == "constant"


def test_every_option_is_read() -> None:
    arguments = ["--targets", "a:1,b:2", "--requests", "1000", "--warmup", "5s", "--deadline", "250ms"]
    arguments += ["--slo", "p90=15ms", "--hardware", "c5.large + eia2.medium", "--input-shape", "x:1,7;y:3"]

    options = Options.read(parsed(*arguments))

    assert options.requests == 1000
    assert (options.warmup_ns, options.deadline_ns) == (5_000_000_000, 250_000_000)
    assert options.hardware == HardwareCombination("c5.large", "eia2.medium")
    assert options.input_shapes == {"x": (1, 7), "y": (3,)}
    assert str(options.slo) == "p90=15ms"


def test_targets_come_from_the_option_then_the_host_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERLOAD_TARGETS", "c:3")

    assert Options.read(parsed("--targets", "a:1", host="http://b:2/")).targets == "a:1"
    assert Options.read(parsed(host="http://b:2/")).targets == "b:2"
    assert Options.read(parsed()).targets == "c:3"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shape", "ramp"], "expected one of steps, slo-search"),
        (["--shape", "slo-search"], "expected an SLO"),
        (["--shape", "steps", "--arrivals", "closed"], "expected --arrivals constant or poisson"),
        (["--shape", "steps", "--requests", "10"], "leave out --requests"),
        (["--shape", "slo-search", "--slo", "p90=1s", "--until", "resolved"], "leave out --until"),
        (["--arrivals", "bursty"], "expected one of closed"),
        (["--router", "best"], "expected one of pinned, round-robin"),
        (["--transport", "http"], "expected one of"),
        (["--requests", "many"], "whole number"),
        (["--requests", "-3"], "at least 1"),
        (["--warmup", "soon"], "--warmup soon"),
        (["--deadline", "0s"], "--deadline 0s"),
        (["--slo", "p90"], "--slo p90"),
        (["--input", "/nowhere.npz"], "no such file"),
        (["--catalogue", "/nowhere.toml"], "no such file"),
        (["--input-shape", "x"], "NAME:1,7"),
        (["--input-shape", "x:0"], "at least 1"),
        (["--by", "rack"], "combination, target"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        Options.read(parsed(*arguments))

    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_values_travel_to_a_locust_worker_as_plain_text() -> None:
    values = {name: value for name, value in vars(parsed()).items() if name not in ("host", "strict")}

    assert all(isinstance(value, str) for value in values.values())


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--by", "target"], "table_by", "target"),
        (["--by", "ordinal"], "table_by", "target"),
        (["--slo", "p90=1s", "--until", "verdict"], "until_verdict", True),
        (["--slo", "p90=1s", "--until", "resolved"], "until_verdict", True),
    ],
)
def test_older_names_of_values_stay(arguments: list[str], field: str, value: object) -> None:
    assert getattr(Options.read(parsed(*arguments)), field) == value
