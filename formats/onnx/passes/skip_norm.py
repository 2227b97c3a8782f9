"""Sum and norm in one node: what a decoder does twice in every layer.

Rules
1. ``y = SimplifiedLayerNormalization(a + b)`` over the last axis becomes ``y, _, _, sum =
   SkipSimplifiedLayerNormalization(a, b)`` of ONNX Runtime, and the sum's other readers read that; likewise
   LayerNormalization and SkipLayerNormalization.
2. ``a`` and ``b`` must be results of nodes: a constant is a bias, which the operator would not broadcast.
3. A sum that two norms read goes with the first; a sum that is an output of the graph stays.
"""

from __future__ import annotations

import onnx_ir as ir

DOMAIN = "com.microsoft"
_FUSED = {
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
    "LayerNormalization": "SkipLayerNormalization",
}
_SUM = 3  # which of the outputs is the sum


def skip_norm(model: ir.Model) -> int:
    """Rewrite the norms; returns how many were rewritten.

    The caller vouches that the two inputs of each such Add have one shape ``[batch, tokens, width]``.
    """
    count = 0
    for norm in list(model.graph):
        added = _sum_before(model, norm)
        if added is None:
            continue
        attributes = {"epsilon": norm.attributes["epsilon"]} if "epsilon" in norm.attributes else {}
        fused = ir.node(
            _FUSED[norm.op_type],
            [*added.inputs, *norm.inputs[1:]],
            attributes,
            domain=DOMAIN,
            num_outputs=_SUM + 1,
            name=norm.name,
        )
        model.graph.insert_before(added, fused)
        for unused in fused.outputs[1:_SUM]:
            unused.name = ""
        for old, new in ((norm.outputs[0], fused.outputs[0]), (added.outputs[0], fused.outputs[_SUM])):
            new.name, new.type, new.shape, old.name = old.name, old.type, old.shape, None
            ir.convenience.replace_all_uses_with(old, new)
        model.graph.remove([norm, added], safe=True)
        count += 1
    if count:
        model.opset_imports[DOMAIN] = 1
    return count


def _sum_before(model: ir.Model, norm: ir.Node) -> ir.Node | None:
    """The Add that rule 1 takes into this norm."""
    if norm.domain or norm.op_type not in _FUSED or norm.inputs[0] is None:
        return None
    axis = norm.attributes.get("axis")
    added = norm.inputs[0].producer()
    if added is None or added.domain or added.op_type != "Add" or (axis is not None and axis.as_int() != -1):
        return None
    if any(value is None or value.producer() is None for value in added.inputs):  # rule 2
        return None
    return None if {norm.outputs[0], added.outputs[0]} & set(model.graph.outputs) else added
