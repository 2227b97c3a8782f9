"""Int8 embedding tables: the largest tensor of a small encoder, read one row per token.

Rules
1. ``Gather(table, ids)`` with a constant float table of at least ``min_rows`` rows becomes
   ``Cast(Gather(codes, ids)) * Gather(scales, ids)``, one symmetric scale per row.
2. A table that a linear layer shares (a tied head) keeps one int8 copy: the linear passes store the same codes
   under the same names when they use the same limit.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeq.formats.onnx.edit import add_initializer, add_lazy_initializer, insert, remove_unused, replace
from edgeq.formats.onnx.int8 import channel_scales, quantize_channels


def embedding_int8(model: ir.Model, limit: int, min_rows: int = 1024) -> int:
    """Rewrite the Gathers over large constant tables; returns how many were rewritten."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "Gather" or node.domain not in ("", "ai.onnx"):
            continue
        table, ids = node.inputs[0], node.inputs[1]
        axis = node.attributes.get("axis")
        if table is None or not table.is_initializer() or (axis is not None and axis.as_int() != 0):
            continue
        tensor = table.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.shape.rank() != 2:
            continue
        rows, width = (int(d) for d in tensor.shape)
        if rows < min_rows:
            continue
        scales = channel_scales(tensor.numpy(), 0, limit)
        codes = add_lazy_initializer(
            model,
            f"{table.name}_int8",
            "int8",
            (rows, width),
            lambda tensor=tensor, scales=scales: quantize_channels(tensor.numpy(), scales, 0, limit),
        )
        column = add_initializer(model, f"{table.name}_row_scale", scales.reshape(-1, 1))
        picked = insert(model, node, "Cast", [insert(model, node, "Gather", [codes, ids])], to=ir.DataType.FLOAT)
        replace(model, node.outputs[0], insert(model, node, "Mul", [picked, insert(model, node, "Gather", [column, ids])]))
        count += 1
    remove_unused(model)
    return count
