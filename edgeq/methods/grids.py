"""The grids that methods choose from: GGUF's block types, and ONNX's blocks."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.devices.detect import instruction_set
from edgeq.errors import EdgeqError
from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.lattice import Lattice, Parts, module
from edgeq.formats.blocks.lattice.base import whole
from edgeq.formats.checkpoint.quantized import Grid as Integers
from edgeq.formats.effort import Effort
from edgeq.formats.onnx.blocked import Scheme

Floats = NDArray[np.float32]


class Grid(Protocol):
    """The numbers that a matrix may consist of."""

    lattice: Lattice

    def start(self, weights: Floats, importance: Floats | None) -> Parts:
        """What the grid's own encoder makes of the weights; ``importance`` is float32 ``[columns]``."""


class BlockGrid:
    """A GGUF block type; raises EdgeqError for one whose numbers cannot be chosen one by one."""

    def __init__(self, type_name: str) -> None:
        found = module(type_name)
        if found is None:
            raise EdgeqError(f"{type_name}: its codes cannot be chosen one by one")
        self.block_type, self._module = by_name(type_name), found
        self.lattice: Lattice = found.LATTICE

    @staticmethod
    def fits(type_name: str) -> bool:
        """Whether there is such a grid."""
        return module(type_name) is not None

    def start(self, weights: Floats, importance: Floats | None) -> Parts:
        """The blocks of ``--effort normal``, raises EdgeqError as the encoder does.

        Those of ``best`` cost more and are no better a start: descent ends within 0.3 % of the same error.
        """
        from edgeq.kernels_cpu.encode import encode

        name = self.block_type.name
        return self.unpack(encode(name, weights, importance, instruction_set(), Effort.normal))

    def unpack(self, encoded: NDArray[np.uint8]) -> Parts:
        """The numbers of uint8 ``[rows, row_bytes]``."""
        parts: Parts = self._module.unpack(encoded.reshape(-1, self.block_type.block_bytes))
        return parts.in_rows(len(encoded))

    def pack(self, parts: Parts) -> NDArray[np.uint8]:
        """The inverse."""
        blocks: NDArray[np.uint8] = self._module.pack(parts.in_blocks(self.block_type.block_values))
        return blocks.reshape(len(parts.codes), -1)


class IntegerGrid:
    """ONNX's blocks: scale · (code − zero), scales float32, zeros whole numbers (``edgeq.formats.onnx.blocked``)."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        middle = scheme.middle
        if scheme.symmetric:
            self.lattice = Lattice(whole(-middle, middle - 1), scheme.size, half=False)
        else:
            top = 2 * middle - 1
            self.lattice = Lattice(whole(0, top), scheme.size, mins=(0, top), tied=True, half=False)

    def fits(self, columns: int) -> bool:
        """Whether rows are whole blocks."""
        return columns % self.scheme.size == 0

    def start(self, weights: Floats, importance: Floats | None) -> Parts:
        """The blocks of least squared error; there is no search for weighted ones."""
        from edgeq.kernels_cpu.blocked_weights import quantize_rows

        rounded = quantize_rows(weights, self.scheme, instruction_set())
        ones = np.ones_like(rounded.scales)
        if rounded.zeros is None:
            return Parts(rounded.scales, np.zeros_like(ones), ones, np.zeros_like(ones), rounded.codes)
        zeros = rounded.zeros.astype(np.float32)
        return Parts(rounded.scales, rounded.scales.copy(), ones, zeros, rounded.codes)

    def integers(self, parts: Parts) -> Integers:
        """Parts in rows as the integers that a graph holds."""
        zeros = np.full(parts.mins.shape, self.scheme.middle) if self.scheme.symmetric else parts.mins
        groups = np.arange(parts.codes.shape[1]) // self.scheme.size
        return Integers(parts.codes.astype(np.int16), parts.d, zeros.astype(np.int16), groups)
