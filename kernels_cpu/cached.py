"""How keys and values lie in a cache: float32, float16, or 8 bits in blocks (ggml's Q8_0).

Keys lie in panels of ``PANEL`` positions, so that a register holds one column of as many positions and scores need
no sums across lanes: ``[D, PANEL]``; values lie as they come, ``[D]`` for each position. In Q8_0 a block is 32 columns
(16, where D is no multiple of 32): the float16 scales, then the codes, of a key panel's block ``[PANEL]`` and
``[block, PANEL]``, of a value's one and ``[block]``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from numba.extending import overload

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.half_floats import from_half, to_half
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.jit import helper
from edgeq.kernels_cpu.memory import get, put
from edgeq.kernels_cpu.opaque import isa_of, known_by_type
from edgeq.kernels_cpu.quantized_activations import quantize_row

PANEL = 16
CacheType = Literal["F32", "F16", "Q8_0"]
CACHE_TYPES: dict[str, CacheType] = {
    "f32": "F32",
    "f16": "F16",
    "q8_0": "Q8_0",
}  # as a command line names them
_SIZES = {"F32": 4, "F16": 2}


@known_by_type
class Cached(NamedTuple):
    """What a cache holds, and the instruction set of its kernels; in a kernel, a type without a value."""

    name: CacheType
    isa: Isa

    def bytes_of(self, width: int) -> int:
        """Of a value of so many columns (a multiple of 16), or of a key."""
        return width * _SIZES[self.name] if self.name in _SIZES else width + width // block_of(width) * 2


def block_of(width: int) -> int:
    """Columns that share a scale in Q8_0."""
    return 32 if width % 32 == 0 else 16


_block_of = helper(block_of)


def row_bytes(cached, width):
    """``Cached.bytes_of`` in a kernel."""


def key_scale(cached, wide, panel, i, width):
    """What the codes of column i and its block count, for each position of a key panel; unused in floats."""


def key(cached, wide, panel, i, width, scale):
    """Column i of a key panel, float32 for each position."""


def value(cached, wide, at, i, width):
    """Sixteen columns from number i on, a multiple of 16, of the value at an address."""


def store_key(cached, x, panel, place, width, scratch):
    """Write the key at x, float32, to one position of a panel. ``scratch`` is memory for 16 · width bytes."""


def store_value(cached, x, at, width, scratch):
    """Write the value at x, float32, to an address."""


@overload(row_bytes)
def _row_bytes(cached, width):
    if cached.kind == "Q8_0":
        return lambda cached, width: width + width // _block_of(width) * 2
    size = _SIZES[cached.kind]
    return lambda cached, width: width * size


@overload(key_scale)
def _key_scale(cached, wide, panel, i, width):
    if cached.kind != "Q8_0":
        return lambda cached, wide, panel, i, width: 0

    def scales(cached, wide, panel, i, width):
        block = _block_of(width)
        at = panel + i // block * (PANEL * (block + 2))
        return from_half(wide, simd.to_int32(simd.load_int16(wide, at)))

    return scales


@overload(key)
def _key(cached, wide, panel, i, width, scale):
    if cached.kind == "F32":
        return lambda cached, wide, panel, i, width, scale: simd.load(wide, panel + 4 * PANEL * i)
    if cached.kind == "F16":
        return lambda cached, wide, panel, i, width, scale: _halves(wide, panel + 2 * PANEL * i)

    def scaled(cached, wide, panel, i, width, scale):
        at = panel + PANEL * i + (i // _block_of(width) + 1) * (2 * PANEL)
        return simd.to_float(simd.load_int8(wide, at)) * scale

    return scaled


@overload(value)
def _value(cached, wide, at, i, width):
    if cached.kind == "F32":
        return lambda cached, wide, at, i, width: simd.load(wide, at + 4 * i)
    if cached.kind == "F16":
        return lambda cached, wide, at, i, width: _halves(wide, at + 2 * i)

    def scaled(cached, wide, at, i, width):
        block = _block_of(width)
        start = at + i // block * (block + 2)
        one = simd.resized(wide, 1)
        scale = simd.lane(from_half(one, simd.to_int32(simd.load_int16(one, start))), 0)
        return simd.to_float(simd.load_int8(wide, start + 2 + i % block)) * scale

    return scaled


@helper
def _halves(wide, at):
    return from_half(wide, simd.to_int32(simd.load_int16(wide, at)))


@overload(store_key)
def _store_key(cached, x, panel, place, width, scratch):
    if cached.kind == "F32":

        def floats(cached, x, panel, place, width, scratch):
            for i in range(width):
                put(panel, i * PANEL + place, get(x, i))

        return floats
    if cached.kind == "F16":

        def halves(cached, x, panel, place, width, scratch):
            one = simd.resized(isa_of(cached), 1)
            for i in range(width):
                bits = simd.lane(to_half(one, simd.load(one, x + 4 * i)), 0)
                simd.store_int16(panel + 2 * (i * PANEL + place), bits)

        return halves

    def codes(cached, x, panel, place, width, scratch):
        isa, block = isa_of(cached), _block_of(width)
        one = simd.resized(isa, 1)
        scales, unused = scratch + width, scratch + 5 * width
        quantize_row(isa, x, scratch, scales, unused, width // block, block, 0, False, True, False)
        for b in range(width // block):
            at = panel + b * PANEL * (block + 2)
            simd.store_int16(at + 2 * place, simd.lane(to_half(one, simd.splat(one, get(scales, b))), 0))
            for i in range(block):
                code = simd.load_int8(one, scratch + b * block + i)
                simd.store(at + 2 * PANEL + PANEL * i + place, code)

    return codes


@overload(store_value)
def _store_value(cached, x, at, width, scratch):
    if cached.kind == "F32":

        def floats(cached, x, at, width, scratch):
            for i in range(width):
                put(at, i, get(x, i))

        return floats
    if cached.kind == "F16":

        def halves(cached, x, at, width, scratch):
            one = simd.resized(isa_of(cached), 1)
            for i in range(width):
                simd.store_int16(at + 2 * i, simd.lane(to_half(one, simd.load(one, x + 4 * i)), 0))

        return halves

    def codes(cached, x, at, width, scratch):
        isa, block = isa_of(cached), _block_of(width)
        one = simd.resized(isa, 1)
        scales, unused = scratch + width, scratch + 5 * width
        quantize_row(isa, x, scratch, scales, unused, width // block, block, 0, False, True, False)
        for b in range(width // block):
            start = at + b * (block + 2)
            simd.store_int16(start, simd.lane(to_half(one, simd.splat(one, get(scales, b))), 0))
            for i in range(block):
                simd.store(start + 2 + i, simd.load_int8(one, scratch + b * block + i))

    return codes
