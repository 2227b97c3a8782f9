"""Rounding in blocks: against round-to-nearest, at its edges, and packed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import Floats, normal

from edgeq.formats.onnx.blocked import SIZES, Scheme, pack_rows, quantize_rows

SCHEMES = [
    Scheme(bits, size, symmetric) for bits in (2, 4, 8) for size in SIZES for symmetric in (True, False)
]


def squared_error(values: Floats, scheme: Scheme) -> float:
    return float(np.square(quantize_rows(values, scheme).values(values.shape[1]) - values).sum())


def nearest(values: Floats, scheme: Scheme) -> float:
    """The squared error of rounding to the nearest by the peak, or by the range."""
    x = values.reshape(-1, scheme.size)
    top = 2 * scheme.middle - 1
    if scheme.symmetric:
        scale, zero = np.abs(x).max(axis=1, keepdims=True) / scheme.middle, np.float32(scheme.middle)
        peak = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
        scale = -scale * np.sign(peak)
    else:
        low = np.minimum(x.min(axis=1, keepdims=True), 0)
        scale = (np.maximum(x.max(axis=1, keepdims=True), 0) - low) / top
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(x / scale) + zero, 0, top)
    return float(np.square((codes - zero) * scale - x).sum())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_less_error_than_round_to_nearest(scheme: Scheme) -> None:
    values = normal(1, 64, 512)
    most = {2: 0.88, 4: 0.94, 8: 1.0}[scheme.bits]
    assert squared_error(values, scheme) <= most * nearest(values, scheme)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_the_blocks_hold_exactly(scheme: Scheme) -> None:
    """Codes times a power of two, both ends of the range among them."""
    random = np.random.default_rng(2)
    codes = random.integers(0, 2 * scheme.middle, (8, 4, scheme.size))
    codes[..., :2] = 0, 2 * scheme.middle - 1
    zero = scheme.middle if scheme.symmetric else random.integers(1, 2 * scheme.middle - 1, (8, 4, 1))
    values = ((codes - zero) * np.float32(0.125)).reshape(8, -1).astype(np.float32)
    blocked = quantize_rows(values, scheme)
    np.testing.assert_allclose(blocked.values(values.shape[1]), values, rtol=1e-6)
    assert blocked.scales.shape == (8, 4)
    assert (blocked.zeros is None) == scheme.symmetric


@pytest.mark.parametrize("scheme", [Scheme(4, 32), Scheme(4, 32, False)], ids=str)
def test_blocks_without_a_scale(scheme: Scheme) -> None:
    values = np.zeros((3, 64), np.float32)
    values[1] = 1e-35
    values[2, :32] = 3.5
    back = quantize_rows(values, scheme).values(64)
    np.testing.assert_allclose(back[2], values[2], rtol=1e-6)
    assert not back[:2].any()


def test_a_row_is_filled_up() -> None:
    values = normal(3, 5, 40)
    blocked = quantize_rows(values, Scheme(4, 32))
    assert blocked.codes.shape == (5, 64)
    assert (blocked.codes[:, 40:] == 8).all()
    assert blocked.values(40).shape == (5, 40)


def test_packing() -> None:
    codes = np.array([[1, 2, 15], [0, 7, 8]], np.uint8)
    assert pack_rows(codes, 4).tolist() == [[0x21, 0x0F], [0x70, 0x08]]
    assert pack_rows(codes, 8) is codes
    assert pack_rows(np.array([[1, 2, 3, 0, 3]], np.uint8), 2).tolist() == [[0b00111001, 0b11]]
