"""Choosing an option for each item, against every choice there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.allocation.choose import Table, choose


def random_table(seed: int, items: int = 5, options: int = 4) -> Table:
    """As types of tensors are: the more bytes, the less loss, never twice the same."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(1, 100, (items, 1))
    bits = np.sort(rng.uniform(2, 8, (items, options)), axis=1)
    loss = rng.uniform(0.1, 10, (items, 1)) * 4.0**-bits
    return Table(loss, sizes * bits, sizes * rng.uniform(1, 2, (items, options)))


def best(table: Table, first: float, second: float) -> float | None:
    """The least objective of all choices."""
    found = None
    for options in itertools.product(range(table.first.shape[1]), repeat=len(table.first)):
        picked = [table_[np.arange(len(options)), options].sum() for table_ in (table.first, table.second)]
        if picked[0] <= first and picked[1] <= second:
            value = float(table.objective[np.arange(len(options)), options].sum())
            found = value if found is None else min(found, value)
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 1.0), st.floats(0.5, 1.2))
def test_near_the_best_and_never_below_the_bound(seed: int, share: float, second_share: float) -> None:
    table = random_table(seed)
    first, second = share * table.first[:, -1].sum(), second_share * table.second.max(axis=1).sum()
    wanted, found = best(table, first, second), choose(table, first, second)
    if found is None:  # prices may miss a choice that only just fits
        least = table.first.min(axis=1).sum(), table.second.min(axis=1).sum()
        assert wanted is None or (least[0] > 0.7 * first or least[1] > 0.7 * second)
        return
    assert wanted is not None
    assert found.first <= first
    assert found.second <= second
    assert found.bound <= wanted * (1 + 1e-9)
    assert wanted <= found.objective * (1 + 1e-9)
    assert found.gap >= 0


def test_many_items_come_close() -> None:
    table = random_table(1, items=200, options=7)
    found = choose(table, 0.6 * table.first[:, -1].sum())
    assert found is not None
    assert found.gap < 0.002


def test_without_a_limit_every_item_takes_its_best() -> None:
    table = random_table(2)
    found = choose(table)
    assert found is not None
    assert found.objective == pytest.approx(table.objective.min(axis=1).sum())


def test_what_cannot_fit_is_said() -> None:
    table = random_table(3)
    assert choose(table, 0.99 * table.first.min(axis=1).sum()) is None
    assert choose(table, np.inf, 0.99 * table.second.min(axis=1).sum()) is None


def test_an_option_that_is_missing_is_never_taken() -> None:
    table = random_table(4)
    table.objective[2, 1:] = table.first[2, 1:] = table.second[2, 1:] = np.inf
    found = choose(table, 0.9 * np.where(np.isinf(table.first), 0, table.first).max(axis=1).sum())
    assert found is not None
    assert found.options[2] == 0
