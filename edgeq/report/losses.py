"""How losses (``evaluation.loss``) are shown: of what a record was measured by, the words and the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shown:
    """One measure: its name, its unit on an axis, and where a summary has it."""

    name: str
    axis: str
    mean: str
    error: str
    best: float  # the mean without any loss

    def loss(self, summary: Mapping[str, Any]) -> float:
        """How far the mean is from the best."""
        return abs(float(summary[self.mean]) - self.best)

    def has(self, summary: Mapping[str, Any]) -> bool:
        """Whether a summary says it."""
        return self.mean in summary


SHOWN = {
    "kl": Shown("KL", "KL to float, nats", "kl_mean", "kl_standard_error", 0.0),
    "cosine": Shown("1 - cosine", "1 - cosine to float", "cosine_mean", "cosine_standard_error", 1.0),
}


def shown_of(summary: Mapping[str, Any]) -> Shown:
    """The measure of a summary; raises KeyError for one that has none."""
    return SHOWN["kl" if SHOWN["kl"].has(summary) else "cosine"]
