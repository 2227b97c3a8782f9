"""Weights rounded in blocks for ONNX: twin of ``edgeq.formats.onnx.blocked.quantize_rows``, bit for bit.

Sixteen blocks are searched side by side, so that every sum runs in the order of the plain twin and yet vectorises.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.onnx.blocked import BlockedRows, Floats, Scheme, split_blocks, trials
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.jit import helper, kernel

LANES = 16
_ZERO_BLOCK = np.float32(1e-30)
_NONE, _ONE = np.float32(0), np.float32(1)


def quantize_rows(values: Floats, scheme: Scheme) -> BlockedRows:
    """See the plain twin."""
    blocks = split_blocks(values, scheme.size)
    codes, scales = np.empty(blocks.shape, np.uint8), np.empty(len(blocks), np.float32)
    zeros = np.empty(len(blocks), np.uint8)
    steps, middle = trials(scheme), np.float32(scheme.middle)
    work = scheme.size * len(steps)
    threads.run(
        search_blocks, len(blocks), work, blocks, steps, scheme.symmetric, middle, codes, scales, zeros
    )
    shape = len(values), scheme.blocks_of(values.shape[1])
    return BlockedRows(
        scheme,
        codes.reshape(shape[0], -1),
        scales.reshape(shape),
        None if scheme.symmetric else zeros.reshape(shape),
    )


@kernel
def search_blocks(start, stop, values, trials, symmetric, middle, codes, scales, zeros):
    """Blocks ``start`` to ``stop`` of float32 ``[n, size]`` to codes of that shape, scales and zeros ``[n]``."""
    size = values.shape[1]
    x, trial, best_codes = (
        np.empty((size, LANES), np.float32),
        np.empty((size, LANES), np.float32),
        np.empty((size, LANES), np.float32),
    )
    lanes = np.empty((9, LANES), np.float32)
    for first in range(start, stop, LANES):
        count = min(LANES, stop - first)
        for lane in range(LANES):
            for i in range(size):
                x[i, lane] = values[min(first + lane, stop - 1), i]
        _start(x, symmetric, middle, best_codes, lanes)
        for t in range(trials.size):
            _try(x, trials[t], symmetric, middle, trial, best_codes, lanes)
        for lane in range(count):
            zero = lanes[4, lane]
            scales[first + lane] = lanes[3, lane]
            zeros[first + lane] = np.uint8(zero)
            for i in range(size):
                codes[first + lane, i] = np.uint8(best_codes[i, lane] + zero)


# Of the lanes' rows: 0 the divisor of the steps (the peak's negative, or the range), 1 the lowest value or 0, 2 the
# best gain, 3 its scale, 4 its zero, 5 and 6 sums, 7 a trial's zero, 8 its inverse scale.
@helper
def _start(x, symmetric, middle, best_codes, lanes):
    for lane in range(LANES):
        low, high, peak = _NONE, _NONE, _NONE
        for i in range(x.shape[0]):
            value = x[i, lane]
            low, high = min(low, value), max(high, value)
            if abs(value) > abs(peak):
                peak = value
        width = peak if symmetric else high - low
        flat = abs(width) < _ZERO_BLOCK
        lanes[0, lane] = _ONE if flat else (-width if symmetric else width)
        lanes[1, lane] = low
        lanes[2, lane], lanes[3, lane], lanes[4, lane] = np.inf if flat else -_ONE, _NONE, middle
        if flat:  # no trial is better than no scale
            for i in range(x.shape[0]):
                best_codes[i, lane] = _NONE


@helper
def _try(x, steps, symmetric, middle, trial, best_codes, lanes):
    lowest, highest = -middle, middle - _ONE
    top = _NONE if symmetric else middle + middle - _ONE
    for lane in range(LANES):
        lanes[5, lane], lanes[6, lane] = _NONE, _NONE
        lanes[8, lane] = steps / lanes[0, lane]
        zero = np.rint(-lanes[1, lane] * lanes[8, lane])
        lanes[7, lane] = middle if symmetric else min(max(zero, _NONE), top)
    for i in range(x.shape[0]):
        for lane in range(LANES):
            zero = _NONE if symmetric else lanes[7, lane]
            low, high = (lowest, highest) if symmetric else (_NONE, top)
            code = min(max(np.rint(x[i, lane] * lanes[8, lane]) + zero, low), high) - zero
            trial[i, lane] = code
            lanes[5, lane] += x[i, lane] * code
            lanes[6, lane] += code * code
    for lane in range(LANES):
        own = lanes[6, lane]
        scale = lanes[5, lane] / (own if own > _NONE else _ONE)
        gain = lanes[5, lane] * scale
        if gain > lanes[2, lane]:
            lanes[2, lane], lanes[3, lane], lanes[4, lane] = gain, scale, lanes[7, lane]
            for i in range(x.shape[0]):
                best_codes[i, lane] = trial[i, lane]
