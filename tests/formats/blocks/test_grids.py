"""Block types as integers with scales and offsets: the decoder's values, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.grids import grid_of, has_grid

TYPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
OFFSETS = {"Q4_1", "Q5_1", "Q4_K", "Q5_K"}


@pytest.mark.parametrize("type_name", TYPES)
def test_the_decoder_s_values(type_name: str) -> None:
    random = np.random.default_rng(1)
    kind = by_name(type_name)
    values = random.standard_normal((24, 512)) * random.choice([1e-4, 0.02, 1, 30], (24, 1))
    rows = kind.encode(values.astype(np.float32))
    grid = grid_of(type_name, rows, 512)
    expected = kind.decode(rows, 512)
    np.testing.assert_array_equal(grid.values().view(np.uint32), expected.view(np.uint32))
    assert (grid.offsets is not None) == (type_name in OFFSETS)
    assert len(set(grid.zeros.reshape(-1).tolist())) == 1


@pytest.mark.parametrize("type_name", ["Q4_1", "Q5_1", "Q4_K", "Q5_K"])
def test_offsets_that_float32_holds_around_zero_only(type_name: str) -> None:
    """A block of a tiny scale beside a large offset keeps both, as they are, and its zero is 0."""
    kind = by_name(type_name)
    values = np.full((1, 256), -1000, np.float32)
    values[0, ::7] += np.linspace(0, 1e-2, 37, dtype=np.float32)
    rows = kind.encode(values)
    grid = grid_of(type_name, rows, 256)
    expected = kind.decode(rows, 256)
    np.testing.assert_array_equal(grid.values().view(np.uint32), expected.view(np.uint32))


def test_types_without() -> None:
    assert not any(has_grid(name) for name in ("F16", "IQ4_NL", "Q3_K", "MXFP4", "TQ1_0"))
