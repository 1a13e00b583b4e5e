"""A fleet passes its options on to each worker unchanged, and wrong ones are refused in one line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.commands.launch import prepare, process_options
from worker.commands.options import ServeOptions, takes_serve_options
from worker.errors import InputError


def parse(arguments: list[str]) -> ServeOptions:
    """The options that a command with these arguments gets."""
    import typer

    parsed: list[ServeOptions] = []

    @takes_serve_options
    def command(options: ServeOptions) -> None:
        parsed.append(options)

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return parsed[0]


@pytest.mark.parametrize(
    "options",
    [
        ServeOptions(),
        ServeOptions(model=Path("m.pt"), inputs=["x:FP32:-1,4", "y:INT64:-1"], inference_mode=False),
        ServeOptions(sim="lognormal:5ms,0.2", sim_failure_rate=0.5, max_batch_size=8, host_type="", drain="0"),
    ],
)
def test_arguments_are_parsed_back_as_the_same_options(options: ServeOptions) -> None:
    assert parse(options.arguments()) == options


@pytest.mark.parametrize(
    ("options", "accelerator", "message"),
    [
        (ServeOptions(), "cpu:0", "cpu:0 needs a model file"),
        (ServeOptions(), "tpu:0", "unknown accelerator 'tpu:0'"),
        (ServeOptions(sim="uniform:1ms"), "sim:0", r"unknown simulation .* \(choose fixed, lognormal or replay\)"),
        (ServeOptions(sim_stall="x:1s"), "sim:0", "--sim-stall 'x:1s': write SHARE:TIME"),
        (ServeOptions(sim_stall="0.1:soon"), "sim:0", "--sim-stall: 'soon' is not a duration"),
        (ServeOptions(sim_per_row="1"), "sim:0", "--sim-per-row: '1' is not a duration"),
        (ServeOptions(sim_coupling="0.1"), "sim:0", "--sim-coupling needs the workers of a fleet"),
        (ServeOptions(inputs=["x"]), "sim:0", "--input 'x': write NAME:DATATYPE:SHAPE"),
        (ServeOptions(model=Path("none.pt")), "sim:0", "none.pt does not exist"),
        (ServeOptions(model=Path("none.pt"), sha256="abc"), "sim:0", "--sha256 'abc': write 64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_prepared_is_refused_in_one_line(options: ServeOptions, accelerator: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        prepare(options, accelerator)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ServeOptions(drain="soon"), "--drain: 'soon' is not a duration"),
        (ServeOptions(log_level="loud"), r"unknown log level 'loud' \(choose debug, info, warning, error\)"),
        (ServeOptions(max_batch_size=8, preferred_batch_size="a"), "--preferred-batch-size 'a': write a list"),
        (ServeOptions(max_batch_size=8, preferred_batch_size="9"), "write sizes of 1 to --max-batch-size 8"),
        (ServeOptions(default_priority=2, priority_levels=1), "--default-priority 2: expected at most"),
    ],
)
def test_wrong_options_of_a_process_are_refused_in_one_line(options: ServeOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        process_options(options, 0, None)


def test_the_default_priority_is_the_lowest_level() -> None:
    assert process_options(ServeOptions(priority_levels=3), 0, None).policy.default_priority == 3
