"""ggml as an oracle (see ``edgeq.runtimes.ggml``): skips a test where llama_cpp is not installed."""

from __future__ import annotations

import numpy as np
import pytest

from edgeq.runtimes import ggml

library = ggml.library


def quantize(name: str, values: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """``ggml_quantize_chunk`` of float32 [rows, columns]: uint8 [rows, row_bytes]."""
    if library() is None:
        pytest.skip("llama_cpp is not installed")
    return ggml.quantize(name, values, importance)
