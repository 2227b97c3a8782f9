"""What encoders without a search do: Q4_0 and Q5_0 round by the peak, Q4_1 and Q5_1 by the range."""

from __future__ import annotations

import numpy as np

from edgeq.formats.blocks.base import Bytes, Floats
from edgeq.formats.blocks.search import first_max, first_min, signed_peak

_HALF = np.float32(0.5)


def round_by_peak(values: Floats, zero: int) -> tuple[Floats, Bytes]:
    """d = peak / −zero ``[n]`` and codes 0..2·zero − 1 ``[n, 32]``, where ``zero`` is the code of 0.

    Source: ``quantize_row_q4_0_ref``, ``quantize_row_q5_0_ref``.
    """
    d = signed_peak(values.T) / np.float32(-zero)
    inverse = np.where(d != 0, 1 / d, np.float32(0))
    return d, _truncate(values * inverse[:, None] + (np.float32(zero) + _HALF), 2 * zero - 1)


def round_by_range(values: Floats, nmax: int) -> tuple[Floats, Floats, Bytes]:
    """d = range / nmax ``[n]``, smallest value ``[n]`` and codes 0..nmax ``[n, 32]``.

    Source: ``quantize_row_q4_1_ref``, ``quantize_row_q5_1_ref``.
    """
    low = first_min(values.T)
    d = (first_max(values.T) - low) / np.float32(nmax)
    inverse = np.where(d != 0, 1 / d, np.float32(0))
    return d, low, _truncate((values - low[:, None]) * inverse[:, None] + _HALF, nmax)


def _truncate(x: Floats, highest: int) -> Bytes:
    """Towards zero. What a subnormal d made infinite or NaN becomes 0, as x86's conversion has it in ggml."""
    finite = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    return np.minimum(finite, np.float32(highest)).astype(np.uint8)


def round_half_away(x: Floats) -> Floats:
    """C's ``roundf``; np.rint would round ties to even. What is not finite becomes 0, as on x86 in ggml."""
    finite = np.nan_to_num(x, nan=0, posinf=0, neginf=0)
    magnitude = np.abs(finite)
    whole = np.floor(magnitude)
    up = (magnitude - whole >= _HALF).astype(np.float32)
    rounded: Floats = np.copysign(whole + up, finite)
    return rounded


def round_to_trits(values: Floats) -> tuple[Floats, Bytes]:
    """d = largest magnitude ``[n]`` and codes 0..2 (float32 ``[n, 256]`` in), ties away from zero."""
    d = np.abs(values).max(axis=1)
    inverse = np.where(d != 0, 1 / d, np.float32(0))
    return d, (round_half_away(values * inverse[:, None]) + 1).astype(np.uint8)
