"""The attention kernel against its plain twin."""

from __future__ import annotations

import numpy as np
import plain_attention
import plain_products
import pytest

from edgeq.devices.detect import instruction_set
from edgeq.kernels_cpu import threads
from edgeq.kernels_cpu.attention import attend, empty, store
from edgeq.kernels_cpu.cached import Cached, CacheType
from edgeq.kernels_cpu.isa import PORTABLE, Isa

ISAS = [PORTABLE, instruction_set(), Isa("wide", 512)]
FLOATS = Cached("F32", PORTABLE)


def caches(kv: int, capacity: int, width: int, cached: Cached) -> tuple[np.ndarray, np.ndarray]:
    """Empty ones, full of ones, which are NaN in floats: nothing that was not stored may be read."""
    made = empty(kv, capacity, width, cached)
    for part in made:
        part.fill(255)
    return made


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
    cached = Cached("F32", isa)
    key_cache, value_cache = caches(kv, 128, width, cached)
    store(keys, values, 0, key_cache, value_cache, cached)
    found = attend(q, key_cache, value_cache, start, width**-0.5, cached, **options)
    expected = plain_attention.attend(q, keys, values, start, width**-0.5, **options)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def as_cached(x: np.ndarray, name: CacheType) -> np.ndarray:
    """What a cache holds of float32 ``[T, KV, D]``: Q8_0 is ggml's, in blocks of 32 or of 16."""
    if name == "F16":
        return x.astype(np.float16).astype(np.float32)
    block = 32 if x.shape[2] % 32 == 0 else 16
    quantized = plain_products.quantize(x.reshape(-1, x.shape[2]), "Q8_0", block, 0)
    codes = quantized.codes.reshape(-1, block).astype(np.float32)
    return (codes * quantized.scales.reshape(-1, 1)).reshape(x.shape)


@pytest.mark.parametrize("isa", ISAS[:2], ids=lambda isa: isa.name)
@pytest.mark.parametrize("name", ["F16", "Q8_0"])
@pytest.mark.parametrize("width", [32, 80])
def test_smaller_caches(isa: Isa, name: CacheType, width: int):
    q, keys, values = made(9, 30, 4, 2, width)
    cached = Cached(name, isa)
    key_cache, value_cache = caches(2, 48, width, cached)
    for first, last in ((0, 17), (17, 39)):  # in two parts, as a prompt and what follows
        store(keys[first:last], values[first:last], first, key_cache, value_cache, cached)
    found = attend(q, key_cache, value_cache, 30, 0.2, cached)
    expected = plain_attention.attend(q, as_cached(keys, name), as_cached(values, name), 30, 0.2)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_large_scores_do_not_overflow():
    q, keys, values = made(3, 5, 2, 2, 16)
    key_cache, value_cache = caches(2, 16, 16, FLOATS)
    store(keys, values, 0, key_cache, value_cache, FLOATS)
    found = attend(q * 1e4, key_cache, value_cache, 5, 1.0, FLOATS)
    np.testing.assert_allclose(
        found, plain_attention.attend(q * np.float32(1e4), keys, values, 5, 1.0), rtol=1e-4
    )


def test_nan_stays_in_its_head():
    q, keys, values = made(1, 5, 4, 2, 16)
    q[0, 1, 3] = np.nan
    key_cache, value_cache = caches(2, 16, 16, FLOATS)
    store(keys, values, 0, key_cache, value_cache, FLOATS)
    found = attend(q, key_cache, value_cache, 5, 0.25, FLOATS)
    assert np.isnan(found[0, 1]).all()
    assert np.isfinite(found[0, [0, 2, 3]]).all()


def test_more_threads_change_nothing():
    q, keys, values = made(64, 64, 8, 2, 32)
    key_cache, value_cache = caches(2, 128, 32, FLOATS)
    store(keys, values, 0, key_cache, value_cache, FLOATS)
    before = threads.get_threads()
    results = []
    for n in (1, 3):
        threads.set_threads(n)
        results.append(attend(q, key_cache, value_cache, 64, 0.2, FLOATS))
    threads.set_threads(before)
    assert np.array_equal(*results)
