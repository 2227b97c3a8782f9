"""8-bit weights and activations of an ONNX graph: the arithmetic, apart from the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.rounding_error import RoundingError

# x86 before VNNI adds two u8 x s8 products in a saturating int16, of neighbours along the summed axis: what they may
# weigh together is 2 * 64, since 255 * 128 fits into 15 bits. FULL_RANGE asks for nothing: CPUs with VNNI, ARM.
FULL_RANGE, SAFE_RANGE = 127, 64
TINY = np.finfo(np.float32).tiny
Granularity = Literal["channel", "tensor"]  # what shares a scale: the weights of one output channel, or all


@dataclass(frozen=True)
class Granularities:
    """The granularity of each layer's weights: ``named`` by the layer's name, or ``default``."""

    default: Granularity = "channel"
    named: Mapping[str, Granularity] = field(default_factory=dict)

    def of(self, layer: str) -> Granularity:
        return self.named.get(layer, self.default)


PER_CHANNEL = Granularities()


@dataclass(frozen=True)
class Types:
    """The types of the codes; a weight is symmetric in both, so its zero point is 0 or 128."""

    activation: type[np.uint8] | type[np.int8]
    weight: type[np.int8] | type[np.uint8]

    @property
    def wide(self) -> type[np.uint16] | type[np.int16]:
        """The type of an activation that gets 16 bits."""
        return np.uint16 if self.activation is np.uint8 else np.int16


Floats = NDArray[np.float32]
Codes = type[np.uint8] | type[np.int8] | type[np.uint16] | type[np.int16]
U8S8, S8S8, U8U8 = Types(np.uint8, np.int8), Types(np.int8, np.int8), Types(np.uint8, np.uint8)

_LARGEST = 127  # an int8 weight is symmetric: -128 is not used
_PIECE = 1 << 21  # values of a matrix looked at together
_STEPS = 5  # scales tried per channel, from the one that no pair limits to the finest


def weight_scales(
    matrix: Floats, axis: int, limit: int, granularity: Granularity = "channel"
) -> NDArray[np.float32]:
    """Symmetric scales of a rank-2 matrix: ``[channels]``, one per slice along ``axis``, or one of all, ``[]``.

    With ``limit`` 127 the largest weight becomes 127. With a smaller one, of some scales between those that make it
    ``limit`` and 127, the one that leaves the least squared error: a finer scale rounds less, a coarser one clips
    fewer pairs. A scale below the normal float32 numbers has too few bits left: those weights count as zero, and a
    scale of nothing but zeros is 1.
    """
    largest = _by_channel(matrix, axis, lambda part, _: np.abs(part).max(axis=1 - axis, initial=0.0))
    if granularity == "tensor":
        largest = np.full_like(largest, largest.max(initial=0))
    unit = np.where(largest >= TINY, largest, 1)  # so that no square overflows
    tried, errors = [], []
    for code in np.unique(np.linspace(limit, _LARGEST, _STEPS).round()):
        scales = largest / np.float32(code)
        tried.append(np.where(scales >= TINY, scales, 1).astype(np.float32))
    if len(tried) > 1:
        errors = [_errors(matrix, axis, scales, unit, limit) for scales in tried]
    if granularity == "channel":
        return np.choose(np.argmin(errors, axis=0), tried) if errors else tried[0]
    best = int(np.argmin([error.sum() for error in errors])) if errors else 0
    return np.asarray(tried[best].max(initial=0) or 1, np.float32)


def _errors(matrix: Floats, axis: int, scales: Floats, unit: Floats, limit: int) -> Floats:
    """The squared error of each channel in units of its own."""

    def error(part: Floats, channels: slice) -> Floats:
        codes = quantize_channels(part, scales[channels], axis, limit)
        own = np.expand_dims(unit[channels], 1 - axis)
        difference = codes * (np.expand_dims(scales[channels], 1 - axis) / own) - part / own
        return np.square(difference).sum(axis=1 - axis)

    return _by_channel(matrix, axis, error)


def _by_channel(matrix: Floats, axis: int, number: Callable[[Floats, slice], Floats]) -> Floats:
    """A number for each channel, of some channels at a time."""
    parts = [number(_at(matrix, axis, part), part) for part in _parts(matrix, axis)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def quantize_channels(matrix: Floats, scales: Floats, axis: int, limit: int) -> NDArray[np.int8]:
    """Round a rank-2 matrix to int8 with ``weight_scales``.

    Neighbours 2i and 2i + 1 along the other axis that have one sign weigh at most ``2 * limit`` together: what is
    above it is taken from both alike.
    """
    scales = np.broadcast_to(scales, matrix.shape[axis])
    if matrix.size > _PIECE:
        pieces = [
            quantize_channels(_at(matrix, axis, part), scales[part], axis, limit)
            for part in _parts(matrix, axis)
        ]
        return np.concatenate(pieces, axis)
    codes = np.clip(np.rint(matrix / np.expand_dims(scales, 1 - axis)), -_LARGEST, _LARGEST).astype(np.int16)
    if limit < _LARGEST:
        _limit_pairs(codes if axis == 1 else codes.T, limit)
    return codes.astype(np.int8)


def _parts(matrix: NDArray[np.float32], axis: int) -> Iterator[slice]:
    """Channels, some at a time, so that no copy of a large matrix is made as a whole."""
    channels = matrix.shape[axis]
    step = max(1, _PIECE // max(1, matrix.size // max(1, channels)))
    return (slice(start, start + step) for start in range(0, channels, step))


def _at(array: NDArray[Any], axis: int, part: slice) -> NDArray[Any]:
    return array[(slice(None),) * axis + (part,)]


def _limit_pairs(codes: NDArray[np.int16], limit: int) -> None:
    """Bring the pairs of rows (2i, 2i + 1) of ``[K, N]`` codes into ``2 * limit``, in place."""
    even = len(codes) - len(codes) % 2
    first, second = codes[0:even:2], codes[1:even:2]
    together = first + second
    # Opposite signs never reach the limit: 127 is less than 2 * 64.
    excess = np.maximum(np.abs(together) - 2 * limit, 0) * np.sign(together)
    half = _larger_half(excess)
    first -= half
    second -= excess - half


def _larger_half(values: NDArray[np.int16]) -> NDArray[np.int16]:
    half: NDArray[np.int16] = np.sign(values) * ((np.abs(values) + 1) // 2)
    return half


@dataclass(frozen=True)
class ActivationRange:
    """The real interval that the codes of an activation cover."""

    low: float
    high: float

    def scale_and_zero_point(self, dtype: Codes = np.uint8) -> tuple[np.float32, np.integer[Any]]:
        """Scale and zero point; the interval is widened so that 0 is exactly representable."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        steps = int(np.iinfo(dtype).max) - int(np.iinfo(dtype).min)
        scale = np.float32((high - low) / steps)
        if scale < TINY:  # nothing but zeros, or next to it
            scale = np.float32(1)
        zero = int(np.clip(round(-low / float(scale)), 0, steps))
        return scale, dtype(zero + int(np.iinfo(dtype).min))


def relative_error(matrix: Floats, codes: NDArray[np.int8], scales: Floats, axis: int) -> float:
    """sqrt(sum((w - q)²) / sum(w²)) of quantized codes, 0 for a matrix of zeros."""
    scales = np.broadcast_to(scales, matrix.shape[axis])
    found = RoundingError()
    for part in _parts(matrix, axis):
        shape = [-1 if number == axis else 1 for number in range(matrix.ndim)]
        rounded = _at(codes, axis, part) * scales[part].reshape(shape)
        found += RoundingError.of(_at(matrix, axis, part), rounded)
    return found.relative
