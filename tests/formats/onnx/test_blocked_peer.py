"""Blocks beside those of ONNX Runtime's own weight quantizer, on the same matrix."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_graphs import Floats, Tiny, normal

from edgeq.formats.onnx.blocked import Scheme, quantize_rows

ROWS, COLUMNS = 64, 512


def theirs(matrix: Floats, scheme: Scheme) -> Floats:
    """What the quantizer's MatMulNBits stands for, ``[rows, columns]``."""
    quantizer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    b = Tiny()
    y = b.op("MatMul", b.x("n", COLUMNS), b.const("w", np.ascontiguousarray(matrix.T)))
    model = ir.to_proto(b.done(y, shapes=[["n", ROWS]]))
    work = quantizer.MatMulNBitsQuantizer(
        model, block_size=scheme.size, is_symmetric=scheme.symmetric, bits=scheme.bits
    )
    work.process()
    graph = work.model.model.graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    node = next(node for node in graph.node if node.op_type == "MatMulNBits")
    packed, scales, *zeros = (stored[name] for name in node.input[1:])
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(ROWS, -1, scheme.size)
    zero = np.full((ROWS, codes.shape[1]), scheme.middle)
    if zeros:
        both = zeros[0].reshape(ROWS, -1)
        zero = np.stack([both & 15, both >> 4], axis=-1).reshape(ROWS, -1)[:, : codes.shape[1]]
    values = (codes.astype(np.float32) - zero[..., None]) * scales.reshape(ROWS, -1, 1)
    return np.asarray(values.reshape(ROWS, COLUMNS), np.float32)


@pytest.mark.parametrize("size", [16, 32, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_less_error_than_onnx_runtime_s_quantizer(size: int, symmetric: bool) -> None:
    matrix, scheme = normal(1, ROWS, COLUMNS), Scheme(4, size, symmetric)
    ours = np.square(quantize_rows(matrix, scheme).values(COLUMNS) - matrix).sum()
    peer = np.square(theirs(matrix, scheme) - matrix).sum()
    print(f"{scheme}: {ours / peer:.3f} of the squared error")
    assert ours <= 0.93 * peer
