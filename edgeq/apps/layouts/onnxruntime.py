"""ONNX Runtime itself (Python, C++, C#, Java on a desktop or a server), ``edgeq.load`` and ``edgeq.deploy``.

Source: ``InferenceSession(path)``, which finds external data beside the graph; the options in session_config.json are
``SessionOptions.add_session_config_entry``'s, and ``edgeq.onnx.session`` sets them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeq.apps.onnx_lint import onnx_findings, unused_data
from edgeq.apps.onnx_model import ONNXModel, least_runtime
from edgeq.apps.place import place
from edgeq.apps.registry import ONNXLayout, layout
from edgeq.apps.relocate import place_graph
from edgeq.errors import EdgeqError
from edgeq.inspection.findings import Finding, error
from edgeq.onnx.sessions import open_session, read_config, write_config

_TEXT_INPUT, _TOKENIZER = "input_ids", "tokenizer.json"


@layout
class ONNXRuntime(ONNXLayout):
    """``model.onnx``, its external data, ``session_config.json`` and the tokenizer files where there are any."""

    name = "onnxruntime"
    tested = {"onnxruntime": "1.31.1"}  # noqa: RUF012

    def pack(self, model: ONNXModel, folder: Path) -> str:
        main = folder / "model.onnx"
        place_graph(model, main)
        write_config(main, read_config(model.path))
        for name, path in model.companions.items():
            place(path, folder / name)
        return main.name

    def runtime(self, model: ONNXModel) -> dict[str, str]:
        return {"onnxruntime": f"{least_runtime(model.graph)}.0"}

    def lint(self, folder: Path) -> Iterator[Finding]:
        graphs = sorted(folder.glob("*.onnx"))
        if not graphs:
            yield error(".", "holds no ONNX graph", "edgeq pack MODEL.onnx makes a folder that does")
        models: list[ONNXModel] = []

        def rule(where: str, model: ONNXModel) -> Iterator[Finding]:
            models.append(model)
            yield from _loads(folder, where, model)

        yield from onnx_findings(folder, graphs, rule)
        yield from unused_data(folder, models)


def _loads(folder: Path, where: str, model: ONNXModel) -> Iterator[Finding]:
    """The installed runtime must take the graph, and texts need their tokenizer."""
    from edgeq.runtimes.onnxruntime import CPU

    try:
        session = open_session(model.path, providers=[CPU])
    except EdgeqError as refusal:
        yield error(where, str(refusal).removeprefix(f"{model.path}: "), "pack it again")
        return
    if _TEXT_INPUT in session.inputs and not (folder / _TOKENIZER).is_file():
        yield error(_TOKENIZER, f"is missing, and {where} reads tokens", "copy it from the checkpoint")
