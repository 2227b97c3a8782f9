"""Channels between two convolutions, scaled alike."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from foreign_graphs import answers, loaded, node, proto
from onnx_graphs import Floats, error, normal

from edgeq.formats.onnx.passes.equalize import equalizable, equalize

X = normal(9, 4, 3, 8, 8)
SPREAD = np.exp(normal(8, 16, size=1.5))  # how unlike the channels are


def pair(
    between: str = "Relu", depthwise: bool = False, bias: bool = True, read_twice: bool = False
) -> onnx.ModelProto:
    first = normal(1, 16, 3, 3, 3, size=0.3) * SPREAD[:, None, None, None]
    second = normal(2, 16, 1, 3, 3) if depthwise else normal(2, 6, 16, 3, 3) / SPREAD[:, None, None]
    constants: dict[str, Floats] = {"k1": first, "k2": second.astype(np.float32)}
    if bias:
        constants |= {"b1": normal(3, 16) * SPREAD, "b2": normal(4, len(second))}
    nodes = [
        node("Conv", ["x", "k1", *["b1"][:bias]], ["c"], pads=[1] * 4, name="first"),
        node(between, ["c"], ["r"], **({"kernel_shape": [2, 2]} if "Pool" in between else {})),
        node("Conv", ["r", "k2", *["b2"][:bias]], ["y"], group=16 if depthwise else 1, name="second"),
    ]
    if read_twice:
        nodes.append(node("Sigmoid", ["r"], ["z"]))
    return proto(nodes, {"x": ["n", 3, 8, 8]}, {"y": 4} | ({"z": 4} if read_twice else {}), constants)


def seen(model: onnx.ModelProto) -> Floats:
    """The largest magnitude of each channel between the two."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [None] * 4))
    return np.abs(answers(watched, x=X)[-1]).max(axis=(0, 2, 3))


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_answer_stays_and_channels_become_alike(between: str, depthwise: bool, bias: bool) -> None:
    source = pair(between, depthwise, bias)
    model = loaded(source)
    before = seen(source)
    assert [value.name for value in equalizable(model)] == ["r"]
    assert equalize(model, {"r": before}) == 1
    assert error(answers(model, x=X), answers(source, x=X)) < 1e-5
    after = seen(ir.to_proto(model))
    spread = np.log(after).std() / np.log(before).std()
    assert spread < (0.01 if depthwise else 0.7)


def test_a_chain() -> None:
    """The middle kernel is the second of one pair and the first of the next."""
    constants = {f"k{i}": normal(i, 8, 3 if i == 1 else 8, 3, 3, size=0.3) for i in (1, 2, 3)}
    nodes = [
        node("Conv", [f"a{i}" if i else "x", f"k{i + 1}"], [f"a{i + 1}"], pads=[1] * 4) for i in range(3)
    ]
    source = proto(nodes, {"x": ["n", 3, 8, 8]}, {"a3": 4}, constants)
    model = loaded(source)
    assert equalize(model, {f"a{i}": np.abs(normal(i, 8)) + np.float32(0.1) for i in (1, 2)}) == 2
    assert error(answers(model, x=X), answers(source, x=X)) < 1e-5


def test_what_stays_as_it_is() -> None:
    for source in (pair("Sigmoid"), pair(read_twice=True)):
        assert equalizable(loaded(source)) == []
    model = loaded(pair())
    assert equalize(model, {}) == 0
    assert equalize(model, {"r": np.ones(5, np.float32)}) == 0
    assert equalize(model, {"r": np.zeros(16, np.float32)}) == 1  # nothing was seen: nothing is scaled
    assert error(answers(model, x=X), answers(pair(), x=X)) < 1e-6
