"""A foreign graph brought into the one form that the passes know; what it computes stays."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.edit import is_standard
from edgeq.formats.onnx.infer import infer_shapes
from edgeq.formats.onnx.node_check import faults
from edgeq.formats.onnx.passes.fold_affine import fold_affine
from edgeq.formats.onnx.passes.fold_constants import fold_constants
from edgeq.formats.onnx.passes.plain_products import plain_products
from edgeq.formats.onnx.passes.raise_opset import raise_opset
from edgeq.formats.onnx.passes.widen import widen

_WITHOUT = "export it without functions"


def prepare(model: ir.Model) -> list[str]:
    """Bring ``model`` into form in place; returns what was done that a user should know.

    Afterwards there are no functions, weights are float32, every constant of 32-bit floats is an initializer of the
    main graph that no caller can replace, each value and node has a name that no other has, in subgraphs too, the opset
    is 13 or later, and batch norms are part of the convolutions before them. Raises EdgeqError for functions that do
    not fit.
    """
    notes = []
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of constants that are outputs
    _inline(model)
    replaceable = [value for value in model.graph.inputs if value.is_initializer()]
    common.RemoveInitializersFromInputsPass()(model)
    if replaceable:
        notes.append(
            f"{len(replaceable)} weights were inputs that a caller could replace; they are constants now"
        )
    _name_everything(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    before = model.opset_imports[""]
    if raise_opset(model):
        notes.append(f"opset {before} was raised to {model.opset_imports['']}, which int8 needs")
    widened = widen(model)
    if widened:
        notes.append(f"computed in float32, was {', '.join(sorted(widened))}")
    _skip_identities(model)
    fold_constants(model)
    plain_products(model)
    folded = fold_affine(model)
    if folded:
        notes.append(f"{folded} batch norms, scales and shifts folded into the convolutions before them")
    common.RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    return notes


def _inline(model: ir.Model) -> None:
    """Put functions where they are called; a call that leaves out inputs may leave nodes without what they need."""
    if model.functions:
        try:
            common.InlinePass()(model)
        except ValueError as error:
            raise EdgeqError(f"the graph's functions cannot be inlined ({error}); {_WITHOUT}") from None
        fault = next(faults(model), None)
        if fault is not None:
            raise EdgeqError(f"with its functions inlined the graph: {fault}; {_WITHOUT}")


def _name_everything(model: ir.Model) -> None:
    """Give every value and node its own name; the main graph's inputs and outputs keep theirs."""
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    taken: set[str] = {str(name) for name in fixed}
    nodes: set[str] = set()
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if graph is model.graph and value.is_graph_output():
                continue
            new = _free(name, taken) if not (graph is model.graph and name in fixed) else name
            taken.add(new)
            if new != name:
                del graph.initializers[name]
                value.name = new
                graph.register_initializer(value)
        inner_inputs = [] if graph is model.graph else [v for v in graph.inputs if not v.is_initializer()]
        for value in (*inner_inputs, *(output for node in graph for output in node.outputs)):
            if graph is model.graph and value.is_graph_output():
                continue
            value.name = _free(value.name or "value", taken)
            taken.add(value.name)
        for node in graph:
            node.name = _free(node.name or f"{node.op_type}_{node.outputs[0].name}", nodes)
            nodes.add(node.name)


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _skip_identities(model: ir.Model) -> None:
    """Let what reads an Identity read what that reads; one that makes a graph's output stays."""
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Identity" or not is_standard(node) or node.inputs[0] is None:
            continue
        if node.outputs[0].is_graph_output():
            continue
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        assert node.graph is not None
        node.graph.remove(node, safe=True)
