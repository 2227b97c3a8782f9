"""Int8 embedding tables: the largest tensor of a small encoder, read one row per token.

Rules
1. ``Gather(table, ids)`` with a constant float table of at least ``min_rows`` rows becomes
   ``Cast(Gather(codes, ids)) * Unsqueeze(Gather(scales, ids))``, one symmetric scale per row; where all rows have
   one, that is what is multiplied by.
2. A table that a linear layer shares (a tied head) keeps one int8 copy: its output channels are the table's rows,
   so both passes want the same codes and scales, and the one that comes second finds them there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import add_initializer, check_opset, dims, insert, remove_unused, replace
from edgeq.formats.onnx.int8 import Granularity
from edgeq.formats.onnx.passes.int8_weights import int8_constant


def embedding_int8(model: ir.Model, min_rows: int = 1024, granularity: Granularity = "channel") -> int:
    """Rewrite the Gathers over large constant tables; returns how many were rewritten."""
    check_opset(model)
    count = 0
    for node in list(model.graph):
        table = find_table(node, min_rows)
        if table is None:
            continue
        ids = node.inputs[1]
        stored = int8_constant(model, table, 0, granularity=granularity)
        picked = insert(
            model, node, "Cast", [insert(model, node, "Gather", [stored.codes, ids])], to=ir.DataType.FLOAT
        )
        scale = stored.scales
        if stored.axis is not None:
            last_axis = add_initializer(model, "axes_last", np.array([-1], np.int64))
            scale = insert(model, node, "Unsqueeze", [insert(model, node, "Gather", [scale, ids]), last_axis])
        replace(model, node.outputs[0], insert(model, node, "Mul", [picked, scale]))
        count += 1
    remove_unused(model)
    return count


def find_table(node: ir.Node, min_rows: int) -> ir.Value | None:
    """The table of a Gather that rule 1 rewrites."""
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx"):
        return None
    table, axis = node.inputs[0], node.attributes.get("axis")
    if table is None or not table.is_initializer() or table.is_graph_input():
        return None
    if axis is not None and axis.as_int() not in (0, -2):
        return None
    tensor = table.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.shape.rank() != 2:
        return None
    return table if dims(tensor)[0] >= min_rows else None
