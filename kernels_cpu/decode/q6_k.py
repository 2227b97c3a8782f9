"""Decoder of Q6_K: twin of ``edgeq.formats.blocks.q6_k``, where the layout is described."""

from __future__ import annotations

import numpy as np

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.half_floats import from_half
from edgeq.kernels_cpu.jit import kernel
from edgeq.kernels_cpu.scalar import load_half

TAKES_ISA = True


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    d = load_half(block, 208)
    for sub in range(16):
        half, quarter = sub >> 3, (sub >> 1) & 3
        scale = d * np.float32(np.int8(block[192 + sub]))
        low_at = half * 64 + (quarter & 1) * 32 + (sub & 1) * 16
        high_at = 128 + half * 32 + (sub & 1) * 16
        low_shift, high_shift = np.int32((quarter >> 1) * 4), np.int32(quarter * 2)
        for i in range(out.size >> 4):
            low = (np.int32(block[low_at + i]) >> low_shift) & np.int32(15)
            high = (np.int32(block[high_at + i]) >> high_shift) & np.int32(3)
            out[sub * 16 + i] = scale * np.float32((low | (high << np.int32(4))) - np.int32(32))


@kernel
def decode_blocks(first, last, blocks, out, isa):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    sixteen, four = simd.resized(isa, 16), simd.resized(isa, 4)
    for b in range(first, last):
        block, target = simd.address(blocks) + 210 * b, simd.address(out) + 1024 * b
        half = np.int64(blocks[b, 208]) | (np.int64(blocks[b, 209]) << 8)
        d = simd.lane(from_half(four, simd.splat(four, half)), 0)
        for part in range(4):  # sixteen columns of one half: four sub-blocks share their bytes
            columns = (part >> 1) * 64 + (part & 1) * 16
            first_low = simd.to_int32(simd.load_uint8(sixteen, block + columns))
            second_low = simd.to_int32(simd.load_uint8(sixteen, block + columns + 32))
            high = simd.to_int32(simd.load_uint8(sixteen, block + 128 + (columns >> 1) + (part & 1) * 8))
            sub = (part >> 1) * 8 + (part & 1)
            for quarter in range(4):
                low = second_low if quarter & 1 else first_low
                code = ((low >> (quarter >> 1 << 2)) & 15) | (((high >> (2 * quarter)) & 3) << 4)
                scale = d * np.float32(np.int8(blocks[b, 192 + sub + 2 * quarter]))
                simd.store(target + 64 * (sub + 2 * quarter), simd.to_float(code - 32) * scale)
