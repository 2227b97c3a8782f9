"""Fast encoders: twins of ``BlockType.encode``, byte for byte, on all threads.

A module here has ``encode_blocks(first, last, values, out)`` for ``[n, block_values]``, and, where ggml
uses importance, ``encode_rows(first, last, values, importance, out)`` for ``[rows, columns]``. Both return
False when a scale overflows float16. A module with ``TAKES_ISA`` gets the instruction set as a last argument.
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.effort import Effort
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.encode.finite import rows_are_finite
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.refine import refine
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only


def encode(
    block_type_name: str,
    values: Floats,
    importance: Floats | None = None,
    isa: Isa = PORTABLE,
    effort: Effort = Effort.ggml,
) -> Bytes:
    """Encode float32 ``[rows, columns]`` to uint8 ``[rows, row_bytes]``; raises as the plain codec does.

    ``importance`` is float32 ``[columns]``; ``isa`` is the CPU's (``devices.detect.instruction_set``).
    An effort beyond ggml's lowers Σ importance · (x − x̂)² of its blocks (see ``refine``).
    Types without a module in this folder are encoded by the plain codec, as fast as memory for them.
    """
    block_type = by_name(block_type_name)
    module = kernels(__name__, block_type_name)
    if module is None:
        return block_type.encode(values, importance)
    importance = block_type.check_shapes(values, importance)
    n_rows, columns = values.shape
    encoded = np.empty((n_rows, block_type.row_bytes(columns)), np.uint8)
    if not encoded.size:
        return encoded
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused as such
        rows = read_only(np.asarray(values, np.float32))
    if not all(threads.run(rows_are_finite, n_rows, columns, rows, isa)):
        block_type.check_finite(rows)
    last = (isa,) if hasattr(module, "TAKES_ISA") else ()
    if importance is None or not hasattr(module, "encode_rows"):
        blocks = rows.reshape(-1, block_type.block_values)
        out = encoded.reshape(len(blocks), block_type.block_bytes)
        fine = threads.run(module.encode_blocks, len(blocks), block_type.block_values, blocks, out, *last)
    else:
        fine = threads.run(module.encode_rows, n_rows, columns, rows, read_only(importance), encoded, *last)
    if not all(fine):
        raise block_type.overflow_error()
    refine(block_type_name, rows, importance, encoded, isa, effort)
    return encoded
