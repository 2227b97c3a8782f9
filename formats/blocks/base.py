"""What a block type is, and the registry that finds it. One class per type, one file per class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.errors import EdgeqError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# The plain codecs work on this many values at a time: their temporaries stay near the cache, and a
# tensor of any size needs only a few megabytes beside its result.
CHUNK_VALUES = 1 << 16


class BlockType(ABC):
    """A ggml tensor type: ``block_values`` consecutive values of a row stored in ``block_bytes`` bytes.

    A subclass registers itself when its module is imported; nobody makes instances. ``encode_blocks`` and
    ``decode_blocks`` are plain NumPy and are the specification: the fast twins in ``edgeq.kernels_cpu``
    are compared with them.
    """

    name: ClassVar[str]  # ggml's name in upper case: "Q4_K"
    ggml_id: ClassVar[int]  # enum ggml_type
    block_values: ClassVar[int]
    block_bytes: ClassVar[int]
    encodes: ClassVar[bool] = True  # False for a DecodeOnly type

    @classmethod
    @abstractmethod
    def decode_blocks(cls, blocks: Bytes) -> Floats:
        """Decode uint8 ``[n, block_bytes]`` (contiguous) to float32 ``[n, block_values]``."""

    @classmethod
    @abstractmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        """Encode finite float32 ``[n, block_values]`` to uint8 ``[n, block_bytes]``.

        ``weights`` (same shape) is what ``error_weights`` gives for these values; types that ggml
        encodes without importance ignore it. Raises EdgeqError when a scale overflows float16.
        """

    @classmethod
    def error_weights(cls, values: Floats, importance: Floats) -> Floats:
        """Weights float32 ``[n_rows, columns]`` that ``encode_blocks`` gets for whole rows of values.

        The column importance itself, unless ggml mixes in something of the whole row.
        """
        return np.broadcast_to(importance, values.shape)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):  # not a base of several types
            _BY_NAME[cls.name] = cls
            _BY_ID[cls.ggml_id] = cls

    @classmethod
    def row_bytes(cls, columns: int) -> int:
        """Bytes of one row; raises EdgeqError when the row is not a whole number of blocks."""
        if columns % cls.block_values:
            raise EdgeqError(
                f"{cls.name}: a row of {columns} values is not a whole number of blocks of {cls.block_values}"
            )
        return columns // cls.block_values * cls.block_bytes

    @classmethod
    def decode(cls, rows: Bytes, columns: int) -> Floats:
        """Decode uint8 ``[n_rows, row_bytes(columns)]`` to float32 ``[n_rows, columns]``.

        Raises EdgeqError when the shapes do not fit. Read-only and non-contiguous rows are welcome.
        """
        cls.check_rows(rows, columns)
        values = np.empty((len(rows), columns), np.float32)
        if values.size:
            blocks = np.ascontiguousarray(rows).reshape(-1, cls.block_bytes)
            flat = values.reshape(-1, cls.block_values)
            with np.errstate(all="ignore"):  # a damaged file may hold NaN or infinite scales
                for part in _chunks(len(blocks), cls.block_values):
                    flat[part] = cls.decode_blocks(blocks[part])
        return values

    @classmethod
    def encode(cls, values: Floats, importance: Floats | None = None) -> Bytes:
        """Encode float32 ``[n_rows, columns]`` to uint8 ``[n_rows, row_bytes(columns)]``.

        ``importance`` is float32 ``[columns]``, one weight per column (an importance matrix's row),
        shared by all rows. Raises EdgeqError for shapes that do not fit, for NaN or infinite values, and
        when a scale overflows float16, and for a DecodeOnly type. The bytes are ``ggml_quantize_chunk``'s
        (``ggml/src/ggml.c``).
        """
        cls.check_encodes()
        importance = cls.check_shapes(values, importance)
        n_rows, columns = values.shape
        encoded = np.empty((n_rows, cls.row_bytes(columns)), np.uint8)
        if not encoded.size:
            return encoded
        for part in _chunks(n_rows, columns):
            with np.errstate(all="ignore"):  # the searches meet 0/0 and inf as ggml does, and compare
                rows = np.ascontiguousarray(values[part], np.float32)
                cls.check_finite(rows, part.start)
                encoded[part] = cls._encode_rows(rows, importance)
        return encoded

    @classmethod
    def _encode_rows(cls, rows: Floats, importance: Floats | None) -> Bytes:
        blocks = rows.reshape(-1, cls.block_values)
        encoded = np.empty((len(blocks), cls.block_bytes), np.uint8)
        weights = None if importance is None else cls.error_weights(rows, importance).reshape(blocks.shape)
        for part in _chunks(len(blocks), cls.block_values):
            encoded[part] = cls.encode_blocks(blocks[part], None if weights is None else weights[part])
        return encoded.reshape(len(rows), -1)

    @classmethod
    def check_encodes(cls) -> None:
        """Raise EdgeqError for a type that edgeq only decodes."""
        if not cls.encodes:
            usable = ", ".join(t.name for t in all_types() if t.encodes)
            raise EdgeqError(f"{cls.name}: edgeq decodes this type but cannot encode it; it encodes {usable}")

    @classmethod
    def check_rows(cls, rows: Bytes, columns: int) -> None:
        """Raise EdgeqError unless rows is uint8 ``[n, row_bytes(columns)]``."""
        row_bytes = cls.row_bytes(columns)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != row_bytes:
            raise EdgeqError(
                f"{cls.name}: rows of {columns} values must be uint8 [n, {row_bytes}], "
                f"not {rows.dtype} {list(rows.shape)}"
            )

    @classmethod
    def check_shapes(cls, values: Floats, importance: Floats | None) -> Floats | None:
        """The importance as float32; raises EdgeqError for shapes or weights that cannot be used."""
        if values.ndim != 2:
            raise EdgeqError(f"{cls.name}: values must be [rows, columns], not {list(values.shape)}")
        cls.row_bytes(values.shape[1])
        if importance is None:
            return None
        importance = np.ascontiguousarray(importance, np.float32)
        if importance.shape != values.shape[1:]:
            raise EdgeqError(
                f"{cls.name}: importance must be [{values.shape[1]}] like the columns, "
                f"not {list(importance.shape)}"
            )
        if not (np.isfinite(importance) & (importance >= 0)).all():
            raise EdgeqError(f"{cls.name}: importance must be finite and not negative")
        return importance

    @classmethod
    def check_finite(cls, rows: Floats, first_row: int = 0) -> None:
        """Raise EdgeqError naming the first row that holds NaN or infinity (rows counted from first_row)."""
        finite = np.isfinite(rows)
        if finite.all():
            return
        row = int(np.argmin(finite.all(axis=1)))
        nan = int(np.isnan(rows[row]).sum())
        inf = int(np.isinf(rows[row]).sum())
        raise EdgeqError(
            f"{cls.name}: row {first_row + row} holds {nan} NaN and {inf} infinite values of {rows.shape[1]}"
        )

    @classmethod
    def overflow_error(cls) -> EdgeqError:
        """What encoders raise where ggml would write an infinite scale, and so lose the block."""
        return EdgeqError(f"{cls.name}: scale overflows float16; the values are too large for this type")

    @classmethod
    def to_half(cls, values: Floats) -> NDArray[np.float16]:
        """Round to float16; raises EdgeqError when one is not finite there."""
        halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise cls.overflow_error()
        return halves


class DecodeOnly(BlockType):
    """A type whose files edgeq reads and does not write; ``encode`` raises EdgeqError."""

    encodes = False

    @classmethod
    def encode_blocks(cls, values: Floats, weights: Floats | None = None) -> Bytes:
        cls.check_encodes()
        raise AssertionError(f"{cls.name} is DecodeOnly and says that it encodes")


def _chunks(n: int, values_each: int) -> Iterator[slice]:
    """Slices that cover range(n), each of about CHUNK_VALUES values."""
    step = max(1, CHUNK_VALUES // values_each)
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


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
