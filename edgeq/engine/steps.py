"""What a program is made of before it has addresses: values, the buffers they lie in, and steps."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.kernels_cpu.products.tiles import ROWS


class NotRecordableError(EdgeqError):
    """The forward pass has what no step does: ``edgeq.engine.model`` computes it."""


_ROOM = 64  # floats: rows begin at cache lines, and whole vectors and panels fit behind any width


@dataclass(eq=False)
class Buffer:
    """Memory that one step writes: rows of ``row_bytes``. None are what stands for something elsewhere."""

    rows: int
    row_bytes: int
    address: int = 0  # when the program is laid out

    @property
    def nbytes(self) -> int:
        """With the rows that fill up a tile, and room behind the last one."""
        rows = self.rows if self.rows < 2 else -(-self.rows // ROWS) * ROWS
        return rows * self.row_bytes + 4 * _ROOM if rows else 0


class Place(enum.Enum):
    """An address of the program itself."""

    STATE = enum.auto()


Word = Union[int, float, "Value", Buffer, Place, NDArray[Any]]  # an array's address; it is kept alive


@dataclass(frozen=True, eq=False)
class Value:
    """float32 ``[rows, width]`` in a buffer, from a byte of each row on; ``heads`` says how the width is divided."""

    buffer: Buffer
    width: int
    offset: int = 0
    heads: int = 1
    limit: Word = 0  # of the rows

    @property
    def rows(self) -> int:
        return self.buffer.rows

    @property
    def row_bytes(self) -> int:
        return self.buffer.row_bytes


@dataclass(eq=False)
class Step:
    """A kernel of ``edgeq.kernels_cpu.steps``, its words, and what it does.

    Its items are rows of activations, each of which reads the same row of what it reads (``rows``, their number, of
    which those are real that the word at ``limit`` counts, if any), or others that may be done in any order
    (``items``); ``work`` is that of one item, in values.
    """

    kernel: Any
    kind: object
    words: list[Word]
    reads: Sequence[Buffer]
    writes: Sequence[Buffer]
    rows: int = 0
    limit: Word = 0
    items: int = 0
    chunks: int = 0  # at least so many, if there is the work
    work: int = 0
    scratch: int = 0  # bytes, of each thread
    base: int = 0  # of a product: the word with the address of what it is added to; before it stand out and its stride

    def begin_with(self, value: Value, out: Value) -> None:
        """Let a product be added to a value, and put the sum elsewhere."""
        at = self.base
        self.words[at - 2 : at + 2] = [out, out.row_bytes, value, value.row_bytes]
        self.reads, self.writes = [*self.reads, value.buffer], [out.buffer]


def floats(rows: int, width: int, heads: int = 1, limit: Word = 0) -> Value:
    """A new value."""
    return Value(Buffer(rows, 4 * padded(width)), width, 0, heads, limit)


def like(x: Value, width: int) -> Value:
    """A new value with the rows of another."""
    return floats(x.rows, width, x.heads if width == x.width else 1, x.limit)


def padded(width: int) -> int:
    """How many floats have room in a row."""
    return -(-width // _ROOM) * _ROOM


def constant(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector with the room behind it that kernels may read."""
    room = np.zeros(padded(len(values)), np.float32)
    room[: len(values)] = values
    return room
