"""Weights of 2, 4 or 8 bits in blocks, as ONNX's DequantizeLinear and ONNX Runtime's MatMulNBits hold them.

value = scale · (code − zero). A block is ``size`` neighbours of one row, along the axis that a product sums over; it
has a float32 scale, which may be negative, and a zero, which is 2^(bits − 1) in symmetric weights. A row whose width
is no multiple of ``size`` is filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks.search import first_max, first_min, ordered_sum, signed_peak
from edgeq.formats.rounding_error import RoundingError

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SIZES = (16, 32, 64, 128, 256)  # those that ONNX Runtime has kernels for
_ZERO_BLOCK = np.float32(1e-30)  # a peak below this leaves no normal scale


@dataclass(frozen=True)
class Scheme:
    """How weights are cut up and rounded: ``bits`` is 2, 4 or 8, ``size`` one of ``SIZES``."""

    bits: int
    size: int
    symmetric: bool = True

    @property
    def middle(self) -> int:
        """The zero of symmetric weights."""
        return 1 << (self.bits - 1)

    def blocks_of(self, columns: int) -> int:
        return -(-columns // self.size)


@dataclass(frozen=True)
class BlockedRows:
    """Some rows of a weight.

    Attributes:
        codes: uint8 ``[rows, blocks · size]``, one a byte, from 0; ``packed``, they lie as ``pack_rows`` lays them.
        scales: float32 ``[rows, blocks]``.
        zeros: uint8 ``[rows, blocks]``, None where all are ``scheme.middle``.
        error: what rounding cost, where who rounded took that along.
    """

    scheme: Scheme
    codes: Bytes
    scales: Floats
    zeros: Bytes | None
    error: RoundingError | None = None
    packed: bool = False

    def rounding_error(self, values: Floats) -> RoundingError:
        """What rounding cost, ``values`` being what was rounded."""
        return self.error or RoundingError.of(values, self.values(values.shape[1]))

    def values(self, columns: int) -> Floats:
        """What the rows stand for, float32 ``[rows, columns]``."""
        zeros = self.scheme.middle if self.zeros is None else self.zeros[..., None].astype(np.int16)
        blocks = self.codes.reshape(*self.scales.shape, self.scheme.size).astype(np.int16) - zeros
        values = blocks.astype(np.float32) * self.scales[..., None]
        return values.reshape(len(self.codes), -1)[:, :columns]

    def packed_codes(self) -> Bytes:
        """The codes as ``pack_rows`` lays them, uint8 ``[rows, blocks · size · bits / 8]``."""
        return self.codes if self.packed else pack_rows(self.codes, self.scheme.bits)


class Quantize(Protocol):
    """What rounds rows, float32 ``[rows, columns]``, to codes one a byte or packed."""

    def __call__(self, values: Floats, scheme: Scheme, *, packed: bool = False) -> BlockedRows: ...


def trials(scheme: Scheme) -> Floats:
    """How many steps the largest magnitude (symmetric) or the range may have: the scales that are tried.

    Of Gaussian blocks of 32 in 4 bits, these take 11 % of round-to-nearest's squared error away (symmetric), or 10 %;
    twice as many take no 1 % more. In 8 bits there is little to win.
    """
    spread = np.arange(-1.5, 2.25, 0.25) if scheme.symmetric else np.arange(-2, 3.25, 0.25)
    if scheme.bits == 8:
        spread = np.array([0, -2, 2])
    steps = scheme.middle if scheme.symmetric else 2 * scheme.middle - 1
    return (steps + spread).astype(np.float32)


def quantize_rows(values: Floats, scheme: Scheme, *, packed: bool = False) -> BlockedRows:
    """Round float32 ``[rows, columns]``: of some scales each block gets the one of least squared error.

    After each scale's rounding follows the least-squares scale of the codes it gave. Fast twin:
    ``edgeq.kernels_cpu.blocked_weights``.
    """
    x = split_blocks(values, scheme.size).T  # [size, blocks]
    search = _symmetric if scheme.symmetric else _asymmetric
    codes, scales, zeros = search(x, scheme)
    shape = len(values), scheme.blocks_of(values.shape[1])
    found = BlockedRows(
        scheme,
        codes.T.reshape(shape[0], -1),
        scales.reshape(shape),
        None if zeros is None else zeros.reshape(shape),
    )
    return pack(found, values) if packed else found


def split_blocks(values: Floats, size: int) -> Floats:
    """``[rows, columns]`` as blocks ``[n, size]``, the last of each row filled up with zeros."""
    missing = -values.shape[1] % size
    if missing:
        values = np.pad(values, ((0, 0), (0, missing)))
    return np.ascontiguousarray(values, np.float32).reshape(-1, size)


def _symmetric(x: Floats, scheme: Scheme) -> tuple[Bytes, Floats, None]:
    middle = np.float32(scheme.middle)
    peak = signed_peak(x)
    flat = np.abs(peak) < _ZERO_BLOCK
    divisor = np.where(flat, np.float32(1), peak)
    best = np.full(peak.shape, np.float32(-1))
    codes, scales = np.zeros_like(x), np.zeros_like(peak)
    for steps in trials(scheme):
        trial = np.clip(np.rint(x * (-steps / divisor)), -middle, middle - 1)
        codes, scales, best, _ = _keep_better(x, trial, codes, scales, best)
    codes[:, flat], scales[flat] = 0, 0
    return (codes + middle).astype(np.uint8), scales, None


def _asymmetric(x: Floats, scheme: Scheme) -> tuple[Bytes, Floats, Bytes]:
    top, none = np.float32(2 * scheme.middle - 1), np.float32(0)
    low = np.minimum(first_min(x), none)
    width = np.maximum(first_max(x), none) - low
    flat = width < _ZERO_BLOCK
    divisor = np.where(flat, np.float32(1), width)
    best = np.full(width.shape, np.float32(-1))
    codes, scales, zeros = np.zeros_like(x), np.zeros_like(width), np.zeros_like(width)
    for steps in trials(scheme):
        inverse = steps / divisor
        zero = np.clip(np.rint(-low * inverse), none, top)
        trial = np.clip(np.rint(x * inverse) + zero, none, top) - zero
        codes, scales, best, better = _keep_better(x, trial, codes, scales, best)
        zeros = np.where(better, zero, zeros)
    codes[:, flat], scales[flat], zeros[flat] = 0, 0, scheme.middle
    return (codes + zeros).astype(np.uint8), scales, zeros.astype(np.uint8)


def _keep_better(
    x: Floats, trial: Floats, codes: Floats, scales: Floats, best: Floats
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """The trial where it leaves less: with the least-squares scale that is where (Σxc)² / Σc² is larger."""
    both, own = ordered_sum(x * trial), ordered_sum(trial * trial)
    own = np.where(own > 0, own, np.float32(1))
    scale = both / own
    gain = both * scale
    better = gain > best
    return (
        np.where(better, trial, codes),
        np.where(better, scale, scales),
        np.where(better, gain, best),
        better,
    )


def pack(blocked: BlockedRows, values: Floats) -> BlockedRows:
    """The same with packed codes, and with the error that can no longer be had of them."""
    return replace(blocked, codes=blocked.packed_codes(), packed=True, error=blocked.rounding_error(values))


def pack_rows(codes: Bytes, bits: int) -> Bytes:
    """Codes ``[rows, n]`` to bytes ``[rows, ceil(n · bits / 8)]``, the first code lowest, 0 behind the last."""
    if bits == 8:
        return codes
    each = 8 // bits
    missing = -codes.shape[1] % each
    if missing:
        codes = np.pad(codes, ((0, 0), (0, missing)))
    # The codes of a byte as one number: shifted down and laid over one another, all bits are in its lowest byte.
    together = np.ascontiguousarray(codes).view(f"<u{each}")
    packed = together.copy()
    for code in range(1, each):
        packed |= together >> together.dtype.type(code * (8 - bits))
    return packed.astype(np.uint8)
