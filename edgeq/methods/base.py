"""What methods take and give, and their registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.lattice import Parts
from edgeq.methods.grids import Grid

if TYPE_CHECKING:
    from edgeq.kernels_cpu.gram.feedback import Factor

Floats = NDArray[np.float32]

_DAMPING = 0.1  # of the mean of the diagonal, added to it; see LOG.md for 0.03 and 0.2, in and out of domain


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
