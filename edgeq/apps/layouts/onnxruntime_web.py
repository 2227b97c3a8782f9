"""onnxruntime-web: the graph, its external data, and in the manifest what ``InferenceSession.create`` is to be told.

Source: onnxruntime-common 1.30, ``InferenceSession.SessionOptions.externalData``: ``[{path, data}]``, where ``path`` is
the location that stands in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.onnx_lint import onnx_findings, unused_data
from edgeq.apps.onnx_model import ONNXModel, least_runtime
from edgeq.apps.place import place
from edgeq.apps.registry import ONNXLayout, layout
from edgeq.apps.relocate import place_graph
from edgeq.inspection.findings import Finding, error, note

# What JavaScript has typed arrays for (onnxruntime-common, tensor-impl-type-mapping.ts).
TYPES = ("float32", "uint8", "int8", "uint16", "int16", "int32", "bool", "float64", "uint32", "int64", "uint64",
         "float16", "string")  # fmt: skip


@layout
class ONNXRuntimeWeb(ONNXLayout):
    """``model.onnx`` and ``model.onnx_data``; tokenizer files where there are any."""

    name = "onnxruntime-web"
    tested = {"onnxruntime-web": "1.30.0"}  # noqa: RUF012

    def pack(self, model: ONNXModel, folder: Path) -> str:
        place_graph(model, folder / "model.onnx")
        for name, path in model.companions.items():
            place(path, folder / name)
        return "model.onnx"

    def runtime(self, model: ONNXModel) -> dict[str, str]:
        return {"onnxruntime-web": f"{least_runtime(model.graph)}.0"}

    def lint(self, folder: Path) -> Iterator[Finding]:
        graphs = sorted(folder.rglob("*.onnx"))
        if not graphs:
            yield error(".", "holds no ONNX graph", "edgeq pack MODEL.onnx makes a folder that does")
        models: list[ONNXModel] = []

        def rule(where: str, model: ONNXModel) -> Iterator[Finding]:
            models.append(model)
            yield from type_findings(where, model)

        yield from onnx_findings(folder, graphs, rule)
        yield from unused_data(folder, models)


def type_findings(where: str, model: ONNXModel) -> Iterator[Finding]:
    """Inputs and outputs of types that JavaScript cannot hold, and those that need care."""
    from edgeq.apps.onnx_model import described

    for value in (*described(model.graph.graph.inputs), *described(model.graph.graph.outputs)):
        if value["type"] not in TYPES:
            yield error(
                where,
                f"{value['name']} has the type {value['type']}, of which JavaScript has no array",
                _CAST,
            )
        elif value["type"] == "float16":
            yield note(where, f"{value['name']} is float16: a Float16Array, or a Uint16Array of the bits")


_CAST = "export it with float32 inputs and outputs"
