"""Decoder of NVFP4: twin of ``edgeq.formats.blocks.nvfp4``, where the layout is described."""

from __future__ import annotations

from edgeq.formats.blocks.mxfp4 import LEVELS
from edgeq.formats.blocks.nvfp4 import HALF_SCALES
from edgeq.kernels_cpu.jit import kernel


@kernel
def decode_block(block, out):
    """One block, uint8 ``[block_bytes]``, to float32 ``[block_values]``."""
    for sub in range(4):
        d = HALF_SCALES[block[sub]]
        for i in range(8):
            q = block[4 + 8 * sub + i]
            out[16 * sub + i] = d * LEVELS[q & 15]
            out[16 * sub + 8 + i] = d * LEVELS[q >> 4]


@kernel
def decode_blocks(first, last, blocks, out):
    """Blocks first..last of uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
    for b in range(first, last):
        decode_block(blocks[b], out[b])
