"""GPTQ as AutoGPTQ and GPTQModel store it.

For a layer of ``in`` columns and ``out`` rows, b bits, g groups, p = 32 / b codes in a word, lowest bits first:

======= ============================ ==================================================
tensor  dtype, shape                 holds
======= ============================ ==================================================
qweight int32 ``[in / p, out]``      codes; word (i, o) holds columns i·p … of row o
qzeros  int32 ``[g, out / p]``       zeros; word (g, j) holds rows j·p …
scales  float ``[g, out]``
g_idx   int32 ``[in]``               each column's group; without it they follow one another
======= ============================ ==================================================

value = scale · (code − zero). The older format ("gptq") stores each zero less one, modulo 2^b; "gptq_v2" stores it
as it is. Source: ``QuantLinear.pack`` and ``forward`` in auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py;
``convert_gptq_v1_to_v2_format_module`` in gptqmodel/utils/model.py.
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
    contradiction,
    layout,
    unpack,
)
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.grid import Grid

_BITS = (2, 4, 8)  # 3 bits cross the words' borders


@layout("gptq")
def find(checkpoint: Checkpoint, settings: Settings) -> Iterator[PackedWeight]:
    """The checkpoint's GPTQ weights; raises FormatError."""
    bits = settings.count("bits")
    if bits not in _BITS:
        raise settings.wrong(f"{bits} is not supported; there are {', '.join(map(str, _BITS))}", "bits")
    version = settings.choice("checkpoint_format", ("gptq", "gptq_v2"), "gptq")
    if settings.flag("is_marlin_format"):
        raise settings.wrong(
            "marlin's own order is not supported; take the plain GPTQ files", "is_marlin_format"
        )
    group_size, act_order = settings.count("group_size"), settings.flag("desc_act")
    for base in bases(checkpoint, ".qweight", ".qzeros"):
        yield GPTQWeight(checkpoint, base, bits, group_size, act_order, 1 if version == "gptq" else 0)


class GPTQWeight(GridWeight):
    """One layer's weight; its rows are columns of ``qweight``, so only those are read."""

    def __init__(
        self, checkpoint: Checkpoint, base: str, bits: int, group_size: int, act_order: bool, zero_offset: int
    ) -> None:
        self.name, self.layout = base + ".weight", f"gptq, {bits} bits"
        self._checkpoint, self._bits, self._zero_offset = checkpoint, bits, zero_offset
        self._qweight, self._qzeros, self._scales, self._g_idx = (
            f"{base}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx")
        )
        per_word = 32 // bits
        words, out = check_part(checkpoint, self._qweight, ["int32"], (None, None))
        n_groups, _ = check_part(checkpoint, self._scales, FLOATS, (None, out))
        if out % per_word:
            raise contradiction(
                checkpoint, self._qweight, f"has {out} rows, not a multiple of {per_word} for {bits} bits"
            )
        check_part(checkpoint, self._qzeros, ["int32"], (n_groups, out // per_word))
        self.shape = out, words * per_word
        self._group_size = check_groups(checkpoint, self._scales, n_groups, self.shape[1], group_size)
        self._n_groups, self._has_g_idx = n_groups, self._g_idx in checkpoint
        if self._has_g_idx:
            check_part(checkpoint, self._g_idx, ["int32"], (self.shape[1],))
        elif act_order:
            raise contradiction(checkpoint, self._qweight, f"has no {self._g_idx}, but desc_act is true")
        self.parts = (self._qweight, self._qzeros, self._scales, *([self._g_idx] * self._has_g_idx))

    def grid(self, start: int, stop: int) -> Grid:
        per_word = 32 // self._bits
        first = start // per_word
        zeros = unpack(self._checkpoint.stored_columns(self._qzeros, first, -(-stop // per_word)), self._bits)
        zeros = (zeros + self._zero_offset) & ((1 << self._bits) - 1)
        return Grid(
            unpack(self._checkpoint.stored_columns(self._qweight, start, stop).T, self._bits),
            np.ascontiguousarray(
                self._checkpoint.stored_columns(self._scales, start, stop).T, dtype=np.float32
            ),
            np.ascontiguousarray(zeros.T[start - first * per_word :][: stop - start]),
            self._column_groups(),
        )

    def _column_groups(self) -> NDArray[np.int64]:
        if not self._has_g_idx:
            return np.arange(self.shape[1]) // self._group_size
        groups = self._checkpoint.stored_values(self._g_idx, 0, self.shape[1]).astype(np.int64)
        if groups.size and not 0 <= groups.min() <= groups.max() < self._n_groups:
            worst = groups.min() if groups.min() < 0 else groups.max()
            raise contradiction(
                self._checkpoint, self._g_idx, f"holds {worst}, but there are {self._n_groups} groups"
            )
        return groups
