"""ggml as an oracle (see ``edgeq.runtimes.ggml``): skips a test where llama_cpp is not installed."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.runtimes import ggml

library = ggml.library
cpu_traits = ggml.cpu_traits
activation_kind = ggml.activation_kind


def _skip_without() -> None:
    if library() is None:
        pytest.skip("llama_cpp is not installed")


def quantize(name: str, values: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """``ggml_quantize_chunk`` of float32 [rows, columns]: uint8 [rows, row_bytes]."""
    _skip_without()
    return ggml.quantize(name, values, importance)


def activations(kind: str, x: np.ndarray) -> np.ndarray:
    """Float rows quantized by ggml's CPU kernels: uint8 [rows, row_bytes]."""
    _skip_without()
    return ggml.activations(kind, x)


def product(name: str, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x @ decode(rows).T by ggml's vec_dot on activations quantized as it wants them."""
    _skip_without()
    return ggml.product(name, x, rows)
