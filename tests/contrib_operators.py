"""ONNX Runtime's own operators in NumPy, after their documentation, for ONNX's reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = NDArray[Any]

# The tables of MatMulBnb4 by quant_type, as its documentation has them.
_FP4 = [0, 0.0625 / 12, 8 / 12, 1, 4 / 12, 6 / 12, 2 / 12, 3 / 12]
TABLES = {
    0: [*_FP4, *(-value for value in _FP4)],
    1: [
        -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
    ],
}  # fmt: skip


def unpacked(packed: Array, bits: int) -> Array:
    """Codes along the last axis, the first lowest."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed[..., None] >> shifts & ((1 << bits) - 1)
    return codes.reshape(*packed.shape[:-1], -1).astype(np.float64)


class MatMulNBits(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        x: Array,
        packed: Array,
        scales: Array,
        zeros: Array | None = None,
        K: int = 0,
        N: int = 0,
        bits: int = 4,
        block_size: int = 32,
        **_: Any,
    ) -> tuple[Array]:
        codes = unpacked(packed, bits).reshape(N, -1, block_size)
        scales = scales.reshape(N, -1, 1)
        middle = np.full(scales.shape, float(1 << (bits - 1)))
        if zeros is not None:
            middle = unpacked(zeros.reshape(N, -1), bits)[:, : scales.shape[1], None]
        weight = ((codes - middle) * scales).reshape(N, -1)[:, :K]
        return ((x @ weight.T).astype(np.float32),)


class GatherBlockQuantized(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        packed: Array,
        ids: Array,
        scales: Array,
        zeros: Array | None = None,
        bits: int = 4,
        block_size: int = 32,
        **_: Any,
    ) -> tuple[Array]:
        blocks = scales[ids][..., None]
        codes = unpacked(packed[ids], bits).reshape(*blocks.shape[:-1], block_size)
        middle = np.full(blocks.shape, float(1 << (bits - 1)))
        if zeros is not None:
            middle = unpacked(zeros[ids], bits)[..., : blocks.shape[-2], None]
        return (((codes - middle) * blocks).reshape(*ids.shape, -1).astype(np.float32),)


class MatMulBnb4(OpRun):
    op_domain = "com.microsoft"

    def _run(
        self,
        x: Array,
        packed: Array,
        scales: Array,
        K: int = 0,
        N: int = 0,
        block_size: int = 64,
        quant_type: int = 1,
        **_: Any,
    ) -> tuple[Array]:
        codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[: N * K]
        weight = np.array(TABLES[quant_type])[codes] * np.repeat(scales, block_size)[: N * K]
        return ((x @ weight.reshape(N, K).T).astype(np.float32),)


def interpreter(path: str) -> ReferenceEvaluator:
    """The reference interpreter with these operators."""
    return ReferenceEvaluator(path, new_ops=[MatMulNBits, GatherBlockQuantized, MatMulBnb4])
