"""What rounding cost a weight: one measure for all formats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RoundingError:
    """Σ (w − q)² and Σ w² over some values; those of pieces of a weight add up to the weight's."""

    error: float = 0.0
    size: float = 0.0

    @classmethod
    def of(cls, values: Floats, rounded: Floats) -> RoundingError:
        """Of float32 arrays of one shape."""
        difference, flat = (rounded - values).reshape(-1), values.reshape(-1)
        return cls(float(np.dot(difference, difference)), float(np.dot(flat, flat)))

    def __add__(self, other: RoundingError) -> RoundingError:
        return RoundingError(self.error + other.error, self.size + other.size)

    @property
    def relative(self) -> float:
        """sqrt(Σ (w − q)² / Σ w²), 0 of zeros and of nothing."""
        return math.sqrt(self.error / self.size) if self.size else 0.0
