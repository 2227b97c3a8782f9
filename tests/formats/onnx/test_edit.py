"""Edits that the passes share."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_graphs import Tiny, counts, f32, names, normal, run

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.edit import (
    add_initializer,
    add_lazy_initializer,
    check_opset,
    insert,
    insert_many,
    remove_unused,
    replace,
)


def relu_then_neg(both_outputs: bool = False) -> tuple[ir.Model, ir.Node, ir.Node]:
    b = Tiny()
    x = b.x("n")
    relu = b.op("Relu", x)
    neg = b.op("Neg", relu)
    outputs = (neg, relu) if both_outputs else (neg,)
    model = b.done(*outputs, shapes=[["n"]] * len(outputs))
    first, second = model.graph
    return model, first, second


def test_replace_keeps_the_name_and_type() -> None:
    model, relu, neg = relu_then_neg()
    old = relu.outputs[0]
    name = old.name
    new = insert(model, relu, "Abs", [relu.inputs[0]])
    replace(model, old, new)
    assert new.name == name
    assert neg.inputs[0] is new
    assert counts(model) == {"Abs": 1, "Neg": 1}
    assert run(model, x=f32([-2, 3]))[0].tolist() == [-2, -3]


def test_replace_a_graph_output_that_is_read_too() -> None:
    model, relu, _ = relu_then_neg(both_outputs=True)
    replace(model, relu.outputs[0], insert(model, relu, "Abs", [relu.inputs[0]]))
    assert [value.name for value in model.graph.outputs] == ["y0", "y1"]
    assert model.graph.outputs[1].dtype == ir.DataType.FLOAT
    assert [y.tolist() for y in run(model, x=f32([-2, 3]))] == [[-2, -3], [2, 3]]


def test_replace_an_output_listed_twice() -> None:
    model, _, neg = relu_then_neg()
    model.graph.outputs.append(neg.outputs[0])
    new = insert(model, neg, "Abs", [neg.inputs[0]])
    replace(model, neg.outputs[0], new)
    assert all(output is new for output in model.graph.outputs)


def test_equal_initializers_are_shared_others_get_a_free_name() -> None:
    model, *_ = relu_then_neg()
    first = add_initializer(model, "c", f32([1, 2]))
    assert add_initializer(model, "c", f32([1, 2])) is first
    assert add_initializer(model, "c", f32([1, 3])).name == "c_1"
    assert add_initializer(model, "c", np.array([1, 2], np.int32)).name == "c_2"
    assert add_lazy_initializer(model, "c", np.float32, (1,), lambda: np.zeros(1)).name == "c_3"
    assert add_initializer(model, "x", np.float32(1)).name == "x_1"  # an input
    assert add_initializer(model, "y0", np.float32(1)).name == "y0_1"  # a node's output


def test_inserted_nodes_do_not_take_the_names_of_inputs_and_initializers() -> None:
    b = Tiny()
    x, weight = b.x("n", name="val_1"), b.const("val_2", normal(1, 1))
    model = b.done(b.op("Add", b.op("Relu", x), weight), shapes=[["n"]])
    node = list(model.graph)[-1]
    added = [insert(model, node, "Abs", [x]) for _ in range(4)]
    added += insert_many(model, node, "DynamicQuantizeLinear", [x], 3)
    inside = [value.name for n in model.graph for value in n.outputs]
    assert len({*inside, "val_1", "val_2"}) == len(inside) + 2
    assert len(added) == 7


def test_remove_unused() -> None:
    b = Tiny()
    used, unused = b.const("used", normal(1, 2, 2)), b.const("unused", normal(2, 2, 2))
    for _ in range(2):
        unused = b.op("Transpose", unused)
    kept = b.op("Transpose", b.const("kept", normal(3, 2, 2)))
    model = b.done(b.op("MatMul", b.x("n", 2), used), kept, shapes=[["n", 2], [2, 2]])
    remove_unused(model)
    assert names(model) == {"used", "kept"}
    assert counts(model) == {"MatMul": 1, "Transpose": 1}


@pytest.mark.parametrize(("opset", "fine"), [(11, False), (12, False), (13, True), (21, True)])
def test_opset(opset: int, fine: bool) -> None:
    model, *_ = relu_then_neg()
    model.opset_imports[""] = opset
    if fine:
        check_opset(model)
    else:
        with pytest.raises(EdgeqError, match=f"ONNX opset {opset}: int8 needs 13 or later"):
            check_opset(model)
