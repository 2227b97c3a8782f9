"""What methods take and give, and their registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.devices.detect import instruction_set
from edgeq.errors import EdgeqError
from edgeq.formats.blocks import by_name
from edgeq.formats.blocks.lattice import Lattice, Parts, module
from edgeq.formats.effort import Effort

if TYPE_CHECKING:
    from edgeq.kernels_cpu.gram.feedback import Factor

Floats = NDArray[np.float32]

_DAMPING = 0.03  # of the mean of the diagonal, added to it; 0.01 gave 3 % more KL in Q2_K


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
        """The blocks of ``--effort best``; raises EdgeqError as the encoder does."""
        from edgeq.kernels_cpu.encode import encode

        name = self.block_type.name
        return self.unpack(encode(name, weights, importance, instruction_set(), Effort.best))

    def unpack(self, encoded: NDArray[np.uint8]) -> Parts:
        """The numbers of uint8 ``[rows, row_bytes]``."""
        parts: Parts = self._module.unpack(encoded.reshape(-1, self.block_type.block_bytes))
        return parts.in_rows(len(encoded))

    def pack(self, parts: Parts) -> NDArray[np.uint8]:
        """The inverse."""
        blocks: NDArray[np.uint8] = self._module.pack(parts.in_blocks(self.block_type.block_values))
        return blocks.reshape(len(parts.codes), -1)


@dataclass
class Statistics:
    """What a layer reads: Σ x·xᵀ over tokens, float32 ``[columns, columns]``; shared by layers that read the same."""

    gram: Floats
    tokens: int
    _importance: Floats | None = field(default=None, init=False, repr=False)
    _factor: Factor | None = field(default=None, init=False, repr=False)
    _added: int = field(default=0, init=False, repr=False)

    def importance(self) -> Floats:
        """The mean square of each column, float32 ``[columns]``: an importance matrix's row."""
        if self._importance is None:
            self._importance = np.asarray(np.diag(self.gram) / np.float32(max(1, self.tokens)))
        return self._importance

    def damped(self) -> Floats:
        """The Gram matrix, to whose diagonal a part of its mean was added, so that it has an inverse.

        That happens in place, for it may be large: nothing is to be collected from then on. A layer that read only
        zeros gets the unit matrix.
        """
        if not self._added:
            self.importance()  # of what was read
            self._add(_DAMPING)
        return self.gram

    def factor(self) -> Factor:
        """The factor for ``round_by_feedback``; damps again where rounding errors leave the matrix without one."""
        from edgeq.kernels_cpu.gram import feedback_factor

        while self._factor is None:
            try:
                self._factor = feedback_factor(self.damped())
            except np.linalg.LinAlgError:
                self._add(_DAMPING)
        return self._factor

    def _add(self, part: float) -> None:
        mean = float(np.diag(self.gram).mean(dtype=np.float64))
        self.gram[np.diag_indices_from(self.gram)] += np.float32(part * mean if mean > 0 else 1)
        self._added += 1


Method = Callable[[Floats, Statistics, Grid], Parts]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    """Register a function as a method."""

    def register(function: Method) -> Method:
        METHODS[name] = function
        return function

    return register
