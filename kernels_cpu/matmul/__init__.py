"""Products of float activations with encoded weights, which are decoded a row or a panel at a time.

A module here has ``matmul_rows(first, last, x, rows, out)``: for each weight row first..last, decode it once
and take its dot product with every row of x. That is for few rows of x; many rows go through BLAS, with
panels of weights that stay in cache.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from edgeq.formats.blocks import BlockType, by_name
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.errors import EdgeqError
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.decode import decode
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only

# From this many rows of x on, BLAS on decoded panels beats dot products: below, it mostly packs its operands.
BLAS_ROWS = 24
PANEL_VALUES = 1 << 18  # 1 MiB of decoded weights


def matmul(x: Floats, rows: Bytes, block_type_name: str, bias: Floats | None = None) -> Floats:
    """``x @ decode(rows).T + bias``, float32 ``[T, N]``, without ever holding the decoded matrix.

    ``x`` is float32 ``[T, K]``, ``rows`` uint8 ``[N, row_bytes(K)]`` of that block type (read-only and
    memory-mapped rows are not copied when contiguous), ``bias`` float32 ``[N]``. Sums are float32 in any
    order. Raises EdgeqError when the shapes do not fit.
    """
    block_type = by_name(block_type_name)
    if x.ndim != 2:
        raise EdgeqError(f"{block_type.name}: activations must be [T, K], not {list(x.shape)}")
    block_type.check_rows(rows, x.shape[1])
    if bias is not None and bias.shape != (len(rows),):
        raise EdgeqError(f"{block_type.name}: bias must be [{len(rows)}], not {list(bias.shape)}")
    x = read_only(np.asarray(x, np.float32))
    product = _product(x, rows, block_type)
    if bias is not None:
        product += bias
    return product


def _product(x: Floats, rows: Bytes, block_type: type[BlockType]) -> Floats:
    if not x.size or not rows.size:
        return np.zeros((len(x), len(rows)), np.float32)
    if block_type.name == "F32":
        return _float_product(x, read_only(rows).view(np.float32))
    module = kernels(__name__, block_type.name)
    if module is None or len(x) >= BLAS_ROWS:
        return _by_panels(x, rows, block_type)
    return _by_rows(x, rows, block_type, module)


def _float_product(x: Floats, weights: Floats) -> Floats:
    if len(x) >= BLAS_ROWS:
        return np.asarray(x @ weights.T)
    return np.stack([weights @ row for row in x])


def _by_rows(x: Floats, rows: Bytes, block_type: type[BlockType], module: ModuleType) -> Floats:
    columns = x.shape[1]
    blocks = read_only(rows).reshape(len(rows), -1, block_type.block_bytes)
    transposed = np.empty((len(rows), len(x)), np.float32)
    threads.run(module.matmul_rows, len(rows), columns, x, blocks, transposed)
    return np.ascontiguousarray(transposed.T)


def _by_panels(x: Floats, rows: Bytes, block_type: type[BlockType]) -> Floats:
    columns = x.shape[1]
    product = np.empty((len(x), len(rows)), np.float32)
    step = max(1, PANEL_VALUES // columns)
    for first in range(0, len(rows), step):
        panel = decode(block_type.name, rows[first : first + step], columns)
        np.matmul(x, panel.T, out=product[:, first : first + step])
    return product
