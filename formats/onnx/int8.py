"""8-bit weights and activations of an ONNX graph: the arithmetic, apart from the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# x86 before VNNI adds two u8 x s8 products in a saturating int16: 2 * 255 * 64 is the largest sum that fits.
FULL_RANGE, SAFE_RANGE = 127, 64
TINY = np.finfo(np.float32).tiny


def channel_scales(matrix: NDArray[np.float32], axis: int, limit: int) -> NDArray[np.float32]:
    """One symmetric scale per slice along ``axis``, so that its largest weight is ``limit``; 1 where all are zero.

    A scale below the normal float32 numbers has too few bits left to divide by: those weights count as zero.
    """
    other = tuple(i for i in range(matrix.ndim) if i != axis)
    scales = np.abs(matrix).max(axis=other, initial=0.0) / np.float32(limit)
    return np.where(scales >= TINY, scales, 1).astype(np.float32)


def quantize_channels(
    matrix: NDArray[np.float32], scales: NDArray[np.float32], axis: int, limit: int
) -> NDArray[np.int8]:
    """Round to int8 in ``[-limit, limit]`` with one scale per slice along ``axis``."""
    shape = [1] * matrix.ndim
    shape[axis] = -1
    return np.clip(np.rint(matrix / scales.reshape(shape)), -limit, limit).astype(np.int8)


@dataclass(frozen=True)
class ActivationRange:
    """The real interval that a uint8 activation covers."""

    low: float
    high: float

    def scale_and_zero_point(self) -> tuple[np.float32, np.uint8]:
        """Scale and zero point; the interval is widened so that 0 is exactly representable."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = np.float32((high - low) / 255)
        if scale < TINY:  # nothing but zeros, or next to it
            scale = np.float32(1)
        return scale, np.uint8(np.clip(round(-low / float(scale)), 0, 255))


def relative_error(
    matrix: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.float32], axis: int
) -> float:
    """sqrt(sum((w - q)²) / sum(w²)) of quantized codes, 0 for a matrix of zeros."""
    shape = [1] * matrix.ndim
    shape[axis] = -1
    difference = (codes * scales.reshape(shape) - matrix).reshape(-1)
    size = float(np.dot(matrix.reshape(-1), matrix.reshape(-1)))
    return float(np.sqrt(np.dot(difference, difference) / size)) if size else 0.0
