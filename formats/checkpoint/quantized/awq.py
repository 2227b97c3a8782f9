"""AWQ as AutoAWQ's GEMM version stores it: 4 bits, a scale and a zero for each group of columns.

For a layer of ``in`` columns and ``out`` rows in g groups:

======= ========================= ===========================================
tensor  dtype, shape              holds
======= ========================= ===========================================
qweight int32 ``[in, out / 8]``   codes; word (i, j) holds rows j·8 … of column i
qzeros  int32 ``[g, out / 8]``    zeros, as they are
scales  float ``[g, out]``
======= ========================= ===========================================

value = scale · (code − zero). The nibbles of a word, lowest first, are rows 0 2 4 6 1 3 5 7. Source:
``WQLinear_GEMM.from_linear`` in awq/modules/linear/gemm.py and ``AWQ_REVERSE_ORDER`` in awq/utils/packing_utils.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.quantized.base import (
    FLOATS,
    GridWeight,
    PackedWeight,
    Settings,
    bases,
    check_groups,
    check_part,
    layout,
)
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.grid import Grid

_PER_WORD = 8
_NIBBLE_OF_ROW = (0, 4, 1, 5, 2, 6, 3, 7)


@layout("awq")
def find(checkpoint: Checkpoint, settings: Settings) -> Iterator[PackedWeight]:
    """The checkpoint's AWQ weights; raises FormatError."""
    bits = settings.count("bits", "w_bit")
    if bits != 4:
        raise settings.wrong(f"{bits} is not supported; there is 4", "bits")
    settings.choice("version", ("gemm",), "gemm")
    group_size = settings.count("group_size", "q_group_size")
    for base in bases(checkpoint, ".qweight", ".qzeros"):
        yield AWQWeight(checkpoint, base, group_size)


class AWQWeight(GridWeight):
    """One layer's weight; eight of its rows share each column of ``qweight``."""

    layout = "awq, 4 bits"

    def __init__(self, checkpoint: Checkpoint, base: str, group_size: int) -> None:
        self.name = base + ".weight"
        self._checkpoint = checkpoint
        self.parts = self._qweight, self._qzeros, self._scales = (
            f"{base}.qweight",
            f"{base}.qzeros",
            f"{base}.scales",
        )
        columns, words = check_part(checkpoint, self._qweight, ["int32"], (None, None))
        self.shape = words * _PER_WORD, columns
        n_groups, _ = check_part(checkpoint, self._scales, FLOATS, (None, self.shape[0]))
        check_part(checkpoint, self._qzeros, ["int32"], (n_groups, words))
        self._group_size = check_groups(checkpoint, self._scales, n_groups, columns, group_size)

    def grid(self, start: int, stop: int) -> Grid:
        scales = self._checkpoint.stored_columns(self._scales, start, stop)
        return Grid(
            self._unpacked(self._qweight, start, stop),
            np.ascontiguousarray(scales.T, dtype=np.float32),
            self._unpacked(self._qzeros, start, stop),
            np.arange(self.shape[1]) // self._group_size,
        )

    def _unpacked(self, name: str, start: int, stop: int) -> NDArray[np.int16]:
        """Rows ``start`` to before ``stop`` of what is packed in a tensor's columns: ``[rows, len(tensor)]``."""
        first = start // _PER_WORD
        words = np.ascontiguousarray(self._checkpoint.stored_columns(name, first, -(-stop // _PER_WORD)).T)
        codes = np.empty((len(words), _PER_WORD, words.shape[1]), np.int16)
        for row, nibble in enumerate(_NIBBLE_OF_ROW):
            codes[:, row] = (words >> np.int32(4 * nibble)) & np.int32(15)
        return codes.reshape(len(words) * _PER_WORD, words.shape[1])[start - first * _PER_WORD :][
            : stop - start
        ]
