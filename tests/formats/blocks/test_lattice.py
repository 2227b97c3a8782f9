"""Block types as lattices: blocks taken apart and put together again, and what the numbers stand for."""

from __future__ import annotations

import block_samples as samples
import numpy as np
import pytest

from edgeq.formats.blocks import BlockType, all_types
from edgeq.formats.blocks.lattice import module

LATTICES = [t for t in all_types() if module(t.name) is not None]
types = pytest.mark.parametrize("block_type", LATTICES, ids=lambda t: t.name)


def test_all_types_with_numbers_of_their_own_are_there():
    names = {t.name for t in LATTICES}
    assert names == {
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ4_XS",
    }


@types
def test_unpacking_and_packing_keep_every_bit(block_type: type[BlockType]):
    found = module(block_type.name)
    for name in ("gauss", "outliers", "zeros", "mixed scales", "integers"):
        values = samples.float_rows()[name]
        encoded = block_type.encode(values)
        blocks = encoded.reshape(-1, block_type.block_bytes)
        parts = found.unpack(blocks)
        np.testing.assert_array_equal(found.pack(parts), blocks, err_msg=name)
        expected = block_type.decode(encoded, values.shape[1])
        np.testing.assert_array_equal(
            parts.in_rows(len(values)).values(found.LATTICE), expected, err_msg=name
        )


@types
def test_numbers_at_both_ends_survive(block_type: type[BlockType]):
    found = module(block_type.name)
    lattice, values = found.LATTICE, samples.float_rows()["gauss"]
    parts = found.unpack(block_type.encode(values).reshape(-1, block_type.block_bytes)).in_rows(len(values))
    rng = np.random.default_rng(0)
    scales = rng.choice(np.float32(lattice.scales), parts.scales.shape)
    mins = rng.choice(np.float32(lattice.mins), parts.mins.shape)
    codes = rng.choice(np.uint8([0, len(lattice.levels) - 1]), parts.codes.shape)
    extreme = parts._replace(scales=scales, mins=mins, codes=codes)
    packed = found.pack(extreme.in_blocks(block_type.block_values)).reshape(len(values), -1)
    np.testing.assert_array_equal(block_type.decode(packed, values.shape[1]), extreme.values(lattice))
