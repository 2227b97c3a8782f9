"""A tensor's blocks, piece by piece: whatever the size of the file, a few megabytes of it are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.gguf.reader import GGUFFile, TensorInfo
from edgeq.formats.gguf.types import TENSOR_TYPES

Progress = Callable[[str, int, int], None]
PIECE_VALUES = 1 << 18  # a whole number of blocks of every type
_KEPT_BYTES = 32 << 20  # pages of the map are handed back after this many


def pieces(file: GGUFFile, tensor: TensorInfo) -> Iterator[NDArray[np.uint8]]:
    """The tensor's blocks, uint8 ``[n, block_bytes]``, PIECE_VALUES values at a time; none for an empty tensor.

    The views are valid until the next one is asked for; their pages are released behind them.
    """
    kind = TENSOR_TYPES[tensor.type_id]
    if not tensor.nbytes:
        return
    blocks = file.rows(tensor.name).reshape(-1, kind.block_bytes)
    step = PIECE_VALUES // kind.block_values
    kept = 0
    try:
        for first in range(0, len(blocks), step):
            piece = blocks[first : first + step]
            yield piece
            kept += piece.nbytes
            if kept >= _KEPT_BYTES:
                file.release(tensor.name)
                kept = 0
    finally:
        file.release(tensor.name)
