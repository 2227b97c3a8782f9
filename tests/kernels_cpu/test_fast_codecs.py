"""Numba encoders and decoders against their plain twins, bit for bit."""

import functools

import block_samples as samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.devices.detect import instruction_set
from edgeq.formats.blocks import BlockType, all_types
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.encode import encode
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.registry import kernels

# This machine's, and the same vector code wider, which LLVM splits; other tests get the portable width.
isas = [instruction_set(), Isa("wide", 512)]


def takes_isa(block_type: type[BlockType]) -> bool:
    module = kernels("edgeq.kernels_cpu.encode", block_type.name)
    return hasattr(module, "TAKES_ISA")


@functools.cache
def plainly_encoded(block_type: type[BlockType], importance: str, name: str) -> np.ndarray:
    return block_type.encode(samples.float_rows()[name], samples.importances()[importance])


types = pytest.mark.parametrize("block_type", all_types(), ids=lambda t: t.name)
encoded_types = pytest.mark.parametrize(
    "block_type", [t for t in all_types() if t.encodes], ids=lambda t: t.name
)


@pytest.mark.parametrize("isa", isas, ids=lambda isa: f"{isa.name}-{isa.vector_bits}")
@pytest.mark.parametrize("importance", samples.importances())
@pytest.mark.parametrize("block_type", [t for t in all_types() if takes_isa(t)], ids=lambda t: t.name)
def test_encoders_are_equal_for_every_width(block_type: type[BlockType], importance: str, isa: Isa):
    weights = samples.importances()[importance]
    for name, values in samples.float_rows().items():
        rows = values[:7]  # not a whole number of lanes
        plain = plainly_encoded(block_type, importance, name)
        assert not samples.differences(block_type, encode(block_type.name, rows, weights, isa), plain[:7]), (
            name
        )


@pytest.mark.parametrize("importance", samples.importances())
@encoded_types
def test_encoders_are_equal(block_type: type[BlockType], importance: str):
    weights = samples.importances()[importance]
    for name, values in samples.float_rows().items():
        plain = plainly_encoded(block_type, importance, name)
        assert not samples.differences(block_type, encode(block_type.name, values, weights), plain), name


@encoded_types
def test_encoders_are_equal_on_trained_weights(block_type: type[BlockType]):
    for name, values in samples.trained_rows().items():
        fast = encode(block_type.name, values)
        assert not samples.differences(block_type, fast, block_type.encode(values)), name


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@types
def test_decoders_are_equal(block_type: type[BlockType]):
    columns = 1024
    blocks = np.random.default_rng(5).integers(
        0, 256, (256, columns // block_type.block_values * block_type.block_bytes), dtype=np.uint8
    )
    plain = block_type.decode(blocks, columns)
    assert samples.same_bits(decode(block_type.name, blocks, columns), plain)
    blocks.flags.writeable = False
    assert samples.same_bits(decode(block_type.name, blocks[::3], columns), plain[::3])


def test_every_half_decodes_exactly():
    halves = np.arange(1 << 16, dtype="<u2")
    rows = halves.view(np.uint8).reshape(1, -1)
    with np.errstate(invalid="ignore"):
        expected = halves.view("<f2").astype(np.float32)[None]
    assert samples.same_bits(decode("F16", rows, 1 << 16), expected)


@encoded_types
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 5), blocks=st.integers(0, 4), seed=st.integers(0, 2**31), weighted=st.booleans())
def test_any_shape(block_type: type[BlockType], rows: int, blocks: int, seed: int, weighted: bool):
    columns = blocks * block_type.block_values
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    weights = rng.exponential(size=columns).astype(np.float32) if weighted else None
    encoded = encode(block_type.name, values, weights)
    assert (encoded == block_type.encode(values, weights)).all()
    assert samples.same_bits(decode(block_type.name, encoded, columns), block_type.decode(encoded, columns))


@encoded_types
def test_layout_of_the_input_does_not_matter(block_type: type[BlockType]):
    values = samples.float_rows()["laplace"]
    expected = block_type.encode(values)
    assert (encode(block_type.name, np.asfortranarray(values)) == expected).all()
    assert (encode(block_type.name, values[::2]) == expected[::2]).all()
    assert (encode(block_type.name, values.astype(np.float64)) == expected).all()


@encoded_types
def test_errors_are_the_plain_ones(block_type: type[BlockType]):
    values = np.zeros((300, 256), np.float32)
    values[299, 5] = np.nan
    with pytest.raises(EdgeqError, match="row 299 holds 1 NaN"):
        encode(block_type.name, values)
    with pytest.raises(EdgeqError, match=r"must be uint8 \[n, "):
        decode(block_type.name, np.zeros((2, 1), np.uint8), 256)
    with pytest.raises(EdgeqError, match=r"importance must be \[256\]"):
        encode(block_type.name, values, np.ones(3, np.float32))
    if block_type.block_values > 1:
        with pytest.raises(EdgeqError, match="not a whole number"):
            encode(block_type.name, values[:, :255])


@encoded_types
@pytest.mark.parametrize("size", [1e11, 1e20, 1e38])
@pytest.mark.parametrize("weighted", [False, True])
def test_scales_that_overflow_are_refused(block_type: type[BlockType], size: float, weighted: bool):
    if block_type.name in {"F32", "BF16", "MXFP4"}:
        pytest.skip("has float32's range")
    values = samples.float_rows()["gauss"] * np.float32(size)
    weights = samples.importances()["exponential"] if weighted else None
    with pytest.raises(EdgeqError, match="overflows float16"):
        encode(block_type.name, values, weights)


def test_unknown_types_are_named():
    with pytest.raises(EdgeqError, match="Q9_Z: no such block type"):
        encode("Q9_Z", np.zeros((1, 256), np.float32))


def test_types_that_are_only_decoded():
    for block_type in all_types():
        if not block_type.encodes:
            with pytest.raises(EdgeqError, match=f"{block_type.name}: edgeq decodes this type"):
                encode(block_type.name, np.zeros((1, 256), np.float32))
