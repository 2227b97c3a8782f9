"""Static int8 of convolutions, rule by rule, in ONNX Runtime before and after."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from foreign_graphs import answers, branches, loaded, node, proto, small_cnn, voice_feeds
from numpy.typing import NDArray
from onnx_graphs import Floats, counts, error, fused, normal

from edgeq.formats.onnx.int8 import FULL_RANGE, S8S8, SAFE_RANGE, U8S8, U8U8, ActivationRange, Types
from edgeq.formats.onnx.passes.conv_int8 import conv_int8
from edgeq.formats.onnx.passes.static_int8 import static_int8
from edgeq.formats.onnx.placement import values_to_watch
from edgeq.formats.onnx.prepare import prepare

X = normal(9, 2, 4, 8, 8)


def ranges_of(model: ir.Model, **feeds: NDArray[Any]) -> dict[str, ActivationRange]:
    """The true ranges of a graph without subgraphs, from a float run."""
    copy = model.clone()
    watched = [value for value in values_to_watch(copy) if not value.is_graph_output()]
    for value in watched:
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), value.shape or ir.Shape([None] * 4)
    names = [value.name for value in copy.graph.outputs] + [value.name for value in watched]
    copy.graph.outputs.extend(value for value in watched if not value.is_graph_input())
    made = ort.InferenceSession(ir.to_proto(copy).SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [name for name in names if name not in feeds]
    values = dict(zip(outputs, made.run(outputs, feeds), strict=True)) | feeds
    return {str(name): ActivationRange(float(v.min()), float(v.max())) for name, v in values.items()}


def quantized(
    model: ir.Model, x: Floats = X, limit: int = SAFE_RANGE, types: Types = U8S8, **keywords: Any
) -> int:
    return conv_int8(model, limit, ranges_of(model, x=x), types, **keywords)


def one(*attributes: Any, bias: bool = True, after: tuple[Any, ...] = (), **more: Any) -> ir.Model:
    """A convolution of 4 channels to 8 over ``x [n, 4, 8, 8]``, and what comes after it as (operator, inputs...)."""
    constants = {"w": normal(1, 8, 4, 3, 3), "b": normal(2, 8), "low": np.float32(0), "high": np.float32(6)}
    nodes = [node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["y" if not after else "c"], **more)]
    if after:
        nodes.append(node(after[0], ["c", *after[1:]], ["y"]))
    return loaded(proto(nodes, {"x": ["n", 4, 8, 8]}, {"y": 4}, constants))


@pytest.mark.parametrize("types", [U8S8, S8S8, U8U8])
@pytest.mark.parametrize("bias", [False, True])
def test_rule_1(types: Types, bias: bool, tmp_path: Path) -> None:
    model = one(bias=bias, pads=[1] * 4, strides=[2, 1])
    before = answers(model, x=X)
    assert quantized(model, types=types) == 1
    assert counts(model) == {"QuantizeLinear": 2, "DequantizeLinear": 3 + bias, "Conv": 1}
    assert error(answers(model, x=X), before) <= 0.02
    assert fused(model, tmp_path)["QLinearConv"] == 1


@pytest.mark.parametrize("types", [U8S8, S8S8, U8U8])
@pytest.mark.parametrize("after", [("Relu",), ("Clip", "low", "high"), ("Clip", "low")])
def test_rule_2_activations_go(types: Types, after: tuple[Any, ...], tmp_path: Path) -> None:
    model = one(after=after)
    before = answers(model, x=X)
    assert quantized(model, types=types) == 1
    assert not counts(model) & Counter(["Relu", "Clip"])
    assert error(answers(model, x=X), before) <= 0.02
    assert fused(model, tmp_path)["QLinearConv"] == 1


def test_other_activations_stay() -> None:
    model = one(after=("Clip", "high"))
    before = answers(model, x=X)
    assert quantized(model) == 1
    assert counts(model)["Clip"] == 1
    assert error(answers(model, x=X), before) <= 0.02


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("outputs", [4, 8])
def test_shapes_and_groups(groups: int, rank: int, outputs: int) -> None:
    """4 channels to 4 or 8, of 1 to 3 dimensions, dilated."""
    constants = {"w": normal(1, outputs, 4 // groups, *[3] * rank), "b": normal(2, outputs)}
    made = node("Conv", ["x", "w", "b"], ["y"], group=groups, dilations=[2] * rank)
    model = loaded(proto([made], {"x": ["n", 4, *[8] * rank]}, {"y": rank + 2}, constants))
    x = normal(3, 2, 4, *[8] * rank)
    before = answers(model, x=x)
    assert quantized(model, x) == 1
    assert error(answers(model, x=x), before) <= 0.025


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("outputs", [4, 8])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rule_5_no_pair_saturates(channels: int, groups: int, outputs: int, rank: int) -> None:
    """The worst input and kernel: all codes 255, all weights the largest."""
    inputs, spatial = channels * groups, [5] * rank
    constants = {"w": np.full((outputs, channels, *[3] * rank), 1, np.float32)}
    made = node("Conv", ["x", "w"], ["y"], group=groups)
    model = loaded(proto([made], {"x": ["n", inputs, *spatial]}, {"y": rank + 2}, constants))
    x = np.full((1, inputs, *spatial), 2, np.float32)
    before = answers(model, x=x)
    assert quantized(model, x) == 1
    assert error(answers(model, x=x), before) <= 0.02
    codes = model.graph.initializers["w_int8"].const_value
    assert codes is not None
    assert int(codes.numpy().max()) == (127 if channels == 1 and groups == outputs else 64)


def test_rule_6_biases_of_any_size() -> None:
    """No weights; weights far too small for the bias; both zero; an ordinary channel."""
    w = normal(1, 4, 4, 1, 1)
    w[0], w[1], w[2] = 0, w[1] * 1e-9, 0
    constants = {"w": w, "b": np.array([0.7, 900, 0, 1], np.float32)}
    model = loaded(proto([node("Conv", ["x", "w", "b"], ["y"])], {"x": ["n", 4, 8, 8]}, {"y": 4}, constants))
    before = answers(model, x=X)[0]
    assert quantized(model) == 1
    after = answers(model, x=X)[0]
    np.testing.assert_allclose(after.mean(axis=(0, 2, 3)), before.mean(axis=(0, 2, 3)), atol=900 / 255)
    codes = model.graph.initializers["w_bias_int32"].const_value
    assert codes is not None
    assert np.abs(codes.numpy().astype(np.int64)).max() <= 2**30


def test_rules_3_and_4_a_whole_network(tmp_path: Path) -> None:
    model = loaded(small_cnn())
    prepare(model)
    x = normal(9, 4, 3, 12, 12)
    before, ranges = answers(model, x=x), ranges_of(model, x=x)
    assert conv_int8(model, SAFE_RANGE, ranges) == 3
    assert static_int8(model, SAFE_RANGE, ranges) == 1
    assert error(answers(model, x=x), before) <= 0.05
    found = fused(model, tmp_path)
    wanted = {"QLinearConv": 3, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}
    assert {name: found[name] for name in wanted} == wanted
    assert found["QuantizeLinear"] == 1
    assert found["DequantizeLinear"] == 0


def test_moved_and_rounded_operators(tmp_path: Path) -> None:
    constants = {
        "w": normal(1, 8, 4, 3, 3),
        "v": normal(2, 8, 8, 1, 1),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "sizes": np.array([4, 4], np.int64),
        "flat": np.array([0, 8, -1], np.int64),
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Sigmoid", ["c"], ["s"]),
        node("Mul", ["c", "s"], ["m"]),  # SiLU
        node("MaxPool", ["m"], ["p"], kernel_shape=[2, 2]),
        node("Split", ["p", "sizes"], ["a", "b"], axis=1),
        node("Concat", ["b", "a"], ["k"], axis=1),
        node("Conv", ["k", "v"], ["d"]),
        node("Resize", ["d", "", "scales"], ["e"], mode="nearest"),
        node("LeakyRelu", ["e"], ["f"]),
        node("Reshape", ["f", "flat"], ["y"]),
    ]
    model = loaded(proto(nodes, {"x": ["n", 4, 8, 8]}, {"y": 3}, constants))
    before = answers(model, x=X)
    assert quantized(model) == 2
    assert error(answers(model, x=X), before) <= 0.06
    found = fused(model, tmp_path)
    assert found["QLinearConv"] == 2
    assert (
        found["QLinearConcat"]
        == found["QLinearSigmoid"]
        == found["QLinearMul"]
        == found["QLinearLeakyRelu"]
        == 1
    )
    assert found["DequantizeLinear"] == 1


def test_only_and_missing_ranges() -> None:
    model = loaded(small_cnn())
    prepare(model)
    x = normal(9, 4, 3, 12, 12)
    before, ranges = answers(model, x=x), ranges_of(model, x=x)
    del ranges["x"]
    assert conv_int8(model, SAFE_RANGE, ranges, only=["Conv_c1", "Conv_c3"]) == 1
    assert error(answers(model, x=x), before) <= 0.05


def test_a_graph_output_in_between_keeps_its_name() -> None:
    constants = {"w": normal(1, 8, 4, 3, 3), "v": normal(2, 4, 8, 1, 1)}
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"]), node("Conv", ["r", "v"], ["y"])]
    model = loaded(proto(nodes, {"x": ["n", 4, 8, 8]}, {"y": 4, "r": 4, "c": 4}, constants))
    before = answers(model, x=X)
    assert quantized(model) == 2
    assert [value.name for value in model.graph.outputs] == ["y", "r", "c"]
    assert error(answers(model, x=X), before) <= 0.03


def test_inside_branches() -> None:
    source = branches()
    model = loaded(source)
    prepare(model)
    names = [str(value.name) for value in values_to_watch(model)]
    interval = ActivationRange(-4, 4)
    assert conv_int8(model, FULL_RANGE, dict.fromkeys(names, interval)) == 2
    assert static_int8(model, SAFE_RANGE, dict.fromkeys(names, interval)) == 3
    feeds = voice_feeds(1)
    assert error(answers(model, **feeds), answers(source, **feeds)) <= 0.06
