"""What an x86 CPU without VNNI would answer: each product of codes is computed again as ``vpmaddubsw`` sums it.

Per product: how many pairs of neighbours end at 16 bits, and the error that this makes in its output. For graphs whose
products are all of linear layers the error goes on to what comes behind: the products become inputs of the graph, are
computed one after the other with what the ones before gave, and the outputs are compared with the exact ones.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeq.calibration.inputs import Arrays
from edgeq.formats.onnx.edit import attribute, constant, remove_unused
from edgeq.formats.onnx.int8 import SAFE_RANGE
from edgeq.formats.onnx.integer_products import Product, find_products
from edgeq.formats.onnx.save import save_model
from edgeq.formats.onnx.watch import watched_copy
from edgeq.kernels_cpu.saturating import saturating_products
from edgeq.onnx.compare import OutputCloseness, shown, worst
from edgeq.runtimes.onnxruntime import OnnxSession

_ROWS = 64  # of a convolution's output that are computed for each sample
# The runtime then multiplies dequantized codes as floats, whatever this CPU does with the codes.
_EXACT = {"session.disable_quant_qdq": "1", "session.intra_op.allow_spinning": "0"}
Codes = NDArray[np.uint8]


@dataclass
class Saturation:
    """What was found in one product: pairs that ended at 16 bits of all, and the squares of error and output."""

    pairs: int = 0
    saturated: int = 0
    error: float = 0.0
    size: float = 0.0

    def add(self, exact: NDArray[np.int64], kept: NDArray[np.int64], saturated: int, pairs: int) -> None:
        self.pairs, self.saturated = self.pairs + pairs, self.saturated + saturated
        self.error += float(np.square((kept - exact).astype(np.float64)).sum())
        self.size += float(np.square(exact.astype(np.float64)).sum())

    def summary(self, name: str) -> dict[str, Any]:
        share = self.saturated / self.pairs if self.pairs else 0.0
        return {
            "name": name,
            "saturated": share,
            "relative_error": math.sqrt(self.error / (self.size or 1.0)),
        }


def emulate(model: ir.Model, samples: Iterable[Arrays], folder: Path, threads: int = 0) -> dict[str, Any]:
    """What saturates in a quantized graph: the share of pairs and the relative error of each product that can.

    ``closeness`` is that of the outputs to those without saturation, as proofs have it; None for a graph with
    convolutions or with products in branches, whose products are computed apart from each other. Raises EdgeqError.
    """
    products = [product for product in find_products(model) if _can_saturate(product)]
    found = {product.name: Saturation() for product in products}
    if not products:
        return {"products": [], "closeness": 1.0}
    with tempfile.TemporaryDirectory(prefix=".edgeq-saturation-", dir=folder) as temporary:
        whole = all(p.node.graph is model.graph and p.node.op_type != "Conv" for p in products)
        run = _Run(model, products, Path(temporary), threads, whole)
        outputs = [OutputCloseness(str(output.name)) for output in model.graph.outputs]
        for feeds in samples:
            run.sample(feeds, found, outputs)
    return {
        "products": [one.summary(name) for name, one in found.items()],
        "closeness": worst(outputs) if whole else None,
    }


def _can_saturate(product: Product) -> bool:
    """Whether two neighbouring weights reach the limit with the largest codes."""
    weights = product.weights.astype(np.int16)
    even = weights.shape[1] // 2 * 2
    together = weights[:, :even:2] + weights[:, 1:even:2]
    return bool(np.abs(together).max(initial=0) > 2 * SAFE_RANGE)


def said(found: dict[str, Any]) -> str | None:
    """A sentence about what ``emulate`` found, None where nothing saturates."""
    hit = [one for one in found["products"] if one["saturated"]]
    if not hit:
        return None
    most = max(hit, key=lambda one: float(one["relative_error"]))
    end = (
        ""
        if found["closeness"] is None
        else f"; its answers are then {shown(found['closeness'])} close to these"
    )
    return (
        f"on x86 without VNNI {len(hit)} products saturate, most of all {most['name']} "
        f"(error {most['relative_error']:.2%}){end}; --isa avx2 avoids it"
    )


class _Run:
    def __init__(
        self, model: ir.Model, products: list[Product], folder: Path, threads: int, whole: bool
    ) -> None:
        self.products, self.whole = products, whole
        self.outputs = [str(output.name) for output in model.graph.outputs]
        watched = [str(p.activation.name) for p in products]
        watched += [str(p.node.outputs[0].name) for p in products] if whole else []
        for product in products:
            out = product.node.outputs[0]
            is_integer = product.node.op_type == "MatMulInteger"
            out.type = out.type or ir.TensorType(ir.DataType.INT32 if is_integer else ir.DataType.FLOAT)
        copy, self.places = watched_copy(model, list(dict.fromkeys(watched)))
        save_model(copy, folder / "exact.onnx", force=True)
        self.exact = OnnxSession(folder / "exact.onnx", threads, _EXACT)
        if whole:
            save_model(_cut(model, products), folder / "cut.onnx", force=True)
            self.cut = OnnxSession(folder / "cut.onnx", threads, _EXACT)

    def sample(self, feeds: Arrays, found: dict[str, Saturation], outputs: list[OutputCloseness]) -> None:
        """Take one sample in."""
        names = list(dict.fromkeys([*self.outputs, *self.places.values()]))
        given = [name for name in names if name in self.exact.outputs]
        values: dict[str, Any] = dict(zip(given, self.exact.run(feeds, given), strict=True)) | dict(feeds)
        if not self.whole:
            for product in self.products:
                x = values[self.places[str(product.activation.name)]]
                for part in x if isinstance(x, list) else [x]:  # a loop's rounds
                    if part.size:  # the branch ran
                        _multiply(product, part, found[product.name])
            return
        shapes = {
            str(p.node.outputs[0].name): values[self.places[str(p.node.outputs[0].name)]]
            for p in self.products
        }
        exact, kept = (self._chain(feeds, shapes, one) for one in (None, found))
        for closeness, a, b in zip(outputs, exact, kept, strict=True):
            closeness.add(np.asarray(a), np.asarray(b))

    def _chain(
        self, feeds: Arrays, shapes: Arrays, found: dict[str, Saturation] | None
    ) -> list[NDArray[np.float32]]:
        """The outputs, each product computed from what those before gave: exactly, or as ``found`` takes it in."""
        replaced = feeds | shapes
        for product in self.products:
            name, activation = str(product.node.outputs[0].name), str(product.activation.name)
            x = feeds[activation] if activation in feeds else self.cut.run(replaced, [activation])[0]
            y = _multiply(product, x, None if found is None else found[product.name])
            replaced[name] = y.astype(shapes[name].dtype)
        return self.cut.run(replaced, self.outputs)


def _cut(model: ir.Model, products: list[Product]) -> ir.Model:
    """A copy whose products are inputs under their own names; what they read are outputs."""
    copy = model.clone()
    nodes = {str(node.outputs[0].name): node for node in copy.graph}
    for product in products:
        old = nodes[str(product.node.outputs[0].name)].outputs[0]
        node, name = nodes[str(old.name)], old.name
        dtype = ir.DataType.INT32 if node.op_type == "MatMulInteger" else ir.DataType.FLOAT
        old.name = None
        new = ir.Value(name=name, type=ir.TensorType(dtype), shape=old.shape)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        copy.graph.remove(node, safe=True)
        copy.graph.inputs.append(new)
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    for product in products:
        value = values.get(str(product.activation.name))
        if value is not None and value not in copy.graph.outputs:
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
            copy.graph.outputs.append(value)
    RemoveUnusedNodesPass()(copy)
    remove_unused(copy)
    return copy


def _multiply(product: Product, x: NDArray[np.float32], found: Saturation | None) -> NDArray[Any]:
    """Compute a product, with saturation where ``found`` takes it in; what the node gives then (no convolution)."""
    scale, zero = product.scale, product.zero
    if scale is None or zero is None:
        scale, zero = _dynamic_grid(x)
    middle, step = int(zero.reshape(-1)[0]), float(scale.reshape(-1)[0])
    codes = np.clip(np.rint(x / np.float32(step)) + middle, 0, 255).astype(np.uint8)
    weights = np.ascontiguousarray(product.weights).astype(np.int8, copy=False)
    kept: NDArray[np.int64] = np.zeros((0, 0), np.int64)
    for rows, part in _rows(product, codes, middle, weights):
        whole, lost = np.empty((len(rows), len(part)), np.int32), np.empty((len(rows), len(part)), np.int32)
        saturated = saturating_products(rows, part, whole, lost)  # type: ignore[no-untyped-call]
        shift = middle * part.astype(np.int64).sum(axis=1)
        kept = (whole if found is None else lost) - shift
        if found is not None:
            found.add(whole - shift, kept, saturated, rows.shape[1] // 2 * whole.size)
    if product.node.op_type == "Conv":
        return kept
    shaped = kept.reshape(*x.shape[:-1], -1)
    return shaped if product.scale is None else shaped * (step * _factors(product.node)) + _bias(product.node)


def _dynamic_grid(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scale and zero point as DynamicQuantizeLinear finds them (ONNX's specification of it)."""
    low, high = np.float32(min(x.min(initial=0), 0)), np.float32(max(x.max(initial=0), 0))
    scale = (high - low) / np.float32(255) or np.float32(1)
    return np.asarray(scale), np.asarray(np.clip(np.rint(-low / scale), 0, 255)).astype(np.uint8)


def _rows(
    product: Product, codes: Codes, middle: int, weights: NDArray[np.int8]
) -> list[tuple[Codes, NDArray[np.int8]]]:
    """(rows of codes, the weights that they meet): one pair, or one a group of a convolution's sampled rows."""
    if product.node.op_type != "Conv":
        return [(np.ascontiguousarray(codes.reshape(-1, codes.shape[-1])), weights)]
    node, spatial = product.node, codes.ndim - 2
    kernel = constant(_kernel(node))
    assert kernel is not None
    sizes = kernel.numpy().shape[2:]
    steps = list(attribute(node, "strides", [1] * spatial))
    apart = list(attribute(node, "dilations", [1] * spatial))
    pads = list(attribute(node, "pads", [0] * 2 * spatial))
    around = [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]
    padded = np.pad(codes, around, constant_values=middle)
    reach = [(size - 1) * step + 1 for size, step in zip(sizes, apart, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
    places = tuple(slice(None, None, step) for step in steps)
    inside = tuple(slice(None, None, step) for step in apart)
    windows = windows[(slice(None), slice(None), *places, *inside)]
    last = np.moveaxis(windows, 1, -1)  # [n, *out, *kernel, C]
    flat = last.reshape(-1, math.prod(sizes), codes.shape[1])
    flat = flat[np.linspace(0, len(flat) - 1, min(_ROWS, len(flat))).astype(int)]
    groups = int(attribute(node, "group", 1))
    wide, high = codes.shape[1] // groups, len(weights) // groups
    return [
        (
            np.ascontiguousarray(flat[:, :, wide * g : wide * (g + 1)].reshape(len(flat), -1)),
            weights[high * g : high * (g + 1)],
        )
        for g in range(groups)
    ]


def _kernel(node: ir.Node) -> ir.Value | None:
    """The initializer of the weight's codes."""
    weight = node.inputs[1]
    producer = weight.producer() if weight is not None else None
    return producer.inputs[0] if producer is not None else None


def _factors(node: ir.Node) -> NDArray[np.float64]:
    """The scales of a weight's outputs."""
    weight = node.inputs[1]
    producer = weight.producer() if weight is not None else None
    scales = constant(producer.inputs[1]) if producer is not None else None
    assert scales is not None
    return scales.numpy().astype(np.float64).reshape(-1)


def _bias(node: ir.Node) -> NDArray[np.float64] | float:
    """A Gemm's bias, as floats."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return 0.0
    tensor, producer = constant(bias), bias.producer()
    if tensor is not None:
        return tensor.numpy().astype(np.float64)
    assert producer is not None
    codes, scale = constant(producer.inputs[0]), constant(producer.inputs[1])
    assert codes is not None
    assert scale is not None
    found: NDArray[np.float64] = codes.numpy().astype(np.float64) * scale.numpy()
    return found
