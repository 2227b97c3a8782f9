"""Tables in blocks gathered by plain operators, for runtimes without a kernel of GatherBlockQuantized.

ONNX Runtime 1.31's builds for WebGPU have none for the CPU; transformers.js runs those builds.

Rules
1. A GatherBlockQuantized (com.microsoft) of rows, with codes of 4 or 8 bits in blocks along the row, becomes a Gather
   of the codes, of the scales and of the zero points, and ``(codes - zeros) * scales``.
2. 4-bit codes lie two in a byte, the lower half first: ``high = floor(byte / 16)``, ``low = byte - 16 high``.
3. Without zero points the zero is half of the range: 8 or 128.
4. Left as it is: tensors of ONNX's own 4-bit types, which Gather does not take, other axes, and 4-bit zero points of an
   odd number of blocks.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.formats.onnx.edit import add_initializer, attribute, insert, remove_unused, replace

OPERATOR = "GatherBlockQuantized"


def plain_gather(model: ir.Model) -> int:
    """Rewrite the gathers; returns how many were rewritten."""
    count = 0
    for node in list(model.graph):
        if node.op_type == OPERATOR and _is_plain(node):
            replace(model, node.outputs[0], _rows(model, node))
            count += 1
    if count:
        remove_unused(model)
    return count


def _is_plain(node: ir.Node) -> bool:
    """Whether rule 4 lets it be rewritten."""
    codes, scales = node.inputs[0], node.inputs[2]
    if codes is None or scales is None or scales.shape is None or scales.shape.rank() != 2:
        return False
    if codes.dtype is not None and codes.dtype != ir.DataType.UINT8:
        return False
    tensor = codes.const_value
    if tensor is not None and tensor.dtype != ir.DataType.UINT8:
        return False
    blocks, bits = scales.shape[1], attribute(node, "bits", 4)
    packs_zeros = len(node.inputs) > 3 and node.inputs[3] is not None and bits == 4
    if not isinstance(blocks, int) or bits not in (4, 8) or (packs_zeros and blocks % 2):
        return False
    return attribute(node, "gather_axis", 0) == 0 and attribute(node, "quantize_axis", 1) in (1, -1)


def _rows(model: ir.Model, node: ir.Node) -> ir.Value:
    """The ids' rows ``[..., width]`` in float32."""
    codes, ids, scales = node.inputs[:3]
    zeros = node.inputs[3] if len(node.inputs) > 3 else None
    assert codes is not None
    assert ids is not None
    assert scales is not None
    assert scales.shape is not None
    bits, size = attribute(node, "bits", 4), attribute(node, "block_size", 128)

    def picked(part: ir.Value, width: int) -> ir.Value:
        rows = insert(model, node, "Gather", [part, ids], axis=0)
        rows = insert(model, node, "Cast", [rows], to=ir.DataType.FLOAT)
        rows = _halves(model, node, rows) if bits == 4 and part is not scales else rows
        shape = add_initializer(model, f"shape_flat_{width}", np.array([-1, width], np.int64))
        return insert(model, node, "Reshape", [rows, shape])

    middle = add_initializer(model, f"zero_of_{bits}_bits", np.array(1 << (bits - 1), np.float32))
    zero = middle if zeros is None else picked(zeros, 1)
    values = insert(model, node, "Sub", [picked(codes, size), zero])
    values = insert(model, node, "Mul", [values, picked(scales, 1)])
    blocks = scales.shape[1]
    assert isinstance(blocks, int)
    width = np.array([blocks * size], np.int64)
    shape = insert(model, node, "Shape", [ids])
    shape = insert(model, node, "Concat", [shape, add_initializer(model, f"width_{width[0]}", width)], axis=0)
    return insert(model, node, "Reshape", [values, shape])


def _halves(model: ir.Model, node: ir.Node, rows: ir.Value) -> ir.Value:
    """Bytes, as floats, taken apart (rule 2): ``[..., n]`` to ``[..., n, 2]``."""
    sixteen = add_initializer(model, "sixteen", np.array(16, np.float32))
    last = add_initializer(model, "axes_last", np.array([-1], np.int64))
    high = insert(model, node, "Floor", [insert(model, node, "Div", [rows, sixteen])])
    low = insert(model, node, "Sub", [rows, insert(model, node, "Mul", [high, sixteen])])
    return insert(
        model,
        node,
        "Concat",
        [insert(model, node, "Unsqueeze", [half, last]) for half in (low, high)],
        axis=-1,
    )
