"""Samples made from the shapes of a graph's inputs, where no data was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration.inputs import Arrays, Input
from edgeq.calibration.sources import Samples

_SAMPLES, _SEED = 8, 0
_PICTURE = 224
_LENGTHS = (64, 256, 512, 1024, 16000)  # of a sequence; a front end for sound refuses a short one
_LARGEST_IDS = (100, 2)  # of small tables


def made_up_samples(inputs: Sequence[Input], accepts: Callable[[Arrays], bool]) -> Samples:
    """Gaussian numbers, small ids, masks of ones and numbers that the graph asks for, the same ones every time.

    Dimensions without a size get one of a few, in turn, until ``accepts`` takes the sample; the first where none is.
    """
    largest = _LARGEST_IDS if any(entry.dtype.kind in "iu" for entry in inputs) else _LARGEST_IDS[:1]
    tried = [
        _Sizes(length, only_last, ids)
        for ids in largest
        for length in _LENGTHS
        for only_last in (False, True)
    ]
    sizes = next(
        (one for one in tried if accepts(one.sample(inputs, np.random.default_rng(_SEED)))), tried[0]
    )

    def iterate() -> Iterator[Arrays]:
        rng = np.random.default_rng(_SEED)
        for _ in range(_SAMPLES):
            yield sizes.sample(inputs, rng)

    return Samples("random numbers", _SAMPLES, iterate, made_up=True)


@dataclass(frozen=True)
class _Sizes:
    """Sizes for the dimensions that have none: ``length``, or that for the last axis only and 1 for the others.

    The first axis is a batch of 1, the last two of four are a picture's. Dimensions of one name have one size.
    """

    length: int
    only_last: bool
    ids: int
    named: dict[str, int] = field(default_factory=dict)

    def sample(self, inputs: Sequence[Input], rng: np.random.Generator) -> Arrays:
        """One array for each input."""
        return {entry.name: self._array(rng, entry) for entry in inputs}

    def _array(self, rng: np.random.Generator, entry: Input) -> NDArray[np.generic]:
        shape = [self._size(entry, axis) for axis in range(len(entry.shape or ()))]
        if entry.dtype.kind == "f":
            return rng.standard_normal(shape).astype(entry.dtype)
        if "mask" in entry.name:
            return np.ones(shape, entry.dtype)
        if entry.dtype.kind == "b" or "type" in entry.name:
            return np.zeros(shape, entry.dtype)
        if entry.choices:
            return rng.choice(entry.choices, shape).astype(entry.dtype)
        return rng.integers(0, self.ids, shape).astype(entry.dtype)

    def _size(self, entry: Input, axis: int) -> int:
        size = (entry.shape or ())[axis]
        if isinstance(size, int):
            return size
        if size is None:
            return self._chosen(entry, axis, "")
        return self.named.setdefault(size, self._chosen(entry, axis, size))

    def _chosen(self, entry: Input, axis: int, name: str) -> int:
        rank = len(entry.shape or ())
        if axis == 0 or "batch" in name:
            return 1
        if "past" in name or "past" in entry.name:
            return 0 if axis == 2 else 1
        if rank == 4 and axis >= 2:
            return _PICTURE
        return 1 if self.only_last and axis < rank - 1 else self.length
