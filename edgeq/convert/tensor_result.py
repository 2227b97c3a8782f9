"""What became of a tensor, whatever file it went into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.wording import counted


@dataclass(frozen=True)
class TensorResult:
    """What became of a tensor: its type, its bytes, and the rounding error relative to its own size.

    ``error`` is sqrt(sum((w - q)²) / sum(w²)), 0 where the type holds the values exactly or nobody asked. ``origin``
    says how others had quantized the tensor, "" if they had not, and ``handling`` what was made of that: "decoded",
    "repacked without loss", "re-rounded", or how much of it was either.
    """

    name: str
    type_name: str
    shape: tuple[int, ...]
    nbytes: int
    error: float
    origin: str = ""
    handling: str = ""


def handling_summary(results: Sequence[TensorResult]) -> list[str]:
    """One line for each thing that was done to tensors which others had quantized: how many they are."""
    counts = Counter(
        (result.origin, result.handling.partition(",")[0]) for result in results if result.origin
    )
    return [
        f"quantized before ({origin}): {counted(count, 'tensor')} {what}"
        for (origin, what), count in counts.items()
    ]
