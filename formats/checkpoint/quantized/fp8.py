"""FP8 weights: ``weight`` float8_e4m3fn ``[out, in]`` with one scale for all, for each row or for each tile.

================== ===================== ======================================================== =================
quant_method       scales                their shape                                              tile, where
================== ===================== ======================================================== =================
fp8                weight_scale_inv      ``[⌈out / a⌉, ⌈in / b⌉]`` (DeepSeek), or one             weight_block_size
fp8                weight_scale          one, or ``[out, 1]`` (vLLM, AutoFP8)
fbgemm_fp8         weight_scale          ``[out, 1]``
compressed-tensors weight_scale          one, ``[out, 1]``, or tiles (strategy "block")           block_structure
================== ===================== ======================================================== =================

value = code · scale in float32, rounded once (the reference kernels round the product to 16 bits where they write
weights out). Despite its name ``weight_scale_inv`` is multiplied by. Scales of activations are no part of the weight.
Source: ``weight_dequant_kernel`` in DeepSeek-V3's inference/kernel.py; ``dequantize`` in
compressed_tensors/quantization/lifecycle/forward.py; ``FbgemmFp8Linear`` in transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

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

Tile = tuple[int, int]
_DTYPE = "float8_e4m3fn"
_VALUES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)  # of each byte
_SCALES = ("weight_scale_inv", "weight_scale")
_ACTIVATIONS = ("input_scale", "activation_scale", "input_scale_ub")
_FORMATS = ("float-quantized", "naive-quantized")


@layout("fp8", "fbgemm_fp8")
def find(checkpoint: Checkpoint, settings: Settings) -> Iterator[PackedWeight]:
    """The checkpoint's FP8 weights; raises FormatError."""
    size = settings.fields.get("weight_block_size")
    tile = None if size is None else _tile(size, settings, "weight_block_size")
    return _weights(checkpoint, tile, "fp8")


@layout("compressed-tensors")
def find_compressed(checkpoint: Checkpoint, settings: Settings) -> Iterator[PackedWeight]:
    """The same of compressed-tensors, of whose formats only FP8 is read; raises FormatError."""
    settings.choice("format", _FORMATS)
    groups = settings.inner("config_groups")
    tiles: set[Tile] = set()
    for name in groups.fields:
        weights = groups.inner(name).inner("weights")
        weights.choice("type", ("float",))
        if weights.count("num_bits") != 8:
            raise weights.wrong("only 8 is supported", "num_bits")
        if weights.choice("strategy", ("tensor", "channel", "block")) == "block":
            tiles.add(_tile(weights.fields.get("block_structure"), weights, "block_structure"))
    if len(tiles) > 1:
        raise groups.wrong("groups of several block_structures are not supported")
    return _weights(checkpoint, next(iter(tiles), None), "compressed-tensors, fp8")


def _weights(checkpoint: Checkpoint, tile: Tile | None, label: str) -> Iterator[PackedWeight]:
    for name in checkpoint.names:
        if name.endswith(".weight") and str(checkpoint.dtype(name)).startswith("float8"):
            yield FP8Weight(checkpoint, name, tile, label)


def _tile(value: Any, settings: Settings, key: str) -> Tile:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(type(size) is int and 0 < size < 2**31 for size in value)
    ):
        raise settings.wrong("must be a list of two positive integers", key)
    return value[0], value[1]


class FP8Weight(PackedWeight):
    """One layer's weight. Scales are read as the rows ask for them."""

    def __init__(self, checkpoint: Checkpoint, name: str, tile: Tile | None, label: str) -> None:
        self.name, self.layout, self._checkpoint = name, label, checkpoint
        base = name.removesuffix("weight")
        rows, columns = check_part(checkpoint, name, [_DTYPE], (None, None))
        self.shape = rows, columns
        present = [base + scale for scale in _SCALES if base + scale in checkpoint]
        if len(present) != 1:
            problem = "both " + " and ".join(_SCALES) if present else f"no {base}{_SCALES[1]}"
            raise contradiction(checkpoint, name, f"has {problem}")
        (self._scale,) = present
        got = check_part(checkpoint, self._scale, [*FLOATS, "float8_e8m0fnu"])
        self._tile = self._tile_of(got, tile)
        self.parts = (name, self._scale, *(base + a for a in _ACTIVATIONS if base + a in checkpoint))

    def _tile_of(self, got: tuple[int, ...], tile: Tile | None) -> Tile:
        """The rows and columns of the weight that share a scale, for a tensor of scales of that shape."""
        rows, columns = max(1, self.shape[0]), max(1, self.shape[1])
        if tile is not None and got == (-(-rows // tile[0]), -(-columns // tile[1])):
            return tile
        if prod(got) == 1:
            return rows, columns
        if got in ((rows,), (rows, 1)):
            return 1, columns
        raise contradiction(
            self._checkpoint, self._scale, f"has shape {list(got)}, which fits neither the weight's "
            f"{list(self.shape)} nor tiles of {list(tile) if tile else 'no size'}"
        )  # fmt: skip

    def rows(self, start: int, stop: int) -> Floats:
        high, wide = self._tile
        across = -(-self.shape[1] // wide)
        first, last = start // high, -(-stop // high)
        scales = self._checkpoint.stored_values(self._scale, first * across, last * across)
        scales = scales.astype(np.float32).reshape(-1, across)
        codes = self._checkpoint.stored_rows(self.name, start, stop).view(np.uint8)
        values: Floats = _VALUES.take(codes)
        scales = scales.take(np.arange(start, stop) // high - first, axis=0)
        values *= scales.take(np.arange(self.shape[1]) // wide, axis=1)
        return values
