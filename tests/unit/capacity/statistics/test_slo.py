"""An SLO is read as written, given back as text, and refused in one sentence."""

import pytest

from capacity.statistics import Slo


def test_an_slo_holds_its_bounds_in_order() -> None:
    slo = Slo.parse("p99=50ms, p90=20ms, errors=0.1%")
    assert slo.bounds == ((99.0, 50_000_000), (90.0, 20_000_000))
    assert slo.max_error_rate == 0.001


@pytest.mark.parametrize("text", ["p90=15ms", "p99=50ms,p90=20ms,errors=0.1%", "p99.9=1.5s", "errors=0%", "p50=250us"])
def test_an_slo_is_given_back_as_written(text: str) -> None:
    assert str(Slo.parse(text)) == text


def test_errors_may_be_a_plain_share() -> None:
    assert Slo.parse("errors=0.01") == Slo.parse("errors=1%")


@pytest.mark.parametrize(
    "text",
    ["", "p90", "p90=", "p90=15", "q90=15ms", "p0=1ms", "p100=1ms", "p90=1ms,p90=2ms", "errors=200%", "errors=x"],
)
def test_what_is_not_an_slo_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        Slo.parse(text)
    assert "\n" not in str(refusal.value)
