"""Tiny ONNX graphs for the tests of passes: build, run in ONNX Runtime, count nodes, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from edgeq.formats.onnx.builder import GraphBuilder
from edgeq.formats.onnx.linear import find_linears

Floats = NDArray[np.float32]
ROWS = 6


def normal(seed: int, *shape: int, size: float = 1.0) -> Floats:
    """Repeatable Gaussian numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(np.float32)


def f32(values: Any) -> Floats:
    """A float32 array."""
    return np.array(values, np.float32)


class Tiny(GraphBuilder):
    """A graph builder with shorthands."""

    def __init__(self) -> None:
        super().__init__("tiny")

    def x(self, *shape: int | str, name: str = "x") -> ir.Value:
        """A float input."""
        return self.input(name, ir.DataType.FLOAT, shape)

    def ids(self) -> ir.Value:
        """Token ids ``[batch, tokens]``."""
        return self.input("ids", ir.DataType.INT64, ["batch", "tokens"])

    def const(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A named initializer."""
        return self.weight(name, array.dtype, array.shape, lambda: array)

    def raw(self, op_type: str, *inputs: ir.Value | None, **attrs: Any) -> ir.Value:
        """A node as it comes in foreign files: an input left out at the end is written as ""."""
        return self.tape.op(op_type, inputs, attrs or None)

    def norm(self, x: ir.Value, scale: ir.Value, bias: ir.Value | None = None) -> ir.Value:
        """A LayerNormalization of the last axis."""
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def done(self, *outputs: ir.Value, shapes: Sequence[Sequence[int | str]]) -> ir.Model:
        """The model with float outputs y0, y1, …"""
        for index, (value, shape) in enumerate(zip(outputs, shapes, strict=True)):
            self.output(value, f"y{index}", ir.DataType.FLOAT, shape)
        return self.model("0")


def run(model: ir.Model, **feeds: NDArray[Any]) -> list[Floats]:
    """Check the model in full and run it."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return run_bytes(proto.SerializeToString(), **feeds)


def observe(model: ir.Model, **feeds: NDArray[Any]) -> dict[str, Floats]:
    """What every linear layer reads in a float run, by value name; the model stays as it is."""
    watched = list(dict.fromkeys(linear.activation for linear in find_linears(model)))
    if not watched:
        return {}
    outputs = list(model.graph.outputs)
    model.graph.outputs.extend(value for value in watched if value not in outputs)
    for value in watched:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    proto = ir.to_proto(model)
    everything = [output.name for output in model.graph.outputs]
    model.graph.outputs[:] = outputs
    values = dict(zip(everything, run_bytes(proto.SerializeToString(), **feeds), strict=True))
    return {str(value.name): values[value.name] for value in watched}


def run_bytes(source: bytes | Path, **feeds: NDArray[Any]) -> list[Floats]:
    """Run a serialized model or a file on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
    )
    result: list[Floats] = session.run(None, feeds)
    return result


def decoded(stored: Mapping[str, NDArray[Any]], name: str) -> Floats:
    """A blocked weight ``[rows, columns]`` from a file's initializers, by the operators' own formulas, rounded once."""
    bits = 4 if f"{name}_int4" in stored else 8
    codes, scales = stored[f"{name}_int{bits}"], stored[f"{name}_scale"].astype(np.float64)
    zeros = stored.get(f"{name}_zero_point")
    if codes.ndim == 3:  # MatMulNBits: rows, blocks, bytes
        codes, middle = _unpacked(codes, bits), 1 << (bits - 1)
        zeros = None if zeros is None else _unpacked(zeros, bits)[:, : scales.shape[1]]
    else:  # DequantizeLinear over [columns, rows]
        codes, scales, middle = codes.T, scales.T, 0
        codes = codes.reshape(*scales.shape, -1)
        zeros = None if zeros is None else zeros.T
    zero = middle if zeros is None else zeros[..., None].astype(np.float64)
    values = (codes.astype(np.float64) - zero) * scales[..., None]
    if f"{name}_offset" in stored:
        values += stored[f"{name}_offset"].T[..., None]
    flat: Floats = values.reshape(len(values), -1).astype(np.float32)
    if f"{name}_order" not in stored:
        return flat
    back = np.empty_like(flat)
    back[:, stored[f"{name}_order"]] = flat
    return back


def _unpacked(packed: NDArray[Any], bits: int) -> NDArray[Any]:
    """Codes along the last axis, the first lowest."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def stored_values(path: Path) -> dict[str, NDArray[Any]]:
    """A file's initializers by name; four bits as whole numbers."""
    graph = onnx.load(path).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def counts(model: ir.Model) -> Counter[str]:
    """How many nodes of each type."""
    return Counter(node.op_type for node in model.graph)


def fused(model: ir.Model, folder: Path) -> Counter[str]:
    """The operators after ONNX Runtime has optimized the graph."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def names(model: ir.Model) -> set[str]:
    """The initializers' names."""
    return set(model.graph.initializers)


def error(after: Sequence[Floats], before: Sequence[Floats]) -> float:
    """The worst output's error relative to its own size."""
    assert [a.shape for a in after] == [b.shape for b in before]
    return max(
        float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-20))
        for a, b in zip(after, before, strict=True)
    )
