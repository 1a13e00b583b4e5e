"""Which route the router chooses: each value of --router, budgets, targets that are down, models and addresses."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from capacity.measures.combination import HardwareCombination
from capacity.measures.tally import Series
from loadgen._errors import InputError
from loadgen._options import ROUTERS
from loadgen.measure import ResultBuffer
from loadgen.targets._route import Route
from loadgen.targets._router import Router
from loadgen.targets._target import Target

HARDWARE = HardwareCombination("host", "cpu-1c", 3)


@dataclass
class FixedHealth:
    """Stands for a HealthChecker: a target that is up, down or in its ramp, as the test says."""

    up: bool = True
    ramping: bool = False
    share: float = 1.0

    def accepts(self, chance: float) -> bool:
        return self.up and (not self.ramping or chance < self.share)


@dataclass
class FixedRoute:
    """Stands for a Route: only what the router reads."""

    target: Target
    results: ResultBuffer
    health: FixedHealth = field(default_factory=FixedHealth)


def routes(count: int = 3, models: tuple[str, ...] = ("m",)) -> list[Any]:
    choices = []
    for number in range(count):
        series = Series(HARDWARE, models[number % len(models)], f"cpu:{number} @ a:{number + 1}", False)
        choices.append(FixedRoute(Target(f"a:{number + 1}", series), ResultBuffer(series)))
    return choices


def router(name: str, choices: list[Any], first: int = 0) -> Router:
    return Router(name, cast(list[Route], choices), first, seed=1)


def shares(name: str, choices: list[Any], requests: int = 300) -> Counter[str]:
    """How many of so many requests go to each address, of a user pinned to the first route."""
    chooser = router(name, choices)
    chooser.update_health()
    chosen = [chooser.choose(choices[0], choices) for _ in range(requests)]
    return Counter(route.target.address for route in chosen if route is not None)


def test_pinned_keeps_to_the_users_target_and_users_are_dealt_out_in_turn() -> None:
    choices = routes()
    chooser = router("pinned", choices, first=1)

    assert [chooser.pin(choices).target.address for _ in range(4)] == ["a:2", "a:3", "a:1", "a:2"]
    assert shares("pinned", choices) == {"a:1": 300}


@pytest.mark.parametrize("name", ["round-robin", "least-outstanding"])
def test_idle_targets_get_equal_shares(name: str) -> None:
    assert shares(name, routes()) == {"a:1": 100, "a:2": 100, "a:3": 100}


def test_random_reaches_every_target() -> None:
    assert min(shares("random", routes()).values()) > 70


def test_least_outstanding_avoids_targets_with_more_in_flight() -> None:
    choices = routes()
    choices[1].results.outstanding = 1

    assert set(shares("least-outstanding", choices)) == {"a:1", "a:3"}


@pytest.mark.parametrize("name", ROUTERS)
def test_a_route_without_a_budget_is_never_chosen(name: str) -> None:
    choices = routes()
    choices[0].results.budget = 0
    assert "a:1" not in shares(name, choices)
    for route in choices:
        route.results.budget = 0
    assert shares(name, choices) == {}


@pytest.mark.parametrize("name", [name for name in ROUTERS if name != "pinned"])
def test_a_target_that_is_down_gets_nothing_unless_all_are(name: str) -> None:
    choices = routes()
    choices[0].health.up = False
    assert set(shares(name, choices)) == {"a:2", "a:3"}
    for route in choices:
        route.health.up = False
    assert set(shares(name, choices)) == {"a:1", "a:2", "a:3"}


def test_a_target_in_its_ramp_gets_the_share_that_its_health_accepts() -> None:
    choices = routes()
    choices[0].health = FixedHealth(ramping=True, share=0.1)

    assert 0 < shares("random", choices, 3000)["a:1"] < 200


def test_a_refused_request_is_sent_again_to_the_same_model() -> None:
    choices = routes(4, ("gpt", "resnet18"))
    chooser = router("round-robin", choices)

    again = [chooser.choose_again(choices[0], None) for _ in range(10)]

    assert {route.target.address for route in again if route is not None} == {"a:1", "a:3"}


def test_a_row_of_a_trace_goes_to_its_model_or_to_any() -> None:
    chooser = router("round-robin", routes(4, ("gpt", "resnet18")))

    named = [chooser.choose_model("resnet18") for _ in range(10)]
    unnamed = [chooser.choose_model("") for _ in range(10)]

    assert {route.target.address for route in named if route is not None} == {"a:2", "a:4"}
    assert {route.target.address for route in unnamed if route is not None} == {"a:1", "a:2", "a:3", "a:4"}


def test_an_address_or_a_model_that_no_target_has_is_wrong_input() -> None:
    chooser = router("pinned", routes(2, ("gpt", "resnet18")))

    assert [route.target.address for route in chooser.candidates("a:2", "")] == ["a:2"]
    for address, model, condition in (("b:9", "", "address b:9"), ("a:1", "bert", "address a:1 and model bert")):
        with pytest.raises(InputError, match=condition):
            chooser.candidates(address, model)
