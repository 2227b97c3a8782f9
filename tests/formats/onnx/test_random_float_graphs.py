"""Random small graphs of convolutions, products and branches: what brings them into form keeps the float answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from foreign_graphs import answers, loaded, node, norm, norm_inputs, proto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import error, normal

from edgeq.formats.onnx.prepare import prepare

WIDTH, SIDE = 4, 5
X = normal(7, 2, WIDTH, SIDE, SIDE)
KINDS = ["Conv", "ConvTranspose", "BatchNormalization", "Add", "Mul", "Div", "Relu", "Softmax", "Concat", "MatMul",
         "Gemm", "If", "Constant"]  # fmt: skip
steps = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 50), st.integers(0, 50), st.booleans()),
    min_size=1,
    max_size=7,
)


class Plan:
    """A graph over ``[2, WIDTH, SIDE, SIDE]``: every step reads any value before it."""

    def __init__(self) -> None:
        self.values = ["x"]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {"sizes": np.array([2, WIDTH, SIDE, SIDE])}

    def const(self, name: str, array: NDArray[Any]) -> str:
        self.constants[name] = array
        return name

    def add(self, index: int, kind: str, first: int, second: int, flag: bool) -> None:
        x, y = self.values[first % len(self.values)], f"v{index}"
        other = self.values[second % len(self.values)]
        made = getattr(self, f"_{kind.lower()}", None)
        if made is not None:
            self.nodes += made(index, x, y, other, flag)
        else:
            self.nodes.append(node(kind, [x], [y], **({"axis": 3} if kind == "Softmax" else {})))
        self.values.append(y)

    def _conv(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        weight = self.const(
            f"w{i % 2 if flag else i}", normal(i % 2 if flag else i, WIDTH, WIDTH, 3, 3, size=0.2)
        )
        bias = [self.const(f"b{i}", normal(i, WIDTH, size=0.2))] if flag else []
        return [node("Conv", [x, weight, *bias], [y], pads=[1] * 4)]

    def _convtranspose(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        weight = self.const(f"t{i}", normal(i, WIDTH, WIDTH // (2 if flag else 1), 1, 1, size=0.4))
        return [node("ConvTranspose", [x, weight], [y], group=2 if flag else 1)]

    def _batchnormalization(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        self.constants |= norm(f"n{i}", WIDTH, i)
        return [node("BatchNormalization", norm_inputs(x, f"n{i}"), [y])]

    def _elementwise(self, kind: str, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        vector = self.const(f"e{i}", np.abs(normal(i, 1, WIDTH, 1, 1)) + np.float32(0.5))
        return (
            [node(kind, [vector, x] if flag else [x, vector], [y])]
            if kind != "Div"
            else [node(kind, [x, vector], [y])]
        )

    def _mul(self, *rest: Any) -> list[onnx.NodeProto]:
        return self._elementwise("Mul", *rest)

    def _div(self, *rest: Any) -> list[onnx.NodeProto]:
        return self._elementwise("Div", *rest)

    def _add(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        return self._elementwise("Add", i, x, y, other, flag) if flag else [node("Add", [x, other], [y])]

    def _concat(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        weight = self.const(f"c{i}", normal(i, WIDTH, 2 * WIDTH, 1, 1, size=0.3))
        return [node("Concat", [x, other], [f"j{i}"], axis=1), node("Conv", [f"j{i}", weight], [y])]

    def _matmul(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        weight = self.const(f"m{i}", normal(i, SIDE, SIDE, size=0.4))
        if not flag:
            return [node("MatMul", [x, weight], [y])]
        return [node("Transpose", [weight], [f"mt{i}"], perm=[1, 0]), node("MatMul", [x, f"mt{i}"], [y])]

    def _gemm(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        width = WIDTH * SIDE * SIDE
        weight, bias = (
            self.const(f"g{i}", normal(i, width, width, size=0.1)),
            self.const(f"gb{i}", normal(i, width)),
        )
        gemm = node("Gemm", [f"f{i}", weight, *([bias] if flag else [])], [f"g{i}y"], transB=int(flag))
        return [node("Flatten", [x], [f"f{i}"]), gemm, node("Reshape", [f"g{i}y", "sizes"], [y])]

    def _if(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        def branch(name: str, seed: int) -> onnx.GraphProto:
            weight = numpy_helper.from_array(normal(seed, WIDTH, WIDTH, 1, 1, size=0.4), "w")
            nodes = [
                node("Constant", [], ["k"], value=weight),
                node("Conv", [x, "k"], ["c"]),
                node("Relu", ["c"], ["r"]),
            ]
            out = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
            return helper.make_graph(nodes, name, [], [out])

        return [node("If", ["flag"], [y], then_branch=branch("t", i), else_branch=branch("e", i + 50))]

    def _constant(self, i: int, x: str, y: str, other: str, flag: bool) -> list[onnx.NodeProto]:
        value = numpy_helper.from_array(normal(i, WIDTH, 1, 1))
        doubled = [node("Constant", [], [f"k{i}"], value=value), node("Add", [f"k{i}", f"k{i}"], [f"k2{i}"])]
        return [*doubled, node("Sub", [x, f"k2{i}"], [y])]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.lists(st.integers(0, 50), max_size=2), st.sampled_from([11, 13, 17, 21]), st.booleans())
def test_the_answer_stays(
    plan: list[tuple[str, int, int, bool]], outputs: list[int], opset: int, flag: bool
) -> None:
    graph = Plan()
    for index, step in enumerate(plan):
        graph.add(index, *step)
    wanted = {graph.values[-1]: 4} | {graph.values[1 + i % (len(graph.values) - 1)]: 4 for i in outputs}
    shapes: dict[str, list[int | str]] = {"x": ["n", WIDTH, SIDE, SIDE], "flag": []}
    source = proto(graph.nodes, shapes, wanted, graph.constants, opset, types={"flag": TensorProto.BOOL})
    model = loaded(source)
    prepare(model)
    assert [value.name for value in model.graph.outputs] == list(wanted)
    feeds = {"x": X, "flag": np.array(flag)}
    assert error(answers(model, **feeds), answers(source, **feeds)) <= 1e-4
