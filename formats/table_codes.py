"""A weight as the 4-bit codes of a table that others made of it, laid as by bitsandbytes and ONNX Runtime.

value = scale · table[code]. Blocks are cut from the weight one row after another, wherever rows begin and end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class TableCodes:
    """Codes and scales that are read when asked for.

    Attributes:
        table: float32 ``[16]``, what the codes mean.
        size: values of a block.
        count: values of the weight.
        read: gives codes, uint8 ``[ceil(count / 2)]``, the first of two in the high nibble, and scales, float32
            ``[ceil(count / size)]``. Raises FormatError for scales that are no numbers.
    """

    table: Floats
    size: int
    count: int
    read: Callable[[], tuple[Bytes, Floats]]

    @classmethod
    def stacked(cls, parts: Sequence[TableCodes | None]) -> TableCodes | None:
        """Weights one below the other; None where tables or blocks differ, or a block would be of two."""
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        first = known[0]
        for part in known:
            if part.size != first.size or not np.array_equal(part.table, first.table):
                return None
            if part.count % part.size or part.count % 2:
                return None

        def read() -> tuple[Bytes, Floats]:
            codes, scales = zip(*(part.read() for part in known), strict=True)
            return np.concatenate(codes), np.concatenate(scales)

        return cls(first.table, first.size, sum(part.count for part in known), read)
