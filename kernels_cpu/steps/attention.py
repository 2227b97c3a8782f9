"""Steps that write keys and values into a cache and attend to it."""

from __future__ import annotations

from edgeq.kernels_cpu.attention import ROWS, attend_tile, score_row, store_pair
from edgeq.kernels_cpu.cached import row_bytes
from edgeq.kernels_cpu.jit import step
from edgeq.kernels_cpu.memory import real, word
from edgeq.kernels_cpu.steps import STATE_CAPACITY, STATE_ROWS, STATE_START


@step
def append(first, last, at, scratch, cached):
    """Write the keys and values of rows to the cache, behind what it holds.

    Words: state, which of its words has the address of the layer's keys (the next one: of its values), keys, values,
    their row bytes, key heads, width of a head.
    """
    state, heads, width = word(at, 0), word(at, 6), word(at, 7)
    keys, values = word(state, word(at, 1)), word(state, word(at, 1) + 1)
    head_bytes = word(state, STATE_CAPACITY) * row_bytes(cached, width)
    for t in range(first, last):
        for kv in range(heads):
            pair = (
                word(at, 2) + t * word(at, 4) + 4 * kv * width,
                word(at, 3) + t * word(at, 5) + 4 * kv * width,
            )
            cache = (keys + kv * head_bytes, values + kv * head_bytes)
            store_pair(cached, pair, word(state, STATE_START) + t, cache, width, scratch)


@step
def attend(first, last, at, scratch, cached):
    """Attention of tiles first..last, numbered through the key heads, of the state's rows.

    Words: state, which of its words has the address of the layer's keys, q, out, their row bytes, key heads, query
    heads of each, width of a head, tiles of each key head, whether causal, window, scale, cap.
    """
    state, group, width, tiles = word(at, 0), word(at, 7), word(at, 8), word(at, 9)
    rows, start = word(state, STATE_ROWS), word(state, STATE_START)
    head_bytes = word(state, STATE_CAPACITY) * row_bytes(cached, width)
    bounds = (rows, start, word(at, 10), word(at, 11))
    stride = 4 * score_row(start + rows)
    for item in range(first, last):
        kv, tile = item // tiles, item % tiles
        if tile * ROWS >= rows * group:
            continue
        keys = word(state, word(at, 1)) + kv * head_bytes
        values = word(state, word(at, 1) + 1) + kv * head_bytes
        query = (word(at, 2) + 4 * kv * group * width, word(at, 4))
        out = (word(at, 3) + 4 * kv * group * width, word(at, 5))
        numbers = (real(at, 12), real(at, 13))
        attend_tile(cached, tile, group, width, bounds, numbers, query, out, (keys, values), scratch, stride)
