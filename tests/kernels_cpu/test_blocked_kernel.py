"""Rounding in blocks for ONNX: the kernels against their plain twins, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.formats.onnx import blocked, blocked_nearest
from edgeq.formats.onnx.blocked import BlockedRows, Scheme
from edgeq.kernels_cpu import blocked_weights as fast

SCHEMES = [
    Scheme(bits, size, symmetric)
    for bits in (2, 4, 8)
    for size in (16, 32, 256)
    for symmetric in (True, False)
]
TWINS = {
    "search": (blocked.quantize_rows, fast.quantize_rows),
    "nearest": (blocked_nearest.nearest_rows, fast.nearest_rows),
}


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", [(1, 16), (7, 300), (33, 512)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("twins", TWINS.values(), ids=TWINS)
def test_equals_the_plain_twin(
    scheme: Scheme, shape: tuple[int, int], turned: bool, twins: tuple[Callable[..., BlockedRows], ...]
) -> None:
    random = np.random.default_rng(shape[0])
    values = random.standard_normal(shape) * random.choice([1e-18, 1e-3, 1, 50, 1e15], (shape[0], 1))
    values = values.astype(np.float32)
    values[-1] = np.abs(values[-1])
    if len(values) > 3:
        values[0], values[1, :40], values[2] = 0, 1e-35, 0.25
    if turned:
        values = np.asfortranarray(values)
    plain, compiled = twins
    expected, got = plain(values, scheme), compiled(values, scheme, instruction_set())
    np.testing.assert_array_equal(got.codes, expected.codes)
    np.testing.assert_array_equal(got.scales.view(np.uint32), expected.scales.view(np.uint32))
    assert (got.zeros is None) == (expected.zeros is None) == scheme.symmetric
    if got.zeros is not None and expected.zeros is not None:
        np.testing.assert_array_equal(got.zeros, expected.zeros)
    pairs = [astuple(one.rounding_error(values)) for one in (got, expected)]
    np.testing.assert_allclose(*pairs, rtol=1e-3)
    packed = compiled(values, scheme, instruction_set(), packed=True)
    np.testing.assert_array_equal(packed.codes, plain(values, scheme, packed=True).codes)
    np.testing.assert_array_equal(packed.codes, expected.packed_codes())
    np.testing.assert_array_equal(packed.scales.view(np.uint32), expected.scales.view(np.uint32))
