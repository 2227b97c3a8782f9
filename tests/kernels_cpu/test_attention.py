"""The attention kernel against its plain twin."""

from __future__ import annotations

import numpy as np
import plain_attention
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.attention import PANEL, attend, store
from edgeq.kernels_cpu.isa import PORTABLE, Isa

ISAS = [PORTABLE, instruction_set(), Isa("wide", 512)]


def caches(kv: int, capacity: int, width: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Empty ones, full of NaN: nothing that was not stored may be read."""
    nan = np.float16(np.nan).view(np.uint16) if dtype is np.uint16 else np.nan
    keys = np.full((kv, capacity // PANEL, width, PANEL), nan, dtype)
    return keys, np.full((kv, capacity, width), nan, dtype)


def made(t: int, start: int, heads: int, kv: int, width: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((t, heads, width)).astype(np.float32)
    keys, values = rng.standard_normal((2, start + t, kv, width)).astype(np.float32)
    return q, keys, values


CASES = {
    "first token": (1, 0, 4, 2, 32, {}),
    "one more": (1, 41, 8, 2, 64, {}),
    "prefill": (33, 0, 6, 3, 16, {}),
    "chunk after chunk": (19, 70, 4, 4, 80, {}),
    "window": (40, 30, 4, 2, 32, {"window": 9}),
    "window of one": (5, 3, 2, 1, 16, {"window": 1}),
    "soft cap": (7, 20, 4, 2, 32, {"soft_cap": 2.0}),
    "encoder": (21, 0, 3, 3, 32, {"causal": False}),
}


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES)
def test_attention(case: str, isa: Isa):
    t, start, heads, kv, width, options = CASES[case]
    q, keys, values = made(t, start, heads, kv, width)
    key_cache, value_cache = caches(kv, 128, width)
    store(keys, values, 0, key_cache, value_cache, isa)
    found = attend(q, key_cache, value_cache, start, width**-0.5, isa, **options)
    expected = plain_attention.attend(q, keys, values, start, width**-0.5, **options)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_half_precision_cache():
    q, keys, values = made(9, 30, 4, 2, 32)
    keys, values = keys.astype(np.float16), values.astype(np.float16)
    key_cache, value_cache = caches(2, 48, 32, np.uint16)
    for first in (0, 17):  # in two parts, as a prompt and what follows
        last = 17 if first == 0 else 39
        part = [a[first:last].astype(np.float32) for a in (keys, values)]
        store(*part, first, key_cache, value_cache, instruction_set())
    found = attend(q, key_cache, value_cache, 30, 0.2, instruction_set())
    np.testing.assert_allclose(found, plain_attention.attend(q, keys, values, 30, 0.2), rtol=2e-5, atol=2e-6)


def test_large_scores_do_not_overflow():
    q, keys, values = made(3, 5, 2, 2, 16)
    key_cache, value_cache = caches(2, 16, 16)
    store(keys, values, 0, key_cache, value_cache, PORTABLE)
    found = attend(q * 1e4, key_cache, value_cache, 5, 1.0, PORTABLE)
    np.testing.assert_allclose(
        found, plain_attention.attend(q * np.float32(1e4), keys, values, 5, 1.0), rtol=1e-4
    )


def test_nan_stays_in_its_head():
    q, keys, values = made(1, 5, 4, 2, 16)
    q[0, 1, 3] = np.nan
    key_cache, value_cache = caches(2, 16, 16)
    store(keys, values, 0, key_cache, value_cache, PORTABLE)
    found = attend(q, key_cache, value_cache, 5, 0.25, PORTABLE)
    assert np.isnan(found[0, 1]).all()
    assert np.isfinite(found[0, [0, 2, 3]]).all()


def test_more_threads_change_nothing():
    q, keys, values = made(64, 64, 8, 2, 32)
    key_cache, value_cache = caches(2, 128, 32)
    store(keys, values, 0, key_cache, value_cache, PORTABLE)
    before = threads.get_threads()
    results = []
    for n in (1, 3):
        threads.set_threads(n)
        results.append(attend(q, key_cache, value_cache, 64, 0.2, PORTABLE))
    threads.set_threads(before)
    assert np.array_equal(*results)
