"""Graphs for the CUDA provider: float16 arithmetic, kernels by the table, and a session that says what falls back."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir as ir
import pytest

from edgeq.errors import InputError
from edgeq.formats.onnx.passes.half_compute import OWN, half_compute
from edgeq.onnx import FallbackWarning, session
from edgeq.onnx.providers import kernels, left_to_cpu
from edgeq.runtimes.onnxruntime import OnnxSession, decoder_feeds, encoder_feeds

TOKENS = [5, 17, 300, 42, 7, 1000, 64, 3]


def logits(path) -> np.ndarray:
    """Of the tokens, and of two more after them, through the cache."""
    graph = OnnxSession(path, 1)
    past, found = graph.empty_past(), []
    for tokens in (TOKENS, [11], [12]):
        first, *present = graph.run(decoder_feeds(tokens, past), graph.outputs)
        past = graph.past_of(present)
        found.append(first[0])
    return np.concatenate(found)


@pytest.fixture(scope="module")
def exact(make_onnx, tinylm):
    return logits(make_onnx(tinylm, "float32"))


@pytest.mark.parametrize(
    ("quant", "dialect", "most"),
    [
        ("float16", "standard", 0.01),
        ("float16", "cuda", 0.01),
        ("int8-blocks", "cuda", 0.03),
        ("int4", "cuda", 0.2),
    ],
)
def test_cuda_graphs_run_on_the_cpu_and_have_kernels_there(make_onnx, tinylm, exact, quant, dialect, most):
    path = make_onnx(tinylm, quant, dialect=dialect)
    model = ir.load(path)
    assert left_to_cpu(model, "cuda") == {}
    assert OnnxSession(path, 1).types["past_key_values.0.key"] == "float16"
    found = logits(path)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() <= most * np.ptp(exact)
    blocks = [node for node in model.graph if node.op_type == "MatMulNBits"]
    assert bool(blocks) == (quant != "float16")


def test_an_encoder_in_float16(make_onnx, minilm):
    feeds = encoder_feeds([[101, 7592, 2088, 102]])
    half = make_onnx(minilm, "float16")
    assert left_to_cpu(ir.load(half), "cuda") == {}
    a, b = (
        OnnxSession(p, 1).run(feeds, ["last_hidden_state"])[0] for p in (half, make_onnx(minilm, "float32"))
    )
    assert np.abs(a - b).max() <= 0.01 * np.ptp(b)


def test_what_the_provider_refuses_is_named(make_onnx, tinylm):
    """Its GroupQueryAttention takes float16 alone, and no bias."""
    left = left_to_cpu(ir.load(make_onnx(tinylm, "float32", dialect="ort")), "cuda")
    assert any(line.startswith("GroupQueryAttention: float32") for line in left.values())
    halved = left_to_cpu(ir.load(make_onnx(tinylm, "float16", dialect="ort")), "cuda")
    assert "GroupQueryAttention: its kernel refuses input 10" in halved.values()
    dynamic = left_to_cpu(ir.load(make_onnx(tinylm, "int8-dynamic")), "cuda")
    assert any(line.startswith("DynamicQuantizeLinear: no kernel") for line in dynamic.values())


def graph_of(*nodes: ir.Node, inputs: list[ir.Value], opset: int = 21) -> ir.Model:
    graph = ir.Graph(
        inputs, [nodes[-1].outputs[0]], nodes=nodes, opset_imports={"": opset, "com.microsoft": 1}
    )
    return ir.Model(graph, ir_version=10)


def value(name: str, kind: ir.DataType, shape=(2, 32)) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))


@pytest.mark.parametrize(
    ("bits", "size", "fits"), [(4, 32, True), (4, 256, False), (8, 256, True), (2, 32, False)]
)
def test_block_sizes_of_matmulnbits(bits, size, fits):
    x = value("x", ir.DataType.FLOAT16)
    node = ir.node("MatMulNBits", [x], {"bits": bits, "block_size": size}, domain="com.microsoft", name="n")
    assert (left_to_cpu(graph_of(node, inputs=[x]), "cuda") == {}) is fits


def test_opsets_and_tables():
    x = value("x", ir.DataType.FLOAT)
    node = ir.node("Gelu", [x], name="gelu")
    assert left_to_cpu(graph_of(node, inputs=[x], opset=17), "cuda") == {
        "gelu": "Gelu: opset 17, its kernel begins with 20"
    }
    with pytest.raises(InputError, match="there are cuda"):
        kernels("abacus")


def test_angles_stay_float32_and_large_numbers_become_finite():
    x = value("x", ir.DataType.FLOAT)
    big = ir.Value(name="big", const_value=ir.tensor(np.float32([-1e9, 1.0]), name="big"))
    big.type, big.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
    angle = ir.node("Cos", [x], name="cos")
    angle.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    total = ir.node("Add", [angle.outputs[0], big], name="add")
    total.outputs[0].name, total.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [x], [total.outputs[0]], nodes=[angle, total], initializers=[big], opset_imports={"": 21}
    )
    model = ir.Model(graph, ir_version=10)
    assert half_compute(model, OWN).weights == 1
    assert [node.op_type for node in model.graph] == ["Cos", "Cast", "Add", "Cast"]
    assert big.const_value.numpy().tolist() == [-60000, 1]
    assert model.graph.inputs[0].dtype == model.graph.outputs[0].dtype == ir.DataType.FLOAT
    assert model.graph.outputs[0].name == "y"


def test_a_session_that_falls_back_says_so(make_onnx, tinylm):
    path = make_onnx(tinylm, "float16", dialect="cuda")
    with pytest.warns(FallbackWarning, match="CUDAExecutionProvider is not there; it runs on the CPU"):
        session(path, 1, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session(path, 1)


def test_nodes_that_fall_back_are_counted():
    from edgeq.onnx.sessions import _fallbacks

    class Part:
        def __init__(self, name, nodes):
            self.ep_name, self._nodes = name, nodes

        def get_nodes(self):
            return [type("Node", (), {"op_type": kind}) for kind in self._nodes]

    class Session:
        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self):
            return [
                Part("CUDAExecutionProvider", ["MatMul"]),
                Part("CPUExecutionProvider", ["Gather", "Split"]),
            ]

    told = list(_fallbacks(Session(), ["CUDAExecutionProvider"]))
    assert told == ["2 nodes run on the CPU, with copies to and fro: Gather, Split"]
