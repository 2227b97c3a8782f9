"""Fast decoders: twins of ``BlockType.decode``, bit for bit, on all threads.

Their inner loops run to ``out.size`` (or a part of it) and not to a literal: LLVM unrolls a loop of known
length into scalar code before it could vectorise it (Q6_K: 0.9 Gvalues/s a thread so, 1.8 as it stands).
"""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.isa import PORTABLE, Isa
from edgeq.kernels_cpu.registry import kernels
from edgeq.kernels_cpu.views import read_only


def decode(block_type_name: str, rows: Bytes, columns: int, isa: Isa = PORTABLE) -> Floats:
    """Decode uint8 ``[n, row_bytes]`` to float32 ``[n, columns]``; raises EdgeqError as the plain codec does.

    ``isa`` is the CPU's (``devices.detect.instruction_set``). Contiguous rows (read-only and memory-mapped
    ones too) are not copied. F32 has no module in this folder: the plain codec copies it.
    """
    block_type = by_name(block_type_name)
    module = kernels(__name__, block_type_name)
    if module is None:
        return block_type.decode(rows, columns)
    block_type.check_rows(rows, columns)
    values = np.empty((len(rows), columns), np.float32)
    if values.size:
        blocks = read_only(rows).reshape(-1, block_type.block_bytes)
        flat = values.reshape(-1, block_type.block_values)
        last = (isa,) if hasattr(module, "TAKES_ISA") else ()
        threads.run(module.decode_blocks, len(blocks), block_type.block_values, blocks, flat, *last)
    return values
