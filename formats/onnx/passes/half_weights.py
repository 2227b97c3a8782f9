"""Weights stored in 16 bits, arithmetic in 32: half the size at the speed of float32.

Rules
1. A float32 initializer of at least 64 numbers that nodes read becomes Cast(16-bit initializer); ONNX Runtime folds
   the Cast when it loads the file.
2. What float16 cannot hold stays float32: a tensor with a number above 65504, or one whose numbers are mostly below
   its smallest normal one (6.1e-5), and outputs of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import dims, free_name
from edgeq.formats.onnx.rows import made_of

_LEAST = 64
_SMALLEST_NORMAL, _LARGEST = 6.1035e-05, 65504.0

Kind = Literal["float16", "bfloat16"]


def half_weights(
    model: ir.Model, kind: Kind, keep: Callable[[str], bool] = lambda name: False
) -> tuple[int, list[str]]:
    """(how many tensors are stored in 16 bits, which of the large ones stay float32)."""
    target = ir.DataType.FLOAT16 if kind == "float16" else ir.DataType.BFLOAT16
    count, kept = 0, []
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _LEAST:
            continue
        if value.is_graph_input() or value.is_graph_output() or not value.uses():
            continue
        if keep(name) or (kind == "float16" and not _fits(tensor)):
            kept.append(name)  # rule 2
            continue
        _store(model, value, tensor, target)
        count += 1
    return count, kept


def _fits(tensor: ir.TensorProtocol) -> bool:
    sizes = made_of(tensor, np.abs)
    used = sizes[sizes > 0]
    return not used.size or bool(used.max() <= _LARGEST and np.median(used) >= _SMALLEST_NORMAL)


def _store(model: ir.Model, value: ir.Value, tensor: ir.TensorProtocol, target: ir.DataType) -> None:
    """Rule 1."""
    name = str(value.name)
    dtype = np.dtype(np.float16) if target == ir.DataType.FLOAT16 else np.dtype(ml_dtypes.bfloat16)
    stored_name = free_name(model, f"{name}_{target.name.lower()}")
    shape = ir.Shape(dims(tensor))
    lazy = ir.LazyTensor(
        lambda: ir.Tensor(
            made_of(tensor, lambda numbers: numbers.astype(dtype)), dtype=target, name=stored_name
        ),
        target,
        shape,
        name=stored_name,
    )
    stored = ir.Value(name=stored_name, type=ir.TensorType(target), shape=shape, const_value=lazy)
    model.graph.register_initializer(stored)
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT}, name=f"{name}_cast")
    out = cast.outputs[0]
    value.replace_all_uses_with(out)
    del model.graph.initializers[name]
    value.name = None
    out.name, out.type, out.shape = name, ir.TensorType(ir.DataType.FLOAT), shape
    model.graph.insert_before(model.graph[0], cast)
