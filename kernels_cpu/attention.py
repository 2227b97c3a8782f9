"""Scaled dot-product attention of some queries over a key-value cache, softmax included.

Keys lie in panels of ``PANEL`` positions, ``[D, PANEL]`` each, so that a register holds one column of as many
positions and scores need no sums across lanes; values lie as they come, ``[S, D]``. ``ROWS`` query rows that
read the same key head go together, each with its own last position. Plain twin:
``tests/kernels_cpu/plain_attention.py``.
"""

from __future__ import annotations

import numpy as np
from numba.core import types
from numba.extending import overload
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Floats
from edgeq.kernels_cpu import simd, threads
from edgeq.kernels_cpu.float_math import exp, muladd
from edgeq.kernels_cpu.half_floats import from_half
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.scalar import float_to_half

PANEL = 16
ROWS = 4
_ZERO = np.float32(0)
_ONE = np.float32(1)
_TWO = np.float32(2)
_HIDDEN = np.float32(-1e30)

Cached = NDArray[np.float32] | NDArray[np.uint16]  # float32, or float16 as its bits


def attend(
    q: Floats,
    keys: Cached,
    values: Cached,
    start: int,
    scale: float,
    isa: Isa,
    *,
    causal: bool = True,
    window: int = 0,
    soft_cap: float = 0.0,
) -> Floats:
    """Attention of float32 q ``[T, H, D]``, D a multiple of 16: float32 ``[T, H, D]``.

    ``keys`` is ``[KV, panels, D, PANEL]`` and ``values`` ``[KV, S, D]``, with at least start + T positions; query head
    h reads key head ``h // (H / KV)``. Query t sees the positions up to start + t, only the last ``window`` of them
    where that is not 0, and all start + T where not causal. ``soft_cap`` c makes scores c · tanh(score / c).
    """
    t, heads, width = q.shape
    out = np.empty_like(q)
    group = heads // len(keys)
    seen = start + t
    tiles = -(-t * group // ROWS)
    bounds = (start, int(causal), window)
    numbers = (np.float32(scale), np.float32(soft_cap))
    work = seen * width * ROWS
    threads.run(_attend, len(keys) * tiles, work, q, keys, values, out, tiles, bounds, numbers, isa)
    return out


def store(keys: Floats, values: Floats, at: int, key_cache: Cached, value_cache: Cached, isa: Isa) -> None:
    """Write float32 keys and values ``[T, KV, D]`` at positions at.. of a layer's cache."""
    _store(keys, values, at, key_cache, value_cache, isa)


@kernel
def _attend(first, last, q, keys, values, out, tiles, bounds, numbers, isa):
    """Tiles first..last, numbered through the key heads."""
    start, causal, window = bounds
    t, heads = q.shape[0], q.shape[1]
    group = heads // keys.shape[0]
    seen = start + t
    scores = np.empty((ROWS, (seen + PANEL - 1) // PANEL * PANEL), np.float32)
    rows, begin, end = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    for item in range(first, last):
        kv, tile = item // tiles, item % tiles
        low, high = seen, 0
        for i in range(ROWS):
            row = min(tile * ROWS + i, t * group - 1)  # the last one again, where there are fewer
            token, head = row // group, kv * group + row % group
            rows[i] = token * heads + head
            end[i] = start + token + 1 if causal else seen
            begin[i] = max(0, end[i] - window) if window else 0
            low, high = min(low, begin[i]), max(high, end[i])
        low -= low % PANEL
        _score(isa, q, rows, keys[kv], low, high, numbers, scores)
        for i in range(ROWS):
            _softmax(isa, scores[i], low, begin[i], end[i], high)
        _mix(isa, scores, values[kv], low, high, rows, out)


@helper
def _score(isa, q, rows, keys, low, high, numbers, scores):
    """scores[i, s] of query row i and positions low.. up to high, by whole panels."""
    wide = simd.resized(isa, PANEL)
    scale, cap = numbers
    width = q.shape[2]
    base = simd.address(q)
    a, b = base + 4 * width * rows[0], base + 4 * width * rows[1]
    c, d = base + 4 * width * rows[2], base + 4 * width * rows[3]
    at = simd.address(scores)
    stride = 4 * scores.shape[1]
    for panel in range(low // PANEL, (high + PANEL - 1) // PANEL):
        one, two = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        three, four = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        key = keys[panel]
        for i in range(width):
            k = _loaded(wide, key, i * PANEL)
            one = muladd(wide, k, _word(wide, a + 4 * i), one)
            two = muladd(wide, k, _word(wide, b + 4 * i), two)
            three = muladd(wide, k, _word(wide, c + 4 * i), three)
            four = muladd(wide, k, _word(wide, d + 4 * i), four)
        to = at + 4 * PANEL * panel
        simd.store(to, _capped(wide, one * scale, cap))
        simd.store(to + stride, _capped(wide, two * scale, cap))
        simd.store(to + 2 * stride, _capped(wide, three * scale, cap))
        simd.store(to + 3 * stride, _capped(wide, four * scale, cap))


@helper
def _word(wide, at):
    """One float32 from memory in every lane."""
    return simd.splat(wide, simd.lane(simd.load(simd.resized(wide, 1), at), 0))


@helper
def _capped(wide, x, cap):
    """cap · tanh(x / cap), where there is a cap."""
    if cap == _ZERO:
        return x
    e = exp(wide, x * (_TWO / cap))
    return (e - _ONE) / (e + _ONE) * cap


@helper
def _softmax(isa, scores, low, begin, end, high):
    """Softmax over positions begin..end in place; 0 from low to begin and from end to the end of the panels."""
    wide = simd.resized(isa, PANEL)
    last = (high + PANEL - 1) // PANEL * PANEL
    for s in range(low, begin):
        scores[s] = _HIDDEN
    for s in range(end, last):
        scores[s] = _HIDDEN
    at = simd.address(scores)
    peak = simd.splat(wide, _HIDDEN)
    for s in range(low, last, PANEL):
        peak = simd.maximum(peak, simd.load(wide, at + 4 * s))
    top = simd.max_of(peak)
    total = simd.splat(wide, _ZERO)
    for s in range(low, last, PANEL):
        x = simd.load(wide, at + 4 * s)
        e = simd.select(x > _HIDDEN, exp(wide, x - top), _ZERO)
        e = simd.select(x == x, e, x)  # NaN stays one
        simd.store(at + 4 * s, e)
        total = total + e
    inverse = _ONE / simd.sum_of(total)
    for s in range(low, last, PANEL):
        simd.store(at + 4 * s, simd.load(wide, at + 4 * s) * inverse)


@helper
def _mix(isa, scores, values, low, high, rows, out):
    """out row i = Σ scores[i, s] · values[s], sixteen columns at a time."""
    wide = simd.resized(isa, 16)
    width = out.shape[2]
    at, stride = simd.address(scores), 4 * scores.shape[1]
    for column in range(0, width, 16):
        one, two = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        three, four = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        for s in range(low, high):
            v = _loaded(wide, values, s * width + column)
            one = muladd(wide, v, _word(wide, at + 4 * s), one)
            two = muladd(wide, v, _word(wide, at + stride + 4 * s), two)
            three = muladd(wide, v, _word(wide, at + 2 * stride + 4 * s), three)
            four = muladd(wide, v, _word(wide, at + 3 * stride + 4 * s), four)
        to = simd.address(out) + 4 * column
        simd.store(to + 4 * width * rows[3], four)
        simd.store(to + 4 * width * rows[2], three)
        simd.store(to + 4 * width * rows[1], two)
        simd.store(to + 4 * width * rows[0], one)


def _loaded(wide, array, i):
    """Sixteen elements of a contiguous array from number i on, as float32."""


@overload(_loaded)
def _load_floats_or_halves(wide, array, i):
    if array.dtype == types.uint16:
        return lambda wide, array, i: from_half(
            wide, simd.to_int32(simd.load_int16(wide, simd.address(array) + 2 * i))
        )
    return lambda wide, array, i: simd.load(wide, simd.address(array) + 4 * i)


@kernel
def _store(keys, values, at, key_cache, value_cache, isa):
    tokens, heads, width = keys.shape
    for t in range(tokens):
        panel, place = (at + t) // PANEL, (at + t) % PANEL
        for kv in range(heads):
            for i in range(width):
                key_cache[kv, panel, i, place] = _cached(isa, keys[t, kv, i], key_cache)
                value_cache[kv, at + t, i] = _cached(isa, values[t, kv, i], value_cache)


def _cached(isa, x, cache):
    """x as the cache holds it."""


@overload(_cached)
def _float_or_half(isa, x, cache):
    if cache.dtype == types.uint16:
        return lambda isa, x, cache: np.uint16(float_to_half(x))
    return lambda isa, x, cache: x
