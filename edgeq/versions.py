"""Which versions made a result."""

from __future__ import annotations

import importlib.metadata
import platform

from edgeq import __version__

_LIBRARIES = (
    "numpy",
    "numba",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "tokenizers",
    "safetensors",
    "llama-cpp-python",
)


def versions() -> dict[str, str]:
    """edgeq's version, Python's, and those of the libraries that are installed."""
    found = {"edgeq": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
