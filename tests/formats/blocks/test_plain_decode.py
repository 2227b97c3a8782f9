"""Plain decoders against gguf-py's."""

import gguf
import numpy as np
import pytest
from block_samples import random_blocks, same_bits

from edgeq.formats.blocks import BlockType, all_types, by_id, by_name
from edgeq.formats.errors import EdgeqError

ENCODED = {
    "F32",
    "F16",
    "BF16",
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
}
ENCODED |= {"IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4"}
DECODED = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "NVFP4"}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random halves meet inf on the way
types = pytest.mark.parametrize("block_type", all_types(), ids=lambda t: t.name)


def test_registry_has_the_types_of_the_usual_files():
    assert {t.name for t in all_types() if t.encodes} >= ENCODED
    assert {t.name for t in all_types()} >= ENCODED | DECODED


@types
def test_numbers_are_ggmls(block_type: type[BlockType]):
    number = gguf.GGMLQuantizationType[block_type.name]
    assert block_type.ggml_id == number
    assert (block_type.block_values, block_type.block_bytes) == gguf.GGML_QUANT_SIZES[number]
    assert by_id(block_type.ggml_id) is block_type
    assert by_name(block_type.name.lower()) is block_type


@types
def test_random_blocks_decode_as_in_gguf(block_type: type[BlockType]):
    columns = 2 * 256
    rows = random_blocks(block_type, 64 * columns // block_type.block_values).reshape(64, -1)
    theirs = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(block_type.ggml_id))
    ours = block_type.decode(rows, columns)
    assert same_bits(ours, np.ascontiguousarray(theirs, np.float32).reshape(ours.shape))


@types
def test_chunks_meet(block_type: type[BlockType]):
    columns = 1024
    rows = random_blocks(block_type, 150 * columns // block_type.block_values).reshape(150, -1)
    whole = block_type.decode(rows, columns)
    assert same_bits(whole[149:], block_type.decode(rows[149:], columns))


@types
def test_rows_that_do_not_fit_are_refused(block_type: type[BlockType]):
    with pytest.raises(EdgeqError, match=r"must be uint8 \[n, "):
        block_type.decode(np.zeros((2, block_type.row_bytes(256) - 1), np.uint8), 256)
    if block_type.block_values > 1:
        with pytest.raises(EdgeqError, match="not a whole number"):
            block_type.decode(np.zeros((1, 1), np.uint8), block_type.block_values + 1)


@types
def test_no_rows_and_strided_rows(block_type: type[BlockType]):
    assert block_type.decode(np.zeros((0, block_type.row_bytes(256)), np.uint8), 256).shape == (0, 256)
    assert block_type.decode(np.zeros((3, 0), np.uint8), 0).shape == (3, 0)
    rows = random_blocks(block_type, 8 * 256 // block_type.block_values).reshape(8, -1)
    assert same_bits(block_type.decode(rows[::2], 256), block_type.decode(rows, 256)[::2])


@types
def test_scales_at_the_edges_decode_as_in_gguf(block_type: type[BlockType]):
    """Zero, subnormal, largest, infinite and NaN bytes in every place, and so in every scale."""
    edges = np.array([0, 1, 2, 0x7B, 0x7C, 0x7E, 0x7F, 0x80, 0x83, 0xFB, 0xFC, 0xFF], np.uint8)
    shape = (4096, block_type.block_bytes)
    blocks = edges[np.random.default_rng(6).integers(0, len(edges), shape)]
    theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(block_type.ggml_id))
    ours = block_type.decode(blocks, block_type.block_values)
    assert same_bits(ours, np.ascontiguousarray(theirs, np.float32).reshape(ours.shape))
