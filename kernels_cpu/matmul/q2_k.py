"""Dot products of float activations with Q2_K weights."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu.decode.q2_k import decode_block
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import dot


@kernel
def matmul_rows(first, last, x, rows, out):
    """x float32 ``[T, K]``, rows uint8 ``[N, blocks, block_bytes]``: rows first..last of out ``[N, T]``."""
    weights = np.empty(x.shape[1], np.float32)
    for n in range(first, last):
        for b in range(rows.shape[1]):
            decode_block(rows[n, b], weights[b * 256 : b * 256 + 256])
        for t in range(x.shape[0]):
            out[n, t] = dot(weights, x[t])
