"""One option for each item, so that one total is least and two others keep to limits: a knapsack of many choices.

Lagrange: with a price on each limited total, every item picks for itself; prices rise until the limits hold (Everett,
1963, Generalized Lagrange multiplier method). What the limits then leave unused is spent on single changes. The
prices also give a bound that no choice can be below, so the answer says how far from the best it can be at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Totals = NDArray[np.float64]
_STEPS = 60  # halvings of a price's interval


@dataclass(frozen=True)
class Table:
    """What each option of each item adds to three totals: ``[items, options]``, infinite where there is no such option.

    ``objective`` shall be least, ``first`` and ``second`` are limited.
    """

    objective: Totals
    first: Totals
    second: Totals


@dataclass(frozen=True)
class Chosen:
    """The option of each item ``[items]``; ``bound`` is what no other choice can be below."""

    options: NDArray[np.int64]
    objective: float
    first: float
    second: float
    bound: float

    @property
    def gap(self) -> float:
        """By which share the objective is above the bound, at most."""
        return self.objective / self.bound - 1 if self.bound > 0 else 0.0


def choose(table: Table, first_limit: float = np.inf, second_limit: float = np.inf) -> Chosen | None:
    """The choice of least objective within both limits; None where not even the least of each total keeps to them."""
    limits = np.array([first_limit, second_limit])
    prices = _prices(table, limits)
    if prices is None:
        return None
    options = _improve(table, _pick(table, prices), limits)
    return _totals(table, options, _dual(table, prices, limits))


def _pick(table: Table, prices: Sequence[float]) -> NDArray[np.int64]:
    return np.asarray(_priced(table, prices).argmin(axis=1))


def _priced(table: Table, prices: Sequence[float]) -> Totals:
    total = table.objective.copy()
    for price, costs in zip(prices, (table.first, table.second), strict=True):
        if price:
            total = total + price * costs
    return total


def _dual(table: Table, prices: Sequence[float], limits: Totals) -> float:
    paid = sum(price * limit for price, limit in zip(prices, limits, strict=True) if price)
    return float(_priced(table, prices).min(axis=1).sum() - paid)


def _prices(table: Table, limits: Totals) -> tuple[float, float] | None:
    """Prices under which both limits hold; the second is found for each first that is tried."""

    def first_for(second: float) -> float | None:
        return _least_price(lambda price: _sum(table.first, _pick(table, (price, second))) <= limits[0])

    def holds(second: float) -> bool:
        first = first_for(second)
        return first is not None and _sum(table.second, _pick(table, (first, second))) <= limits[1]

    if np.isinf(limits[1]):
        first = first_for(0.0)
        return None if first is None else (first, 0.0)
    second = _least_price(holds)
    if second is None:
        return None
    first = first_for(second)
    return None if first is None else (first, second)


def _least_price(holds: Callable[[float], bool]) -> float | None:
    """About the least price for which something holds that a higher price makes truer; None where none does."""
    if holds(0.0):
        return 0.0
    high = 1e-18
    while not holds(high):
        high *= 16
        if high > 1e24:
            return None
    low = high / 16
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _improve(table: Table, options: NDArray[np.int64], limits: Totals) -> NDArray[np.int64]:
    """Single changes that lower the objective most and stay within the limits, as long as there are any."""
    options, rows = options.copy(), np.arange(len(options))
    while True:
        gain = table.objective[rows, options][:, None] - table.objective
        room = limits[0] - _sum(table.first, options), limits[1] - _sum(table.second, options)
        fits = (table.first - table.first[rows, options][:, None] <= room[0]) & (
            table.second - table.second[rows, options][:, None] <= room[1]
        )
        gain = np.where(fits, gain, -np.inf)
        item, option = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[item, option] > 0:
            return options
        options[item] = option


def _sum(costs: Totals, options: NDArray[np.int64]) -> float:
    return float(costs[np.arange(len(options)), options].sum())


def _totals(table: Table, options: NDArray[np.int64], bound: float) -> Chosen:
    objective, first, second = (
        _sum(costs, options) for costs in (table.objective, table.first, table.second)
    )
    return Chosen(options, objective, first, second, min(bound, objective))
