"""Integer products: packed weights times activations quantized to int8, as ggml computes them.

A module here describes one weight type: its ``FORMAT``, and ``fields(blocks)``, which takes encoded blocks
apart. The rest is common: ``layout`` says how that lies in memory, ``interleave`` packs it, ``tiles`` emits
the product. For float activations see ``edgeq.kernels_cpu.matmul``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products.interleave import interleave
from edgeq.kernels_cpu.products.layout import Layout, layout_of
from edgeq.kernels_cpu.products.panels import many_rows, one_row
from edgeq.kernels_cpu.products.tiles import ROWS
from edgeq.kernels_cpu.quantized_activations import Quantized, quantize
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only

_ALIGNMENT = 64  # of a cache line: no load of a register may cross one
_CHUNK_VALUES = 1 << 20  # packed at a time, so that temporaries stay small


class Packed(NamedTuple):
    """A matrix of weights, packed for an instruction set."""

    data: Bytes  # [panels, blocks, block_bytes]
    n: int  # rows; the last panel is filled up with zeros
    columns: int
    layout: Layout
    isa: Isa


def pack(name: str, rows: Bytes, columns: int, isa: Isa) -> Packed:
    """Pack uint8 ``[N, row_bytes(columns)]`` of that block type; raises EdgeqError for shapes that do not fit,
    and for a type that has no integer product.
    """
    block_type = by_name(name)
    block_type.check_rows(rows, columns)
    module = kernels(__name__, name)
    if module is None:
        raise EdgeqError(f"{block_type.name}: there is no integer product for this type")
    layout = layout_of(module.FORMAT, isa)
    blocks = columns // block_type.block_values
    data = allocate(layout, len(rows), blocks)
    step = max(1, _CHUNK_VALUES // max(1, layout.rows * columns)) * layout.rows
    for first in range(0, len(rows) if blocks else 0, step):
        part = _filled_up(rows[first : first + step], layout.rows).reshape(-1, block_type.block_bytes)
        panels = slice(first // layout.rows, first // layout.rows + len(part) // blocks // layout.rows)
        interleave(layout, module.fields(part), data[panels])
    return Packed(data, len(rows), columns, layout, isa)


def allocate(layout: Layout, n: int, blocks: int) -> Bytes:
    """Uninitialised ``[panels, blocks, block_bytes]`` for n rows, aligned to a cache line."""
    shape = (-(-n // layout.rows), blocks, layout.block_bytes)
    size = int(np.prod(shape))
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


def product(x: Floats, packed: Packed, bias: Floats | None = None) -> Floats:
    """``x @ weights.T + bias``, float32 ``[T, N]``, of float32 ``[T, K]`` quantized to int8 on the way in.

    Integers are summed exactly within a block, floats in any order. Raises EdgeqError for shapes that do not
    fit.
    """
    name = packed.layout.format.name
    if x.ndim != 2 or x.shape[1] != packed.columns:
        raise EdgeqError(f"{name}: activations must be [T, {packed.columns}], not {list(x.shape)}")
    if bias is not None and bias.shape != (packed.n,):
        raise EdgeqError(f"{name}: bias must be [{packed.n}], not {list(bias.shape)}")
    if x.size and packed.n:
        result = _product(read_only(np.asarray(x, np.float32)), packed)
    else:
        result = np.zeros((len(x), packed.n), np.float32)
    if bias is not None:
        result += bias
    return result


def _product(x: Floats, packed: Packed) -> Floats:
    t, columns = x.shape
    rows = 1 if t == 1 else -(-t // ROWS) * ROWS
    quantized = quantize_for(packed, x, rows)
    panels = len(packed.data)
    out = np.empty((rows, panels * packed.layout.rows), np.float32)
    run = one_row if t == 1 else many_rows
    work = packed.layout.rows * columns * rows
    threads.run(run, panels, work, packed.layout, packed.data, *quantized, out)
    return np.ascontiguousarray(out[:t, : packed.n])


def quantize_for(packed: Packed, x: Floats, rows: int) -> Quantized:
    """Activations as the packed weights' kernels take them, filled up to ``rows``."""
    form = packed.layout.format
    return quantize(x, form.activation, form.block, form.sub or 0, rows, packed.isa)


def _filled_up(rows: Bytes, multiple: int) -> Bytes:
    """Contiguous rows, and zero rows up to a multiple."""
    missing = -len(rows) % multiple
    if not missing:
        return np.ascontiguousarray(rows)
    return np.concatenate([rows, np.zeros((missing, rows.shape[1]), np.uint8)])
