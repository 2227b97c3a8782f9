"""Plain encoders against ggml's own, byte for byte, and by themselves."""

import block_samples as samples
import ggml
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.formats.blocks import BlockType, all_types
from edgeq.formats.errors import EdgeqError

types = pytest.mark.parametrize("block_type", [t for t in all_types() if t.encodes], ids=lambda t: t.name)
decode_only = pytest.mark.parametrize(
    "block_type", [t for t in all_types() if not t.encodes], ids=lambda t: t.name
)
# Types for which ggml ignores importance, types with float32's range.
UNWEIGHTED = {"F32", "F16", "BF16", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"}
WIDE = {"F32", "BF16", "MXFP4"}

# Root mean square error of Gaussian rows, relative to the rows' own: a little above what ggml reaches.
ERROR_CAPS = {"F32": 0, "F16": 3e-4, "BF16": 2e-3, "Q8_0": 0.006, "Q6_K": 0.02, "Q5_K": 0.038, "Q5_1": 0.042}
ERROR_CAPS |= {"Q5_0": 0.044, "Q4_K": 0.078, "Q4_1": 0.084, "Q4_0": 0.095}
ERROR_CAPS |= {"IQ4_NL": 0.08, "IQ4_XS": 0.08, "MXFP4": 0.12, "Q3_K": 0.16, "Q2_K": 0.31}
ERROR_CAPS |= {"TQ1_0": 0.82, "TQ2_0": 0.82}  # made for ternary models


@pytest.mark.parametrize("importance", samples.importances())
@types
def test_bytes_are_ggmls(block_type: type[BlockType], importance: str):
    weights = samples.importances()[importance]
    for name, values in samples.float_rows().items():
        if block_type.name == "MXFP4" and np.abs(values).max() < 2.0**-125:
            continue  # ggml's exponent wraps there: test_tiny_values_of_mxfp4
        theirs = ggml.quantize(block_type.name, values, weights)
        assert not samples.differences(block_type, block_type.encode(values, weights), theirs), name


@types
def test_bytes_of_trained_weights_are_ggmls(block_type: type[BlockType]):
    rng = np.random.default_rng(3)
    for name, values in samples.trained_rows().items():
        for weights in (None, rng.exponential(size=values.shape[1]).astype(np.float32)):
            rows = values[:64]
            theirs = ggml.quantize(block_type.name, rows, weights)
            assert not samples.differences(block_type, block_type.encode(rows, weights), theirs), name


@types
def test_zeros_stay_zeros(block_type: type[BlockType]):
    values = np.zeros((2, 512), np.float32)
    assert not block_type.decode(block_type.encode(values), 512).any()


@types
def test_round_trip_error(block_type: type[BlockType]):
    values = samples.float_rows()["gauss"]
    decoded = block_type.decode(block_type.encode(values), values.shape[1])
    relative = np.sqrt(np.mean((decoded - values) ** 2) / np.mean(values**2))
    assert relative <= ERROR_CAPS[block_type.name]


@types
def test_importance_lowers_the_weighted_error(block_type: type[BlockType]):
    if block_type.name in UNWEIGHTED:
        pytest.skip("ggml ignores importance for this type")
    values, weights = samples.float_rows()["gauss"], samples.importances()["exponential"]

    def error(encoded: np.ndarray) -> float:
        return float((weights * (block_type.decode(encoded, values.shape[1]) - values) ** 2).sum())

    assert error(block_type.encode(values, weights)) < error(block_type.encode(values))


@types
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 5), blocks=st.integers(0, 4), seed=st.integers(0, 2**31))
def test_any_shape(block_type: type[BlockType], rows: int, blocks: int, seed: int):
    columns = blocks * block_type.block_values
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    encoded = block_type.encode(values)
    assert encoded.shape == (rows, block_type.row_bytes(columns))
    assert block_type.decode(encoded, columns).shape == (rows, columns)
    if encoded.size:
        assert not samples.differences(block_type, encoded, ggml.quantize(block_type.name, values))


@types
def test_layout_of_the_input_does_not_matter(block_type: type[BlockType]):
    values = samples.float_rows()["laplace"]
    weights = samples.importances()["exponential"]
    expected = block_type.encode(values, weights)
    assert (block_type.encode(np.asfortranarray(values), weights) == expected).all()
    assert (block_type.encode(values[::2], weights) == expected[::2]).all()
    assert (block_type.encode(values.astype(np.float64), weights) == expected).all()


@types
def test_long_rows_are_encoded_in_chunks(block_type: type[BlockType]):
    row = np.random.default_rng(1).standard_normal((1, 70_000 // 256 * 256)).astype(np.float32)
    assert not samples.differences(block_type, block_type.encode(row), ggml.quantize(block_type.name, row))


@types
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(block_type: type[BlockType], bad: float):
    values = np.zeros((300, 256), np.float32)
    values[299, 5] = bad
    count = "1 NaN and 0 infinite" if np.isnan(bad) else "0 NaN and 1 infinite"
    with pytest.raises(EdgeqError, match=f"{block_type.name}: row 299 holds {count} values of 256"):
        block_type.encode(values)


@types
@pytest.mark.parametrize("size", [1e11, 1e20, 1e38])
@pytest.mark.parametrize("weighted", [False, True])
def test_scales_that_overflow_are_refused(block_type: type[BlockType], size: float, weighted: bool):
    if block_type.name in WIDE:
        pytest.skip("has float32's range")
    values = samples.float_rows()["gauss"] * np.float32(size)
    weights = samples.importances()["exponential"] if weighted else None
    with pytest.raises(EdgeqError, match="overflows float16"):
        block_type.encode(values, weights)


def test_bfloat16_refuses_what_rounds_to_infinity():
    with pytest.raises(EdgeqError, match="overflows bfloat16"):
        next(t for t in all_types() if t.name == "BF16").encode(np.full((1, 1), 3.4e38, np.float32))


@types
def test_shapes_that_do_not_fit_are_refused(block_type: type[BlockType]):
    with pytest.raises(EdgeqError, match=r"values must be \[rows, columns\]"):
        block_type.encode(np.zeros(256, np.float32))
    with pytest.raises(EdgeqError, match=r"importance must be \[256\]"):
        block_type.encode(np.zeros((2, 256), np.float32), np.ones(255, np.float32))
    with pytest.raises(EdgeqError, match="finite and not negative"):
        block_type.encode(np.zeros((2, 256), np.float32), np.full(256, -1, np.float32))
    if block_type.block_values > 1:
        with pytest.raises(EdgeqError, match="not a whole number"):
            block_type.encode(np.zeros((2, 257), np.float32))


def test_tiny_values_of_mxfp4():
    """ggml's exponent wraps below 2^-125, and all values become 0; ours keeps what 2^-128 can hold."""
    mxfp4 = next(t for t in all_types() if t.name == "MXFP4")
    values = samples.float_rows()["gauss"] * np.float32(2.0**-122)
    assert np.abs(values).max() < 2.0**-125
    encoded = mxfp4.encode(values)
    assert (encoded.reshape(-1, 17)[:, 0] == 0).all()
    error = np.abs(mxfp4.decode(encoded, values.shape[1]) - values)
    assert error.max() <= 2.0**-128
    assert ggml.quantize("MXFP4", values).reshape(-1, 17)[:, 0].min() > 200


@pytest.mark.parametrize("power", range(-120, 128, 8))
def test_powers_of_two_in_mxfp4(power: int):
    """Magnitudes next to a power of two, where float32's logarithm decides."""
    peak = np.float32(2.0**power)
    steps = np.arange(-12, 4, dtype=np.int32)
    values = np.zeros((16, 32), np.float32)
    values[:, 3] = (peak.view(np.int32) + steps).view(np.float32)
    values[:, 9] = -values[:, 3] * np.float32(0.4)
    mxfp4 = next(t for t in all_types() if t.name == "MXFP4")
    assert not samples.differences(mxfp4, mxfp4.encode(values), ggml.quantize("MXFP4", values))


@decode_only
def test_types_that_are_only_decoded(block_type: type[BlockType]):
    for function in (block_type.encode, block_type.encode_blocks):
        with pytest.raises(
            EdgeqError, match=f"{block_type.name}: edgeq decodes .* it encodes F32, F16, .*MXFP4"
        ):
            function(np.zeros((1, 256), np.float32))


def test_largest_floats_in_mxfp4():
    values = (np.finfo(np.float32).max * np.linspace(0.5, 1, 32)).astype(np.float32)[None]
    mxfp4 = next(t for t in all_types() if t.name == "MXFP4")
    assert not samples.differences(mxfp4, mxfp4.encode(values), ggml.quantize("MXFP4", values))
