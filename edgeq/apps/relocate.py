"""A graph under another name: its files of external data are renamed with it, and the graph told so."""

from __future__ import annotations

from pathlib import Path

import onnx

from edgeq.apps.onnx_model import ONNXModel
from edgeq.apps.place import copied, place


def place_graph(model: ONNXModel, target: Path) -> int:
    """Put the graph at ``target`` and its external data beside it as ``{target}_data``, ``{target}_data_1`` …

    Returns how many such files there are. The graph is the very file where nothing in it has to change.
    """
    wanted = {
        name: f"{target.name}_data" + (f"_{index}" if index else "")
        for index, name in enumerate(model.data_files)
    }
    for name, called in wanted.items():
        copied(model.path.parent / name, target.parent / called)
    if all(name == called for name, called in wanted.items()):
        place(model.path, target)
        return len(wanted)
    proto = onnx.load(str(model.path), load_external_data=False)
    for tensor in _tensors(proto.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = wanted[entry.value]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(proto.SerializeToString())
    return len(wanted)


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Initializers and tensor attributes, of subgraphs too."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                found += _tensors(inner)
    return found
