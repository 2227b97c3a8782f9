"""Where blocks keep their floats, against ggml's own validation and the codecs."""

from __future__ import annotations

import ctypes

import ggml
import numpy as np
import pytest

from edgeq.formats.blocks import all_types
from edgeq.formats.gguf.scales import BF16, E8M0, F16, F32, F64, SCALE_FIELDS, not_finite
from edgeq.formats.gguf.types import TENSOR_TYPES_BY_NAME

N, AT = 40, 23  # blocks, and the one that is made bad
NAN = {F16: 0x7E01, BF16: 0xFFC0, F32: 0x7F800001, F64: 0x7FF0000000000001, E8M0: 0xFF}
INFINITE = {F16: 0xFC00, BF16: 0x7F80, F32: 0xFF800000, F64: 0x7FF0000000000000}
CASES = [
    (name, field, bits, kind)
    for name, fields in SCALE_FIELDS.items()
    for field in fields
    for kind, table in (("nan", NAN), ("infinite", INFINITE))
    if (bits := table.get(field.format)) is not None
]


def _sound(name: str) -> np.ndarray:
    """Random blocks without a byte that could make part of a NaN: all exponents stay below the top."""
    size = TENSOR_TYPES_BY_NAME[name].block_bytes
    return np.random.default_rng(len(name)).integers(0, 0x3C, (N, size), np.uint8)


def _spoil(name: str, field, bits: int) -> np.ndarray:
    blocks = _sound(name)
    if name == "IQ1_M":
        words = blocks[AT, 48:56].view("<u2")
        words[:] = (words & 0x0FFF) | ((np.uint16(bits) >> np.array([0, 4, 8, 12], np.uint16)) << 12)
        return blocks
    size = np.dtype(field.format.dtype).itemsize
    raw = np.array([bits], field.format.dtype).view(np.uint8)
    blocks[AT, field.offset : field.offset + size] = raw
    return blocks


def _ggml_says_valid(name: str, blocks: np.ndarray) -> bool:
    lib = ggml.library()
    if lib is None:
        pytest.skip("llama_cpp is not installed")
    lib.ggml_validate_row_data.restype = ctypes.c_bool
    lib.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    return lib.ggml_validate_row_data(TENSOR_TYPES_BY_NAME[name].id, blocks.ctypes.data, blocks.nbytes)


@pytest.mark.parametrize(
    ("name", "field", "bits", "kind"), CASES, ids=[f"{c[0]}-{c[1].name or 'value'}-{c[3]}" for c in CASES]
)
def test_one_bad_float_is_found_where_it_stands(name, field, bits, kind):
    blocks = _spoil(name, field, bits)
    ((found, nan, infinite),) = not_finite(name, blocks)
    assert found == field.name
    assert np.flatnonzero(nan if kind == "nan" else infinite).tolist() == [AT]
    assert not (infinite if kind == "nan" else nan).any()
    if name != "Q8_1":  # ggml does not validate activations
        assert not _ggml_says_valid(name, blocks)


@pytest.mark.parametrize("name", SCALE_FIELDS)
def test_sound_blocks_have_none(name):
    blocks = _sound(name)
    assert list(not_finite(name, blocks)) == []
    if name not in ("Q8_1", "I8", "I16", "I32", "I64"):
        assert _ggml_says_valid(name, blocks)


@pytest.mark.parametrize("name", SCALE_FIELDS)
def test_all_bytes_agree_with_ggml(name):
    """Single random blocks of any bytes: what ggml refuses is what is found."""
    if name in ("Q8_1", "F64"):
        pytest.skip("ggml does not validate activations, and rounds F64 to F32 first")
    size = TENSOR_TYPES_BY_NAME[name].block_bytes
    random = np.random.default_rng(7)
    for _ in range(500):
        block = random.choice(np.array([0, 0x3C, 0x7C, 0x7F, 0x80, 0xF8, 0xFF], np.uint8), (1, size))
        assert (list(not_finite(name, block)) == []) == _ggml_says_valid(name, block), block


@pytest.mark.parametrize("block_type", all_types(), ids=lambda t: t.name)
def test_the_codec_decodes_a_bad_scale_to_bad_values(block_type):
    for name, field, bits, kind in CASES:
        if name == block_type.name and not (name == "MXFP4" or kind == "infinite"):
            values = block_type.decode(_spoil(name, field, bits), block_type.block_values)
            assert np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist() == [AT]
