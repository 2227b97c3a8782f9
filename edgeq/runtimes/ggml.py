"""ggml's own quantizer by ctypes, where llama-cpp-python is installed: the peer and the oracle of the encoders."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeq.formats.blocks import by_name

Floats = NDArray[np.float32]

_FLOATS = ctypes.POINTER(ctypes.c_float)
_NAMES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")


@functools.cache
def library() -> ctypes.CDLL | None:
    """``libggml-base`` of the installed llama-cpp-python, or None (found without importing it)."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    for name in _NAMES:
        path = Path(spec.origin).parent / "lib" / name
        if path.exists():
            return _declared(ctypes.CDLL(str(path)))
    return None


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
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


def quantize(name: str, values: Floats, importance: Floats | None = None) -> NDArray[np.uint8]:
    """``ggml_quantize_chunk`` of float32 ``[rows, columns]`` on one thread: uint8 ``[rows, row_bytes]``.

    Holds no GIL. Raises EdgeqError for a row that does not divide, which would abort the process in ggml, and
    RuntimeError where ``library()`` is None.
    """
    lib = library()
    if lib is None:
        raise RuntimeError("llama_cpp is not installed")
    block_type = by_name(name)
    rows, columns = values.shape
    encoded = np.empty((rows, block_type.row_bytes(columns)), np.uint8)
    values = np.ascontiguousarray(values, np.float32)
    weights = None
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        weights = importance.ctypes.data_as(_FLOATS)
    lib.ggml_quantize_chunk(
        block_type.ggml_id, values.ctypes.data_as(_FLOATS), encoded.ctypes.data, 0, rows, columns, weights
    )
    return encoded
