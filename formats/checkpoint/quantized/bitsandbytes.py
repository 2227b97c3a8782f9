"""bitsandbytes: 4-bit codes of a table (NF4, FP4), and LLM.int8().

4 bits, for a weight of n values in blocks of ``blocksize`` values, rows one after another:

=================================== ================== ====================================================
tensor                              dtype, shape       holds
=================================== ================== ====================================================
weight                              uint8 ``[n / 2, 1]`` two codes a byte, the first in the high nibble
weight.quant_map                    float32 ``[16]``   what the codes mean
weight.absmax                       float32 ``[blocks]`` what each block is scaled by
weight.quant_state.bitsandbytes__…  uint8              JSON: blocksize, shape, nested_blocksize, nested_offset …
=================================== ================== ====================================================

With double quantization ``absmax`` is uint8, codes of ``weight.nested_quant_map`` (float32 ``[256]``) that blocks of
``nested_blocksize`` scale by ``weight.nested_absmax``, plus ``nested_offset``. 8 bits: ``weight`` int8 ``[out, in]``,
``SCB`` float32 ``[out]``; value = code · SCB / 127. All is computed in float32; bitsandbytes rounds the 4-bit result
once more, to the 16 bits that it computes in. Source: ``QuantState.from_dict``, ``dequantize_4bit`` and
``int8_vectorwise_dequant`` in bitsandbytes/functional.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.checkpoint.quantized.base import (
    FLOATS,
    PackedWeight,
    Settings,
    check_part,
    contradiction,
    layout,
)
from edgeq.formats.checkpoint.safetensors import Checkpoint
from edgeq.formats.grid import Floats
from edgeq.formats.table_codes import Bytes, TableCodes

_STATE = ".quant_state.bitsandbytes__"
_TABLES = ("nf4", "fp4")
_MAX_STATE_BYTES = 1 << 16
_LARGEST = 3e38  # of a float32
_PER_127TH = np.float32(7.874015718698502e-3)


@layout("bitsandbytes")
def find(checkpoint: Checkpoint, settings: Settings) -> Iterator[PackedWeight]:
    """The checkpoint's bitsandbytes weights of either width; raises FormatError."""
    for name in [name for name in checkpoint.names if name.endswith(".weight")]:
        dtype = str(checkpoint.dtype(name))
        if dtype == "int8":
            yield Int8Weight(checkpoint, name)
        elif dtype == "uint8":
            yield TableWeight(checkpoint, name)
        elif any(name + _STATE + table in checkpoint for table in _TABLES):
            raise contradiction(
                checkpoint, name, f"is {dtype}; of bnb_4bit_quant_storage only uint8 is supported"
            )


class Int8Weight(PackedWeight):
    """LLM.int8(): a scale for each row. Outliers are a matter of the activations, and no weight is left out."""

    layout = "bitsandbytes, int8"

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self.name, self._checkpoint, self._scb = name, checkpoint, name.removesuffix("weight") + "SCB"
        rows, columns = check_part(checkpoint, name, ["int8"], (None, None))
        check_part(checkpoint, self._scb, ["float32"], (rows,))
        self.shape = rows, columns
        order = name + "_format"
        self.parts = (name, self._scb, *([order] if order in checkpoint else []))
        if order in checkpoint:
            check_part(checkpoint, order, ["uint8"])
            if checkpoint.stored_values(order, 0, min(1, checkpoint.nbytes(order))).tolist() != [0]:
                raise contradiction(
                    checkpoint, order, "is not 0: only rows in their plain order are supported"
                )

    def rows(self, start: int, stop: int) -> Floats:
        values = self._checkpoint.rows(self.name, start, stop)
        values *= self._checkpoint.stored_values(self._scb, start, stop)[:, None]
        values *= _PER_127TH
        return values


class TableWeight(PackedWeight):
    """4 bits: codes of a table of 16 values, scaled block by block, wherever rows begin and end."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self.name, self._checkpoint = name, checkpoint
        table = next((table for table in _TABLES if name + _STATE + table in checkpoint), _TABLES[0])
        self.layout, self._state_name = f"bitsandbytes, {table}", name + _STATE + table
        state = self._state()
        self.shape = self._shape(state)
        size = prod(self.shape)
        if prod(check_part(checkpoint, name, ["uint8"])) != (size + 1) // 2:
            raise contradiction(
                checkpoint,
                name,
                f"has shape {list(checkpoint.shape(name))}; its state says {list(self.shape)}",
            )
        check_part(checkpoint, name + ".quant_map", ["float32"], (16,))
        self._block = self._count(state, "blocksize")
        self._n_blocks = -(-size // self._block)
        self.parts = (name, self._state_name, name + ".quant_map", name + ".absmax")
        self._is_nested = "nested_blocksize" in state
        if self._is_nested:
            self._check_nested(state)
        else:
            check_part(checkpoint, name + ".absmax", FLOATS, (self._n_blocks,))

    def _check_nested(self, state: dict[str, Any]) -> None:
        """The parts of absmax, where it is quantized itself."""
        name, checkpoint = self.name, self._checkpoint
        self._nested_block, self._offset = self._count(state, "nested_blocksize"), self._number(state)
        check_part(checkpoint, name + ".absmax", ["uint8"], (self._n_blocks,))
        check_part(checkpoint, name + ".nested_quant_map", ["float32"], (256,))
        check_part(checkpoint, name + ".nested_absmax", FLOATS, (-(-self._n_blocks // self._nested_block),))
        self.parts += (name + ".nested_quant_map", name + ".nested_absmax")

    def rows(self, start: int, stop: int) -> Floats:
        columns = self.shape[1]
        first, last = start * columns, stop * columns
        octets = self._checkpoint.stored_values(self.name, first // 2, (last + 1) // 2)
        codes = np.stack([octets >> 4, octets & 15], axis=-1).reshape(-1)[first % 2 :][: last - first]
        values: Floats = self._whole("quant_map")[codes]
        values *= self._absmax(first // self._block, -(-last // self._block))[
            np.arange(first, last) // self._block - first // self._block
        ]
        return values.reshape(stop - start, columns)

    def codes(self) -> TableCodes:
        return TableCodes(self._whole("quant_map"), self._block, prod(self.shape), self._read)

    def _read(self) -> tuple[Bytes, Floats]:
        codes: Bytes = self._checkpoint.stored_values(self.name, 0, (prod(self.shape) + 1) // 2)
        with np.errstate(over="ignore", invalid="ignore"):
            scales = self._absmax(0, self._n_blocks)
        if not np.isfinite(scales).all():
            raise contradiction(self._checkpoint, self.name + ".absmax", "holds NaN or infinity")
        return codes, scales

    def _absmax(self, first: int, last: int) -> Floats:
        """What blocks ``first`` to before ``last`` are scaled by."""
        stored = self._checkpoint.stored_values(self.name + ".absmax", first, last)
        if not self._is_nested:
            return stored.astype(np.float32)
        scales: Floats = self._whole("nested_quant_map")[stored]
        scales *= self._whole("nested_absmax")[np.arange(first, last) // self._nested_block]
        scales += self._offset
        return scales

    def _whole(self, part: str) -> Floats:
        name = f"{self.name}.{part}"
        return self._checkpoint.stored_values(name, 0, self._checkpoint.shape(name)[0]).astype(np.float32)

    def _state(self) -> dict[str, Any]:
        """The JSON object in the state's bytes."""
        checkpoint, name = self._checkpoint, self._state_name
        (size,) = check_part(checkpoint, name, ["uint8"], (None,))
        if size > _MAX_STATE_BYTES:
            raise contradiction(checkpoint, name, f"has {size} bytes, more than any state needs")
        raw: NDArray[np.uint8] = checkpoint.stored_values(name, 0, size)
        try:
            state = json.loads(raw.tobytes().decode("utf-8"))
        except (ValueError, RecursionError):
            raise contradiction(checkpoint, name, "is not JSON") from None
        if not isinstance(state, dict):
            raise contradiction(checkpoint, name, "is not a JSON object")
        return state

    def _shape(self, state: dict[str, Any]) -> tuple[int, int]:
        shape = state.get("shape")
        if (
            not isinstance(shape, list)
            or len(shape) != 2
            or not all(type(size) is int and 0 < size < 2**31 for size in shape)
        ):
            raise contradiction(self._checkpoint, self._state_name, "has no shape of two sizes")
        return shape[0], shape[1]

    def _count(self, state: dict[str, Any], key: str) -> int:
        value = state.get(key)
        if type(value) is not int or not 0 < value < 2**31:
            raise contradiction(self._checkpoint, self._state_name, f"has no positive integer {key}")
        return value

    def _number(self, state: dict[str, Any]) -> np.float32:
        value = state.get("nested_offset")
        if not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise contradiction(self._checkpoint, self._state_name, "has no finite nested_offset")
        return np.float32(value)
