"""Rounding in blocks for ONNX: the kernel against its plain twin, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.formats.onnx import blocked as plain
from edgeq.formats.onnx.blocked import Scheme
from edgeq.kernels_cpu import blocked_weights as fast

SCHEMES = [
    Scheme(bits, size, symmetric) for bits in (4, 8) for size in (16, 32, 256) for symmetric in (True, False)
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(1, 16), (7, 300), (33, 512)])
def test_equals_the_plain_twin(scheme: Scheme, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(shape[0])
    values = random.standard_normal(shape) * random.choice([1e-18, 1e-3, 1, 50, 1e15], (shape[0], 1))
    values = values.astype(np.float32)
    values[-1] = np.abs(values[-1])
    if len(values) > 3:
        values[0], values[1, :40], values[2] = 0, 1e-35, 0.25
    expected, got = plain.quantize_rows(values, scheme), fast.quantize_rows(values, scheme)
    np.testing.assert_array_equal(got.codes, expected.codes)
    np.testing.assert_array_equal(got.scales.view(np.uint32), expected.scales.view(np.uint32))
    assert (got.zeros is None) == (expected.zeros is None) == scheme.symmetric
    if got.zeros is not None and expected.zeros is not None:
        np.testing.assert_array_equal(got.zeros, expected.zeros)
