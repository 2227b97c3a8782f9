"""Steps of products: panels of packed weights times quantized activations, as ``products.panels``.

Words of both: address of the packed weights, blocks of a panel, bytes of a block, rows of a panel, codes, scales, words
(of the activations), columns of a block, words of a block, out, its row bytes, what the product is added to (0 is nothing)
and its row bytes (0 for a bias). Rows of ``out`` and of what is added are whole panels long.
"""

from __future__ import annotations

from edgeq.kernels_cpu.jit import helper, step
from edgeq.kernels_cpu.memory import get, put, word
from edgeq.kernels_cpu.products.panels import FEW_ROWS, SEGMENT, SEGMENT_OF_FEW
from edgeq.kernels_cpu.products.tiles import ROWS, operand_bytes, tile, unpack, unpacked_block_bytes
from edgeq.kernels_cpu.steps import STATE_ROWS


@step
def product_of_row(first, last, at, scratch, layout):
    """One row × panels first..last."""
    weights, blocks, width = word(at, 0), word(at, 1), word(at, 3)
    stride = blocks * word(at, 2)
    codes, scales, words = word(at, 4), word(at, 5), word(at, 6)
    for panel in range(first, last):
        out = word(at, 9) + 4 * panel * width
        _begin(out, word(at, 11), 4 * panel * width, width)
        tile(layout, 1, blocks, blocks, weights + panel * stride, codes, scales, words, out, 0, 0)


@step
def product_of_rows(first, last, at, scratch, layout):
    """The state's rows × panels first..last; up to ``ROWS`` − 1 rows more are written. Word 13: the state."""
    blocks, block_bytes, width, columns = word(at, 1), word(at, 2), word(at, 3), word(at, 7)
    rows, size = word(word(at, 13), STATE_ROWS), operand_bytes(layout)
    step_ = max(1, (SEGMENT_OF_FEW if rows <= FEW_ROWS else SEGMENT) // columns)
    panel_at = (scratch + 63) & -64
    for panel in range(first, last):
        for segment in range(0, blocks, step_):
            count = min(step_, blocks - segment)
            packed = word(at, 0) + (panel * blocks + segment) * block_bytes
            ahead = packed + count * block_bytes  # beyond the last panel, too: nothing is read
            unpack(layout, count, packed, panel_at)
            for t in range(0, rows, ROWS):
                out = word(at, 9) + t * word(at, 10) + 4 * panel * width
                if segment == 0:
                    for i in range(ROWS):
                        start = (t + i) * word(at, 12) + 4 * panel * width
                        _begin(out + i * word(at, 10), word(at, 11), start, width)
                x = word(at, 4) + (t * blocks + segment) * columns * size
                d = word(at, 5) + 4 * (t * blocks + segment)
                w = word(at, 6) + 4 * (t * blocks + segment) * word(at, 8)
                near = ahead if t == 0 else panel_at
                tile(layout, ROWS, count, blocks, panel_at, x, d, w, out, word(at, 10), near)


@helper
def _begin(out, base, offset, width):
    """What the product is added to."""
    for i in range(width):
        put(out, i, get(base + offset, i) if base else 0)
