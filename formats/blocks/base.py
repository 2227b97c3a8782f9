"""What a block type is, and the registry that finds it. One class per type, one file per class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.errors import EdgeqError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class BlockType:
    """A ggml tensor type: ``block_values`` consecutive values of a row stored in ``block_bytes`` bytes.

    A subclass registers itself when its module is imported. ``encode_blocks`` and ``decode_blocks`` are
    plain NumPy and are the specification: the fast twins in ``edgeq.kernels_cpu`` are compared with them.
    """

    name: ClassVar[str]  # ggml's name in upper case: "Q4_K"
    ggml_id: ClassVar[int]  # enum ggml_type
    block_values: ClassVar[int]
    block_bytes: ClassVar[int]

    @classmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        """Decode uint8 ``[n, block_bytes]`` to float32 ``[n, block_values]``."""
        raise NotImplementedError

    @classmethod
    def encode_blocks(cls, values: Floats, importance: Floats | None = None) -> Bytes:
        """Encode float32 ``[n, block_values]`` to uint8 ``[n, block_bytes]``.

        ``importance`` (same shape, non-negative) weights each value's squared error, as ggml's
        ``quant_weights`` do; types that ggml encodes without it ignore it.
        """
        raise NotImplementedError

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _BY_NAME[cls.name] = cls
        _BY_ID[cls.ggml_id] = cls

    @classmethod
    def bits_per_value(cls) -> float:
        return 8 * cls.block_bytes / cls.block_values

    @classmethod
    def row_bytes(cls, columns: int) -> int:
        """Bytes of one row; raises EdgeqError when the row is not a whole number of blocks."""
        if columns % cls.block_values:
            raise EdgeqError(
                f"{cls.name}: a row of {columns} values is not a whole number of {cls.block_values}-value blocks"
            )
        return columns // cls.block_values * cls.block_bytes

    @classmethod
    def decode(cls, rows: Bytes, columns: int) -> Floats:
        """Decode uint8 ``[n_rows, row_bytes(columns)]`` to float32 ``[n_rows, columns]``."""
        rows = np.ascontiguousarray(rows)
        expected = (len(rows), cls.row_bytes(columns))
        if rows.shape != expected:
            raise EdgeqError(f"{cls.name}: got {rows.shape} bytes for rows of {columns} values, not {expected}")
        return cls.decode_blocks(rows.reshape(-1, cls.block_bytes)).reshape(len(rows), columns)

    @classmethod
    def encode(cls, values: Floats, importance: Floats | None = None) -> Bytes:
        """Encode float32 ``[n_rows, columns]`` to uint8 ``[n_rows, row_bytes(columns)]``.

        ``importance`` is float32 ``[columns]``, one weight per column, shared by all rows.
        """
        n_rows, columns = values.shape
        row_bytes = cls.row_bytes(columns)
        blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, cls.block_values)
        weights = None
        if importance is not None:
            weights = np.broadcast_to(np.asarray(importance, np.float32), values.shape).reshape(blocks.shape)
        return cls.encode_blocks(blocks, weights).reshape(n_rows, row_bytes)


_BY_NAME: dict[str, type[BlockType]] = {}
_BY_ID: dict[int, type[BlockType]] = {}


def by_name(name: str) -> type[BlockType]:
    """The registered block type of that name, any case; raises EdgeqError."""
    try:
        return _BY_NAME[name.upper()]
    except KeyError:
        raise EdgeqError(f"{name}: no such block type; there are {', '.join(sorted(_BY_NAME))}") from None


def by_id(ggml_id: int) -> type[BlockType] | None:
    """The registered block type with ggml's number, or None for one that edgeq cannot decode."""
    return _BY_ID.get(ggml_id)


def all_types() -> list[type[BlockType]]:
    """Every registered block type, in the order of ggml's numbers."""
    return [_BY_ID[k] for k in sorted(_BY_ID)]
