"""Integer products: packed weights times activations quantized to int8, as ggml computes them.

A module here that is named like a block type describes it: its ``FORMAT``, where its codes are (``STORED``), and
``fields(blocks)``, which reads the numbers beside them (``blocked`` does so for ONNX's). The rest is common:
``layout`` says how that lies in memory, ``interleave`` packs it, ``tiles`` emits the product. For float activations see
``edgeq.kernels_cpu.matmul``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.isa import Isa
from edgeq.kernels_cpu.products import blocked
from edgeq.kernels_cpu.products.interleave import interleave
from edgeq.kernels_cpu.products.layout import Format, Layout, layout_of, own_rows_of
from edgeq.kernels_cpu.products.panels import many_rows, one_row
from edgeq.kernels_cpu.products.tiles import ROWS
from edgeq.kernels_cpu.quantized_activations import Quantized, quantize
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only

ALIGNMENT = 64  # of a cache line: no load of a register may cross one
_CHUNK_VALUES = 1 << 20  # packed at a time, so that temporaries stay small


class Packed(NamedTuple):
    """A matrix of weights, packed for an instruction set; or several of one shape, one behind the other."""

    data: Bytes  # [stacked · panels, blocks, block_bytes]
    n: int  # rows of a matrix; its last panel is filled up with zeros
    columns: int  # the last block is filled up, too, where they are no whole number of blocks (ONNX)
    layout: Layout
    isa: Isa
    stacked: int = 1

    def matrix(self, i: int) -> Packed:
        """One of those that are stacked; a view."""
        panels = len(self.data) // self.stacked
        return self._replace(data=self.data[i * panels : (i + 1) * panels], stacked=1)


def supports(name: str) -> bool:
    """Is there an integer product for this block type? Raises EdgeqError where there is no such type."""
    return kernels(__name__, name) is not None


def layout_for(name: str, isa: Isa) -> Layout:
    """How a block type is packed; raises EdgeqError where it has no integer product."""
    return layout_of(_module(name).FORMAT, isa)


def _module(name: str) -> Any:
    module = kernels(__name__, name)
    if module is None:
        raise EdgeqError(f"{by_name(name).name}: there is no integer product for this type")
    return module


def pack(
    name: str,
    rows: Bytes,
    columns: int,
    isa: Isa,
    order: NDArray[np.int64] | None = None,
    stacked: int = 1,
) -> Packed:
    """Pack uint8 ``[N, row_bytes(columns)]`` of that block type, some rows at a time on each thread.

    With ``order``, row i is ``rows[order[i]]``. The rows may be those of several matrices of one shape
    (experts), ``stacked``. Raises EdgeqError for shapes that do not fit, and for a type that has no integer
    product.
    """
    block_type = by_name(name)
    block_type.check_rows(rows, columns)
    count = len(rows) if order is None else len(order)
    if stacked < 1 or count % stacked:
        raise EdgeqError(f"{block_type.name}: {count} rows are not {stacked} matrices of as many rows each")
    module = _module(name)
    packed = empty(module.FORMAT, count // stacked, columns, isa, stacked)

    def write(part: slice, out: Bytes) -> None:
        taken = rows[part] if order is None else rows[order[part]]
        blocks = _filled_up(taken, packed.layout.rows).reshape(-1, block_type.block_bytes)
        interleave(packed.layout, module.STORED, blocks, module.fields(blocks), out)

    for i in range(stacked):
        _fill(packed.matrix(i), write, i * packed.n)
    return _finished(packed)


def unpacked(name: str, rows: Bytes, columns: int, isa: Isa) -> Packed | None:
    """Encoded rows, uint8 ``[N, row_bytes(columns)]``, as they are, for types that are multiplied as fast so.

    Nothing is copied: the rows must stay what they are. None where they have to be packed: for other
    types and instruction sets, and where the rows fill no whole panels. Raises EdgeqError as ``pack`` does.
    """
    by_name(name).check_rows(rows, columns)
    layout = own_rows_of(_module(name).FORMAT, isa)
    if layout is None or len(rows) % layout.rows or not rows.flags.c_contiguous:
        return None
    shape = packed_shape(layout, len(rows), columns)
    return Packed(read_only(rows.reshape(shape)), len(rows), columns, layout, isa)


def pack_blocked(
    blob: Bytes, scales: Floats, zero_points: Bytes | None, columns: int, bits: int, isa: Isa
) -> Packed:
    """Pack the weights of ONNX's ``MatMulNBits``: blob uint8 ``[N, blocks, block · bits / 8]``.

    scales are ``[N, blocks]``, zero points uint8 ``[N, ceil(blocks · bits / 8)]`` or None for the middle of
    the range. Raises EdgeqError for shapes that do not fit and for sizes that have no product.
    """
    n, blocks = scales.shape
    form = blocked.format_of(bits, blob.shape[-1] * 8 // bits)
    wanted = (n, -(-columns // form.block), form.block * bits // 8)
    packed_zeros = (n, -(-blocks * bits // 8))
    if (
        blob.shape != wanted
        or blocks != wanted[1]
        or (zero_points is not None and zero_points.shape != packed_zeros)
    ):
        raise EdgeqError(f"{form.name}: blob must be {list(wanted)} and zero points {list(packed_zeros)}")
    packed = empty(form, n, columns, isa)

    def write(part: slice, out: Bytes) -> None:
        codes, d = (_filled_up(array[part], packed.layout.rows) for array in (blob, scales))
        zeros = None if zero_points is None else _filled_up(zero_points[part], packed.layout.rows)
        fields = blocked.fields(d, zeros, bits)
        interleave(packed.layout, blocked.stored(bits), codes.reshape(-1, blob.shape[-1]), fields, out)

    _fill(packed, write, 0)
    return _finished(packed)


def empty(form: Format, n: int, columns: int, isa: Isa, stacked: int = 1) -> Packed:
    """Room for packed matrices, aligned to a cache line."""
    layout = layout_of(form, isa)
    shape = packed_shape(layout, n, columns, stacked)
    memory = np.empty(math.prod(shape) + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return Packed(memory[start : start + math.prod(shape)].reshape(shape), n, columns, layout, isa, stacked)


def packed_shape(layout: Layout, n: int, columns: int, stacked: int = 1) -> tuple[int, int, int]:
    """Of ``Packed.data``."""
    return stacked * -(-n // layout.rows), -(-columns // layout.format.block), layout.block_bytes


def _fill(packed: Packed, write: Callable[[slice, Bytes], None], start: int) -> None:
    """Pack all panels, on all threads; ``write`` packs those rows, whole panels of them, from ``start`` on."""
    rows, data, end = packed.layout.rows, packed.data, start + packed.n
    step = max(1, _CHUNK_VALUES // max(1, rows * packed.columns))

    def fill(first: int, last: int) -> None:
        for panel in range(first, last, step):
            stop = min(panel + step, last)
            part = slice(start + panel * rows, min(start + stop * rows, end))
            write(part, data[panel:stop])

    if data.size:
        threads.run(fill, len(data), rows * packed.columns)


def _finished(packed: Packed) -> Packed:
    """From now on read-only, as memory-mapped weights are: for kernels, that is another type."""
    packed.data.flags.writeable = False
    return packed


def _filled_up(rows: np.ndarray, multiple: int) -> np.ndarray:
    """Contiguous rows, and zero rows up to a multiple."""
    missing = -len(rows) % multiple
    filling = np.zeros((missing, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, filling]) if missing else np.ascontiguousarray(rows)


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
    if packed.stacked != 1:
        raise EdgeqError(f"{name}: {packed.stacked} matrices are stacked; take one")
    if x.size and packed.n:
        result = np.ascontiguousarray(multiply(quantized_for(packed, x), packed)[: len(x), : packed.n])
    else:
        result = np.zeros((len(x), packed.n), np.float32)
    if bias is not None:
        result += bias
    return result


def quantized_for(packed: Packed, x: Floats) -> Quantized:
    """Activations float32 ``[T, K]`` as the packed weights' kernels take them: filled up to whole tiles."""
    form = packed.layout.format
    rows = 1 if len(x) == 1 else -(-len(x) // ROWS) * ROWS
    x = np.asarray(x, np.float32)
    missing = -packed.columns % form.block
    if missing:
        x = np.concatenate([x, np.zeros((len(x), missing), np.float32)], axis=1)
    return quantize(read_only(x), form.activation, form.block, form.sub or 0, rows, packed.isa)


def multiply(x: Quantized, packed: Packed) -> Floats:
    """float32 ``[rows of x, rows of the panels]``: one row of x, or a multiple of ``ROWS``."""
    panels, rows = len(packed.data), len(x.codes)
    out = np.zeros((rows, panels * packed.layout.rows), np.float32)
    kernel = one_row if rows == 1 else many_rows
    threads.run(kernel, panels, packed.layout.rows * x.codes.size, packed.layout, packed.data, *x, out)
    return out
