"""Steps of products: panels of packed weights times quantized activations, as ``products.panels``.

Words of all: address of the packed weights, blocks of a panel, bytes of a block, rows of a panel, codes, scales, words
(of the activations), columns of a block, words of a block, out, its row bytes, what the product is added to (0 is
nothing) and its row bytes (0 for a bias), and an address: of the state, or of the table of ``steps.experts``, and for
experts their number and panels of each. Rows of ``out`` and of what is added are whole panels long. Activations of many
rows are arranged (``activations.arrange``).
"""

from __future__ import annotations

from edgeq.kernels_cpu.jit import helper, step
from edgeq.kernels_cpu.memory import get, put, word
from edgeq.kernels_cpu.products.panels import FEW_ROWS, SEGMENT, SEGMENT_OF_FEW, blocks_ahead
from edgeq.kernels_cpu.products.tiles import ROWS, next_block, operand_bytes, tile, unpack
from edgeq.kernels_cpu.steps import STATE_ROWS


@step
def product_of_row(first, last, at, scratch, layout):
    """One row × panels first..last."""
    stride = word(at, 1) * word(at, 2)
    for panel in range(first, last):
        _panel_times_row(layout, at, word(at, 0) + panel * stride, panel, 0)


@step
def product_of_rows(first, last, at, scratch, layout):
    """The state's rows × panels first..last; up to ``ROWS`` − 1 rows more are written."""
    stride, rows = word(at, 1) * word(at, 2), word(word(at, 13), STATE_ROWS)
    for panel in range(first, last):
        _panel_times_rows(layout, at, scratch, word(at, 0) + panel * stride, panel, 0, rows)


@step
def expert_of_row(first, last, at, scratch, layout):
    """Each row × the panels of its expert: items are numbered through the rows."""
    stride, table, panels = word(at, 1) * word(at, 2), word(at, 13), word(at, 15)
    for item in range(first, last):
        row, panel = item // panels, item % panels
        expert = word(table, word(at, 14) + 1 + 2 * row + 1)
        weights = word(at, 0) + (expert * panels + panel) * stride
        _panel_times_row(layout, at, weights, panel, row)


@step
def expert_of_rows(first, last, at, scratch, layout):
    """The rows of each expert × its panels: items are numbered through the experts."""
    stride, table, panels = word(at, 1) * word(at, 2), word(at, 13), word(at, 15)
    for item in range(first, last):
        expert, panel = item // panels, item % panels
        begin, end = word(table, expert), word(table, expert + 1)
        if begin < end:
            weights = word(at, 0) + item * stride
            _panel_times_rows(layout, at, scratch, weights, panel, begin, end)


@helper
def _panel_times_row(layout, at, weights, panel, row):
    blocks, width = word(at, 1), word(at, 3)
    codes = word(at, 4) + row * blocks * word(at, 7)
    scales, words = word(at, 5) + 4 * row * blocks, word(at, 6) + 4 * row * blocks * word(at, 8)
    out = word(at, 9) + row * word(at, 10) + 4 * panel * width
    _begin(out, word(at, 11), row * word(at, 12) + 4 * panel * width, width)
    tile(layout, 1, blocks, weights, codes, scales, words, out, 0, 0)


@helper
def _panel_times_rows(layout, at, scratch, weights, panel, begin, end):
    """Rows begin..end, a multiple of ``ROWS``, in segments of the panel."""
    blocks, block_bytes, width, columns = word(at, 1), word(at, 2), word(at, 3), word(at, 7)
    size, stride, base = operand_bytes(layout), word(at, 10), word(at, 11)
    step_ = max(1, (SEGMENT_OF_FEW if end - begin <= FEW_ROWS else SEGMENT) // columns)
    panel_at = (scratch + 63) & -64
    for segment in range(0, blocks, step_):
        count = min(step_, blocks - segment)
        packed = weights + segment * next_block(layout)
        ahead = weights + (segment + blocks_ahead(layout, block_bytes, count, blocks)) * block_bytes
        unpack(layout, count, blocks, packed, panel_at)
        for t in range(begin, end, ROWS):
            out = word(at, 9) + t * stride + 4 * panel * width
            if segment == 0:
                for i in range(ROWS):
                    _begin(out + i * stride, base, (t + i) * word(at, 12) + 4 * panel * width, width)
            block = t * blocks + segment * ROWS
            x = word(at, 4) + block * columns * size
            d, w = word(at, 5) + 4 * block, word(at, 6) + 4 * block * word(at, 8)
            tile(layout, ROWS, count, panel_at, x, d, w, out, stride, 0 if t > begin else ahead)


@helper
def _begin(out, base, offset, width):
    """What the product is added to."""
    for i in range(width):
        put(out, i, get(base + offset, i) if base else 0)
