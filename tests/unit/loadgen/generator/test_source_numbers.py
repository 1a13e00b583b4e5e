"""The schedule does not depend on how many generators share it."""

from itertools import islice

import numpy as np
import pytest

from capacity.measures import HardwareCombination, Series
from capacity.statistics import Check
from loadgen.checks._schedule import check_planned_arrivals
from loadgen.schedule import arrival_offsets

SERIES = Series(HardwareCombination("host", "cpu-1c"), "m", "cpu:0 @ a:1", False)


def phase(source: int) -> int:
    return next(arrival_offsets("constant", 1.0, source, ()))


def sources(generators: int, users: int) -> set[int]:
    """Numbers of the sources that users get on each generator, as LoadSession numbers them."""
    numbers = set()
    for generator in range(generators):
        source = generator - generators
        for _ in range(generator, users, generators):
            source += generators
            numbers.add(source)
    return numbers


@pytest.mark.parametrize("generators", [1, 2, 4])
def test_the_same_users_have_the_same_arrivals_on_any_number_of_generators(generators: int) -> None:
    numbers = sources(generators, 8)

    assert numbers == set(range(8))
    offsets = {number: list(islice(arrival_offsets("poisson", 50.0, number, (1,)), 100)) for number in numbers}
    assert len({tuple(times) for times in offsets.values()}) == 8
    assert {phase(number) for number in numbers} == {phase(number) for number in range(8)}


def test_the_pooled_arrivals_of_four_generators_are_poisson() -> None:
    rate, users = 25.0, 16
    due = [np.array(list(islice(arrival_offsets("poisson", rate, number, (1,)), 1500))) for number in sources(4, users)]
    pooled = np.sort(np.concatenate(due))
    pooled = pooled[pooled < min(times[-1] for times in due)]

    check: Check = check_planned_arrivals(np.diff(pooled) / 1e9, rate * users)

    assert check.status == "PASS"
