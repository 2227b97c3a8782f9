"""Methods: which numbers a matrix's blocks get, given what its layer reads. One file each, found by importing them all.

A method is a function from (weights, statistics, target grid) to ``Parts`` in rows, registered by its name:

    parts = METHODS["descent"](weights, statistics, BlockGrid("Q4_K"))

Weights are float32 ``[rows, columns]``; ``Statistics`` holds the layer's Gram matrix; a ``Grid`` is a GGUF block type
or ONNX's blocks. What ``grid.pack(parts)`` gives has the same size whatever the method.
"""

import importlib
import pkgutil

from edgeq.methods.base import METHODS, Method, Statistics, method
from edgeq.methods.grids import BlockGrid, Grid, IntegerGrid

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "BlockGrid", "Grid", "IntegerGrid", "Method", "Statistics", "method"]
