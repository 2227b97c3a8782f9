"""Blocks beside those of ONNX Runtime's own weight quantizer, on the same matrix."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx_graphs import Floats, Tiny, normal

from edgeq.formats.onnx.blocked import Scheme, pack_rows, quantize_rows
from edgeq.formats.onnx.blocked_nearest import nearest_rows

ROWS, COLUMNS = 64, 512


def stored(matrix: Floats, scheme: Scheme) -> list[NDArray[Any]]:
    """Codes, scales and, with zero points, these, as the quantizer's MatMulNBits holds them."""
    quantizer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    b = Tiny()
    rows, columns = matrix.shape
    y = b.op("MatMul", b.x("n", columns), b.const("w", np.ascontiguousarray(matrix.T)))
    model = ir.to_proto(b.done(y, shapes=[["n", rows]]))
    work = quantizer.MatMulNBitsQuantizer(
        model, block_size=scheme.size, is_symmetric=scheme.symmetric, bits=scheme.bits
    )
    work.process()
    graph = work.model.model.graph
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    node = next(node for node in graph.node if node.op_type == "MatMulNBits")
    return [found[name] for name in node.input[1:]]


def theirs(matrix: Floats, scheme: Scheme) -> Floats:
    """What the quantizer's MatMulNBits stands for, ``[rows, columns]``."""
    packed, scales, *zeros = stored(matrix, scheme)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(ROWS, -1, scheme.size)
    zero = np.full((ROWS, codes.shape[1]), scheme.middle)
    if zeros:
        both = zeros[0].reshape(ROWS, -1)
        zero = np.stack([both & 15, both >> 4], axis=-1).reshape(ROWS, -1)[:, : codes.shape[1]]
    values = (codes.astype(np.float32) - zero[..., None]) * scales.reshape(ROWS, -1, 1)
    return np.asarray(values.reshape(ROWS, COLUMNS), np.float32)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("size", [16, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_round_to_nearest_has_onnx_runtime_s_bytes(bits: int, size: int, symmetric: bool) -> None:
    """Rows that blocks do not divide, halves between two codes, and rows of zeros among them."""
    matrix, scheme = normal(2, 24, 304), Scheme(bits, size, symmetric)
    matrix[0], matrix[1] = 0, np.round(matrix[1] * 4) / 4 + np.float32(0)
    packed, scales, *zeros = stored(matrix, scheme)
    ours = nearest_rows(matrix, scheme)
    np.testing.assert_array_equal(pack_rows(ours.codes, bits).reshape(packed.shape), packed)
    np.testing.assert_array_equal(ours.scales, scales.reshape(ours.scales.shape))
    if ours.zeros is not None:  # what fills the last byte is nobody's
        shift = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (zeros[0].reshape(24, -1, 1) >> shift & (2 * scheme.middle - 1)).reshape(24, -1)
        np.testing.assert_array_equal(ours.zeros, codes[:, : ours.zeros.shape[1]])


@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_less_error_than_onnx_runtime_s_quantizer(size: int, symmetric: bool) -> None:
    matrix, scheme = normal(1, ROWS, COLUMNS), Scheme(4, size, symmetric)
    ours = np.square(quantize_rows(matrix, scheme).values(COLUMNS) - matrix).sum()
    peer = np.square(theirs(matrix, scheme) - matrix).sum()
    print(f"{scheme}: {ours / peer:.3f} of the squared error")
    assert ours <= 0.93 * peer
