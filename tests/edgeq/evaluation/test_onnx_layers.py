"""The per-layer view of graphs: tiny encoders and a decoder, quantized by edgeq's passes in their several forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime import quantization

from edgeq.calibration.text import Text
from edgeq.errors import InputError, UsageError
from edgeq.evaluation.onnx_layers import look_at_graph
from edgeq.evaluation.opening import Evaluated
from edgeq.evaluation.runtimes import OnnxRuntime
from edgeq.runtimes.onnxruntime import encoder_feeds
from edgeq.source import SourceModel

LINES = Text(
    "lines", "\n".join(f"the house number {i} is old, and the door {2 * i} is new" for i in range(8))
)
Look = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def look(make_onnx) -> Look:
    """(folder, quant, options) → the view of that graph beside the float one."""

    def view(folder: Path, quant: str, kind: str = "encoder", **options: Any) -> list[dict[str, Any]]:
        source = SourceModel.open(folder)
        path = make_onnx(folder, quant, LINES, **options)
        runtime = OnnxRuntime(path, source.hp.pooling)
        opened = Evaluated(
            path, kind, "onnxruntime", runtime, source.tokenizer(), source.hp.context, (), path.stat().st_size
        )
        float_options = {name: value for name, value in options.items() if name == "dialect"}
        reference = make_onnx(folder, "float32", **float_options)
        return look_at_graph(opened, reference, LINES, 32 if kind == "decoder" else None, lambda *_: None)

    return view


FORMS = {
    "int8": ("int8", {}, "int8", 25),
    "int8-dynamic": ("int8-dynamic", {}, "int8", 25),
    "int4": ("int4", {}, "int4", 10),
    "int4-ort": ("int4", {"dialect": "ort"}, "int4", 10),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_quantized_layer_is_found(encoder_folder, look: Look, form: str) -> None:
    quant, options, type_name, least = FORMS[form]
    folder = encoder_folder("bert")
    found = {one["name"]: one for one in look(folder, quant, **options)}
    roles = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    linears = {f"blk.{i}.{role}.weight" for i in range(2) for role in roles}
    assert set(found) >= linears
    for name in linears:
        one = found[name]
        assert one["type"] in (type_name, f"u{type_name}")
        assert least < one["weight_snr"] < 60
        assert 5 < one["output_snr"] < 60
        assert one["own_snr"] > one["output_snr"] - 6
        assert 0 < 1 - one["cosine_mean"] < 0.01


def test_a_weight_is_what_the_file_says(encoder_folder, make_onnx, look: Look) -> None:
    """Codes times scales, read with the onnx package alone."""
    folder = encoder_folder("bert")
    graph = onnx.load(make_onnx(folder, "int8-dynamic", LINES)).graph
    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    name = "blk.1.ffn_down.weight"  # nothing is folded into it
    expected = {one.name: one for one in onnx.load(make_onnx(folder, "float32")).graph.initializer}
    weight = numpy_helper.to_array(expected[name]).astype(np.float64)
    codes, scales = stored[f"{name}_int8"].astype(np.float64), stored[f"{name}_scale"]
    assert codes.shape == weight.shape == (96, len(scales))
    ratio = 10 * np.log10(np.square(weight).sum() / np.square(codes * scales - weight).sum())
    one = next(one for one in look(folder, "int8-dynamic") if one["name"] == name)
    assert one["weight_snr"] == pytest.approx(ratio, abs=0.05)


@pytest.mark.parametrize("static", [False, True])
def test_what_others_quantized(encoder_folder, make_onnx, tmp_path: Path, static: bool) -> None:
    """ONNX Runtime's own quantizer, whose names are its own."""
    folder = encoder_folder("bert")
    source, reference, path = (
        SourceModel.open(folder),
        make_onnx(folder, "float32"),
        tmp_path / "quantized.onnx",
    )
    if static:
        ids = np.arange(5, 21)[None]
        feeds = encoder_feeds(ids.tolist())
        readers = SimpleNamespace(get_next=iter([feeds, None]).__next__)
        quantization.quantize_static(reference, path, readers, op_types_to_quantize=["MatMul"])
    else:
        quantization.quantize_dynamic(reference, path, op_types_to_quantize=["MatMul"])
    runtime = OnnxRuntime(path, source.hp.pooling)
    opened = Evaluated(path, "encoder", "onnxruntime", runtime, source.tokenizer(), 64, (), 1)
    found = look_at_graph(opened, reference, LINES, None, lambda *_: None)
    assert len(found) == 12
    assert all(20 < one["weight_snr"] < 60 and one["own_snr"] > 5 for one in found)


def test_decoders_lose_kl(random_llama, look: Look) -> None:
    found = look(random_llama("untied"), "int4", "decoder", dialect="ort")
    assert "output.weight" in {one["name"] for one in found}
    assert all(one["kl_mean"] > 0 for one in found)


def test_what_is_no_pair(encoder_folder, make_onnx, look: Look, tmp_path: Path) -> None:
    folder = encoder_folder("bert")
    source, path = SourceModel.open(folder), make_onnx(folder, "int8-dynamic", LINES)
    runtime = OnnxRuntime(path, source.hp.pooling)
    opened = Evaluated(path, "encoder", "onnxruntime", runtime, source.tokenizer(), 64, (), 1)
    with pytest.raises(UsageError, match="compares a graph with a float graph"):
        look_at_graph(opened, folder, LINES, None, lambda *_: None)
    # The same names with weights of another shape, then names of which none is known.
    float_graph = onnx.load(make_onnx(folder, "float32")).graph
    product = next(node for node in float_graph.node if "blk.0.ffn_up.weight" in node.input)
    known = (product.input[0], "blk.0.ffn_up.weight", product.output[0]), ("a", "b", "c")
    for names, problem in zip(known, ("it is another model", "none of the layers"), strict=True):
        write_product(tmp_path / "other.onnx", *names)
        with pytest.raises(InputError, match=problem):
            look_at_graph(opened, tmp_path / "other.onnx", LINES, None, lambda *_: None)


def write_product(path: Path, x: str, weight: str, y: str) -> None:
    """A graph of one product with a matrix [64, 8]."""
    matrix = numpy_helper.from_array(np.ones((64, 8), np.float32), weight)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in (x, y)]
    node = onnx.helper.make_node("MatMul", [x, weight], [y], "product")
    graph = onnx.helper.make_graph([node], "graph", ends[:1], ends[1:], [matrix])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
