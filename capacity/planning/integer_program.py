"""The choice of counts as integer programs: one from simulated rates, which holds, and one from capacity alone, which
no fleet can undercut. Solved by HiGHS through `scipy.optimize.milp`.
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
# HiGHS' own tolerance on integers, as a share of the required rate: counts are rounded, so rates are checked again.
_SLACK = 1e-7
_TIME_LIMIT_S = 5.0
_REL_GAP = 1e-4


@dataclass(frozen=True)
class Option:
    """One kind of instance: its price an hour, and the rate that a pool of k of them carries, as (k, rate) rising in k.

    Between two points a pool carries at least the lower point's rate per instance: pools gain by size. `ceiling` is
    the rate of one instance that is never idle, `over` the share of its requests beyond each bound of the SLO without
    any waiting, and `limit` how many there are.
    """

    price: float
    curve: tuple[tuple[int, float], ...]
    ceiling: float
    over: tuple[float, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class Solution:
    """Counts by option, what they cost an hour, and the solver's lower bound of that: `gap` is what lies between."""

    counts: tuple[int, ...]
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """The share of the cost that the solver could not prove to be needed."""
        return max(self.cost - self.bound, 0.0) / self.cost if self.cost > 0 else 0.0


class _Program:
    """Columns and rows of one integer program, gathered as it is written down."""

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
        """The columns' values, the cost and its lower bound; None where nothing satisfies the rows."""
        matrix = np.zeros((len(self._rows), len(self.cost)))
        for number, (terms, _low, _high) in enumerate(self._rows):
            for column, factor in terms.items():
                matrix[number, column] = factor
        lows, highs = [low for _terms, low, _high in self._rows], [high for _terms, _low, high in self._rows]
        found: Any = milp(
            np.array(self.cost),
            integrality=np.array(self.whole),
            bounds=Bounds(np.array(self.lower), np.array(self.upper)),
            constraints=LinearConstraint(matrix, np.array(lows), np.array(highs)),
            options={"time_limit": _TIME_LIMIT_S, "mip_rel_gap": _REL_GAP},
        )
        if found.x is None:
            return None
        bound = found.mip_dual_bound
        return found.x, float(found.fun), float(found.fun if bound is None else bound)


def cheapest(options: Sequence[Option], required: float, survive: int = 0) -> Solution | None:
    """The cheapest counts whose pools carry `required` requests a second together, each pool its own share.

    With `survive` they still do when so many instances of any one option are gone. None where the limits forbid it.
    """
    # In units of what is required: the solver's tolerances are absolute.
    unit, program = required, _Program()
    members: list[list[int]] = []
    carried: dict[int, float] = {}
    for option in options:
        columns = []
        for (low, rate), high in zip(option.curve, _ends(option, required, survive), strict=True):
            if high < low or rate <= 0:
                continue
            count, used = program.column(option.price, 0, high), program.column(0.0, 0, 1)
            program.row({count: 1.0, used: -float(low)}, 0.0)
            program.row({count: 1.0, used: -float(high)}, -math.inf, 0.0)
            carried[count] = rate / low / unit
            columns.append((count, used))
        # A pool has one size.
        if columns:
            program.row({used: 1.0 for _count, used in columns}, 0.0, 1.0)
        members.append([count for count, _used in columns])
    if not carried:
        return None
    if survive:
        for own, option in zip(members, options, strict=True):
            if own:
                lost = _losses(program, own, min(survive, option.limit or survive), _most(option, required, survive))
                each = max(carried[column] for column in own)
                program.row({**carried, **dict.fromkeys(lost, -each)}, 1.0)
    program.row(carried, 1.0)
    solved = program.solve()
    if solved is None:
        return None
    counts = tuple(round(sum(solved[0][column] for column in columns)) for columns in members)
    return Solution(counts, _cost(options, counts), solved[2])


def least_cost(
    options: Sequence[Option], required: float, allowed: Sequence[float] = (), survive: int = 0, with_option: int = -1
) -> float:
    """What any fleet that carries `required` costs at least, whatever its router: by capacity and service times alone.

    Each request costs its instance the time that it costs one that is never idle, and of those beyond a bound of the
    SLO there may be no more than the share `allowed` for it. `with_option` must be in the fleet. inf where none can.
    """
    program = _Program()
    ceilings = [option.ceiling / required for option in options]
    counts = [
        program.column(
            option.price,
            1 if number == with_option else 0,
            max(_most_by_ceiling(option, required, survive), 1 if number == with_option else 0),
        )
        for number, option in enumerate(options)
    ]
    flows = [program.column(0.0, 0.0, 1.0, whole=False) for _option in options]
    for count, flow, ceiling in zip(counts, flows, ceilings, strict=True):
        program.row({count: ceiling, flow: -1.0}, -_SLACK)
    program.row(dict.fromkeys(flows, 1.0), 1.0, 1.0)
    for number, share in enumerate(allowed):
        over = {flow: option.over[number] for flow, option in zip(flows, options, strict=True)}
        program.row(over, -math.inf, share * (1 + _SLACK) + _SLACK)
    if survive:
        all_of = dict(zip(counts, ceilings, strict=True))
        for count, option, ceiling in zip(counts, options, ceilings, strict=True):
            most = _most_by_ceiling(option, required, survive)
            lost = _losses(program, [count], min(survive, option.limit or survive), most)
            program.row({**all_of, **dict.fromkeys(lost, -ceiling)}, 1 - _SLACK)
    solved = program.solve()
    return math.inf if solved is None else solved[2]


def _losses(program: _Program, counts: list[int], survive: int, most: int) -> list[int]:
    """Columns that are 1 as often as instances of one option can be lost: never more than there are of it."""
    lost = []
    for number in range(survive):
        column = program.column(0.0, 0, 1)
        # count - number > 0 forces it to 1.
        program.row({**dict.fromkeys(counts, 1.0), column: -float(most)}, -math.inf, float(number))
        lost.append(column)
    return lost


def _ends(option: Option, required: float, survive: int) -> list[int]:
    """The largest count that each point of the curve speaks for."""
    nexts = [k - 1 for k, _rate in option.curve[1:]]
    most = _most(option, required, survive)
    return [min(end, most) for end in [*nexts, most]] if option.curve else []


def _most(option: Option, required: float, survive: int) -> int:
    """More of it than this is never needed."""
    densities = [rate / k for k, rate in option.curve if rate > 0]
    if not densities:
        return 0
    needed = math.ceil(required / min(densities)) + survive
    return needed if option.limit is None else min(needed, option.limit)


def _most_by_ceiling(option: Option, required: float, survive: int) -> int:
    if option.ceiling <= 0:
        return 0
    needed = math.ceil(required / option.ceiling) + survive
    return needed if option.limit is None else min(needed, option.limit)


def _cost(options: Sequence[Option], counts: Sequence[int]) -> float:
    return float(sum(option.price * count for option, count in zip(options, counts, strict=True)))


def cheaper_fleets(
    options: Sequence[Option], required: float, below: float, most: int
) -> list[tuple[float, tuple[int, ...]]] | None:
    """Every fleet that costs less than `below` and is not overloaded, cheapest first; None where there are over `most`.

    Of fleets that cost the same the one with fewer instances comes first.
    """
    found: list[tuple[float, tuple[int, ...]]] = []
    best_each = [option.ceiling / option.price if option.price > 0 else math.inf for option in options]
    # What is left to spend buys at most this much from each option on.
    best = [max(best_each[number:], default=0.0) for number in range(len(options) + 1)]

    def extend(number: int, counts: list[int], cost: float, capacity: float) -> bool:
        if capacity + best[number] * max(below - cost, 0.0) < required and not math.isinf(best[number]):
            return True
        if number == len(options):
            if capacity >= required and cost < below - _EPSILON:
                found.append((cost, tuple(counts)))
            return len(found) <= most
        option = options[number]
        count = 0
        while cost + count * option.price < below - _EPSILON and (option.limit is None or count <= option.limit):
            if not extend(number + 1, [*counts, count], cost + count * option.price, capacity + count * option.ceiling):
                return False
            count += 1
        return True

    if not extend(0, [], 0.0, 0.0):
        return None
    return sorted(found, key=lambda pair: (pair[0], sum(pair[1])))
