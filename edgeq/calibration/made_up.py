"""Samples made from what a graph says of its inputs, where no data was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgeq.calibration import imitations
from edgeq.calibration.inputs import Arrays, Input
from edgeq.calibration.sources import Samples

Accepts = Callable[[Arrays], bool]
_SAMPLES, _SEED = 8, 0
_PICTURE = 224
_LENGTHS = (64, 256, 512, 1024, 16000)  # of a sequence; a front end for sound refuses a short one
_SOUND_LENGTHS = (512, 1600, 16000, 256, 64)
_LARGEST_IDS = (1 << 31, 100, 2)  # below the rows of the table that is seen; of small tables that are not
_UNKNOWN_ROWS = 100


def made_up_samples(inputs: Sequence[Input], accepts: Accepts) -> Samples:
    """Sounds, pictures, Gaussian numbers, ids, masks of ones and numbers that the graph asks for, always the same ones.

    Dimensions without a size get one of a few, in turn, until ``accepts`` takes the sample; the first where none is.
    """
    sound = any(entry.role == "sound" for entry in inputs)
    tried = [
        _Sizes(length, only_last, ids)
        for ids in (_LARGEST_IDS if any(entry.dtype.kind in "iu" for entry in inputs) else _LARGEST_IDS[:1])
        for length in (_SOUND_LENGTHS if sound else _LENGTHS)
        for only_last in (False, True)
    ]
    sizes = next((one for one in tried if accepts(one.sample(inputs, 0))), tried[0])
    usable = [_with_choices(inputs, entry, sizes, accepts) for entry in inputs]

    def iterate() -> Iterator[Arrays]:
        return (sizes.sample(usable, number) for number in range(_SAMPLES))

    return Samples("random numbers", _SAMPLES, iterate, made_up=True)


def _with_choices(inputs: Sequence[Input], entry: Input, sizes: _Sizes, accepts: Accepts) -> Input:
    """The input with those choices that the graph runs with, and where it does another one: the other branch."""
    if not entry.choices:
        return entry
    near = min(entry.choices) // 2, 0, 1
    other = next((n for n in near if n not in entry.choices), max(entry.choices) + 1)

    def runs(choice: int) -> bool:
        fixed = [replace(one, choices=(choice,)) if one is entry else one for one in inputs]
        return accepts(sizes.sample(fixed, 0))

    return replace(entry, choices=tuple(n for n in (*entry.choices, other) if runs(n)) or entry.choices)


@dataclass(frozen=True)
class _Sizes:
    """Sizes for the dimensions that have none: ``length``, or that for the last axis only and 1 for the others.

    The first axis is a batch of 1, two of four are a picture's. Dimensions of one name have one size.
    """

    length: int
    only_last: bool
    ids: int
    named: dict[str, int] = field(default_factory=dict)

    def sample(self, inputs: Sequence[Input], number: int) -> Arrays:
        """The array of that number for each input."""
        rng = np.random.default_rng((_SEED, number))
        return {entry.name: self._array(rng, entry, number) for entry in inputs}

    def _array(self, rng: np.random.Generator, entry: Input, number: int) -> NDArray[np.generic]:
        shape = tuple(self._size(entry, axis) for axis in range(len(entry.shape or ())))
        if "mask" in entry.name:
            return np.ones(shape, entry.dtype)
        if entry.dtype.kind == "f" or (entry.dtype == np.uint8 and len(shape) == 4):
            role = "pixels" if entry.dtype == np.uint8 else entry.role
            return imitations.IMITATIONS[role](rng, shape, number).astype(entry.dtype)
        if entry.dtype.kind == "b" or "type" in entry.name:
            return np.zeros(shape, entry.dtype)
        if entry.choices:
            return np.full(shape, entry.choices[number % len(entry.choices)], entry.dtype)
        if "len" in entry.name.lower():
            return np.full(shape, self.length, entry.dtype)
        return rng.integers(0, min(self.ids, entry.rows or _UNKNOWN_ROWS), shape).astype(entry.dtype)

    def _size(self, entry: Input, axis: int) -> int:
        size = (entry.shape or ())[axis]
        if isinstance(size, int):
            return size
        if size is None:
            return self._chosen(entry, axis, "")
        return self.named.setdefault(size, self._chosen(entry, axis, size))

    def _chosen(self, entry: Input, axis: int, name: str) -> int:
        shape = entry.shape or ()
        if axis == 0 or "batch" in name:
            return 1
        if "past" in name or "past" in entry.name:
            return 0 if axis == 2 else 1
        if len(shape) == 4 and axis in ((1, 2) if shape[3] in (1, 3, 4) else (2, 3)):
            return _PICTURE
        return 1 if self.only_last and axis < len(shape) - 1 else self.length
