"""Integer programs for counts of instances: the cheapest fleet by the rates of pools, and a lower bound by capacity
alone. Solved by HiGHS through `scipy.optimize.milp`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

# Prices closer than this are one price.
_EPSILON = 1e-9
# HiGHS' tolerance on integers, as a share of the required rate.
_SLACK = 1e-7
_TIME_LIMIT_S = 5.0
_REL_GAP = 1e-4


@dataclass(frozen=True)
class PoolOption:
    """One kind of instance: its price an hour, and its `curve` of (pool size, rate within the SLO), ascending.

    Between two points a pool carries at least the lower point's rate per instance, since pools gain by size.
    `saturation` is the throughput of one instance that is never idle, `shares_beyond` the share of its requests beyond
    each bound of the SLO without any waiting, and `limit` how many instances there are.
    """

    price: float
    curve: tuple[tuple[int, float], ...]
    saturation: float
    shares_beyond: tuple[float, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class ProgramSolution:
    """Counts by option, their cost an hour, and the solver's lower bound of the cost."""

    counts: tuple[int, ...]
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """The share of the cost between the cost and its lower bound."""
        return max(self.cost - self.bound, 0.0) / self.cost if self.cost > 0 else 0.0


class _Program:
    """The columns (variables) and rows (constraints) of one integer program."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.whole: list[int] = []
        self._rows: list[tuple[dict[int, float], float, float]] = []

    def column(self, cost: float, lower: float, upper: float, whole: bool = True) -> int:
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.whole.append(int(whole))
        return len(self.cost) - 1

    def row(self, terms: dict[int, float], low: float, high: float = math.inf) -> None:
        self._rows.append((terms, low, high))

    def solve(self) -> tuple[NDArray[np.float64], float, float] | None:
        """Returns the columns' values, the cost and its lower bound; None where nothing satisfies the rows."""
        matrix = np.zeros((len(self._rows), len(self.cost)))
        for number, (terms, _low, _high) in enumerate(self._rows):
            for column, factor in terms.items():
                matrix[number, column] = factor
        lows, highs = [low for _terms, low, _high in self._rows], [high for _terms, _low, high in self._rows]
        result: Any = milp(
            np.array(self.cost),
            integrality=np.array(self.whole),
            bounds=Bounds(np.array(self.lower), np.array(self.upper)),
            constraints=LinearConstraint(matrix, np.array(lows), np.array(highs)),
            options={"time_limit": _TIME_LIMIT_S, "mip_rel_gap": _REL_GAP},
        )
        if result.x is None:
            return None
        bound = result.mip_dual_bound
        return result.x, float(result.fun), float(result.fun if bound is None else bound)


def find_cheapest_counts(options: Sequence[PoolOption], required: float, survive: int = 0) -> ProgramSolution | None:
    """Returns the cheapest counts whose pools carry `required` requests a second together, each pool its own share.

    With `survive` they still do without so many instances of any one option. None where the limits forbid it.
    """
    # In units of the required rate: the solver's tolerances are absolute.
    unit, program = required, _Program()
    members: list[list[int]] = []
    rates: dict[int, float] = {}
    for option in options:
        columns = []
        for (low, rate), high in zip(option.curve, _segment_ends(option, required, survive), strict=True):
            if high < low or rate <= 0:
                continue
            count, used = program.column(option.price, 0, high), program.column(0.0, 0, 1)
            program.row({count: 1.0, used: -float(low)}, 0.0)
            program.row({count: 1.0, used: -float(high)}, -math.inf, 0.0)
            rates[count] = rate / low / unit
            columns.append((count, used))
        # A pool has one size.
        if columns:
            program.row({used: 1.0 for _count, used in columns}, 0.0, 1.0)
        members.append([count for count, _used in columns])
    if not rates:
        return None
    if survive:
        for own, option in zip(members, options, strict=True):
            if own:
                number, largest = min(survive, option.limit or survive), _max_count(option, required, survive)
                losses = _loss_columns(program, own, number, largest)
                each = max(rates[column] for column in own)
                program.row({**rates, **dict.fromkeys(losses, -each)}, 1.0)
    program.row(rates, 1.0)
    solution = program.solve()
    if solution is None:
        return None
    values, _cost, bound = solution
    counts = tuple(round(sum(values[column] for column in columns)) for columns in members)
    cost = float(sum(option.price * count for option, count in zip(options, counts, strict=True)))
    return ProgramSolution(counts, cost, bound)


def cost_lower_bound(
    options: Sequence[PoolOption],
    required: float,
    allowed: Sequence[float] = (),
    survive: int = 0,
    with_option: int = -1,
) -> float:
    """Returns the least cost of any fleet for `required` requests a second, with any router, by capacity alone.

    Each request takes at least its share of an instance that is never idle, and no more than the share `allowed` may be
    beyond each bound of the SLO without any waiting. `with_option` must be in the fleet. inf where there is no fleet.
    """
    program = _Program()
    saturations = [option.saturation / required for option in options]
    counts = [
        program.column(
            option.price,
            1 if number == with_option else 0,
            max(_max_count_by_saturation(option, required, survive), 1 if number == with_option else 0),
        )
        for number, option in enumerate(options)
    ]
    flows = [program.column(0.0, 0.0, 1.0, whole=False) for _option in options]
    for count, flow, saturation in zip(counts, flows, saturations, strict=True):
        program.row({count: saturation, flow: -1.0}, -_SLACK)
    program.row(dict.fromkeys(flows, 1.0), 1.0, 1.0)
    for number, share in enumerate(allowed):
        beyond = {flow: option.shares_beyond[number] for flow, option in zip(flows, options, strict=True)}
        program.row(beyond, -math.inf, share * (1 + _SLACK) + _SLACK)
    if survive:
        capacity = dict(zip(counts, saturations, strict=True))
        for count, option, saturation in zip(counts, options, saturations, strict=True):
            largest = _max_count_by_saturation(option, required, survive)
            losses = _loss_columns(program, [count], min(survive, option.limit or survive), largest)
            program.row({**capacity, **dict.fromkeys(losses, -saturation)}, 1 - _SLACK)
    solution = program.solve()
    return math.inf if solution is None else solution[2]


def _loss_columns(program: _Program, counts: list[int], survive: int, largest: int) -> list[int]:
    """Adds columns that are 1 as often as instances of one option can be lost: never more than there are of it."""
    columns = []
    for number in range(survive):
        column = program.column(0.0, 0, 1)
        # More than `number` instances force it to 1.
        program.row({**dict.fromkeys(counts, 1.0), column: -float(largest)}, -math.inf, float(number))
        columns.append(column)
    return columns


def _segment_ends(option: PoolOption, required: float, survive: int) -> list[int]:
    """The largest count for which each point of the curve holds."""
    ends = [k - 1 for k, _rate in option.curve[1:]]
    largest = _max_count(option, required, survive)
    return [min(end, largest) for end in [*ends, largest]] if option.curve else []


def _max_count(option: PoolOption, required: float, survive: int) -> int:
    """The largest count that can be needed, by the option's curve."""
    densities = [rate / k for k, rate in option.curve if rate > 0]
    if not densities:
        return 0
    needed = math.ceil(required / min(densities)) + survive
    return needed if option.limit is None else min(needed, option.limit)


def _max_count_by_saturation(option: PoolOption, required: float, survive: int) -> int:
    if option.saturation <= 0:
        return 0
    needed = math.ceil(required / option.saturation) + survive
    return needed if option.limit is None else min(needed, option.limit)


def list_cheaper_fleets(
    options: Sequence[PoolOption], required: float, below: float, most: int
) -> list[tuple[float, tuple[int, ...]]] | None:
    """Returns every fleet that costs less than `below` and is not overloaded, cheapest and then smallest first.

    None where there are more than `most` of them.
    """
    fleets: list[tuple[float, tuple[int, ...]]] = []
    per_price = [option.saturation / option.price if option.price > 0 else math.inf for option in options]
    # The most capacity per price among the options from each number on.
    best = [max(per_price[number:], default=0.0) for number in range(len(options) + 1)]

    def extend(number: int, counts: list[int], cost: float, capacity: float) -> bool:
        if capacity + best[number] * max(below - cost, 0.0) < required and not math.isinf(best[number]):
            return True
        if number == len(options):
            if capacity >= required and cost < below - _EPSILON:
                fleets.append((cost, tuple(counts)))
            return len(fleets) <= most
        option = options[number]
        count = 0
        while cost + count * option.price < below - _EPSILON and (option.limit is None or count <= option.limit):
            if not extend(
                number + 1, [*counts, count], cost + count * option.price, capacity + count * option.saturation
            ):
                return False
            count += 1
        return True

    if not extend(0, [], 0.0, 0.0):
        return None
    return sorted(fleets, key=lambda pair: (pair[0], sum(pair[1])))
