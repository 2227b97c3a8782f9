"""Weights rounded in blocks for ONNX: twins of ``quantize_rows`` in ``edgeq.formats.onnx.blocked`` and of
``nearest_rows`` in ``blocked_nearest``, bit for bit.

As many rows as a vector has lanes are worked on side by side, so that every sum runs in the order of the plain twins.
A matrix that is stored ``[columns, rows]``, as ONNX has it, is read as it lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.formats.onnx.blocked import BlockedRows, Floats, Scheme, trials
from edgeq.formats.rounding_error import RoundingError
from edgeq.kernels_cpu import simd, threads
from edgeq.kernels_cpu.encode.tiles import REGISTERS, load, load_tile, store, vectors
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.jit import helper, kernel

_ZERO_BLOCK = np.float32(1e-30)
_NONE, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_INFINITY = np.float32(np.inf)


def quantize_rows(
    values: Floats, scheme: Scheme, isa: Isa = PORTABLE, *, packed: bool = False
) -> BlockedRows:
    """See the plain twin."""
    return _rounded(search_groups, values, scheme, isa, packed, len(trials(scheme)), trials(scheme))


def nearest_rows(values: Floats, scheme: Scheme, isa: Isa = PORTABLE, *, packed: bool = False) -> BlockedRows:
    """See the plain twin."""
    return _rounded(nearest_groups, values, scheme, isa, packed, 1)


def _rounded(
    kernel: Any, values: Floats, scheme: Scheme, isa: Isa, packed: bool, work: int, *arguments: Any
) -> BlockedRows:
    """Call a kernel over groups of as many rows as it takes at once."""
    rows, columns = values.shape
    turned = values.strides[0] < values.strides[1]  # stored [columns, rows]
    stored = values.T if turned else values
    if stored.strides[1] != 4 or stored.dtype != np.float32:
        stored = np.ascontiguousarray(stored, np.float32)
    stored = stored.view()
    stored.flags.writeable = (
        False  # as mapped files are; each type that a kernel is called with compiles anew
    )
    lanes = isa.float_lanes * REGISTERS
    groups, blocks = -(-rows // lanes), scheme.blocks_of(columns)
    bits = scheme.bits if packed else 8
    codes = np.empty((rows, blocks * scheme.size * bits // 8), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    zeros, squares = np.empty((rows, blocks), np.uint8), np.zeros((groups, 2), np.float64)
    middle, outputs = np.float32(scheme.middle), (codes, scales, zeros, squares)
    how = stored, turned, scheme.size, bits, scheme.symmetric, middle
    threads.run(kernel, groups, work * lanes * columns, *how, *arguments, *outputs, isa)
    kept = None if scheme.symmetric else zeros
    error = RoundingError(*map(float, squares.sum(axis=0)))
    return BlockedRows(scheme, codes, scales, kept, error, packed)


@kernel
def search_groups(
    first, last, values, turned, size, bits, symmetric, middle, trials, codes, scales, zeros, squares, isa
):
    """Groups of rows to codes ``[rows, bytes]``, scales and zeros ``[rows, blocks]``, sums ``[groups, 2]``."""
    wide = simd.widened(isa, REGISTERS)
    lanes, (rows, blocks) = simd.lanes_of(wide), scales.shape
    tile, found, words = vectors(wide, size), vectors(wide, 2), np.empty((size * bits // 32, lanes), np.int32)
    addresses = np.empty(lanes, np.int64)
    low_code = -middle if symmetric else _NONE
    high_code = middle - _ONE if symmetric else middle + middle - _ONE
    sums = np.zeros((last - first, 2 * lanes), np.float32)
    for place in range((last - first) * blocks):
        group, block = _place(place, last - first, blocks, turned)
        row = (first + group) * lanes
        _load(isa, values, turned, row, block * size, addresses, tile)
        low, high, peak = _extremes(wide, tile)
        width = peak if symmetric else high - low
        flat = abs(width) < _ZERO_BLOCK
        divisor = simd.select(flat, _ONE, -width if symmetric else width)
        best = simd.select(flat, _INFINITY, simd.splat(wide, -_ONE))
        scale = inverse = simd.splat(wide, _NONE)
        zero = simd.splat(wide, middle)
        for t in range(trials.size):
            tried = simd.splat(wide, trials[t]) / divisor
            if symmetric:
                offset = zero
                both, own = _sums_around_zero(wide, tile, tried, low_code, high_code)
            else:
                offset = _between(simd.rint(-low * tried), _NONE, high_code)
                both, own = _sums(wide, tile, tried, offset, high_code)
            fit = both / simd.select(own > _NONE, own, _ONE)
            gain = both * fit
            better = gain > best
            best, scale = simd.select(better, gain, best), simd.select(better, fit, scale)
            inverse, zero = simd.select(better, tried, inverse), simd.select(better, offset, zero)
        store(wide, found, 0, scale)
        store(wide, found, 1, zero)
        _codes(wide, tile, bits, inverse, zero, scale, high_code, symmetric, middle, words, sums[group])
        _keep(isa, row, block, found, words, addresses, codes, scales, zeros)
    _add_up(first, sums, rows, squares)


@kernel
def nearest_groups(
    first, last, values, turned, size, bits, symmetric, middle, codes, scales, zeros, squares, isa
):
    """The same by round-to-nearest."""
    wide = simd.widened(isa, REGISTERS)
    lanes, (rows, blocks) = simd.lanes_of(wide), scales.shape
    tile, found, words = vectors(wide, size), vectors(wide, 2), np.empty((size * bits // 32, lanes), np.int32)
    addresses = np.empty(lanes, np.int64)
    columns, top = values.shape[0 if turned else 1], middle + middle - _ONE
    sums = np.zeros((last - first, 2 * lanes), np.float32)
    for place in range((last - first) * blocks):
        group, block = _place(place, last - first, blocks, turned)
        row = (first + group) * lanes
        _load(isa, values, turned, row, block * size, addresses, tile)
        low, high, _ = _extremes(wide, tile)
        if symmetric:
            scale = simd.select(high > -low, high, low) / -middle
            zero = simd.splat(wide, middle)
        else:
            scale = (high - low) / top
            zero = _half_away(_NONE - low / simd.select(scale != _NONE, scale, _ONE), top)
        inverse = _ONE / scale
        inverse = simd.select(abs(inverse) < _INFINITY, inverse, _NONE)
        store(wide, found, 0, scale)
        store(wide, found, 1, zero)
        _nearest_codes(wide, tile, bits, inverse, zero, scale, top, words, sums[group])
        _keep(isa, row, block, found, words, addresses, codes, scales, zeros)
    _add_up(first, sums, rows, squares)
    _clear(codes[first * lanes : last * lanes], columns * bits)


@helper
def _place(place, groups, blocks, turned):
    """(group, block) in the order in which the weights lie: block by block where [columns, rows] are stored."""
    return (place % groups, place // groups) if turned else (place // blocks, place % blocks)


@helper
def _load(isa, values, turned, row, start, addresses, tile):
    """tile[i, lane] = weight start + i of row + lane; zeros behind the ends."""
    size, lanes = tile.shape
    rows, columns = (values.shape[1], values.shape[0]) if turned else values.shape
    base, stride = simd.address(values), values.strides[0]
    if row + lanes > rows or start + size > columns:
        for i in range(size):
            for lane in range(lanes):
                fits = row + lane < rows and start + i < columns
                at = (start + i, row + lane) if turned else (row + lane, start + i)
                tile[i, lane] = values[at] if fits else _NONE
    elif turned:
        wide = simd.widened(isa, REGISTERS)
        at = base + stride * start + 4 * row
        for i in range(size):
            store(wide, tile, i, simd.load(wide, at + stride * i))
    else:
        for lane in range(lanes):
            addresses[lane] = base + stride * (row + lane)
        load_tile(isa, addresses, start, tile)


@helper
def _extremes(wide, tile):
    """The lowest value or 0, the highest or 0, and the first of largest magnitude."""
    low = high = peak = simd.splat(wide, _NONE)
    for i in range(tile.shape[0]):
        x = load(wide, tile, i)
        low, high = simd.minimum(x, low), simd.maximum(x, high)
        peak = simd.select(abs(x) > abs(peak), x, peak)
    return low, high, peak


@helper
def _between(x, low, high):
    return simd.minimum(simd.maximum(x, low), high)


@helper
def _sums_around_zero(wide, tile, inverse, low, high):
    """Σ weight · code and Σ code² of symmetric codes."""
    both = own = simd.splat(wide, _NONE)
    for i in range(tile.shape[0]):
        x = load(wide, tile, i)
        code = _between(simd.rint(x * inverse), low, high)
        both, own = both + x * code, own + code * code
    return both, own


@helper
def _sums(wide, tile, inverse, zero, top):
    """The same of codes with a zero."""
    both = own = simd.splat(wide, _NONE)
    for i in range(tile.shape[0]):
        x = load(wide, tile, i)
        code = _between(simd.rint(x * inverse) + zero, _NONE, top) - zero
        both, own = both + x * code, own + code * code
    return both, own


@helper
def _codes(wide, tile, bits, inverse, zero, scale, high, symmetric, middle, words, sums):
    """Words of 32 bits full of codes; this block's squares are added to the sums."""
    low, shift = (-middle, middle) if symmetric else (_NONE, _NONE)
    moved = simd.splat(wide, _NONE) if symmetric else zero
    at = simd.address(sums)
    errors, squares = simd.load(wide, at), simd.load(wide, at + 2 * sums.size)
    each = 32 // bits
    for w in range(len(words)):
        word = simd.splat(wide, 0)
        for part in range(each):
            x = load(wide, tile, w * each + part)
            code = _between(simd.rint(x * inverse) + moved, low, high)
            error = (code - moved) * scale - x
            errors, squares = errors + error * error, squares + x * x
            word = word | (simd.to_int32(code + shift) << (bits * part))
        simd.store(simd.address(words) + 4 * words.shape[1] * w, word)
    simd.store(at, errors)
    simd.store(at + 2 * sums.size, squares)


@helper
def _nearest_codes(wide, tile, bits, inverse, zero, scale, top, words, sums):
    at = simd.address(sums)
    errors, squares = simd.load(wide, at), simd.load(wide, at + 2 * sums.size)
    each = 32 // bits
    for w in range(len(words)):
        word = simd.splat(wide, 0)
        for part in range(each):
            x = load(wide, tile, w * each + part)
            code = _half_away(x * inverse + zero, top)
            error = (code - zero) * scale - x
            errors, squares = errors + error * error, squares + x * x
            word = word | (simd.to_int32(code) << (bits * part))
        simd.store(simd.address(words) + 4 * words.shape[1] * w, word)
    simd.store(at, errors)
    simd.store(at + 2 * sums.size, squares)


@helper
def _half_away(x, top):
    """Whole numbers from 0 to ``top``, halves away from zero."""
    x = _between(x, _NONE, top)
    whole = simd.to_float(simd.to_int32(x))
    return simd.select(x - whole >= _HALF, whole + _ONE, whole)


@helper
def _keep(isa, row, block, found, words, addresses, codes, scales, zeros):
    """What the lanes found, into the rows that there are; uses ``addresses``."""
    (count, lanes), rows, begin = words.shape, len(scales), block * 4 * len(words)
    for lane in range(min(lanes, rows - row)):
        scales[row + lane, block] = found[0, lane]
        zeros[row + lane, block] = np.uint8(found[1, lane])
    if row + lanes > rows or count % 4:
        for lane in range(min(lanes, rows - row)):
            for i in range(4 * count):
                codes[row + lane, begin + i] = words[i // 4, lane] >> (8 * (i % 4))
        return
    four, stride = simd.resized(isa, 4), codes.shape[1]
    target = simd.address(codes) + row * stride + begin
    for word in range(0, count, 4):
        for i in range(4):
            addresses[i] = simd.address(words) + 4 * lanes * (word + i)
        for lane in range(0, lanes, 4):
            simd.transpose(four, simd.address(addresses), 4 * lane, target + lane * stride + 4 * word, stride)


@helper
def _clear(codes, used):
    """Zeros behind the bits in use of each row."""
    at, rest = used // 8, used % 8
    if rest:
        codes[:, at] &= np.uint8((1 << rest) - 1)
        at += 1
    codes[:, at:] = 0


@helper
def _add_up(first, sums, rows, squares):
    """The lanes' sums of the rows that there are, for each group."""
    lanes = sums.shape[1] // 2
    for group in range(len(sums)):
        for lane in range(min(lanes, rows - (first + group) * lanes)):
            squares[first + group, 0] += sums[group, lane]
            squares[first + group, 1] += sums[group, lanes + lane]
