"""ggml's own quantizer by ctypes: the oracle for encoding. Skips a test where llama_cpp is not installed."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgeq.formats.blocks import by_name

_FLOATS = ctypes.POINTER(ctypes.c_float)


@functools.cache
def library() -> ctypes.CDLL | None:
    """``libggml-base`` of the installed llama-cpp-python, or None (found without importing it)."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    for name in ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll"):
        path = Path(spec.origin).parent / "lib" / name
        if path.exists():
            return _declare(ctypes.CDLL(str(path)))
    return None


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        _FLOATS,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        _FLOATS,
    ]
    return lib


def quantize(name: str, values: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
    """``ggml_quantize_chunk`` of float32 [rows, columns]: uint8 [rows, row_bytes]."""
    lib = library()
    if lib is None:
        pytest.skip("llama_cpp is not installed")
    block_type = by_name(name)
    rows, columns = values.shape
    row_bytes = block_type.row_bytes(columns)  # checked here: an indivisible row aborts the process in ggml
    values = np.ascontiguousarray(values, np.float32)
    encoded = np.empty((rows, row_bytes), np.uint8)
    weights = None
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        weights = importance.ctypes.data_as(_FLOATS)
    lib.ggml_quantize_chunk(
        block_type.ggml_id, values.ctypes.data_as(_FLOATS), encoded.ctypes.data, 0, rows, columns, weights
    )
    return encoded
