"""ggml's own quantizer and dot products by ctypes, where llama-cpp-python is installed: peer and oracle of kernels."""

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


@functools.cache
def library() -> ctypes.CDLL | None:
    """``libggml-base`` of the installed llama-cpp-python, or None (found without importing it)."""
    path = _path("ggml-base")
    return None if path is None else _declared(ctypes.CDLL(str(path)))


def _path(name: str) -> Path | None:
    """A library of the installed llama-cpp-python."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "lib"
    files = (folder / file for file in (f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll"))
    return next((path for path in files if path.exists()), None)


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


class CpuTraits(ctypes.Structure):
    """``ggml_type_traits_cpu`` of ``ggml/include/ggml-cpu.h``."""

    _fields_ = (
        ("from_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("vec_dot", ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p,
                                     ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )  # fmt: skip


_ACTIVATIONS = {"Q8_0": (8, 32, 34), "Q8_1": (9, 32, 36), "Q8_K": (15, 256, 292)}  # number, values, bytes


@functools.cache
def cpu_traits(ggml_id: int) -> CpuTraits | None:
    """ggml's kernels for a type, or None; they are those of this machine's instruction set."""
    path = _path("ggml-cpu")
    if path is None:
        return None
    lib = ctypes.CDLL(str(path))
    lib.ggml_cpu_init()
    lib.ggml_get_type_traits_cpu.restype = ctypes.POINTER(CpuTraits)
    found: CpuTraits = lib.ggml_get_type_traits_cpu(ggml_id).contents
    return found


def activation_kind(traits: CpuTraits) -> str:
    """What the vec_dot of a type takes on its other side."""
    return next(kind for kind, (number, _, _) in _ACTIVATIONS.items() if number == traits.vec_dot_type)


def activations(kind: str, x: Floats) -> NDArray[np.uint8]:
    """Float rows quantized by ggml's CPU kernels: uint8 [rows, row_bytes]."""
    number, values, size = _ACTIVATIONS[kind]
    traits = cpu_traits(number)
    if traits is None:
        raise RuntimeError("llama_cpp is not installed")
    x = np.ascontiguousarray(x, np.float32)
    out = np.zeros((len(x), x.shape[1] // values * size), np.uint8)  # Q8_K leaves out the sums of zeros
    for row, to in zip(x, out, strict=True):
        traits.from_float(row.ctypes.data, to.ctypes.data, row.size)
    return out


def product(name: str, x: Floats, rows: NDArray[np.uint8]) -> Floats:
    """x @ decode(rows).T by ggml's vec_dot on activations quantized as it wants them."""
    traits = cpu_traits(by_name(name).ggml_id)
    if traits is None:
        raise RuntimeError("llama_cpp is not installed")
    quantized = activations(activation_kind(traits), x)
    out = np.empty((len(x), len(rows)), np.float32)
    for t in range(len(x)):
        for n in range(len(rows)):
            at = (out[t, n:].ctypes.data, 0, rows[n].ctypes.data, 0, quantized[t].ctypes.data, 0)
            traits.vec_dot(x.shape[1], *at, 1)
    return out
