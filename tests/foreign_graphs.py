"""ONNX graphs as others write them: convolutions, subgraphs, recurrent layers, old opsets; made with onnx.helper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import Floats, normal, run_bytes

node = helper.make_node


def proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, int],
    constants: Mapping[str, NDArray[Any]],
    opset: int = 17,
    types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A checked model; of the outputs only the rank is known. All are float unless ``types`` says otherwise."""
    kinds = types or {}
    shapes = {name: [f"{name}_{axis}" for axis in range(rank)] for name, rank in outputs.items()}
    graph = helper.make_graph(
        list(nodes),
        "foreign",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def loaded(model: onnx.ModelProto) -> ir.Model:
    """The model for the passes; onnx_ir renames the tensors of what it is given, so that gets a copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return ir.from_proto(copy)


def answers(model: ir.Model | onnx.ModelProto, **feeds: NDArray[Any]) -> list[Floats]:
    """Check the model in full and run it in ONNX Runtime."""
    made = ir.to_proto(model) if isinstance(model, ir.Model) else model
    onnx.checker.check_model(made, full_check=True)
    return run_bytes(made.SerializeToString(), **feeds)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def norm(name: str, width: int, seed: int) -> dict[str, Floats]:
    """The four parameters of a BatchNormalization."""
    return {
        f"{name}_scale": normal(seed, width) * np.float32(0.2) + np.float32(1),
        f"{name}_bias": normal(seed + 1, width, size=0.3),
        f"{name}_mean": normal(seed + 2, width, size=0.3),
        f"{name}_var": np.abs(normal(seed + 3, width)) + np.float32(0.5),
    }


def norm_inputs(x: str, name: str) -> list[str]:
    return [x, *(f"{name}_{part}" for part in ("scale", "bias", "mean", "var"))]


def small_cnn(opset: int = 17) -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, a residual block with a depthwise convolution, pooling, Gemm: ``x [n, 3, 12, 12]``."""
    constants: dict[str, NDArray[Any]] = {
        "w1": normal(1, 16, 3, 3, 3, size=0.3),
        "w2": normal(2, 16, 1, 3, 3, size=0.4),
        "w3": normal(3, 16, 16, 1, 1, size=0.3),
        "w4": normal(4, 10, 16, size=0.4),
        "b4": normal(5, 10),
        **norm("n1", 16, 10),
        **norm("n2", 16, 20),
        **norm("n3", 16, 30),
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4, strides=[2, 2]),
        node("BatchNormalization", norm_inputs("c1", "n1"), ["m1"]),
        node("Relu", ["m1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, group=16),
        node("BatchNormalization", norm_inputs("c2", "n2"), ["m2"]),
        node("Relu", ["m2"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"]),
        node("BatchNormalization", norm_inputs("c3", "n3"), ["m3"]),
        node("Add", ["m3", "r1"], ["a"]),
        node("Relu", ["a"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], transB=1),
    ]
    return proto(nodes, {"x": ["n", 3, 12, 12]}, {"y": 2}, constants, opset)


def branches(opset: int = 17) -> onnx.ModelProto:
    """A voice detector's shape: If over two front ends, each with its weights inside, then an LSTM with its state."""

    def branch(name: str, seed: int, kernel: int) -> onnx.GraphProto:
        weight = numpy_helper.from_array(normal(seed, 16, 1, kernel, size=kernel**-0.5), "w")
        dense = numpy_helper.from_array(normal(seed + 1, 16, 16, size=0.25), "dense")
        nodes = [
            node("Constant", [], ["weight"], value=weight),
            node("Conv", ["x", "weight"], ["c"], strides=[kernel], name="front"),
            node("Relu", ["c"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[2, 0, 1]),
            node("MatMul", ["t", "dense"], [f"out_{name}"]),
        ]
        out = helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, ["t", "n", 16])
        return helper.make_graph(nodes, name, [], [out], [dense])

    constants = {
        "rate": np.array(16000, np.int64),
        "lw": normal(50, 1, 64, 16, size=0.25),
        "lr": normal(51, 1, 64, 16, size=0.25),
        "head": normal(52, 16, 1, size=0.25),
    }
    nodes = [
        node("Equal", ["sr", "rate"], ["wide"]),
        node("If", ["wide"], ["h"], then_branch=branch("then", 30, 8), else_branch=branch("else", 40, 4)),
        node("LSTM", ["h", "lw", "lr", "", "", "h0", "c0"], ["s", "h1", "c1"], hidden_size=16),
        node("Squeeze", ["s", "one"], ["q"]),
        node("MatMul", ["q", "head"], ["l"]),
        node("Sigmoid", ["l"], ["p"]),
    ]
    constants["one"] = np.array([1], np.int64)
    return proto(
        nodes,
        {"x": ["n", 1, "samples"], "sr": [], "h0": [1, "n", 16], "c0": [1, "n", 16]},
        {"p": 3, "h1": 3, "c1": 3},
        constants,
        opset,
        types={"sr": TensorProto.INT64},
    )


def voice_feeds(seed: int, rate: int = 16000, samples: int = 64) -> dict[str, NDArray[Any]]:
    return {
        "x": normal(seed, 1, 1, samples),
        "sr": np.array(rate, np.int64),
        "h0": normal(seed + 1, 1, 1, 16, size=0.3),
        "c0": normal(seed + 2, 1, 1, 16, size=0.3),
    }
