"""This machine's rates with every engine that is here: our kernels, and llama.cpp's where it is installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeq.bench.product_peers import ggml_product
from edgeq.devices.measure import (
    CACHED_ROWS,
    COLUMNS,
    REPEATS,
    SOURCE,
    TYPES,
    Measured,
    any_rows,
    best_rate,
    measure,
    with_floats,
    with_measured,
)
from edgeq.devices.profile import Profile, Rates
from edgeq.kernels_cpu import threads
from edgeq.runtimes import ggml

_MANY = 64  # rows of activations
# Of many rows llama.cpp's graph multiplies so many times as fast as its plain products: repacked, or in tiles; 16-bit
# weights at so much of NumPy's float32 peak. Fitted to six models on one AVX2 machine (benchmarks/prediction_here.py).
_GRAPH, _FLOATS = 1.6, 0.78


def measured_profile(
    profile: Profile,
    n_threads: int,
    progress: Callable[[str, int, int], None],
    types: Sequence[str] = TYPES,
) -> tuple[Profile, dict[str, Any]]:
    """The profile with measured rates of these block types, and the figures."""
    found = measure(n_threads, progress, types)
    extra = () if ggml.library() is None else (_ggml_rates(found, types),)
    figures = dataclasses.asdict(found) | {"other_engines": [dataclasses.asdict(rates) for rates in extra]}
    return with_measured(profile, found, extra), figures


def _ggml_rates(found: Measured, types: Sequence[str]) -> Rates:
    """ggml's products with weights in cache. llama.cpp's graph repacks some types and is faster with these."""
    before = threads.get_threads()
    threads.set_threads(found.threads)
    decode, prefill = {}, {}
    try:
        for name in types:
            one, many = (_rate(name, rows) for rows in (1, _MANY))
            if one and many:
                decode[name], prefill[name] = round(one, 2), round(2 * many * _GRAPH, 1)
    finally:
        threads.set_threads(before)
    return Rates("llama.cpp", found.threads, decode, with_floats(prefill, found, _FLOATS), SOURCE)


def _rate(name: str, rows: int) -> float:
    """10⁹ multiplications per second; 0 where ggml has no product for the type."""
    x = np.random.default_rng(0).standard_normal((rows, COLUMNS), np.float32)
    coded = any_rows(name, CACHED_ROWS * threads.get_threads())
    product = ggml_product(name, x, coded)
    if product is None:
        return 0.0
    repeats = 1 if rows > 1 else REPEATS
    return best_rate(product, rows * len(coded) * COLUMNS, repeats)
