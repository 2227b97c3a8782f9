"""Foreign graphs brought into form: the answer stays, and what the passes need holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from foreign_graphs import answers, branches, loaded, node, norm, norm_inputs, proto, small_cnn, voice_feeds
from numpy.typing import NDArray
from onnx_graphs import counts, error, normal

from edgeq.formats.errors import EdgeqError
from edgeq.formats.onnx.convolution import find_convolutions
from edgeq.formats.onnx.linear import find_linears
from edgeq.formats.onnx.passes.fold_affine import fold_affine
from edgeq.formats.onnx.prepare import prepare

X = normal(9, 2, 3, 12, 12)


@pytest.mark.parametrize("opset", range(13, 26))
def test_a_cnn(opset: int) -> None:
    source = small_cnn(opset)
    model = loaded(source)
    assert prepare(model) == ["3 batch norms, scales and shifts folded into the convolutions before them"]
    assert "BatchNormalization" not in counts(model)
    assert error(answers(model, x=X), answers(source, x=X)) <= 1e-5
    assert [c.depthwise for c in find_convolutions(model)] == [False, True, False]


@pytest.mark.parametrize("rate", [8000, 16000])
def test_subgraphs(rate: int) -> None:
    source = branches()
    model = loaded(source)
    prepare(model)
    feeds = voice_feeds(1, rate)
    assert error(answers(model, **feeds), answers(source, **feeds)) <= 1e-6
    assert len(list(find_convolutions(model))) == 2
    assert len(list(find_linears(model))) == 3
    values = [v.name for g in model.graphs() for n in g for v in n.outputs]
    nodes = [n.name for n in model.graph.all_nodes()]
    assert len(set(values)) == len(values)
    assert len(set(nodes)) == len(nodes)
    assert None not in nodes


def test_weights_that_are_inputs_become_constants() -> None:
    source = small_cnn()
    for tensor in source.graph.initializer:
        source.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    model = loaded(source)
    assert "17 weights were inputs" in prepare(model)[0]
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert error(answers(model, x=X), answers(source, x=X)) <= 1e-5


@pytest.mark.parametrize("opset", [11, 12])
def test_old_opsets(opset: int) -> None:
    axes: dict[str, NDArray[Any]] = {"w": normal(3, 12, 5)}
    nodes = [
        node("Softmax", ["x"], ["s"]),  # flattens from axis 1
        node("Softmax", ["s"], ["l"], axis=3),
        node("Unsqueeze", ["l"], ["u"], axes=[0, 4]),
        node("Squeeze", ["u"], ["q"], axes=[0, 4]),
        node("ReduceSum", ["q"], ["r"], axes=[1], keepdims=0),
        node("Dropout", ["r"], ["d"], **({"ratio": 0.5} if opset < 12 else {})),
        node("Split", ["d"], ["a", "b"], axis=1, split=[4, 8]),
        node("Concat", ["b", "a"], ["c"], axis=1),
        node("LogSoftmax", ["c"], ["t"], axis=2),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    source = proto(nodes, {"x": ["n", 3, 12, 12]}, {"y": 3, "s": 4}, axes, opset)
    model = loaded(source)
    notes = prepare(model)
    assert notes == [f"opset {opset} was raised to 13, which int8 needs"]
    after, before = answers(model, x=X), answers(source, x=X)
    assert error(after, before) <= 1e-5


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_what_scales_channels_is_folded(op: str, groups: int, bias: bool) -> None:
    """12 channels out of 4."""
    shape = (12, 4 // groups, 3, 3) if op == "Conv" else (4, 12 // groups, 3, 3)
    constants = {
        "w": normal(1, *shape),
        "b": normal(2, 12),
        "m": normal(3, 12, 1, 1),
        "a": normal(4, 1, 12, 1, 1),
        "two": np.full((1, 1, 1, 1), 2, np.float32),
        **norm("n", 12, 5),
    }
    nodes = [
        node(op, ["x", "w", "b"] if bias else ["x", "w"], ["c"], group=groups),
        node("Mul", ["m", "c"], ["c1"]),
        node("Add", ["c1", "a"], ["c2"]),
        node("BatchNormalization", norm_inputs("c2", "n"), ["c3"], epsilon=1e-3),
        node("Div", ["c3", "two"], ["c4"]),
        node("Sub", ["c4", "a"], ["y"]),
    ]
    source = proto(nodes, {"x": ["n", 4, 6, 6]}, {"y": 4}, constants)
    model = loaded(source)
    assert fold_affine(model) == 5
    assert counts(model) == {op: 1}
    x = normal(8, 2, 4, 6, 6)
    assert error(answers(model, x=x), answers(source, x=x)) <= 1e-5


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "wide"], ["y"])],  # varies along the width
        [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "c"], ["y"])],
        [node("Conv", ["x", "w"], ["c"]), node("Mul", ["c", "one"], ["d"]), node("Add", ["c", "d"], ["y"])],
        [node("Conv", ["x", "w"], ["c"]), node("Sub", ["one", "c"], ["y"])],
        [node("Conv", ["x", "w"], ["c"]), node("Div", ["c", "zero"], ["y"])],
    ],
)
def test_what_is_not_folded(nodes: list[onnx.NodeProto]) -> None:
    constants = {
        "w": normal(1, 4, 4, 3, 3), "wide": normal(2, 4), "one": np.full(1, 3, np.float32),
        "zero": np.zeros(1, np.float32),
    }  # fmt: skip
    model: ir.Model = loaded(proto(nodes, {"x": ["n", 4, 6, 6]}, {"y": 4}, constants))
    assert fold_affine(model) == 0


def test_a_call_that_leaves_out_what_is_needed() -> None:
    source = proto([node("Relu", ["x"], ["y"])], {"x": [2, 3]}, {"y": 2}, {})
    opsets = [onnx.helper.make_opsetid("", 17)]
    body = [node("MatMul", ["a", "b"], ["c"])]
    source.functions.append(onnx.helper.make_function("own", "F", ["a", "b"], ["c"], body, opsets))
    source.opset_import.append(onnx.helper.make_opsetid("own", 1))
    source.graph.node[0].CopyFrom(node("F", ["x"], ["y"], domain="own"))
    with pytest.raises(EdgeqError, match="with its functions inlined the graph: node"):
        prepare(loaded(source))
