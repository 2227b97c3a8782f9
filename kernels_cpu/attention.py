"""Scaled dot-product attention of some queries over a key-value cache, softmax included.

The cache lies as ``cached`` says. ``ROWS`` query rows that read the same key head go together, a *tile*, each with its
own last position. Plain twin: ``tests/kernels_cpu/plain_attention.py``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.base import Floats
from edgeq.kernels_cpu import simd, threads
from edgeq.kernels_cpu.cached import (
    PANEL,
    Cached,
    key,
    key_scale,
    row_bytes,
    store_key,
    store_value,
    value,
)
from edgeq.kernels_cpu.float_math import exp, muladd
from edgeq.kernels_cpu.jit import helper, kernel
from edgeq.kernels_cpu.memory import get, put
from edgeq.kernels_cpu.opaque import isa_of

ROWS = 4
_ZERO = np.float32(0)
_ONE = np.float32(1)
_TWO = np.float32(2)
_HIDDEN = np.float32(-1e30)

Bytes = NDArray[np.uint8]


def empty(kv_heads: int, capacity: int, width: int, cached: Cached) -> tuple[Bytes, Bytes]:
    """Room for keys and for values, uint8 ``[KV, capacity · bytes]``; capacity is a multiple of ``PANEL``."""
    shape = (kv_heads, capacity * cached.bytes_of(width))
    return np.empty(shape, np.uint8), np.empty(shape, np.uint8)


def attend(
    q: Floats,
    keys: Bytes,
    values: Bytes,
    start: int,
    scale: float,
    cached: Cached,
    *,
    causal: bool = True,
    window: int = 0,
    soft_cap: float = 0.0,
) -> Floats:
    """Attention of float32 q ``[T, H, D]``, D a multiple of 16: float32 ``[T, H, D]``.

    ``keys`` and ``values`` are of ``empty``, with at least start + T positions; query head h reads key head
    ``h // (H / KV)``. Query t sees the positions up to start + t, only the last ``window`` of them where that is not 0,
    and all start + T where not causal. ``soft_cap`` c makes scores c · tanh(score / c).
    """
    t, heads, width = q.shape
    out = np.empty_like(q)
    group = heads // len(keys)
    seen = start + t
    tiles = -(-t * group // ROWS)
    bounds = (t, start, int(causal), window)
    numbers = (np.float32(scale), np.float32(soft_cap))
    work = seen * width * ROWS
    threads.run(_attend, len(keys) * tiles, work, q, keys, values, out, tiles, bounds, numbers, cached)
    return out


def store(
    keys: Floats, values: Floats, at: int, key_cache: Bytes, value_cache: Bytes, cached: Cached
) -> None:
    """Write float32 keys and values ``[T, KV, D]`` at positions at.. of a layer's cache."""
    _store(keys, values, at, key_cache, value_cache, cached)


@kernel
def _attend(first, last, q, keys, values, out, tiles, bounds, numbers, cached):
    """Tiles first..last, numbered through the key heads."""
    heads, width = q.shape[1], q.shape[2]
    group = heads // keys.shape[0]
    stride = 4 * score_row(bounds[0] + bounds[1])
    scores = np.empty(ROWS * stride, np.uint8)
    for item in range(first, last):
        kv, tile = item // tiles, item % tiles
        query = (simd.address(q) + 4 * kv * group * width, 4 * heads * width)
        to = (simd.address(out) + 4 * kv * group * width, 4 * heads * width)
        cache = (
            simd.address(keys) + kv * keys.shape[1],
            simd.address(values) + kv * values.shape[1],
        )
        attend_tile(
            cached, tile, group, width, bounds, numbers, query, to, cache, simd.address(scores), stride
        )
    return scores.size  # keeps it alive


@helper
def score_row(positions):
    """Floats of one row of scores: whole panels."""
    return (positions + PANEL - 1) // PANEL * PANEL


@helper
def attend_tile(cached, tile, group, width, bounds, numbers, query, out, cache, scores, stride):
    """Query rows ``ROWS · tile``.. of one key head, whose cache is (address of keys, of values).

    ``bounds`` are (tokens, those before, causal, window), ``numbers`` scale and cap, ``query`` and ``out`` the address
    of the first token's first head and the bytes from token to token, ``scores`` memory for ``ROWS`` rows of
    ``stride`` bytes.
    """
    count = bounds[0] * group
    first = tile * ROWS
    one = _place(first, count, group)
    two, three, four = (
        _place(first + 1, count, group),
        _place(first + 2, count, group),
        _place(first + 3, count, group),
    )
    low, high = _seen(one[0], bounds)[0], _seen(four[0], bounds)[1]
    low -= low % PANEL
    rows = (
        query[0] + one[0] * query[1] + 4 * width * one[1],
        query[0] + two[0] * query[1] + 4 * width * two[1],
        query[0] + three[0] * query[1] + 4 * width * three[1],
        query[0] + four[0] * query[1] + 4 * width * four[1],
    )
    _score(cached, rows, cache[0], width, low, high, numbers, scores, stride)
    for i in range(ROWS):
        begin, end = _seen(_place(first + i, count, group)[0], bounds)
        _softmax(isa_of(cached), scores + i * stride, low, begin, end, high)
    rows = (
        out[0] + one[0] * out[1] + 4 * width * one[1],
        out[0] + two[0] * out[1] + 4 * width * two[1],
        out[0] + three[0] * out[1] + 4 * width * three[1],
        out[0] + four[0] * out[1] + 4 * width * four[1],
    )
    _mix(cached, rows, cache[1], width, low, high, scores, stride)


@helper
def _place(row, count, group):
    """Token and head of a query row; the last one again, where there are fewer."""
    row = min(row, count - 1)
    return row // group, row % group


@helper
def _seen(token, bounds):
    """The positions that a token sees: first, end."""
    tokens, start, causal, window = bounds
    end = start + token + 1 if causal else start + tokens
    return (max(0, end - window) if window else 0), end


@helper
def _score(cached, rows, keys, width, low, high, numbers, scores, stride):
    """Scores of four query rows and positions low.. up to high, by whole panels."""
    wide = simd.resized(isa_of(cached), PANEL)
    scale, cap = numbers
    a, b, c, d = rows
    panel_bytes = PANEL * row_bytes(cached, width)
    for panel in range(low // PANEL, (high + PANEL - 1) // PANEL):
        one, two = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        three, four = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        key_at = keys + panel * panel_bytes
        for block in range(0, width, 16):
            counts = key_scale(cached, wide, key_at, block, width)
            for i in range(block, block + 16):
                k = key(cached, wide, key_at, i, width, counts)
                one = muladd(wide, k, _spread(wide, a + 4 * i), one)
                two = muladd(wide, k, _spread(wide, b + 4 * i), two)
                three = muladd(wide, k, _spread(wide, c + 4 * i), three)
                four = muladd(wide, k, _spread(wide, d + 4 * i), four)
        to = scores + 4 * PANEL * panel
        simd.store(to, _capped(wide, one * scale, cap))
        simd.store(to + stride, _capped(wide, two * scale, cap))
        simd.store(to + 2 * stride, _capped(wide, three * scale, cap))
        simd.store(to + 3 * stride, _capped(wide, four * scale, cap))


@helper
def _spread(wide, at):
    """One float32 from memory in every lane."""
    return simd.splat(wide, get(at, 0))


@helper
def _capped(wide, x, cap):
    """cap · tanh(x / cap), where there is a cap."""
    if cap == _ZERO:
        return x
    e = exp(wide, x * (_TWO / cap))
    return (e - _ONE) / (e + _ONE) * cap


@helper
def _softmax(isa, at, low, begin, end, high):
    """Softmax over positions begin..end in place; 0 from low to begin and from end to the end of the panels."""
    wide = simd.resized(isa, PANEL)
    last = (high + PANEL - 1) // PANEL * PANEL
    for s in range(low, begin):
        put(at, s, _HIDDEN)
    for s in range(end, last):
        put(at, s, _HIDDEN)
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
def _mix(cached, rows, values, width, low, high, scores, stride):
    """Four rows Σ score[s] · value[s], sixteen columns at a time."""
    wide = simd.resized(isa_of(cached), 16)
    step = row_bytes(cached, width)
    for column in range(0, width, 16):
        one, two = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        three, four = simd.splat(wide, _ZERO), simd.splat(wide, _ZERO)
        for s in range(low, high):
            v = value(cached, wide, values + s * step, column, width)
            at = scores + 4 * s
            one = muladd(wide, v, _spread(wide, at), one)
            two = muladd(wide, v, _spread(wide, at + stride), two)
            three = muladd(wide, v, _spread(wide, at + 2 * stride), three)
            four = muladd(wide, v, _spread(wide, at + 3 * stride), four)
        simd.store(rows[3] + 4 * column, four)
        simd.store(rows[2] + 4 * column, three)
        simd.store(rows[1] + 4 * column, two)
        simd.store(rows[0] + 4 * column, one)


@kernel
def _store(keys, values, at, key_cache, value_cache, cached):
    tokens, heads, width = keys.shape
    scratch = np.empty(16 * width, np.uint8)
    for t in range(tokens):
        for kv in range(heads):
            x = 4 * (t * heads + kv) * width
            caches = (
                simd.address(key_cache) + kv * key_cache.shape[1],
                simd.address(value_cache) + kv * value_cache.shape[1],
            )
            pair = (simd.address(keys) + x, simd.address(values) + x)
            store_pair(cached, pair, at + t, caches, width, simd.address(scratch))
    return scratch.size  # keeps it alive


@helper
def store_pair(cached, pair, position, cache, width, scratch):
    """Write one key and value, at two addresses, to a position of one head's cache."""
    size = row_bytes(cached, width)
    panel, place = position // PANEL, position % PANEL
    store_key(cached, pair[0], cache[0] + panel * PANEL * size, place, width, scratch)
    store_value(cached, pair[1], cache[1] + position * size, width, scratch)
