"""What of a graph has to be otherwise for transformers.js to run it in a browser."""

from __future__ import annotations

import onnx_ir as ir

from edgeq.formats.onnx.passes.plain_gather import plain_gather

BATCH = "batch_size"


def adapt(model: ir.Model) -> bool:
    """Rewrite tables in blocks as plain operators, and name the caches' first axis; whether anything was changed."""
    named = _name_batch(model)
    return bool(plain_gather(model)) or named


def unnamed_caches(model: ir.Model) -> list[str]:
    """The cache inputs whose first axis is not called ``batch_size``: transformers.js would make them for 0 texts.

    Source: ``addPastKeyValues`` and ``resolveCacheShape`` in src/models/modeling_utils.js, 4.3.1.
    """
    caches = (value for value in model.graph.inputs if str(value.name).startswith("past_key_values"))
    return [str(value.name) for value in caches if value.shape and _axis(value) not in (BATCH, None)]


def _axis(value: ir.Value) -> str | None:
    """The name of the first axis; None where it is a number."""
    first = value.shape[0] if value.shape else None
    return first.value or "" if isinstance(first, ir.SymbolicDim) else None


def _name_batch(model: ir.Model) -> bool:
    """Call the axis ``batch_size`` wherever its old name stands."""
    if not unnamed_caches(model):
        return False
    inputs = [value for value in model.graph.inputs if str(value.name).startswith("past_key_values")]
    old = {_axis(value) for value in inputs} - {None, BATCH}
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        if value.shape is not None:
            axes = [
                BATCH if isinstance(one, ir.SymbolicDim) and one.value in old else one for one in value.shape
            ]
            value.shape = ir.Shape(axes)
    return True
